"""How good a model is: `lisaseg evaluate`, `compare`, `score`, and `nano-report`."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rich.table import Table
from rich.text import Text
from tyro.conf import Positional, arg

from lisaseg.config import ImageLimits, LoadOptions, NanoReportOptions
from lisaseg.evaluation.options import EvaluateOptions
from lisaseg.surfaces import terminal
from lisaseg.surfaces.commands import DONE, app, load_segmenter

if TYPE_CHECKING:
    from lisaseg.evaluation.scores import Difference, Evaluation

_MODEL = """`nano` (bundled), a published checkpoint (`lisa-7b`, `lisa-13b`, and each with `-explanatory`), a folder,
or a Hugging Face hub id."""


@app.command(name="evaluate")
@dataclass(frozen=True, kw_only=True)
class EvaluateCommand:
    """Measure a model by benchmarks: gIoU and cIoU with 95 % intervals, and each benchmark's own figures. After an
    interrupt, the same command goes on; under torchrun the processes share the work."""

    model: Annotated[Positional[str], arg(metavar="MODEL", help=_MODEL)]
    benchmark: tuple[str, ...]
    """Published data with its split, such as reasonseg/val,refcoco/unc/testA, or folders of one's own data."""
    data_root: Path | None = None
    """Folder of published data sets; by default the one that the variable LISASEG_DATA names."""
    out: Annotated[Path, arg(metavar="DIR")] = terminal.DEFAULT_OUT / "evaluate"
    """Folder for report.json, report.html and `<benchmark>.jsonl`, a line for each question."""
    json: bool = False
    """Print the report as one line of JSON and nothing else."""
    options: EvaluateOptions = field(default_factory=EvaluateOptions)
    load: LoadOptions = field(default_factory=LoadOptions)

    def __post_init__(self) -> None:
        if not self.benchmark:
            raise ValueError("--benchmark needs a name, such as reasonseg/val, or a folder of one's own data")

    def execute(self) -> int:
        """Measures, shows the table, and writes the report."""
        from lisaseg.evaluation.benchmarks import open_benchmark, split_names
        from lisaseg.evaluation.evaluate import evaluate
        from lisaseg.evaluation.report import write_report
        from lisaseg.model.devices import on_own_device

        opened = [open_benchmark(name, self.data_root) for name in split_names(self.benchmark)]
        segmenter = load_segmenter(self.model, on_own_device(self.load), ImageLimits(), cache_mb=0)
        is_first = os.environ.get("RANK", "0") == "0"
        try:
            found = [
                evaluate(
                    segmenter,
                    benchmark,
                    source,
                    self.options,
                    self.out,
                    tell=terminal.note,
                    progress=terminal.tracked if is_first else lambda blocks, _: iter(blocks),
                )
                for benchmark, source in opened
            ]
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt("the same command goes on where this one ended") from interrupt
        if is_first:
            write_report(found, {benchmark.name: source for benchmark, source in opened}, self.out)
            _deliver(found, as_json=self.json)
            if not self.json:
                terminal.OUT.print(Text.assemble(("report ", "dim"), str(self.out / "report.html")))
        return DONE


