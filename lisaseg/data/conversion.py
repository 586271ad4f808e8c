"""The same data in another format, in a folder of its own, pictures and all."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np
from jaxtyping import Int, UInt8

from lisaseg.data.jsonl import to_record
from lisaseg.data.sample import IGNORE, Exchange, Sample, Source
from lisaseg.errors import DataError, ImageError, OutputError
from lisaseg.files import make_folder, write_atomic
from lisaseg.images.masks import bbox, to_rle

Format = Literal["jsonl", "reasonseg", "coco", "labelme", "masks"]
"""Formats that can be written."""


class Writer(Protocol):
    """Takes samples one by one, and writes what belongs to all of them at the end."""

    def add(self, sample: Sample, image: str) -> None:
        """Writes what belongs to one sample, whose picture is in the folder already."""
        ...

    def finish(self) -> None:
        """Writes what belongs to all."""
        ...


def convert_data(
    source: Source,
    out: Path,
    to: Format,
    *,
    strict: bool = False,
    tell: Callable[[str], None] = lambda line: None,
    progress: Callable[[Sequence[int], str], Iterable[int]] = lambda places, _: places,
) -> int:
    """Writes a source in a format; returns how many pictures were written.

    Args:
        source: what is converted.
        out: a folder that is empty or not there.
        to: the format. ReasonSeg has one mask for a picture: of several different ones each becomes a picture.
        strict: stop at an entry that cannot be read or written in this format, instead of telling and going on.
        tell: shows a line.
        progress: wraps the iteration over entries.

    Raises:
        DataError: strict, and an entry cannot be read or written.
        OutputError: the folder is not empty or cannot be written to.
    """
    make_folder(out)
    if any(out.iterdir()):
        raise OutputError(f"{out} is not empty; choose a folder that is empty or not there")
    writer = WRITERS[to](out)
    written = 0
    for place in progress(range(len(source)), source.name):
        try:
            sample = source[place]
            writer.add(sample, f"{written:06}.png")
            written += 1
        except (DataError, ImageError) as error:
            if strict:
                raise DataError(f"{source.entry(place)}: {error}") from error
            tell(f"left out: {source.entry(place)}: {error}")
    writer.finish()
    return written


def polygons(mask: UInt8[np.ndarray, "H W"], value: int) -> list[list[list[float]]]:
    """Outlines of the pixels of that value; drawn again by `draw_polygon` they give these pixels, holes and all.

    A hole is reached from the outline by a cut: there and back along the same line, where both are nearest.
    """
    inside = (mask == value).astype(np.uint8)
    contours, tree = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = [contour.reshape(-1, 2) for contour in contours]
    outlines = {place: ring for place, ring in enumerate(rings) if tree[0][place][3] < 0}
    for place, ring in enumerate(rings):
        parent = int(tree[0][place][3])
        if parent >= 0:
            outlines[parent] = _cut_to(outlines[parent], ring)
    return [ring.astype(float).tolist() for ring in outlines.values()]


def _cut_to(outline: Int[np.ndarray, "N 2"], hole: Int[np.ndarray, "M 2"]) -> Int[np.ndarray, "K 2"]:
    """One ring of both."""
    distances = ((outline[:, None] - hole[None]) ** 2).sum(axis=2)
    start, end = np.unravel_index(distances.argmin(), distances.shape)
    around = np.concatenate([hole[end:], hole[: end + 1]])
    return np.concatenate([outline[: start + 1], around, outline[start:]])


class _JsonLinesWriter:
    def __init__(self, out: Path):
        self._out, self._lines = out, []

    def add(self, sample: Sample, image: str) -> None:
        record = to_record(sample, image)
        _save(sample, self._out / image)
        self._lines.append(json.dumps(record, ensure_ascii=False))

    def finish(self) -> None:
        write_atomic(self._out / "data.jsonl", "".join(f"{line}\n" for line in self._lines).encode())


class _LabelmeWriter:
    def __init__(self, out: Path):
        self._out = out

    def add(self, sample: Sample, image: str) -> None:
        shapes = []
        for exchange, place in _asked(sample):
            mask = sample.masks[place]
            shapes += [_shape(exchange.text, points) for points in polygons(mask, 1)]
            shapes += [_shape("ignore", points) for points in polygons(mask, IGNORE)]
        _save(sample, self._out / image)
        _write_labels(self._out / image, sample, {"shapes": shapes})

    def finish(self) -> None:
        """Every file stands for itself."""


class _ReasonSegWriter:
    def __init__(self, out: Path):
        self._out = out

    def add(self, sample: Sample, image: str) -> None:
        wordings: dict[int, list[Exchange]] = {}
        for exchange, place in _asked(sample):
            wordings.setdefault(place, []).append(exchange)
        stem = Path(image).stem
        for number, (place, exchanges) in enumerate(wordings.items()):
            mask = sample.masks[place]
            target = [_shape("target", points) for points in polygons(mask, 1)]
            ignored = [_shape("ignore", points) for points in polygons(mask, IGNORE)]
            path = self._out / f"{stem}_{number}.jpg"
            ok, data = cv2.imencode(".jpg", sample.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
            if not ok:
                raise DataError(f"{sample.name} cannot be written as JPEG")
            write_atomic(path, data.tobytes())
            texts = [text for exchange in exchanges for text in (exchange.text, *exchange.also)]
            is_sentence = exchanges[0].kind != "phrase"
            _write_labels(path, sample, {"text": texts, "is_sentence": is_sentence, "shapes": [*target, *ignored]})

    def finish(self) -> None:
        """Every file stands for itself."""


class _CocoWriter:
    def __init__(self, out: Path):
        self._out = out
        self._record: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": []}
        self._categories: dict[str, int] = {}
        make_folder(out / "images")

    def add(self, sample: Sample, image: str) -> None:
        height, width = sample.image.shape[:2]
        number = len(self._record["images"]) + 1
        made = []
        for exchange, place in _asked(sample):
            mask = sample.masks[place]
            for value, is_crowd in ((1, 0), (IGNORE, 1)):
                if (mask == value).any():
                    made.append(self._annotation(exchange, mask == value, number, is_crowd))
        _save(sample, self._out / "images" / image)
        self._record["images"].append({"id": number, "file_name": image, "height": height, "width": width})
        first = len(self._record["annotations"]) + 1
        self._record["annotations"] += [{"id": first + place, **one} for place, one in enumerate(made)]

    def _annotation(self, exchange: Exchange, mask: np.ndarray, number: int, is_crowd: int) -> dict[str, Any]:
        name = exchange.text if exchange.kind == "phrase" else "thing"
        category = self._categories.setdefault(name, len(self._categories) + 1)
        x0, y0, x1, y1 = bbox(mask)
        spoken = {} if exchange.kind == "phrase" or is_crowd else {"text": exchange.text}
        return {
            "image_id": number,
            "category_id": category,
            "segmentation": to_rle(mask),
            "area": int(mask.sum()),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "iscrowd": is_crowd,
            **spoken,
        }

    def finish(self) -> None:
        self._record["categories"] = [{"id": number, "name": name} for name, number in self._categories.items()]
        write_atomic(self._out / "instances.json", json.dumps(self._record).encode())


class _MasksWriter:
    def __init__(self, out: Path):
        self._out = out
        self._rows: list[dict[str, str]] = []
        for name in ("images", "masks"):
            make_folder(out / name)

    def add(self, sample: Sample, image: str) -> None:
        rows = []
        for number, (exchange, place) in enumerate(_asked(sample)):
            mask, path = sample.masks[place], f"masks/{Path(image).stem}_{number}.png"
            plain = mask if (mask == IGNORE).any() else mask * 255
            write_atomic(self._out / path, cv2.imencode(".png", plain)[1].tobytes())
            rows.append(
                {
                    "image": f"images/{image}",
                    "mask": path,
                    "text": exchange.text,
                    "kind": exchange.kind,
                    "answer": exchange.answer or "",
                    "explanation": exchange.explanation or "",
                }
            )
        _save(sample, self._out / "images" / image)
        self._rows += rows

    def finish(self) -> None:
        table = io.StringIO()
        lines = csv.DictWriter(table, ("image", "mask", "text", "kind", "answer", "explanation"))
        lines.writeheader()
        lines.writerows(self._rows)
        write_atomic(self._out / "prompts.csv", table.getvalue().encode())


WRITERS: dict[Format, Callable[[Path], Writer]] = {
    "jsonl": _JsonLinesWriter,
    "reasonseg": _ReasonSegWriter,
    "coco": _CocoWriter,
    "labelme": _LabelmeWriter,
    "masks": _MasksWriter,
}


def _asked(sample: Sample) -> list[tuple[Exchange, int]]:
    """Each thing that is asked for alone, with its mask: what all formats but our own can hold."""
    asked = [(dialogue[0], dialogue[0].masks[0]) for dialogue in sample.dialogues if len(dialogue[0].masks) == 1]
    if len(asked) < len(sample.dialogues) or any(len(dialogue) > 1 for dialogue in sample.dialogues):
        raise DataError("it has dialogues of several turns or masks, which only jsonl can hold")
    return asked


def _shape(label: str, points: Sequence[Sequence[float]]) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": "polygon", "group_id": None, "flags": {}}


def _write_labels(image: Path, sample: Sample, record: dict[str, Any]) -> None:
    height, width = sample.image.shape[:2]
    size = {"imagePath": image.name, "imageData": None, "imageHeight": height, "imageWidth": width}
    whole = {"version": "5.5.0", "flags": {}, **record, **size}
    write_atomic(image.with_suffix(".json"), json.dumps(whole, ensure_ascii=False).encode())


def _save(sample: Sample, path: Path) -> None:
    ok, data = cv2.imencode(".png", sample.image[..., ::-1])
    if not ok:
        raise DataError(f"{sample.name} cannot be written as PNG")
    write_atomic(path, data.tobytes())
