"""ReasonSeg: requests that take thought to understand, and polygons of what they mean, drawn as the benchmark does."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lisaseg.data.index_files import expecting, load_json
from lisaseg.data.sample import IGNORE, Exchange, Kind, Mask, Masks, Sample, Source
from lisaseg.data.shapes import draw_polygon
from lisaseg.errors import DataError
from lisaseg.images.read import read


class ReasonSeg(Source):
    """Pictures of some splits in the order of their names; one dialogue for each wording of the request, all of one
    mask.

    The benchmark measures by the first wording alone.
    """

    def __init__(self, name: str, folder: Path, splits: Sequence[str]):
        """Lists the pictures and reads the explanations, where there are some.

        Args:
            name: what messages call the source.
            folder: the data set, with a folder for each split and perhaps `explanatory/train.json`.
            splits: any of `train`, `val` and `test`.

        Raises:
            DataError: a split has no pictures, or the explanations are malformed.
        """
        self.name = name
        self._pictures: list[Path] = []
        for split in splits:
            found = sorted((folder / split).glob("*.jpg"))
            if not found:
                raise DataError(f"expected pictures with JSON files in {folder / split}, got no *.jpg")
            self._pictures += found
        self._explanations = _explanations(folder / "explanatory" / "train.json")

    def __len__(self) -> int:
        return len(self._pictures)

    def entry(self, index: int) -> str:
        """The picture's file."""
        return self._pictures[index].name

    def __getitem__(self, index: int) -> Sample:
        picture = self._pictures[index]
        path = picture.with_suffix(".json")
        record = load_json(path, "utf-8-sig", "cp1252")
        image = read(picture)
        with expecting(path, "an annotation of ReasonSeg"):
            exchanges = requests(record, self._explanations.get(picture.name))
            shapes = list(record["shapes"])
        return Sample(
            name=picture.name,
            image=image,
            dialogues=tuple((exchange,) for exchange in exchanges),
            masks=Masks([functools.partial(draw_shapes, shapes, image.shape[0], image.shape[1])]),
        )


def requests(record: Mapping[str, Any], explanation: str | None = None) -> list[Exchange]:
    """The wordings of an annotation, all of its one mask."""
    kind: Kind = "sentence" if record["is_sentence"] else "phrase"
    return [
        Exchange(text=text.strip(), kind=kind, masks=(0,), explanation=explanation) for text in _texts(record["text"])
    ]


def draw_shapes(shapes: Sequence[Mapping[str, Any]], height: int, width: int) -> Mask:
    """The mask of labelme's shapes by ReasonSeg's rule.

    Larger shapes are painted first, of equally large ones the later. A label with "ignore" in it paints 255, "flag"
    nothing, and any other 1.

    Raises:
        DataError: a shape has no label, or is no polygon.
    """
    canvas = np.zeros((height, width), np.uint8)
    with expecting("a shape", "a labelled polygon"):
        labelled = [(shape["label"].lower(), shape["points"]) for shape in shapes]
    kept = [(label, points) for label, points in labelled if label != "flag"]
    areas = [_area(points, height, width) for _, points in kept]
    for place in np.argsort(areas, kind="stable")[::-1].tolist():
        label, points = kept[place]
        draw_polygon(canvas, points, IGNORE if "ignore" in label else 1)
    return canvas


def _area(points: Any, height: int, width: int) -> int:
    """Pixels that a polygon covers within the picture."""
    canvas = np.zeros((height, width), np.uint8)
    draw_polygon(canvas, points, 1)
    return int(np.count_nonzero(canvas))


def _texts(texts: Any) -> list[str]:
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"its text should be a list of wordings, got {str(texts)[:60]}")
    return texts


def _explanations(path: Path) -> dict[str, str]:
    """What was written about the pictures of the training split, by the pictures' files."""
    if not path.is_file():
        return {}
    with expecting(path, "ReasonSeg's list of explanations"):
        return {str(record["image"]): str(record["outputs"]) for record in load_json(path)}