@app.command(name="compare")
@dataclass(frozen=True, kw_only=True)
class CompareCommand:
    """Compare evaluations: what each is worth, and how far it is from the first, with 95 % intervals of the difference
    over the questions that both answered."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN [RUN ...]", help_behavior_hint="(required)")] = ()
    """Folders that `lisaseg evaluate` wrote."""
    json: bool = False
    """Print one line of JSON and nothing else."""

    def __post_init__(self) -> None:
        if len(self.runs) < 2:
            raise ValueError(f"expected at least two folders that lisaseg evaluate wrote, got {len(self.runs)}")

    def execute(self) -> int:
        """Reads what was found, and shows the table."""
        from lisaseg.evaluation.scores import compare

        rows = compare(self.runs)
        if self.json:
            print(json.dumps([row.to_dict() for row in rows]))
        else:
            _show_differences(rows)
        return DONE


@app.command(name="score")
@dataclass(frozen=True, kw_only=True)
class ScoreCommand:
    """Measure what another system predicted: the same figures from its masks."""

    predictions: Annotated[Positional[Path], arg(metavar="PRED")]
    """Lines of JSON with picture, rle, and text or question (its number among the picture's); or a folder of masks
    called like the pictures, `<stem>.png`, or `<stem>_<number>.png` where there are several questions."""
    benchmark: Annotated[Positional[str], arg(metavar="BENCHMARK")]
    """Published data with its split, such as reasonseg/val, or a folder of one's own data."""
    data_root: Path | None = None
    """Folder of published data sets; by default the one that the variable LISASEG_DATA names."""
    rule: Literal["lisa", "seg-zero", "grefcoco"] | None = None
    """By whose rule masks are scored; by default the benchmark's own."""
    min_pixels: int = EvaluateOptions.min_pixels
    """gRefCOCO: a prediction of fewer pixels says that nothing is meant. Some authors take 50."""
    out: Annotated[Path | None, arg(metavar="DIR")] = None
    """Folder for report.json and report.html."""
    json: bool = False
    """Print the report as one line of JSON and nothing else."""

    def __post_init__(self) -> None:
        if self.min_pixels < 1:
            raise ValueError(f"--min-pixels must be at least 1, got {self.min_pixels}")

    def execute(self) -> int:
        """Measures, shows the table, and writes what was asked for."""
        from lisaseg.evaluation.benchmarks import open_benchmark
        from lisaseg.evaluation.predictions import score_predictions
        from lisaseg.evaluation.report import write_report

        benchmark, source = open_benchmark(self.benchmark, self.data_root)
        found = score_predictions(
            self.predictions,
            benchmark,
            source,
            rule=self.rule,
            min_pixels=self.min_pixels,
            tell=terminal.note,
            progress=terminal.tracked,
        )
        if self.out:
            write_report([found], {benchmark.name: source}, self.out)
        _deliver([found], as_json=self.json)
        return DONE


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


def _deliver(found: "Sequence[Evaluation]", *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"evaluations": [evaluation.to_dict() for evaluation in found]}))
        return
    for evaluation in found:
        _show_evaluation(evaluation)


def _show_evaluation(evaluation: "Evaluation") -> None:
    """A table with a row for the whole and for each part, in percent, as papers print it; further figures below it."""
    from lisaseg.evaluation.report import percent, title_of

    header = evaluation.header
    title = f"{header['model']}, protocol {header['protocol']}, rule {header['rule']}"
    table = _table(title, "benchmark", "pictures", "n", "gIoU", "cIoU")
    for score in evaluation.scores:
        table.add_row(
            Text(score.name),
            str(score.pictures),
            str(score.questions),
            _with_interval(score.giou, score.giou_interval),
            _with_interval(score.ciou, score.ciou_interval),
        )
    terminal.OUT.print(table)
    for score in evaluation.scores:
        if score.figures:
            figures = ", ".join(f"{title_of(name)} {percent(value)}" for name, value in score.figures.items())
            terminal.OUT.print(Text.assemble((f"{score.name}: ", "dim"), figures))
    if evaluation.skipped:
        terminal.note(f"{len(evaluation.skipped)} pictures were left out, which the report names")


def _show_differences(rows: "Sequence[Difference]") -> None:
    """A table for each benchmark; differences are in points."""
    for benchmark in dict.fromkeys(row.benchmark for row in rows):
        table = _table(benchmark, "run", "n", "gIoU", "cIoU", "Δ gIoU", "Δ cIoU")
        own = [row for row in rows if row.benchmark == benchmark]
        for place, row in enumerate(own):
            table.add_row(
                Text(row.run),
                str(row.score.questions),
                _with_interval(row.score.giou, row.score.giou_interval),
                _with_interval(row.score.ciou, row.score.ciou_interval),
                _with_interval(row.giou, row.giou_interval, "+") if place else "",
                _with_interval(row.ciou, row.ciou_interval, "+") if place else "",
            )
        terminal.OUT.print(table)
        for row in own:
            if row.note:
                terminal.note(f"{row.run}: {row.note}")
        if len(own) == 1:
            terminal.note(f"only {own[0].run} has {benchmark}; there is nothing to compare it with")


def _with_interval(value: float, bounds: tuple[float, float], sign: str = "") -> Text:
    low, high = (f"{100 * bound:{sign}.2f}" for bound in bounds)
    return Text.assemble(f"{100 * value:{sign}.2f} ", (f"{low}…{high}", "dim"))


def _table(title: str, first: str, *headings: str) -> Table:
    table = Table(box=None, pad_edge=False, title=Text(title, "bold"), title_justify="left")
    table.add_column(first, overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right")
    return table
