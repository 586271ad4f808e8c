"""What readers of people's own data share: where pictures lie, what a text is, and what a check remarks on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lisaseg.data.index_files import load_json
from lisaseg.data.sample import Kind, Sample, Source
from lisaseg.errors import DataError
from lisaseg.files import is_file

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".jp2", ".ppm")
"""What files of pictures end with, in small letters."""
Severity = Literal["error", "warning", "note"]
"""Unusable, doubtful, or good to know."""
_SLACK = 1.0
"""Pixels by which points may lie beyond the edge: tools put them on it, and round."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something about a file or an entry of some data."""

    severity: Severity
    source: str
    """The source's name."""
    where: str
    """A file, or an entry of one."""
    what: str
    """What was expected, what is there, and what to do."""


class OwnSource(Source):
    """Somebody's own data, whose files a check looks into more closely."""

    format: str
    """`labelme`, `reasonseg`, `coco`, `masks` or `jsonl`."""

    def picture(self, index: int) -> Path | None:
        """An entry's picture; None where it is not in a file of its own.

        Raises:
            DataError: the entry is malformed.
        """
        raise NotImplementedError

    def problems(self) -> list[Problem]:
        """What is to be said about the whole."""
        return []

    def problems_of(self, index: int, sample: Sample) -> list[Problem]:
        """What is to be said about an entry that could be read."""
        return []

    def _problem(self, severity: Severity, where: str, what: str) -> Problem:
        return Problem(severity=severity, source=self.name, where=where, what=what)


def kind_of(text: str) -> Kind:
    """What a text is where nobody says so: a sentence where it ends with `.`, `?` or `!`, otherwise a phrase."""
    return "sentence" if text.rstrip().endswith((".", "?", "!")) else "phrase"


def text_of(value: Any, what: str) -> str:
    """A text without the spaces around it.

    Raises:
        DataError: it is empty, or no text.
    """
    if not isinstance(value, str):
        raise DataError(f"expected a text for {what}, got {str(value)[:60]}")
    if not value.strip():
        raise DataError(f"{what} is empty; say what is meant, or remove it")
    return value.strip()


def find_picture(file: str, folders: Sequence[Path]) -> Path:
    """Where a picture lies: the first of the folders that has it, or where it is expected to be.

    A name with backslashes is taken as Windows wrote it where there is no such file.
    """
    names = (file, file.replace("\\", "/")) if "\\" in file else (file,)
    places = [folder / name for name in names for folder in folders]
    return next((place for place in places if is_file(place)), places[len(places) - len(folders)])


def pictures_by_stem(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by their names without the suffix."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
    return {path.stem: path for path in reversed(found)}


def load_any_json(path: Path) -> Any:
    """The values of a JSON file in UTF-8, or in what Windows wrote before.

    Raises:
        DataError: it cannot be read, or is no JSON.
    """
    return load_json(path, "utf-8-sig", "cp1252")


def is_utf8(path: Path) -> bool:
    """Whether a file's text is UTF-8."""
    try:
        path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        return False
    return True


def outside(points: Iterable[Sequence[int | float]], height: int, width: int) -> str | None:
    """What is said of points that lie beyond the edge of their picture by more than a pixel; None where none does."""
    corners = np.asarray(list(points), np.float64).reshape(-1, 2)
    beyond = (corners < -_SLACK) | (corners > np.array([width, height]) + _SLACK)
    far = corners[beyond.any(axis=1)]
    if not len(far):
        return None
    return (
        f"reaches ({far[0, 0]:g}, {far[0, 1]:g}) outside the picture of {width}x{height} pixels and is cut at its "
        "edge; check that it was drawn on this picture"
    )
