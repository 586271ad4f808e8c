import numpy as np
import pytest

from lisaseg.evaluation.metrics import Overlap, ciou, giou, overlap


def masks(rows: str) -> np.ndarray:
    """`11.` -> pixels; `.` is 0 and `x` is 255."""
    return np.array([[{".": 0, "1": 1, "x": 255}[c] for c in row] for row in rows.split()], np.uint8)


def test_intersection_and_union() -> None:
    assert overlap(masks("11. ...") == 1, masks(".11 ...")) == Overlap(intersection=1, union=3)


def test_ignored_pixels_count_on_neither_side() -> None:
    assert overlap(masks("111 111") == 1, masks("1xx xxx")) == Overlap(intersection=1, union=1)


def test_nothing_asked_and_nothing_drawn_is_right() -> None:
    assert overlap(masks("...") == 1, masks("..x")).iou == 1.0
    assert overlap(masks("1..") == 1, masks("..x")).iou == 0.0


def test_giou_is_the_mean_and_ciou_the_ratio_of_sums() -> None:
    small, large = Overlap(intersection=1, union=1), Overlap(intersection=10, union=100)
    assert giou([small, large]) == pytest.approx((1 + 0.1) / 2, abs=1e-4)
    assert ciou([small, large]) == pytest.approx(11 / 101)


def test_without_any_mask_there_is_no_number() -> None:
    assert np.isnan(giou([]))
    assert np.isnan(ciou([]))
