"""What a set of data holds, what is wrong with it, and how it looks."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from lisaseg.data.sample import IGNORE, Sample, Source
from lisaseg.errors import DataError, ImageError
from lisaseg.images.draw import overlay
from lisaseg.images.sheet import contact_sheet


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something wrong with an entry."""

    entry: str
    what: str
    is_error: bool
    """The entry cannot be used; else it is odd."""


@dataclass(kw_only=True)
class Findings:
    """What was found in a source."""

    name: str
    counts: Counter = field(default_factory=Counter)
    """Of pictures, dialogues by kind, masks, empty masks, and masks with pixels that do not count."""
    problems: list[Problem] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"name": self.name, "counts": dict(self.counts), "problems": [vars(one) for one in self.problems]}


def check(
    source: Source,
    limit: int | None = None,
    progress: Callable[[Sequence[int], str], Iterable[int]] = lambda places, _: places,
) -> Findings:
    """Reads every entry of a source, masks and all, or the first ones; nothing that is wrong with one stops it."""
    findings = Findings(name=source.name)
    for place in progress(range(len(source) if limit is None else min(limit, len(source))), source.name):
        try:
            _look(source[place], source.entry(place), findings)
        except (DataError, ImageError) as error:
            findings.problems.append(Problem(entry=source.entry(place), what=str(error), is_error=True))
    return findings


def _look(sample: Sample, entry: str, findings: Findings) -> None:
    def odd(what: str) -> None:
        findings.problems.append(Problem(entry=entry, what=what, is_error=False))

    findings.counts["pictures"] += 1
    if not sample.dialogues:
        odd("it has nothing to ask for")
    for dialogue in sample.dialogues:
        findings.counts[f"dialogues ({dialogue[0].kind})"] += 1
        if not all(exchange.text.strip() for exchange in dialogue):
            odd("a text is empty")
    for place in range(len(sample.masks)):
        mask = sample.masks[place]
        findings.counts["masks"] += 1
        if mask.shape != sample.image.shape[:2]:
            raise DataError(f"mask {place} is {mask.shape[1]}x{mask.shape[0]} and its picture is not")
        if not (mask == 1).any():
            findings.counts["empty masks"] += 1
            odd(f"mask {place} is empty: its outline may lie outside the picture")
        findings.counts["masks with pixels that do not count"] += int((mask == IGNORE).any())


def show(source: Source, number: int, tell: Callable[[str], None] = lambda line: None) -> Image.Image:
    """A contact sheet of so many entries, spread over the source; one that cannot be read is told and passed over.

    Raises:
        DataError: none of them can be read.
    """
    pictures = []
    for place in np.unique(np.linspace(0, len(source) - 1, min(number, len(source))).round().astype(int)).tolist():
        try:
            pictures.append(_shown(source[place]))
        except (DataError, ImageError) as error:
            tell(f"left out: {source.entry(place)}: {error}")
    if not pictures:
        raise DataError(f"{source.name} has nothing to show")
    return contact_sheet(pictures)


def _shown(sample: Sample) -> tuple[Image.Image, str]:
    """The picture with the masks of its first dialogues, what does not count in grey, and what they ask for."""
    used = [place for dialogue in sample.dialogues for exchange in dialogue for place in exchange.masks]
    masks = [sample.masks[place] for place in dict.fromkeys(used)]
    image = sample.image.copy()
    for mask in masks:
        image[mask == IGNORE] = (image[mask == IGNORE] // 3 + 100).astype(np.uint8)
    texts = list(dict.fromkeys(dialogue[0].text for dialogue in sample.dialogues))
    labels = texts if len(texts) == len(masks) else []
    return overlay(image, [mask == 1 for mask in masks], labels), " | ".join(texts) or sample.name
