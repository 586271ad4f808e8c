"""Polygons that give a mask back to the pixel when they are drawn, holes included, for formats that know only polygons.

A hole is cut into its part by a slit of no width: the polygon walks along a row of the part's own pixels to the hole,
around it, and back.
"""

import cv2
import numpy as np
from jaxtyping import Bool

Point = tuple[int, int]
"""x and y, in pixels."""


def outlines(mask: Bool[np.ndarray, "H W"]) -> list[list[Point]]:
    """A polygon for each connected part of a mask, of three points at least.

    Corners are the middles of pixels: `shapes.draw_polygon` draws the mask again exactly.
    """
    contours, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if tree is None:
        return []
    rings = [[(int(x), int(y)) for x, y in contour.reshape(-1, 2)] for contour in contours]
    parents = tree[0][:, 3].tolist()
    polygons = []
    for number, ring in enumerate(rings):
        if parents[number] < 0:
            holes = [rings[other] for other, parent in enumerate(parents) if parent == number]
            polygons.append(_corners(_with_holes(ring, holes, mask)))
    return polygons


def _with_holes(ring: list[Point], holes: list[list[Point]], mask: Bool[np.ndarray, "H W"]) -> list[Point]:
    """One walk around a part and its holes. The slit of a hole leads left, so those further left come first."""
    for hole in sorted(holes, key=min):
        start = hole.index(min(hole))
        x, y = hole[start]
        while x > 0 and mask[y, x - 1]:
            x -= 1
        place = ring.index((x, y)) if (x, y) in ring else _nearest(ring, hole[start])
        around = [*hole[start:], *hole[: start + 1]]
        ring = [*ring[: place + 1], *around, *ring[place:]]
    return ring


def _nearest(ring: list[Point], point: Point) -> int:
    return int(np.abs(np.array(ring) - np.array(point)).sum(axis=1).argmin())


def _corners(ring: list[Point]) -> list[Point]:
    """The walk without the points along which it goes straight on."""
    points = np.array(ring)
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    straight = (np.sign(before) == np.sign(after)).all(axis=1)
    straight &= (np.abs(before).max(axis=1) <= 1) & (np.abs(after).max(axis=1) <= 1)
    kept = [point for point, goes_on in zip(ring, straight.tolist(), strict=True) if not goes_on] or ring[:1]
    return [kept[place % len(kept)] for place in range(max(3, len(kept)))]
