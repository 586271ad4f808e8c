import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import BinaryJaccardIndex

from lisaseg.evaluation.metrics import (
    Instances,
    Overlap,
    bootstrap,
    by_grefcoco,
    by_seg_zero,
    ciou,
    count,
    giou,
    grefcoco_figures,
    instance_figures,
    interval,
    overlap,
    referring_figures,
    sums_by_picture,
)
from lisaseg.images.masks import to_rle


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


def test_an_independent_library_finds_the_same() -> None:
    """torchmetrics leaves ignored pixels out, too."""
    rng = np.random.default_rng(0)
    overlaps, everything = [], BinaryJaccardIndex(ignore_index=255)
    for _ in range(20):
        predicted, truth = rng.random((30, 40)) > 0.5, rng.choice([0, 1, 255], (30, 40), p=[0.5, 0.4, 0.1])
        one = overlap(predicted, truth.astype(np.uint8))
        pair = torch.from_numpy(predicted.astype(int)), torch.from_numpy(truth)
        assert one.iou == pytest.approx(float(BinaryJaccardIndex(ignore_index=255)(*pair)), abs=1e-6)
        everything.update(*pair)
        overlaps.append(one)
    assert ciou(overlaps) == pytest.approx(float(everything.compute()), abs=1e-6)


def test_overlapping_polygons_leave_values_that_are_no_target() -> None:
    truth = masks("11. ...")
    truth[0, 0] = 2
    assert overlap(masks("11. ...") == 1, truth) == Overlap(intersection=1, union=2)


def test_seg_zero_takes_what_is_ignored_for_target() -> None:
    counts = count(masks("11. ...") == 1, masks("1x. x.."))
    assert by_seg_zero(counts).iou == pytest.approx(2 / 3)
    assert by_seg_zero(count(masks("...") == 1, masks("..."))).iou == 0.0


def test_grefcoco_knows_what_is_not_there() -> None:
    right = count(masks("...") == 1, masks("..."))
    wrong = count(masks("11.") == 1, masks("..."))
    missed = count(masks("...") == 1, masks("11."))
    found = count(masks("11.") == 1, masks("11."))
    assert [by_grefcoco(one).iou for one in (right, wrong, missed, found)] == [1, 0, 0, 1]
    assert ciou([by_grefcoco(one) for one in (right, wrong, missed, found)]) == pytest.approx(2 / 6)
    figures = grefcoco_figures([right, wrong, missed, found])
    assert figures == {"n_acc": 0.5, "t_acc": 0.5, "pr@0.7": 0.5, "pr@0.8": 0.5, "pr@0.9": 0.5}
    assert by_grefcoco(wrong, min_pixels=3).iou == 1.0
    assert math.isnan(grefcoco_figures([found])["n_acc"])


def test_precision_counts_what_reaches_the_threshold() -> None:
    half = count(masks("11.") == 1, masks("1.."))
    whole = count(masks("1..") == 1, masks("1.."))
    figures = referring_figures([half, whole])
    assert figures["miou"] == 0.75
    assert (figures["pr@0.5"], figures["pr@0.6"], figures["pr@0.9"]) == (1.0, 0.5, 0.5)


def test_instances_are_matched_one_to_one() -> None:
    left, right = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    left[:, :8], right[:, 12:] = True, True
    both = tuple(to_rle(mask) for mask in (left, right))
    assert instance_figures([Instances(truth=both, predicted=both, scores=(0.9, 0.8))])["ap50"] == pytest.approx(1)
    merged = (to_rle(left | right),)
    assert instance_figures([Instances(truth=both, predicted=merged, scores=(0.9,))])["ap75"] == 0


def test_intervals_hold_the_value_and_narrow_with_more_pictures() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for number in (20, 2000):
        overlaps = [Overlap(intersection=int(rng.integers(100)), union=100) for _ in range(number)]
        values = bootstrap(sums_by_picture([str(k) for k in range(number)], overlaps))
        low, high = interval(values[:, 0])
        assert low < giou(overlaps) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 5
