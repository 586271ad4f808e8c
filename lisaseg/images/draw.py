"""Masks drawn over their picture: each in its own colour, outlined, with a short label."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

from lisaseg.images.masks import bbox

Box = tuple[int, int, int, int]
"""xyxy in pixels, x1 and y1 exclusive."""
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PALETTE = (
    (0, 120, 240),
    (240, 110, 0),
    (0, 170, 115),
    (225, 95, 175),
    (250, 205, 0),
    (90, 50, 170),
    (80, 200, 240),
    (140, 70, 30),
)
"""RGB colours that stay apart for colour-blind eyes, after Okabe and Ito; they repeat after the eighth mask."""


def overlay(
    image: UInt8[np.ndarray, "H W 3"],
    masks: Sequence[Bool[np.ndarray, "H W"]],
    labels: Sequence[str] = (),
    opacity: float = 0.5,
    colors: Sequence[int] | None = None,
) -> Image.Image:
    """The picture with masks tinted, outlined and labelled.

    Args:
        image: HWC uint8 RGB.
        masks: one for each thing, at the picture's size; later ones lie on top.
        labels: words for the tags, in the order of the masks; a missing or empty one draws no tag.
        opacity: strength of the tint, 0 to 1.
        colors: places in `PALETTE`, by default in the order of the masks.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be between 0 and 1, got {opacity}")
    canvas = image.copy()
    line = max(1, round(_side(image.shape[:2]) / 240))
    palette = [PALETTE[place % len(PALETTE)] for place in colors or range(len(masks))]
    for mask, rgb in zip(masks, palette, strict=True):
        color = np.array(rgb, np.float32)
        canvas[mask] = (canvas[mask] * (1 - opacity) + color * opacity).astype(np.uint8)
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, contours, -1, (255, 255, 255), line + 2 * (line > 1), cv2.LINE_AA)
        cv2.drawContours(canvas, contours, -1, color.tolist(), line, cv2.LINE_AA)
    drawn = Image.fromarray(canvas)
    taken: list[Box] = []
    for mask, label, rgb in zip(masks, labels, palette, strict=False):
        if label.strip() and mask.any():
            taken += _tag(drawn, mask, label, rgb, taken)
    return drawn


def _side(shape: Sequence[int]) -> float:
    """Side in pixels of the square that measures sizes: the picture's area, but no panorama's length."""
    height, width = shape
    return min(math.sqrt(height * width), 5.0 * min(height, width))


def _tag(
    picture: Image.Image, mask: Bool[np.ndarray, "H W"], label: str, color: tuple[int, int, int], taken: Sequence[Box]
) -> list[Box]:
    """Draws a label on the mask's colour and returns its box; none where the picture is too small to read one."""
    size = max(9, round(_side(picture.size) / 30))
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size)
    pad = max(2, size // 4)
    room = min(picture.width, max(3 * picture.width // 5, 8 * size)) - 2 * pad
    text = _shorten(label, pen, font, room)
    top, bottom = pen.textbbox((0, 0), "Ag", font=font)[1::2]  # the same height for all words
    width, height = math.ceil(pen.textlength(text, font=font)) + 2 * pad, math.ceil(bottom - top) + 2 * pad
    if not text or width > picture.width or 3 * height > picture.height:
        return []
    x0, y0, x1, y1 = _place((width, height), bbox(mask), picture.size, taken)
    pen.rounded_rectangle((x0, y0, x1 - 1, y1 - 1), radius=pad, fill=color)
    pen.text((x0 + pad, y0 + pad - top), text, font=font, fill=_readable_on(color))
    return [(x0, y0, x1, y1)]


def _place(size: tuple[int, int], around: Box, frame: tuple[int, int], taken: Sequence[Box]) -> Box:
    """Where a tag goes: above the thing, below it or across its top, middle or bottom, within the frame.

    The first of these places that hides no other tag, or the one above where there is none.
    """
    width, height = size
    x0, y0, x1, y1 = around
    x = min(max(0, (x0 + x1 - width) // 2), frame[0] - width)
    heights = (y0 - height, y1, y0, (y0 + y1 - height) // 2, y1 - height)
    fitting = [y for y in heights if 0 <= y <= frame[1] - height]
    places = [(x, y, x + width, y + height) for y in fitting or [min(max(0, y0), frame[1] - height)]]
    return next((place for place in places if not any(_overlap(place, other) for other in taken)), places[0])


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _shorten(label: str, pen: ImageDraw.ImageDraw, font: Font, width: int) -> str:
    """The label, or its beginning and an ellipsis, at most 32 characters, in one line and as wide as given."""
    text = " ".join(label.split())
    text = text if len(text) <= 32 else f"{text[:31].rstrip()}…"
    while text and pen.textlength(text, font=font) > width:
        text = f"{text.removesuffix('…')[:-1].rstrip()}…" if len(text) > 2 else ""
    return text


def _readable_on(color: tuple[int, int, int]) -> str:
    red, green, blue = color
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else "white"
