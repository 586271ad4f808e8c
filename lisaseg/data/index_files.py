"""What readers of published data share: lists in JSON, names of COCO pictures, and pictures that fit their masks."""

import json
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import UInt8

from lisaseg.errors import DataError


def load_json(path: Path, *encodings: str) -> Any:
    """The values of a JSON file, in the first of the encodings that fits; UTF-8 where none is named.

    Raises:
        DataError: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(_text(path.read_bytes(), encodings or ("utf-8-sig",)))
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}; expected a JSON file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path} as JSON: {error}; get a whole copy of it") from error


def _text(data: bytes, encodings: tuple[str, ...]) -> str:
    for encoding in encodings[:-1]:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode(encodings[-1])


@contextmanager
def expecting(path: Path | str, what: str) -> Generator[None]:
    """Turns what happens when records lack something, or hold something else, into a DataError that says so."""
    try:
        yield
    except KeyError as error:
        raise DataError(f"{path} is not {what}: a record has no {error}") from error
    except (TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise DataError(f"{path} is not {what}: {error}") from error


def coco_id(file: str) -> int | None:
    """The number in the name of a COCO picture: 9 for `COCO_train2014_000000000009.jpg` and `000000000009.jpg`."""
    number = re.search(r"(?<!\d)(\d{12})$", PurePosixPath(file).stem)
    return int(number[1]) if number else None


def check_size(image: UInt8[np.ndarray, "H W 3"], height: int, width: int, name: str) -> None:
    """Raises DataError where a picture is not as large as its annotations say."""
    if image.shape[:2] != (height, width):
        raise DataError(
            f"{name} has {image.shape[1]}x{image.shape[0]} pixels, but its annotations are for {width}x{height}; "
            "get the picture that they were made for"
        )
