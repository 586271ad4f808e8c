"""`lisaseg data ...`: what a folder of training or test data holds, how it looks, and the same in another format."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg
from tyro.extras import SubcommandApp

from lisaseg.errors import DataError
from lisaseg.surfaces import terminal
from lisaseg.surfaces.commands import DONE, FAILED, app

if TYPE_CHECKING:
    from lisaseg.data.inspection import Findings

data = SubcommandApp()
app.command(data, name="data", help="Check, look at and convert training and test data.")

MOST_LINES = 20
"""Problems that are told of each source; the JSON has all of them."""


@data.command(name="check")
@dataclass(frozen=True, kw_only=True)
class CheckCommand:
    """Say what is there, count it, and tell what is wrong with it."""

    where: Annotated[Positional[str], arg(metavar="DATA")]
    """A folder or file of one's own data, a published data set by name, or a folder of published data sets."""
    data_root: Path | None = None
    """Folder of published data sets; by default the one that the variable LISASEG_DATA names."""
    limit: int | None = None
    """Entries of each source that are read; by default all."""
    strict: bool = False
    """Fail at oddities too, such as empty masks."""
    json: bool = False
    """Print one line of JSON for each source and nothing else."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit must be at least 1, got {self.limit}")

    def execute(self) -> int:
        """Reads everything once."""
        is_bad = False
        for findings in self._findings():
            is_bad |= any(problem.is_error or self.strict for problem in findings.problems)
            if self.json:
                print(json.dumps(findings.to_dict()), flush=True)
            else:
                _show(findings)
        return FAILED if is_bad else DONE

    def _findings(self) -> "Iterator[Findings]":
        """Of the data of that name, or of all published data sets in a folder."""
        from lisaseg.data.inspection import Findings, Problem, check
        from lisaseg.data.opening import open_source
        from lisaseg.data.paper import open_paper_source, sources_in

        root = Path(self.where)
        published = sources_in(root) if root.is_dir() else []
        if not published:
            yield check(open_source(self.where, self.data_root), self.limit, terminal.tracked)
        for name in published:
            try:
                yield check(open_paper_source(name, root), self.limit, terminal.tracked)
            except DataError as error:  # such as a split that a data set lacks
                yield Findings(name=name, problems=[Problem(entry=name, what=str(error), is_error=False)])


@data.command(name="show")
@dataclass(frozen=True, kw_only=True)
class ShowCommand:
    """Write a contact sheet: pictures with their masks, what does not count in grey, and what is asked for."""

    where: Annotated[Positional[str], arg(metavar="DATA")]
    """A folder or file of one's own data, or a published data set by name."""
    number: Annotated[Positional[int], arg(metavar="N")] = 16
    """Pictures, spread over all of them."""
    out: Path = Path("sheet.jpg")
    """File for the sheet."""
    data_root: Path | None = None
    """Folder of published data sets; by default the one that the variable LISASEG_DATA names."""

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ValueError(f"N must be at least 1, got {self.number}")

    def execute(self) -> int:
        """Draws, and says where the sheet is."""
        from lisaseg.data.inspection import show
        from lisaseg.data.opening import open_source
        from lisaseg.files import write_atomic

        buffer = io.BytesIO()
        show(open_source(self.where, self.data_root), self.number, terminal.note).save(buffer, "JPEG", quality=90)
        write_atomic(self.out, buffer.getvalue())
        print(f"The sheet is {self.out}")
        return DONE


@data.command(name="convert")
@dataclass(frozen=True, kw_only=True)
class ConvertDataCommand:
    """Write data in another format, in a new folder with copies of its pictures."""

    source: Annotated[Positional[str], arg(metavar="SRC")]
    """A folder or file of one's own data, or a published data set by name."""
    out: Annotated[Positional[Path], arg(metavar="DST")]
    """A folder that is empty or not there."""
    to: Literal["jsonl", "reasonseg", "coco", "labelme", "masks"]
    """The format."""
    data_root: Path | None = None
    """Folder of published data sets; by default the one that the variable LISASEG_DATA names."""
    strict: bool = False
    """Stop at what cannot be read or written in this format, instead of telling and going on."""

    def execute(self) -> int:
        """Converts, and counts."""
        from lisaseg.data.conversion import convert_data
        from lisaseg.data.opening import open_source

        source = open_source(self.source, self.data_root)
        written = convert_data(
            source, self.out, self.to, strict=self.strict, tell=terminal.note, progress=terminal.tracked
        )
        print(f"{written} of {len(source)} pictures are in {self.out}")
        return DONE if written == len(source) else FAILED


def _show(findings: "Findings") -> None:
    counts = ", ".join(f"{count:,} {what}" for what, count in findings.counts.items() if count) or "nothing to read"
    terminal.OUT.print(f"{findings.name}: {counts}", markup=False)
    for problem in findings.problems[:MOST_LINES]:
        kind = "error" if problem.is_error else "odd"
        terminal.OUT.print(f"  {kind}: {problem.entry}: {problem.what}", markup=False)
    if len(findings.problems) > MOST_LINES:
        terminal.OUT.print(f"  and {len(findings.problems) - MOST_LINES} more (--json has all)")
