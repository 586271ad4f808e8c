"""Pictures with a class for every pixel: ADE20K, COCO-Stuff and Mapillary Vistas. Each class can be asked for."""

import functools
import struct
import zlib
from collections.abc import Collection, Sequence
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lisaseg.data.index_files import check_size, coco_id, expecting, load_json
from lisaseg.data.sample import Exchange, Mask, Masks, Sample, Source
from lisaseg.errors import DataError
from lisaseg.images.read import read


class SemanticMaps(Source):
    """Pictures and their maps; one dialogue for each class that a map shows, in the order of the classes."""

    def __init__(self, name: str, entries: Sequence[tuple[Path, Path]], classes: Sequence[str | None]):
        """Takes what is where; reads nothing.

        Args:
            name: what messages call the source.
            entries: picture and map of each entry.
            classes: name of each pixel value, None for those that nobody asks for. Values of one name are one class;
                values beyond the last one are nobody's.

        Raises:
            DataError: there are no entries.
        """
        if not entries:
            raise DataError(f"{name} has no pictures with maps; look into its folders")
        self.name = name
        self._entries = tuple(entries)
        self._values: dict[str, list[int]] = {}
        for value, known in enumerate(classes):
            if known is not None:
                self._values.setdefault(known, []).append(value)

    def __len__(self) -> int:
        return len(self._entries)

    def entry(self, index: int) -> str:
        """The picture's file."""
        return self._entries[index][0].name

    def __getitem__(self, index: int) -> Sample:
        picture, map_path = self._entries[index]
        labels, image = _read_map(map_path), read(picture)
        check_size(image, labels.shape[0], labels.shape[1], str(picture))
        shown = set(np.flatnonzero(cv2.calcHist([labels], [0], None, [256], [0, 256])).tolist())
        present = [name for name, values in self._values.items() if shown.intersection(values)]
        return Sample(
            name=self.entry(index),
            image=image,
            dialogues=tuple(
                (Exchange(text=name, kind="phrase", masks=(place,)),) for place, name in enumerate(present)
            ),
            masks=Masks([functools.partial(_where, labels, self._values[name]) for name in present]),
        )


def open_ade20k(folder: Path) -> SemanticMaps:
    """The training pictures of ADE20K's scene parsing benchmark: 0 is nothing, k the k-th of 150 classes."""
    pictures = sorted((folder / "images" / "training").glob("*.jpg"))
    maps = folder / "annotations" / "training"
    return SemanticMaps(
        "ade20k", [(path, maps / f"{path.stem}.png") for path in pictures], (None, *known_classes("ade20k"))
    )


def open_cocostuff(maps: Path, pictures: Path, exclude: Collection[int] = frozenset()) -> SemanticMaps:
    """COCO-Stuff's maps of things and stuff; classes with a hyphen in their names ("wall-brick") are not asked for.

    Args:
        maps: folder of the maps.
        pictures: folder of COCO's pictures, which have the maps' names.
        exclude: numbers of COCO pictures to leave out.
    """
    kept = [path for path in sorted(maps.glob("*.png")) if coco_id(path.name) not in exclude]
    classes = [None if "-" in name else name for name in known_classes("cocostuff")]
    return SemanticMaps("cocostuff", [(pictures / f"{path.stem}.jpg", path) for path in kept], classes)


def open_mapillary(folder: Path, *, void: bool = False) -> SemanticMaps:
    """The training pictures of Mapillary Vistas 2.0, with the classes that its `config_v2.0.json` lists.

    Args:
        folder: the data set.
        void: also ask for what is no thing (the camera's mount, the unlabelled), as the original does.

    Raises:
        DataError: there are no pictures, or the list is another one.
    """
    path = folder / "config_v2.0.json"
    with expecting(path, "Mapillary's list of labels"):
        labels = load_json(path)["labels"]
        classes = [
            label["readable"].lower() if void or not label["name"].startswith("void--") else None for label in labels
        ]
    maps = folder / "training" / "v2.0" / "labels"
    pictures = sorted((folder / "training" / "images").glob("*.jpg"))
    return SemanticMaps("mapillary", [(path, maps / f"{path.stem}.png") for path in pictures], classes)


@functools.cache
def known_classes(name: str) -> tuple[str, ...]:
    """The classes of `ade20k` or `cocostuff`, in order."""
    return tuple((files("lisaseg.data") / "classes" / f"{name}.txt").read_text("utf-8").split("\n")[:-1])


def _where(labels: UInt8[np.ndarray, "H W"], values: Sequence[int]) -> Mask:
    return np.isin(labels, values).view(np.uint8)


def _read_map(path: Path) -> UInt8[np.ndarray, "H W"]:
    """Pixel values as they are stored: of a palette, the indices."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P"):
                raise DataError(f"expected {path} to have one byte for each pixel, got a picture of mode {image.mode}")
            return np.array(image)
    except FileNotFoundError as error:
        raise DataError(f"there is no map {path}; get the whole data set") from error
    except (OSError, ValueError, SyntaxError, struct.error, zlib.error, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read the map {path}: {error}; get a whole copy of it") from error
