"""gIoU and cIoU as LISA's evaluation defines them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

from lisaseg.data.sample import IGNORE


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Intersection and union of one predicted mask with its ground truth, in pixels."""

    intersection: int
    union: int

    @property
    def iou(self) -> float:
        """I / (U + 1e-5); an empty union, nothing asked and nothing drawn, counts as 1."""
        return 1.0 if self.union == 0 else self.intersection / (self.union + 1e-5)


def overlap(predicted: Bool[np.ndarray, "H W"], truth: UInt8[np.ndarray, "H W"]) -> Overlap:
    """Compares a mask with ground truth of 0, 1 and 255; pixels of 255 are left out of both."""
    counted = truth != IGNORE
    target = truth == 1
    return Overlap(intersection=int((predicted & target).sum()), union=int(((predicted | target) & counted).sum()))


def giou(overlaps: list[Overlap]) -> float:
    """Mean IoU over masks; nan for none."""
    return float(np.mean([one.iou for one in overlaps])) if overlaps else float("nan")


def ciou(overlaps: list[Overlap]) -> float:
    """Sum of intersections over the sum of unions; nan for none."""
    if not overlaps:
        return float("nan")
    return sum(one.intersection for one in overlaps) / (sum(one.union for one in overlaps) + 1e-10)
