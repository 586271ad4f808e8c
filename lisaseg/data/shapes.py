"""Masks from what people draw: labelme's polygons as LISA's data was drawn, and COCO's polygons and run lengths."""

from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from pycocotools import mask as coco

from lisaseg.errors import DataError
from lisaseg.images.masks import from_rle


def draw_polygon(canvas: UInt8[np.ndarray, "H W"], points: Any, value: int) -> None:
    """Fills a polygon of (x, y) pixels into a mask, its outline included, as ReasonSeg's own code does.

    Coordinates are cut to whole pixels; what lies outside the picture is left out.

    Raises:
        DataError: the points are no polygon.
    """
    try:
        corners = np.asarray(points, np.float64)
        if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) == 0 or not np.isfinite(corners).all():
            raise ValueError
        corners = np.clip(corners, -30_000, 30_000).astype(np.int32)[None]
    except (TypeError, ValueError) as error:
        raise DataError(f"expected a polygon as points [x, y], got {str(points)[:60]}") from error
    cv2.polylines(canvas, [corners[0]], isClosed=True, color=value, thickness=1)
    cv2.fillPoly(canvas, [corners[0]], color=value)


def coco_mask(segmentation: Any, height: int, width: int) -> UInt8[np.ndarray, "H W"]:
    """0 and 1 from COCO's `segmentation`: polygons (taken together), or run lengths, compressed or not.

    Raises:
        DataError: it is neither, or of another size.
    """
    try:
        if isinstance(segmentation, dict):
            if [int(side) for side in segmentation["size"]] != [height, width]:
                raise DataError(f"expected a mask of {height}x{width} pixels, got {segmentation['size']}")
            if isinstance(segmentation["counts"], list):
                encoded = coco.frPyObjects(segmentation, height, width)
                return from_rle({"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}).view(np.uint8)
            return from_rle(segmentation).view(np.uint8)
        polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
        if not polygons:
            return np.zeros((height, width), np.uint8)
        merged = coco.merge(coco.frPyObjects(polygons, height, width))
        return from_rle({"size": merged["size"], "counts": merged["counts"].decode("ascii")}).view(np.uint8)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise DataError(f"expected COCO polygons or run lengths, got {str(segmentation)[:60]}") from error
