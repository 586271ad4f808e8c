"""COCO instances: every category that a picture shows is a phrase, and so is an annotation with a text of its own."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lisaseg.data.index_files import check_size, expecting, load_json
from lisaseg.data.sample import IGNORE, Exchange, Mask, Masks, Sample, Source
from lisaseg.data.shapes import coco_mask
from lisaseg.errors import DataError
from lisaseg.images.read import read


class CocoInstances(Source):
    """The pictures of a COCO file in its order.

    A category's mask is the union of its annotations; regions of its crowd (`iscrowd`) do not count. A `text` or
    `caption` of an annotation makes a dialogue of its own: a sentence where it ends in . ? or !, else a phrase.
    """

    def __init__(self, name: str, file: Path, pictures: Path):
        """Reads the file.

        Args:
            name: what messages call the source.
            file: the JSON file.
            pictures: the folder that `file_name` starts from.

        Raises:
            DataError: the file is malformed, or an annotation is of no picture or category of it.
        """
        self.name, self._pictures = name, pictures
        record = load_json(file)
        with expecting(file, "a COCO file"):
            self._images = list(record["images"])
            self._categories = {int(one["id"]): str(one["name"]) for one in record["categories"]}
            self._annotations: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
            numbers = {int(image["id"]) for image in self._images}
            for annotation in record["annotations"]:
                self._annotations[int(annotation["image_id"])].append(annotation)
                if int(annotation["image_id"]) not in numbers:
                    raise DataError(f"{file} has an annotation of picture {annotation['image_id']}, which it lacks")
                if int(annotation["category_id"]) not in self._categories:
                    raise DataError(f"{file} has an annotation of category {annotation['category_id']}, which it lacks")

    def __len__(self) -> int:
        return len(self._images)

    def entry(self, index: int) -> str:
        """The picture's file."""
        return str(self._images[index].get("file_name"))

    def __getitem__(self, index: int) -> Sample:
        record = self._images[index]
        with expecting(self.name, "a COCO file"):
            number, file = int(record["id"]), str(record["file_name"])
            height, width = int(record["height"]), int(record["width"])
        image = read(self._pictures / file)
        check_size(image, height, width, file)
        annotations = self._annotations.get(number, [])
        spoken = [one for one in annotations if _text(one)]
        named: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
        for one in annotations:
            if not _text(one):
                named[int(one["category_id"])].append(one)
        texts = [self._categories[category] for category in named] + [_text(one) for one in spoken]
        groups = [*named.values(), *([one] for one in spoken)]
        exchanges = [
            Exchange(text=text, kind="sentence" if text.endswith((".", "?", "!")) else "phrase", masks=(place,))
            for place, text in enumerate(texts)
        ]
        return Sample(
            name=file,
            image=image,
            dialogues=tuple((exchange,) for exchange in exchanges),
            masks=Masks([partial(_union, group, height, width) for group in groups]),
        )


def _text(annotation: Mapping[str, Any]) -> str:
    return str(annotation.get("text") or annotation.get("caption") or "").strip()


def _union(annotations: Sequence[Mapping[str, Any]], height: int, width: int) -> Mask:
    """All annotations together; what is a crowd alone does not count."""
    mask = np.zeros((height, width), np.uint8)
    for crowd, value in ((True, IGNORE), (False, 1)):
        for annotation in annotations:
            if bool(annotation.get("iscrowd")) == crowd:
                with expecting(f"annotation {annotation.get('id')}", "one of COCO's"):
                    mask[coco_mask(annotation["segmentation"], height, width) == 1] = value
    return mask
