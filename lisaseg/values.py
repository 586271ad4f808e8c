"""What comes out: a segment, and an answer with its segments. Plain data, no tensors."""

import functools
import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from lisaseg.errors import LisaError, MissingExtraError
from lisaseg.files import make_folder, remove, write_atomic
from lisaseg.images import draw, masks

if TYPE_CHECKING:
    import supervision

FORMATS = ("png", "rle", "polygon")
"""Forms in which masks are saved."""
_ODD_NAMES = "backslashreplace"
"""Bytes in a file name that are no text come as lone surrogates, which UTF-8 lacks: JSON escapes them as \\udcxx."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """One thing meant: a mask and the words it belongs to."""

    index: int
    """Place among the answer's `[SEG]`, from 0."""
    phrase: str
    """The answer's words that the mask belongs to, or the instruction where the answer has none."""
    logits: Float32[np.ndarray, "H W"]
    """Mask logits at the picture's size; above 0 is inside."""
    predicted_iou: float
    """SAM's own estimate of the mask's IoU, as the network gives it."""
    span: tuple[int, int] | None = None
    """Where the phrase stands in the answer: `text[span[0]:span[1]]`; None where it is the instruction's."""

    @functools.cached_property
    def mask(self) -> Bool[np.ndarray, "H W"]:
        """True inside."""
        return self.logits > 0

    @functools.cached_property
    def area(self) -> int:
        """Pixels inside."""
        return int(self.mask.sum())

    @functools.cached_property
    def bbox(self) -> tuple[int, int, int, int]:
        """xyxy in pixels, x1 and y1 exclusive; zeros for an empty mask."""
        return masks.bbox(self.mask)

    @functools.cached_property
    def score(self) -> float:
        """0..1: the mean mask probability inside the mask, times SAM's predicted IoU; 0 for an empty mask."""
        if self.area == 0:
            return 0.0
        probability = 1 / (1 + np.exp(-self.logits[self.mask].astype(np.float64)))
        return float(probability.mean() * np.clip(self.predicted_iou, 0, 1))

    def to_dict(self) -> dict[str, Any]:
        """As in the JSON of `lisaseg segment`, the mask as COCO run lengths."""
        return {
            "index": self.index,
            "phrase": self.phrase,
            "span": self.span and list(self.span),
            "score": round(self.score, 4),
            "bbox": list(self.bbox),
            "area": self.area,
            "rle": masks.to_rle(self.mask),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What the model says to one instruction about one picture."""

    image: UInt8[np.ndarray, "H W 3"]
    """The picture as it was seen: upright RGB."""
    source: str
    """Its path, or `image`."""
    model: str
    """The model's name."""
    instruction: str
    """What was asked."""
    text: str
    """The answer in words, `[SEG]` removed."""
    raw_text: str
    """The answer as the model said it."""
    segments: tuple[Segment, ...]
    """One for each `[SEG]`, in order; none where the model refuses or only talks."""
    dropped: tuple[Segment, ...] = ()
    """Segments that the options set apart: too low a score, or too small."""
    forgotten: int = 0
    """So many of the oldest turns of a conversation were left out for this answer, because the prompt was full."""
    timings: Mapping[str, float]
    """Seconds by stage."""

    def union(self) -> Bool[np.ndarray, "H W"]:
        """True inside any segment."""
        inside = np.zeros(self.image.shape[:2], bool)
        for segment in self.segments:
            inside |= segment.mask
        return inside

    def overlay(self, opacity: float = 0.5) -> Image.Image:
        """The picture with every segment in its own colour."""
        labels = [segment.phrase for segment in self.segments]
        masks = [segment.mask for segment in self.segments]
        return draw.overlay(self.image, masks, labels, opacity, [segment.index for segment in self.segments])

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; boxes are xyxy in pixels, timings in seconds."""
        height, width = self.image.shape[:2]
        return {
            "image": self.source,
            "width": width,
            "height": height,
            "model": self.model,
            "instruction": self.instruction,
            "text": self.text,
            "segments": [segment.to_dict() for segment in self.segments],
            "dropped": [segment.to_dict() for segment in self.dropped],
            "forgotten": self.forgotten,
            "timings": {stage: round(seconds, 4) for stage, seconds in self.timings.items()},
        }

    def to_coco(self) -> dict[str, Any]:
        """A COCO dataset of this one picture: a category for each distinct phrase, boxes as xywh."""
        height, width = self.image.shape[:2]
        names = list(dict.fromkeys(segment.phrase for segment in self.segments))
        return {
            "images": [{"id": 1, "file_name": self.source, "height": height, "width": width}],
            "annotations": [
                {
                    "id": segment.index + 1,
                    "image_id": 1,
                    "category_id": names.index(segment.phrase) + 1,
                    "segmentation": masks.to_rle(segment.mask),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": segment.area,
                    "iscrowd": 0,
                    "score": round(segment.score, 4),
                }
                for segment in self.segments
                for x0, y0, x1, y1 in [segment.bbox]
            ],
            "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
        }

    def to_detections(self) -> "supervision.Detections":
        """The same as `supervision.Detections`; phrases are in `data["class_name"]`.

        Raises:
            MissingExtraError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise MissingExtraError("to_detections needs supervision: pip install 'lisaseg[detections]'") from error
        if not self.segments:
            return supervision.Detections.empty()
        names = list(dict.fromkeys(segment.phrase for segment in self.segments))
        return supervision.Detections(
            xyxy=np.array([segment.bbox for segment in self.segments], np.float32),
            mask=np.stack([segment.mask for segment in self.segments]),
            confidence=np.array([segment.score for segment in self.segments], np.float32),
            class_id=np.array([names.index(segment.phrase) for segment in self.segments]),
            data={"class_name": np.array([segment.phrase for segment in self.segments])},
        )

    def save(self, folder: str | Path, *, formats: Sequence[str] = ("png",), stem: str | None = None) -> list[Path]:
        """Writes the results and returns their paths.

        Always `<stem>_overlay.png` and `<stem>.json` (with run lengths); with `png` a `<stem>_mask_<i>.png` (0 and 255)
        for each segment; with `polygon` the JSON holds `polygons` too.

        Args:
            folder: made where it is missing.
            formats: of `png`, `rle` and `polygon`.
            stem: by default that of the source.

        Raises:
            OutputError: a file cannot be written; files before it stay, none is half-written.
            LisaError: a format is unknown.
        """
        unknown = sorted(set(formats) - set(FORMATS))
        if unknown:
            raise LisaError(f"unknown mask format {unknown[0]!r}: expected some of {', '.join(FORMATS)}")
        folder, stem = Path(folder), stem or Path(self.source).stem or "image"
        make_folder(folder)
        written = {f"{stem}_overlay.png": _png(self.overlay())}
        if "png" in formats:
            written |= {f"{stem}_mask_{s.index}.png": masks.to_png(s.mask) for s in self.segments}
        record = self.to_dict()
        if "polygon" in formats:
            for entry, segment in zip(record["segments"], self.segments, strict=True):
                entry["polygons"] = masks.to_polygons(segment.mask)
        written[f"{stem}.json"] = json.dumps(record, ensure_ascii=False, indent=2).encode("utf-8", _ODD_NAMES)
        for name, data in written.items():
            write_atomic(folder / name, data)
        _remove_stale(folder, stem, len(self.segments) + len(self.dropped), keep=written)
        return [folder / name for name in written]


@dataclass(frozen=True, kw_only=True)
class TextDelta:
    """Further words of an answer that is being given; together they are its `text`."""

    text: str


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentReady:
    """A mask, drawn as soon as its `[SEG]` was said."""

    segment: Segment


@dataclass(frozen=True, kw_only=True, eq=False)
class Done:
    """The whole answer; nothing comes after it."""

    answer: Answer


Event = TextDelta | SegmentReady | Done
"""What comes, one after another, while an answer is being given."""


def _remove_stale(folder: Path, stem: str, number: int, *, keep: Collection[str]) -> None:
    """Masks of an earlier answer that had more of them would belong to no segment of this one."""
    for index in count():
        stale = folder / f"{stem}_mask_{index}.png"
        if stale.name in keep:
            continue
        if stale.exists():
            remove(stale)
        elif index >= number:
            return


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
