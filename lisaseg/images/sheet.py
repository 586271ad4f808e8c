"""Contact sheets: many pictures with a line of words each, for people who look rather than read."""

from collections.abc import Sequence
from math import ceil

from PIL import Image, ImageDraw, ImageFont, ImageOps

MARGIN = 8
"""Pixels around each picture."""


def contact_sheet(
    pictures: Sequence[tuple[Image.Image, str]], columns: int = 4, cell: tuple[int, int] = (300, 240)
) -> Image.Image:
    """A grid of pictures, each scaled into its cell (width, height in pixels), its caption below in at most two lines.

    Raises:
        ValueError: there is no picture.
    """
    if not pictures:
        raise ValueError("a contact sheet needs at least one picture")
    font = ImageFont.load_default(13)
    width, height = cell[0] + MARGIN, cell[1] + 2 * MARGIN + 34
    columns = min(columns, len(pictures))
    sheet = Image.new("RGB", (MARGIN + columns * width, MARGIN + ceil(len(pictures) / columns) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (picture, caption) in enumerate(pictures):
        x, y = MARGIN + number % columns * width, MARGIN + number // columns * height
        fitted = ImageOps.contain(picture.convert("RGB"), cell)
        sheet.paste(fitted, (x + (cell[0] - fitted.width) // 2, y + (cell[1] - fitted.height) // 2))
        pen.multiline_text((x, y + cell[1] + MARGIN), _wrap(caption, pen, font, cell[0]), font=font, fill="black")
    return sheet


def _wrap(text: str, pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text in two lines of that many pixels, cut with an ellipsis where it is longer."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or pen.textlength(longer, font=font) <= width:
            lines[-1] = longer
        elif len(lines) == 2:
            lines[-1] += "…"
            break
        else:
            lines.append(word)
    return "\n".join(lines)
