"""Benchmarks by name: which questions of a source they ask, by whose rule they score, and their further figures."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lisaseg.data.opening import open_source
from lisaseg.data.reason_seg import ReasonSeg
from lisaseg.data.sample import Source
from lisaseg.errors import DataError
from lisaseg.evaluation.metrics import RuleName
from lisaseg.evaluation.options import Protocol

Family = Literal["reasonseg", "referring", "grefcoco", "own"]
"""What decides a benchmark's rules; `own` is any data that is none of the published ones."""
FAMILIES: dict[str, Family] = {
    "reasonseg": "reasonseg",
    "refclef": "referring",
    "refcoco": "referring",
    "refcoco+": "referring",
    "refcocog": "referring",
    "grefcoco": "grefcoco",
}
"""Published benchmarks by the first part of their name."""
_EXAMPLES = {
    "reasonseg": "reasonseg/val",
    "refclef": "refclef/unc/testA",
    "refcocog": "refcocog/umd/test",
}


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Data to measure by."""

    name: str
    family: Family

    @property
    def first_text_only(self) -> bool:
        """Whether paraphrases of a question are left out: ReasonSeg asks the first wording alone."""
        return self.family == "reasonseg"

    @property
    def slug(self) -> str:
        """The name as a file's stem."""
        return re.sub(r"[^\w.+-]+", "_", self.name).strip("_.") or "data"

    def rule(self, protocol: Protocol) -> RuleName:
        """By whose rule masks are scored."""
        if protocol == "seg-zero":
            return "seg-zero"
        return "grefcoco" if self.family == "grefcoco" else "lisa"


def open_benchmark(name: str, root: Path | None) -> tuple[Benchmark, Source]:
    """A benchmark, and its pictures.

    Args:
        name: published data and a split of it, such as `reasonseg/val`, or a folder or file of one's own.
        root: the folder of published data.

    Raises:
        DataError: there is nothing of that name, or it is malformed, or no split is named.
    """
    if name in FAMILIES and not Path(name).exists():
        example = _EXAMPLES.get(name, f"{name}/unc/testA")
        raise DataError(f"{name} has several splits; name one, such as {example}")
    source = open_source(name, root)
    if len(source) == 0:
        raise DataError(f"there are no pictures in {name}; expected at least one")
    return describe(name, source), source


def describe(name: str, source: Source) -> Benchmark:
    """What is known about a source: a folder of one's own in ReasonSeg's format is measured like ReasonSeg."""
    family = FAMILIES.get(name.partition("/")[0], "own")
    if isinstance(source, ReasonSeg):
        family = "reasonseg"
    return Benchmark(name=name, family=family)


def split_names(words: Sequence[str]) -> list[str]:
    """Names that are separated by spaces or commas; a path with a comma in it stays whole."""
    names: list[str] = []
    for word in words:
        names += [word] if Path(word).exists() else [name.strip() for name in word.split(",") if name.strip()]
    return list(dict.fromkeys(names))
