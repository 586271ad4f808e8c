"""Masks drawn over their picture: each in its own colour, outlined, with a short label."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

PALETTE = (
    (230, 80, 20),
    (0, 130, 240),
    (0, 165, 110),
    (220, 60, 160),
    (245, 175, 0),
    (95, 60, 190),
    (60, 200, 235),
    (150, 105, 45),
)
"""RGB colours that stay apart for colour-blind eyes, after Okabe and Ito; they repeat after the eighth mask."""


def overlay(
    image: UInt8[np.ndarray, "H W 3"],
    masks: Sequence[Bool[np.ndarray, "H W"]],
    labels: Sequence[str] = (),
    opacity: float = 0.5,
) -> Image.Image:
    """The picture with masks tinted, outlined and labelled.

    Args:
        image: HWC uint8 RGB.
        masks: one for each thing, at the picture's size; later ones lie on top.
        labels: words for the tags, in the order of the masks; a missing or empty one draws no tag.
        opacity: strength of the tint, 0 to 1.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be between 0 and 1, got {opacity}")
    canvas = image.copy()
    line = max(1, round(_side(image.shape[0], image.shape[1]) / 350))
    for index, mask in enumerate(masks):
        color = np.array(PALETTE[index % len(PALETTE)], np.float32)
        canvas[mask] = (canvas[mask] * (1 - opacity) + color * opacity).astype(np.uint8)
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, contours, -1, (255, 255, 255), line + 2 * (line > 1), cv2.LINE_AA)
        cv2.drawContours(canvas, contours, -1, color.tolist(), line, cv2.LINE_AA)
    drawn = Image.fromarray(canvas)
    for index, (mask, label) in enumerate(zip(masks, labels, strict=False)):
        if label and mask.any():
            _tag(drawn, mask, label, PALETTE[index % len(PALETTE)])
    return drawn


def _tag(picture: Image.Image, mask: Bool[np.ndarray, "H W"], label: str, color: tuple[int, int, int]) -> None:
    """A label on the mask's colour at the mask's middle; left out where the picture is too small to read one."""
    size = max(9, round(_side(*picture.size) / 38))
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size)
    text = _shorten(label, pen, font, picture.width - size)
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    pad = max(2, size // 4)
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    if not text or width > picture.width or height > picture.height:
        return
    x, y = _middle(mask)
    x = min(max(0, x - width // 2), picture.width - width)
    y = min(max(0, y - height // 2), picture.height - height)
    pen.rounded_rectangle((x, y, x + width, y + height), radius=pad, fill=color)
    pen.text((x + pad - left, y + pad - top), text, font=font, fill=_readable_on(color))


def _side(height: int, width: int) -> int:
    """The side that lines and letters are scaled by: the long one, but a strip counts as 4 times as long as wide."""
    return min(max(height, width), 4 * min(height, width))


def _middle(mask: Bool[np.ndarray, "H W"]) -> tuple[int, int]:
    """x, y of the mask's innermost pixel, so that the tag lies on the thing even if it is bent."""
    distance = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    return int(x), int(y)


def _shorten(
    label: str, pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> str:
    """The label on one line, or its beginning and an ellipsis, at most 32 characters and as wide as given."""
    line = " ".join(label.split())
    text = line if len(line) <= 32 else f"{line[:31].rstrip()}…"
    while text and pen.textlength(text, font=font) > width:
        text = f"{text.removesuffix('…')[:-1].rstrip()}…" if len(text) > 2 else ""
    return text


def _readable_on(color: tuple[int, int, int]) -> str:
    red, green, blue = color
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else "white"
