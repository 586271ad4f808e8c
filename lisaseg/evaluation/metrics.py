"""What a predicted mask is worth, by the rules of the benchmarks: LISA's, Seg-Zero's, gRefCOCO's and COCO's.

A prediction is counted once, in pixels (`count`); every rule and figure follows from the counts.
"""

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from lisaseg.data.sample import IGNORE

RuleName = Literal["lisa", "seg-zero", "grefcoco"]
"""Whose way of scoring."""
RESAMPLINGS = 1000
"""Bootstrap samples of an interval."""
CONFIDENCE = 0.95
"""Share of the bootstrap samples that lies inside an interval."""
_SLACK = 1e-5
_CHUNK = 4_000_000
"""Numbers that resampling gathers at a time."""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Intersection and union of one predicted mask with its ground truth, in pixels."""

    intersection: int
    union: int
    slack: float = _SLACK
    """What is added to the union, against a division by 0; 0 in rules other than LISA's."""
    of_nothing: float = 1.0
    """The IoU of an empty union."""

    @property
    def iou(self) -> float:
        """I / (U + slack); with LISA an empty union, nothing asked and nothing drawn, counts as 1."""
        return self.of_nothing if self.union == 0 else self.intersection / (self.union + self.slack)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Pixels of one prediction and its ground truth: all that any rule asks."""

    predicted: int
    target: int
    """Of ground truth 1."""
    marked: int
    """Of any ground truth but 0: the target, what is ignored, and values that nobody defined."""
    hit: int
    """Predicted, and of ground truth 1."""
    hit_marked: int
    """Predicted, and of any ground truth but 0."""
    hit_ignored: int
    """Predicted, where nobody knows."""


def count(predicted: Bool[np.ndarray, "H W"], truth: UInt8[np.ndarray, "H W"]) -> Counts:
    """Counts a mask against ground truth of 0, 1 and 255, in which polygons that overlap may have left a 2.

    Raises:
        ValueError: they differ in size.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"expected a mask of {truth.shape} like the ground truth, got {predicted.shape}")
    found = np.bincount(truth[predicted], minlength=256)
    drawn = int(found.sum())
    return Counts(
        predicted=drawn,
        target=int(np.count_nonzero(truth == 1)),
        marked=int(np.count_nonzero(truth)),
        hit=int(found[1]),
        hit_marked=drawn - int(found[0]),
        hit_ignored=int(found[IGNORE]),
    )


def overlap(predicted: Bool[np.ndarray, "H W"], truth: UInt8[np.ndarray, "H W"]) -> Overlap:
    """Compares by LISA's rule a mask with ground truth of 0, 1 and 255; pixels of 255 are left out of both."""
    return by_lisa(count(predicted, truth))


def by_lisa(counts: Counts) -> Overlap:
    """LISA's rule: what is ignored is left out of both, the target is what is exactly 1, nothing on nothing is 1."""
    union = counts.predicted - counts.hit_ignored + counts.target - counts.hit
    return Overlap(intersection=counts.hit, union=union)


def by_seg_zero(counts: Counts) -> Overlap:
    """Seg-Zero's and VisionReasoner's rule: what is ignored is part of the target, nothing on nothing is 0."""
    union = counts.predicted + counts.marked - counts.hit_marked
    return Overlap(intersection=counts.hit_marked, union=union, slack=0.0, of_nothing=0.0)


def by_grefcoco(counts: Counts, min_pixels: int = 1) -> Overlap:
    """gRefCOCO's rule: no target and none predicted is 1 and has no union; a target taken for none has no intersection.

    Args:
        counts: of one mask.
        min_pixels: a prediction of fewer pixels says that there is no target.
    """
    says_none = counts.predicted < min_pixels
    if counts.target == 0:
        return Overlap(intersection=0, union=0 if says_none else counts.predicted, slack=0.0)
    union = counts.predicted + counts.target - counts.hit
    return Overlap(intersection=0 if says_none else counts.hit, union=union, slack=0.0)


def rule(name: RuleName, min_pixels: int = 1) -> Callable[[Counts], Overlap]:
    """The rule of that name; `min_pixels` is for gRefCOCO's alone."""
    if name == "grefcoco":
        return lambda counts: by_grefcoco(counts, min_pixels)
    return {"lisa": by_lisa, "seg-zero": by_seg_zero}[name]


def giou(overlaps: Sequence[Overlap]) -> float:
    """Mean IoU over masks; nan for none. The original divides by the number of masks + 1e-5."""
    return float(np.mean([one.iou for one in overlaps])) if overlaps else float("nan")


def ciou(overlaps: Sequence[Overlap]) -> float:
    """Sum of intersections over the sum of unions; nan for none."""
    if not overlaps:
        return float("nan")
    return sum(one.intersection for one in overlaps) / (sum(one.union for one in overlaps) + 1e-10)


def precision_at(overlaps: Sequence[Overlap], threshold: float) -> float:
    """Share of masks whose I / U is at least the threshold; nan for none."""
    good = [one.union > 0 and one.intersection / one.union >= threshold for one in overlaps]
    return float(np.mean(good)) if good else float("nan")


