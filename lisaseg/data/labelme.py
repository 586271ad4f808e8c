"""A folder of labelme's JSON files: every label is a phrase, and the union of its shapes is what it means."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from functools import partial
from math import hypot
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from lisaseg.data.index_files import expecting, load_json
from lisaseg.data.reason_seg import draw_shapes, requests
from lisaseg.data.sample import IGNORE, Exchange, Mask, Masks, Sample, Source
from lisaseg.data.shapes import draw_polygon
from lisaseg.errors import DataError
from lisaseg.images.read import read

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""Endings of pictures that may lie beside a file of labels."""


class Labelme(Source):
    """The JSON files of a folder in the order of their names, each with its picture beside it or inside.

    A file with a `text` is one of ReasonSeg's, and is read as that.
    """

    def __init__(self, folder: Path):
        """Lists the files.

        Raises:
            DataError: there are none.
        """
        self.name = folder.name
        self._files = sorted(folder.glob("*.json"))
        if not self._files:
            raise DataError(f"expected labelme's JSON files in {folder}, got no *.json")

    def __len__(self) -> int:
        return len(self._files)

    def entry(self, index: int) -> str:
        """The JSON file."""
        return self._files[index].name

    def __getitem__(self, index: int) -> Sample:
        path = self._files[index]
        record = load_json(path, "utf-8-sig", "cp1252")
        with expecting(path, "a file of labelme"):
            shapes = list(record["shapes"])
            labels = list(dict.fromkeys(str(shape["label"]) for shape in shapes))
        image = _picture(path, record)
        height, width = image.shape[:2]
        if "text" in record:
            with expecting(path, "an annotation of ReasonSeg"):
                exchanges = requests(record)
            masks = Masks([partial(draw_shapes, shapes, height, width)])
        else:
            names = [label for label in labels if "ignore" not in label.lower()]
            exchanges = [Exchange(text=name, kind="phrase", masks=(place,)) for place, name in enumerate(names)]
            masks = Masks([partial(draw_label, shapes, name, height, width) for name in names])
        return Sample(name=path.name, image=image, dialogues=tuple((exchange,) for exchange in exchanges), masks=masks)


def draw_label(shapes: Sequence[Mapping[str, Any]], label: str, height: int, width: int) -> Mask:
    """The mask of one label: 1 in its shapes, 255 in shapes whose label has "ignore" in it and that are not its own.

    Raises:
        DataError: a shape is of a kind that has no inside.
    """
    canvas = np.zeros((height, width), np.uint8)
    with expecting("a shape", "one of labelme's"):
        unsure = [shape for shape in shapes if "ignore" in str(shape["label"]).lower()]
        own = [shape for shape in shapes if shape["label"] == label]
    for value, drawn in ((IGNORE, unsure), (1, own)):
        for shape in drawn:
            draw_polygon(canvas, outline(shape), value)
    return canvas


def outline(shape: Mapping[str, Any]) -> list[list[float]]:
    """The corners of a polygon, rectangle or circle.

    Raises:
        DataError: it is of another kind.
    """
    kind = shape.get("shape_type") or "polygon"
    with expecting(f"the shape {shape.get('label')!r}", f"a {kind}"):
        points = [[float(x), float(y)] for x, y in shape["points"]]
        if kind == "polygon":
            return points
        if kind == "rectangle":
            (x0, y0), (x1, y1) = points
            return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
        if kind == "circle":
            (x, y), (edge_x, edge_y) = points
            radius = hypot(edge_x - x, edge_y - y)
            angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
            return [[float(x + radius * np.cos(a)), float(y + radius * np.sin(a))] for a in angles]
    raise DataError(f"the shape {shape.get('label')!r} is a {kind}; expected polygon, rectangle or circle")


def _picture(path: Path, record: Mapping[str, Any]) -> UInt8[np.ndarray, "H W 3"]:
    """The picture that a file names, or the one of the same stem, or the one inside it."""
    named = str(record.get("imagePath") or "").replace("\\", "/").rpartition("/")[2]
    beside = [path.with_name(named)] if named else []
    for place in (*beside, *(path.with_suffix(ending) for ending in PICTURES)):
        if place.is_file():
            return read(place)
    inside = record.get("imageData")
    if not inside:
        raise DataError(f"{path.name} has no picture: expected {named or path.stem + '.jpg'} beside it, or imageData")
    try:
        return read(base64.b64decode(inside, validate=True))
    except (binascii.Error, TypeError, ValueError) as error:
        raise DataError(f"{path.name} has imageData that is no picture: {error}") from error
