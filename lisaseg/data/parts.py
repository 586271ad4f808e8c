"""Parts of things, in COCO's format: PACO-LVIS and PASCAL-Part. Each annotation can be asked for by its name."""

import functools
from collections.abc import Collection
from pathlib import Path
from typing import Any

from lisaseg.data.index_files import check_size, coco_id, expecting, load_json
from lisaseg.data.sample import Exchange, Masks, Sample, Source
from lisaseg.data.shapes import coco_mask
from lisaseg.errors import DataError
from lisaseg.images.read import read


class Parts(Source):
    """Pictures with annotated things and parts; one dialogue for each annotation, "dog head" or "the head of the dog".

    Several annotations of a picture may have the same name: as in the original, each is asked for on its own.
    """

    def __init__(self, name: str, annotations: Path, pictures: Path, exclude: Collection[int] = frozenset()):
        """Reads the annotations.

        Args:
            name: what messages call the source.
            annotations: a file in COCO's format, its categories `thing:part` or `thing`.
            pictures: the folder that its file names start from.
            exclude: numbers of COCO pictures to leave out.

        Raises:
            DataError: the file is missing or malformed, or nothing in it is annotated.
        """
        self.name = name
        self._pictures = pictures
        self._entries: list[tuple[dict[str, Any], list[tuple[Any, int]]]] = []
        with expecting(annotations, "a file of annotated parts"):
            record = load_json(annotations)
            self._wordings = {category["id"]: part_wordings(category["name"]) for category in record["categories"]}
            of_picture: dict[Any, list[tuple[Any, int]]] = {}
            for annotation in record["annotations"]:
                found = of_picture.setdefault(annotation["image_id"], [])
                found.append((annotation["segmentation"], annotation["category_id"]))
            for image in record["images"]:
                if image["id"] in of_picture and coco_id(image["file_name"]) not in exclude:
                    self._entries.append((image, of_picture[image["id"]]))
        if not self._entries:
            raise DataError(f"{annotations} has no pictures with annotations that are not excluded")

    def __len__(self) -> int:
        return len(self._entries)

    def entry(self, index: int) -> str:
        """The picture's file, as the annotations name it."""
        return self._entries[index][0]["file_name"]

    def __getitem__(self, index: int) -> Sample:
        info, annotations = self._entries[index]
        name = self.entry(index)
        image = read(self._pictures / name)
        with expecting(name, "a picture with annotated parts"):
            check_size(image, info["height"], info["width"], name)
            wordings = [self._wordings[category] for _, category in annotations]
        return Sample(
            name=name,
            image=image,
            dialogues=tuple(
                (Exchange(text=text, also=also, kind="phrase", masks=(place,)),)
                for place, (text, also) in enumerate(wordings)
            ),
            masks=Masks(
                [
                    functools.partial(coco_mask, segmentation, info["height"], info["width"])
                    for segmentation, _ in annotations
                ]
            ),
        )


def part_wordings(category: str) -> tuple[str, tuple[str, ...]]:
    """What a category is called, and other words for the same: `dog_(animal):head` is "dog head" or "the head of the
    dog".

    Raises:
        ValueError: it is neither `thing` nor `thing:part`.
    """
    thing, *parts = (piece.split("_(")[0] for piece in category.strip().split(":"))
    if len(parts) > 1:
        raise ValueError(f"a category is called {category!r}; expected `thing` or `thing:part`")
    return (f"{thing} {parts[0]}", (f"the {parts[0]} of the {thing}",)) if parts else (thing, ())
