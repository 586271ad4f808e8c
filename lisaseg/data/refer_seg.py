"""Referring expressions: refCLEF, refCOCO, refCOCO+, refCOCOg and gRefCOCO. Phrases that mean a thing, or several, or
none."""

import collections
import functools
import io
import pickle
import re
import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lisaseg.data.index_files import check_size, expecting, load_json
from lisaseg.data.sample import Dialogue, Exchange, Mask, Masks, Sample, Source
from lisaseg.data.shapes import coco_mask
from lisaseg.errors import DataError
from lisaseg.images.read import read

SPLITS = ("train", "val", "test", "testA", "testB", "testC")
"""Parts of these data sets; no data set has all."""
NO_TARGET = -1
"""In place of an annotation's number: the phrase means nothing in the picture."""


class Referring(Source):
    """Pictures of one split; one dialogue for each sentence of each reference, in the order of the file."""

    def __init__(
        self,
        name: str,
        refs: Path,
        instances: Path,
        pictures: Path,
        split: str,
        exclude: Collection[int] = frozenset(),
    ):
        """Reads the references and annotations.

        Args:
            name: what messages call the source.
            refs: references as a pickle (`refs(unc).p`), or the same as JSON.
            instances: their annotations, in COCO's format.
            pictures: the folder that the annotations' file names start from.
            split: one of `SPLITS`.
            exclude: numbers of pictures to leave out.

        Raises:
            DataError: a file is missing or malformed, or nothing is of that split.
        """
        self.name = name
        self._pictures = pictures
        of_picture: dict[int, list[Mapping[str, Any]]] = {}
        with expecting(refs, "a list of references"):
            for ref in load_refs(refs):
                if is_of_split(ref["split"], split) and ref["image_id"] not in exclude:
                    of_picture.setdefault(ref["image_id"], []).append(ref)
            needed = {number for found in of_picture.values() for ref in found for number in _targets(ref)}
        self._refs = list(of_picture.items())
        if not self._refs:
            raise DataError(f"{refs} has no references of the split {split!r} that are not excluded")
        with expecting(instances, "a file of annotations in COCO's format"):
            record = load_json(instances)
            self._images = {image["id"]: image for image in record["images"] if image["id"] in of_picture}
            self._shapes = {
                annotation["id"]: annotation["segmentation"]
                for annotation in record["annotations"]
                if annotation["id"] in needed
            }

    def __len__(self) -> int:
        return len(self._refs)

    def entry(self, index: int) -> str:
        """The picture's file, or its number where the annotations do not know it."""
        number = self._refs[index][0]
        return str(self._images.get(number, {}).get("file_name", number))

    def __getitem__(self, index: int) -> Sample:
        number, refs = self._refs[index]
        name = self.entry(index)
        with expecting(name, "a picture with references"):
            if number not in self._images:
                raise DataError(f"the annotations do not know picture {number}, which references speak of")
            info = self._images[number]
            dialogues: list[Dialogue] = []
            makers: list[Callable[[], Mask]] = []
            for place, ref in enumerate(refs):
                shapes = [self._shape(number) for number in _targets(ref)]
                makers.append(functools.partial(_together, shapes, info["height"], info["width"]))
                for sentence in ref["sentences"]:
                    text = sentence["sent"].strip().lower()
                    dialogues.append((Exchange(text=text, kind="phrase", masks=(place,)),))
            image = read(self._pictures / info["file_name"])
            check_size(image, info["height"], info["width"], name)
        return Sample(name=name, image=image, dialogues=tuple(dialogues), masks=Masks(makers))

    def _shape(self, number: int) -> Any:
        if number not in self._shapes:
            raise DataError(f"there is no annotation {number}, which a reference means")
        return self._shapes[number]


def _targets(ref: Mapping[str, Any]) -> list[int]:
    """Numbers of the annotations that are meant, all at once; none of them for nothing."""
    numbers = ref["ann_id"] if isinstance(ref["ann_id"], list) else [ref["ann_id"]]
    return [number for number in numbers if number != NO_TARGET]


def is_of_split(marked: str, split: str) -> bool:
    """Whether a reference marked so is of a split: `testA` are all with an A in their mark, such as `testAB`."""
    if split.startswith("test"):
        return split.removeprefix("test") in marked if split != "test" else "test" in marked
    return marked == split


def _together(shapes: Sequence[Any], height: int, width: int) -> Mask:
    """1 where any of the annotations is; where their polygons overlap, too."""
    mask = np.zeros((height, width), np.uint8)
    for shape in shapes:
        pieces = shape if isinstance(shape, list) and shape and isinstance(shape[0], dict) else [shape]
        for piece in pieces:
            mask |= coco_mask(piece, height, width)
    return mask


def load_refs(path: Path) -> list[dict[str, Any]]:
    """References from a pickle or JSON file.

    Raises:
        DataError: the file is missing or damaged, or it holds other things than data.
    """
    refs = load_json(path) if path.suffix == ".json" else load_plain_pickle(path)
    if not isinstance(refs, list):
        raise DataError(f"{path} is not a list of references: it holds a {type(refs).__name__}")
    return refs


def load_plain_pickle(path: Path) -> Any:
    """What a pickle of lists, dicts, numbers and texts holds; nothing in the file is run.

    Raises:
        DataError: the file is missing or damaged, or it wants anything else to be made.
    """
    try:
        return _Plain(path.read_bytes()).load()
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}; expected a pickle of references") from error
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        AssertionError,
        AttributeError,
        EOFError,
        ImportError,
        LookupError,
        MemoryError,
        OSError,
        RecursionError,
        TypeError,
        ValueError,
        struct.error,
    ) as error:
        raise DataError(f"{path} is no pickle of plain data: {error}; get a whole copy of it") from error


class _Plain(pickle._Unpickler):  # the one in C takes as much memory as a damaged file asks for
    """Makes containers, numbers and texts. Texts of Python 2 are taken for Latin-1, which has every byte."""

    _KNOWN: Mapping[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("_codecs", "encode"): lambda text, encoding: str.encode(text, "latin-1"),
        ("numpy", "dtype"): lambda code, *_: _Number(code),
        ("numpy.core.multiarray", "scalar"): lambda number, data: number.read(data),
        ("numpy._core.multiarray", "scalar"): lambda number, data: number.read(data),
    }
    _BUILTINS = {
        **{kind.__name__: kind for kind in (bool, dict, float, frozenset, int, list, set, str, tuple)},
        "long": int,
        "unicode": str,
    }

    def __init__(self, data: bytes):
        super().__init__(io.BytesIO(data), encoding="latin-1")

    def find_class(self, module: str, name: str) -> Any:
        """The only things that a file may name."""
        if module in ("builtins", "__builtin__") and name in self._BUILTINS:
            return self._BUILTINS[name]
        if (module, name) in self._KNOWN:
            return self._KNOWN[module, name]
        raise DataError(
            f"the pickle asks for {module}.{name}, which is no plain data and might do harm: it was not opened; "
            "save the references as JSON, or get them from their authors"
        )


class _Number:
    """NumPy's description of a single number, as far as integers and floats need it."""

    def __init__(self, code: str):
        if not re.fullmatch(r"[biuf][1248]", code):
            raise DataError(f"the pickle has a NumPy value of type {code!r}; expected integers or floats")
        self._type = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        self._type = self._type.newbyteorder("=" if state[1] == "|" else state[1])

    def read(self, data: str | bytes) -> int | float | bool:
        """The number of these bytes."""
        return np.frombuffer(data.encode("latin-1") if isinstance(data, str) else data, self._type)[0].item()
