"""Masks as PNG files, and a table that says what is asked for in which picture: `prompts.csv` or `prompts.jsonl`."""

import csv
import io
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lisaseg.data.sample import IGNORE, Exchange, Mask, Masks, Sample, Source
from lisaseg.errors import DataError
from lisaseg.images.read import read

TABLES = ("prompts.csv", "prompts.jsonl")
COLUMNS = ("image", "mask", "text")


class MaskFiles(Source):
    """The pictures of a table in its order; each row of a picture is a dialogue of its own.

    Columns: `image` and `mask` (paths from the folder), `text`; perhaps `kind` (phrase, sentence or said; by default a
    sentence where it ends in . ? or !), `answer` and `explanation`. In a mask 0 is outside and everything else inside;
    where there are other values too, 255 is what does not count.
    """

    def __init__(self, folder: Path):
        """Reads the table.

        Raises:
            DataError: there is none, or a row lacks a column.
        """
        self.name, self._folder = folder.name, folder
        table = next((folder / name for name in TABLES if (folder / name).is_file()), None)
        if table is None:
            raise DataError(f"expected {' or '.join(TABLES)} in {folder}")
        self._rows: dict[str, list[Mapping[str, str]]] = {}
        for number, row in enumerate(_rows(table), 1):
            lacking = [column for column in COLUMNS if not row.get(column)]
            if lacking:
                raise DataError(f"row {number} of {table} has no {lacking[0]}; expected {', '.join(COLUMNS)}")
            self._rows.setdefault(row["image"], []).append(row)
        self._images = list(self._rows)

    def __len__(self) -> int:
        return len(self._images)

    def entry(self, index: int) -> str:
        """The picture's path in the table."""
        return self._images[index]

    def __getitem__(self, index: int) -> Sample:
        name = self._images[index]
        image = read(self._folder / name)
        rows = self._rows[name]
        return Sample(
            name=name,
            image=image,
            dialogues=tuple((_exchange(row, place),) for place, row in enumerate(rows)),
            masks=Masks([partial(_read_mask, self._folder / row["mask"], image.shape[:2]) for row in rows]),
        )


def _rows(table: Path) -> list[Mapping[str, str]]:
    try:
        text = table.read_text("utf-8-sig")
        if table.suffix == ".csv":
            return list(csv.DictReader(io.StringIO(text)))
        return [_record(line, number, table) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {table}: {error}; expected a table in UTF-8") from error


def _record(line: str, number: int, table: Path) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"line {number} of {table} is no JSON: {error}") from error
    if not isinstance(record, dict):
        raise DataError(f"line {number} of {table} is no record; expected {{{', '.join(COLUMNS)}}}")
    return record


def _exchange(row: Mapping[str, str], place: int) -> Exchange:
    text = row["text"].strip()
    kind = row.get("kind") or ("sentence" if text.endswith((".", "?", "!")) else "phrase")
    if kind not in ("phrase", "sentence", "said"):
        raise DataError(f"{row['image']} has the kind {kind!r}; expected phrase, sentence or said")
    return Exchange(
        text=text,
        kind=kind,
        answer=row.get("answer") or None,
        masks=(place,),
        explanation=row.get("explanation") or None,
    )


def _read_mask(path: Path, shape: tuple[int, int]) -> Mask:
    """0, 1 and 255 from a PNG; only its first channel is looked at."""
    if not path.is_file():
        raise DataError(f"there is no mask {path}")
    values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise DataError(f"{path} is no picture of a mask; expected a PNG")
    values = values if values.ndim == 2 else values[..., 0]
    if values.shape != shape:
        raise DataError(
            f"{path} has {values.shape[1]}x{values.shape[0]} pixels and its picture {shape[1]}x{shape[0]}; "
            "make the mask as large as the picture"
        )
    mask = (values > 0).astype(np.uint8)
    if len(set(np.unique(values).tolist()) - {0, IGNORE}) > 0:
        mask[values == IGNORE] = IGNORE
    return mask