def referring_figures(counts: Sequence[Counts]) -> dict[str, float]:
    """refCOCO's further figures: mIoU without slack, and Pr@0.5 to 0.9."""
    exact = [Overlap(intersection=one.intersection, union=one.union, slack=0.0) for one in map(by_lisa, counts)]
    return {"miou": giou(exact), **{f"pr@{at / 10}": precision_at(exact, at / 10) for at in (5, 6, 7, 8, 9)}}


def grefcoco_figures(counts: Sequence[Counts], min_pixels: int = 1) -> dict[str, float]:
    """gRefCOCO's further figures; where there are no masks of a kind, nan.

    N-acc is the share of questions without a target to which none is predicted, T-acc that of questions with a target
    to which something is; Pr@t is over questions with a target.
    """
    none = [one for one in counts if one.target == 0]
    some = [one for one in counts if one.target > 0]
    overlaps = [by_grefcoco(one, min_pixels) for one in some]
    return {
        "n_acc": _share([one.predicted < min_pixels for one in none]),
        "t_acc": _share([one.predicted >= min_pixels for one in some]),
        **{f"pr@{at / 10}": precision_at(overlaps, at / 10) for at in (7, 8, 9)},
    }


def _share(flags: Sequence[bool]) -> float:
    return float(np.mean(flags)) if flags else float("nan")


@dataclass(frozen=True, kw_only=True)
class Instances:
    """The masks of one question as COCO run lengths: those that are meant, and those that were predicted."""

    truth: tuple[dict[str, Any], ...]
    predicted: tuple[dict[str, Any], ...]
    scores: tuple[float, ...]


def instance_figures(questions: Sequence[Instances]) -> dict[str, float]:
    """COCO's mAP (IoU 0.5 to 0.95), AP50 and AP75 of masks, all of one class, each question a picture of its own."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():  # pycocotools prints all it does
        warnings.simplefilter("ignore", DeprecationWarning)  # and has, in 2.0.11, an __array__ of NumPy 1
        from pycocotools.cocoeval import COCOeval

        truth = _coco([one.truth for one in questions])
        predicted = _coco([one.predicted for one in questions], [one.scores for one in questions])
        measure = COCOeval(truth, predicted, "segm")
        measure.evaluate()
        measure.accumulate()
        measure.summarize()
        figures = (float(figure) for figure in measure.stats[:3])
    return dict(zip(("map", "ap50", "ap75"), (figure if figure >= 0 else math.nan for figure in figures), strict=True))


def _coco(masks: Sequence[Sequence[dict[str, Any]]], scores: Sequence[Sequence[float]] | None = None) -> Any:
    from pycocotools import mask as coco
    from pycocotools.coco import COCO

    annotations: list[dict[str, Any]] = []
    for number, own in enumerate(masks, 1):
        for place, rle in enumerate(own):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "segmentation": rle,
                    "area": float(coco.area({**rle, "counts": rle["counts"].encode("ascii")})),
                    "iscrowd": 0,
                    "score": 1.0 if scores is None else scores[number - 1][place],
                }
            )
    made = COCO()
    sizes = [own[0]["size"] if own else (1, 1) for own in masks]
    images = [{"id": number, "height": height, "width": width} for number, (height, width) in enumerate(sizes, 1)]
    made.dataset = {"images": images, "categories": [{"id": 1}], "annotations": annotations}
    made.createIndex()
    return made


Interval = tuple[float, float]
"""Bounds of a confidence interval."""
Sums = Float64[np.ndarray, "P 4"]
"""For each picture its sum of IoU, number of masks, intersections and unions."""


def sums_by_picture(pictures: Sequence[str], overlaps: Sequence[Overlap]) -> Sums:
    """What intervals are made from: masks of one picture go together, in the order of their first mask."""
    places = {name: place for place, name in enumerate(dict.fromkeys(pictures))}
    sums = np.zeros((len(places), 4))
    for name, one in zip(pictures, overlaps, strict=True):
        sums[places[name]] += (one.iou, 1, one.intersection, one.union)
    return sums


def bootstrap(sums: Sums, seed: int = 0) -> Float64[np.ndarray, "R 2"]:
    """gIoU and cIoU of so many drawings of as many pictures, with replacement.

    The same number of pictures and seed draw the same pictures, so that two models' drawings can be subtracted.
    """
    rng = np.random.default_rng(seed)
    number = len(sums)
    if number == 0:
        return np.full((RESAMPLINGS, 2), np.nan)
    step = max(1, _CHUNK // number)
    drawings = (min(step, RESAMPLINGS - start) for start in range(0, RESAMPLINGS, step))
    totals = np.concatenate([sums[rng.integers(number, size=(rows, number))].sum(axis=1) for rows in drawings])
    return np.stack([totals[:, 0] / totals[:, 1], totals[:, 2] / (totals[:, 3] + 1e-10)], axis=1)


def interval(values: Float64[np.ndarray, " R"]) -> Interval:
    """The middle `CONFIDENCE` of bootstrapped values."""
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
