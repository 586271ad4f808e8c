"""Data by name: a folder or file of one's own, told by what is in it, or a published data set."""

import os
from pathlib import Path

from lisaseg.data.coco import CocoInstances
from lisaseg.data.index_files import load_json
from lisaseg.data.jsonl import JsonLines
from lisaseg.data.labelme import Labelme
from lisaseg.data.mask_files import TABLES, MaskFiles
from lisaseg.data.paper import PAPER_SOURCES, open_paper_source
from lisaseg.data.sample import Source
from lisaseg.errors import DataError

DATA_VARIABLE = "LISASEG_DATA"
"""Environment variable that names the folder of published data sets."""
FORMATS = (
    "labelme's JSON files beside their pictures; a COCO file of instances; "
    f"{' or '.join(TABLES)} with masks as PNG; lines of JSON (*.jsonl)"
)


def data_root(folder: Path | None) -> Path | None:
    """The folder of published data sets: the one given, or the one the environment names."""
    named = os.environ.get(DATA_VARIABLE)
    return folder or (Path(named) if named else None)


def open_source(name: str, root: Path | None = None) -> Source:
    """Samples by name.

    Args:
        name: a folder or file of one's own, or a published data set such as `reasonseg/val` (`paper.PAPER_SOURCES`).
        root: folder of published data sets, by default the one that the variable LISASEG_DATA names.

    Raises:
        DataError: there is no such data, or it is malformed.
    """
    path = Path(name)
    if path.is_file():
        return _open_file(path)
    if path.is_dir():
        return _open_folder(path)
    if name.split("/", maxsplit=1)[0] not in {known.split("/")[0] for known in PAPER_SOURCES}:
        raise DataError(
            f"there is no data {name}: expected a folder or file ({FORMATS}), or one of {', '.join(PAPER_SOURCES)}"
        )
    found = data_root(root)
    if found is None:
        raise DataError(f"{name} is published data: give its folder with --data-root or in ${DATA_VARIABLE}")
    return open_paper_source(name, found)


def _open_file(path: Path) -> Source:
    if path.suffix == ".jsonl":
        return JsonLines(path)
    if path.suffix == ".json":
        return CocoInstances(path.name, path, _pictures_of(path))
    raise DataError(f"{path} is of no format that is known: expected *.jsonl, or a COCO file *.json")


def _open_folder(folder: Path) -> Source:
    if any((folder / table).is_file() for table in TABLES):
        return MaskFiles(folder)
    lines, records = sorted(folder.glob("*.jsonl")), sorted(folder.glob("*.json"))
    if len(lines) == 1:
        return JsonLines(lines[0])
    if len(records) == 1 and _is_coco(records[0]):
        return CocoInstances(folder.name, records[0], _pictures_of(records[0]))
    if records:
        return Labelme(folder)
    raise DataError(f"{folder} holds no data that is known: expected {FORMATS}")


def _is_coco(path: Path) -> bool:
    record = load_json(path, "utf-8-sig", "cp1252")
    return isinstance(record, dict) and "annotations" in record and "images" in record


def _pictures_of(file: Path) -> Path:
    """Where the pictures of a COCO file are: in `images` beside it, or beside it."""
    images = file.parent / "images"
    return images if images.is_dir() else file.parent
