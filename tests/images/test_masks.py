import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from pycocotools import mask as coco

from lisaseg.images.masks import bbox, from_rle, to_png, to_polygons, to_rle

some_masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24), elements=st.booleans())


def box_mask(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((20, 30), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def fill(polygons: list[list[float]], mask: np.ndarray) -> np.ndarray:
    canvas = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(canvas, [np.array(polygon, np.int32).reshape(-1, 2) for polygon in polygons], 1)
    return canvas.astype(bool)


class TestRunLengths:
    @given(some_masks)
    def test_there_and_back(self, mask: np.ndarray) -> None:
        rle = to_rle(mask)
        assert rle["size"] == list(mask.shape)
        np.testing.assert_array_equal(from_rle(rle), mask)

    @given(some_masks)
    def test_pycocotools_sees_the_same_area_and_box(self, mask: np.ndarray) -> None:
        rle = to_rle(mask)
        x0, y0, x1, y1 = bbox(mask)
        assert coco.area(rle) == mask.sum()
        assert coco.toBbox(rle).tolist() == [x0, y0, x1 - x0, y1 - y0]

    def test_the_text_is_cocos(self) -> None:
        """Column by column: 2 outside, 3 inside, 1 outside; text as in the COCO API."""
        mask = np.array([[0, 1, 1], [0, 1, 0]], bool)
        assert to_rle(mask) == {"size": [2, 3], "counts": "231"}

    def test_a_mask_that_lies_otherwise_in_memory(self) -> None:
        mask = box_mask(3, 4, 9, 7).T[::-1]
        np.testing.assert_array_equal(from_rle(to_rle(mask)), mask)


class TestPolygons:
    def test_a_box_is_its_four_corner_pixels(self) -> None:
        (polygon,) = to_polygons(box_mask(3, 4, 13, 9))
        assert sorted(zip(polygon[::2], polygon[1::2], strict=True)) == [(3, 4), (3, 8), (12, 4), (12, 8)]

    def test_polygons_drawn_again_have_the_area_of_the_mask(self) -> None:
        mask = np.zeros((120, 160), np.uint8)
        cv2.ellipse(mask, (50, 60), (40, 25), 30, 0, 360, 1, -1)
        cv2.circle(mask, (130, 30), 15, 1, -1)
        polygons = to_polygons(mask.astype(bool))
        assert len(polygons) == 2
        assert fill(polygons, mask).sum() == mask.sum()
        outlines = sum(cv2.contourArea(np.array(polygon, np.float32).reshape(-1, 2)) for polygon in polygons)
        assert outlines == pytest.approx(mask.sum(), rel=0.1)

    @given(some_masks)
    def test_polygons_drawn_again_cover_at_most_the_mask_with_its_holes_filled(self, mask: np.ndarray) -> None:
        drawn = fill(to_polygons(mask), mask)
        padded = np.pad(mask.astype(np.uint8), 1)
        outside = np.zeros((padded.shape[0] + 2, padded.shape[1] + 2), np.uint8)
        cv2.floodFill(padded, outside, (0, 0), 2)
        assert not (drawn & (padded == 2)[1:-1, 1:-1]).any()

    def test_a_hole_is_filled(self) -> None:
        ring = box_mask(2, 2, 18, 18) & ~box_mask(6, 6, 10, 10)
        polygons = to_polygons(ring)
        assert len(polygons) == 1
        np.testing.assert_array_equal(fill(polygons, ring), box_mask(2, 2, 18, 18))

    @pytest.mark.parametrize("box", [(0, 0, 0, 0), (4, 4, 5, 5), (4, 4, 12, 5)], ids=["empty", "dot", "line"])
    def test_what_has_fewer_than_three_corners_is_left_out(self, box: tuple[int, int, int, int]) -> None:
        assert to_polygons(box_mask(*box)) == []


class TestPng:
    @given(some_masks)
    def test_inside_is_255_and_outside_is_0(self, mask: np.ndarray) -> None:
        picture = Image.open(io.BytesIO(to_png(mask)))
        assert picture.format == "PNG"
        assert picture.mode == "L"
        np.testing.assert_array_equal(np.array(picture), np.where(mask, 255, 0))


class TestBox:
    @pytest.mark.parametrize("box", [(3, 4, 13, 9), (0, 0, 30, 20), (29, 19, 30, 20), (0, 0, 0, 0)])
    def test_the_box_of_a_box(self, box: tuple[int, int, int, int]) -> None:
        assert bbox(box_mask(*box)) == box

    def test_the_box_holds_all_parts(self) -> None:
        assert bbox(box_mask(1, 2, 3, 4) | box_mask(20, 10, 22, 15)) == (1, 2, 22, 15)
