"""Masks in the forms others read: COCO run lengths, polygons, PNG, boxes."""

import warnings
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool
from pycocotools import mask as coco


def to_rle(mask: Bool[np.ndarray, "H W"]) -> dict[str, Any]:
    """COCO compressed run lengths: `{"size": [H, W], "counts": text}`."""
    encoded = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def from_rle(rle: dict[str, Any]) -> Bool[np.ndarray, "H W"]:
    """The mask of compressed run lengths."""
    with warnings.catch_warnings():  # pycocotools 2.0.11 still has an __array__ of NumPy 1
        warnings.simplefilter("ignore", DeprecationWarning)
        return coco.decode({"size": rle["size"], "counts": rle["counts"].encode("ascii")}).astype(bool)


def to_polygons(mask: Bool[np.ndarray, "H W"]) -> list[list[float]]:
    """Outlines as COCO polygons, `[x0, y0, x1, y1, ...]` in pixels, one for each connected part.

    Corners are the middles of the outermost pixels: `cv2.fillPoly` draws the part again exactly, tools that take
    corners for edges draw it up to half a pixel thinner. Polygons have no holes: a hole is filled. Parts of fewer than
    three corners (single pixels, straight lines) are left out. Run lengths are exact.
    """
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [contour.reshape(-1).astype(float).tolist() for contour in contours if len(contour) >= 3]


def to_png(mask: Bool[np.ndarray, "H W"]) -> bytes:
    """Lossless 8-bit grey PNG: 255 inside, 0 outside."""
    _, data = cv2.imencode(".png", mask.astype(np.uint8) * 255)
    return data.tobytes()


def bbox(mask: Bool[np.ndarray, "H W"]) -> tuple[int, int, int, int]:
    """Tight box, xyxy in pixels, x1 and y1 exclusive; all zeros for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return (0, 0, 0, 0)
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
