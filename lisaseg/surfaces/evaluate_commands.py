"""How good a model is: `lisaseg evaluate`, `compare`, `score`, and `nano-report`."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from lisaseg.config import LoadOptions, NanoReportOptions
from lisaseg.surfaces import terminal
from lisaseg.surfaces.commands import DONE, app


@app.command(name="nano-report")
@dataclass(frozen=True, kw_only=True)
class NanoReportCommand:
    """Ask nano about new scenes, unseen sprites, photographs, needs and absent things, and print gIoU and cIoU."""

    model: str = "nano"
    """`nano` (bundled), a folder, or a Hugging Face hub id."""
    pack: Path | None = None
    """The training pack's folder; by default the one that the variable LISASEG_NANO_PACK names."""
    out: Path | None = None
    """Folder for `report.json` and `examples.jpg`, a sheet of the first answers of each set."""
    json: bool = False
    """Print the report as one line of JSON and nothing else."""
    load: LoadOptions = field(default_factory=LoadOptions)
    questions: NanoReportOptions = field(default_factory=NanoReportOptions)

    def execute(self) -> int:
        """Measures, shows the table, and writes what was asked for."""
        from lisaseg.data.pack import find_pack
        from lisaseg.evaluation.nano import evaluate_nano, save_report
        from lisaseg.model.checkpoints import quieten_libraries
        from lisaseg.segmenter import Segmenter

        quieten_libraries(keep_downloads=sys.stderr.isatty())
        pack = find_pack(self.pack)
        segmenter = Segmenter.load(self.model, **vars(self.load))
        report = evaluate_nano(segmenter, pack, self.questions, progress=terminal.tracked)
        if self.out:
            save_report(report, self.out)
        if self.json:
            print(json.dumps(report.to_dict()))
        else:
            terminal.show_scores(report)
        return DONE
