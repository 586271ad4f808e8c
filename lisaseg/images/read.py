"""Hop one: whatever a caller has for a picture becomes upright 8-bit RGB, or one clear error."""

import io
import os
import struct
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from lisaseg.config import ImageLimits
from lisaseg.errors import ImageError

ImageSource = str | os.PathLike | bytes | BinaryIO | Image.Image | np.ndarray
"""What may be given for a picture: path, encoded bytes, binary file, PIL picture, or HWC uint8 RGB array."""

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, KeyError, TypeError, ZeroDivisionError)
"""What Pillow's decoders raise on damaged files."""


def read(source: ImageSource, limits: ImageLimits | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """Reads a picture.

    EXIF orientation is applied, the first frame of animations is taken, transparency is laid on white, 16-bit and
    float pictures are scaled down to 8 bits, CMYK and palettes are converted.

    Args:
        source: path, encoded bytes, binary file (left open), PIL picture (left as it is), or array: HWC uint8 RGB,
            also RGBA, HW or HW1 grey.
        limits: largest size that is read.

    Returns:
        HWC uint8 RGB.

    Raises:
        ImageError: it is missing, not a picture, damaged, or over the limits.
    """
    limits = limits or ImageLimits()
    if isinstance(source, np.ndarray):
        return _from_array(source, limits)
    if isinstance(source, Image.Image):
        return _to_rgb(source, "the picture", limits)
    name, data = _load(source, limits)
    with _opened(data, name) as image:
        return _to_rgb(image, name, limits)


def _load(source: Any, limits: ImageLimits) -> tuple[str, bytes]:
    """A name for messages, and the encoded bytes."""
    limit = limits.max_megabytes * 1_000_000
    if isinstance(source, bytes | bytearray | memoryview):
        name, data = "the picture given as bytes", bytes(source[: limit + 1])
    elif isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        data = _read_file(Path(name), limit)
    elif hasattr(source, "read"):
        name, data = str(getattr(source, "name", "the picture given as a file")), source.read(limit + 1)
    else:
        raise ImageError(
            f"expected a picture as a path, bytes, binary file, PIL image or numpy array, got {type(source).__name__}"
        )
    if not isinstance(data, bytes):
        raise ImageError(f"{name} is open as text; open it in binary mode ('rb')")
    if not data:
        raise ImageError(f"{name} is empty (0 bytes); expected a picture such as JPEG or PNG")
    if len(data) > limit:
        raise ImageError(f"{name} is larger than {limits.max_megabytes} MB; raise the limit with --max-megabytes")
    return name, data


def _read_file(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except FileNotFoundError as error:
        raise ImageError(f"no picture at {path}: the file does not exist") from error
    except IsADirectoryError as error:
        raise ImageError(f"{path} is a folder; expected a picture") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _opened(data: bytes, name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():  # the size is checked by _to_rgb, with a limit of our own
            warnings.simplefilter("ignore")
            return Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} claims too many pixels to be a picture: {error}") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not a picture in a known format (JPEG, PNG, WebP, TIFF, ...)") from error
    except _BROKEN as error:
        raise ImageError(f"{name} is damaged: {error}") from error


def _to_rgb(image: Image.Image, name: str, limits: ImageLimits) -> UInt8[np.ndarray, "H W 3"]:
    width, height = image.size
    _check_pixels(height, width, name, limits)
    try:
        image.load()
        upright = _upright(image)
        return np.ascontiguousarray(np.asarray(_flatten(_to_8_bit(upright))))
    except _BROKEN as error:
        raise ImageError(f"{name} is damaged or cut short: {error}") from error


def _check_pixels(height: int, width: int, name: str, limits: ImageLimits) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels ({width}x{height})")
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{name} has {width}x{height} pixels, over the limit of {limits.max_pixels}; "
            "raise it with --max-pixels or ImageLimits(max_pixels=...)"
        )


def _upright(image: Image.Image) -> Image.Image:
    """Turned by its EXIF orientation; damaged EXIF data is passed over, as it is no part of the picture."""
    try:
        return ImageOps.exif_transpose(image)
    except _BROKEN:
        return image


def _to_8_bit(image: Image.Image) -> Image.Image:
    """16-bit integers lose their low byte; wider integers and floats are spread over their own range."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image).astype(np.float64)
    if image.mode.startswith("I;16") or (image.mode == "I" and 0 <= values.min() and 255 < values.max() <= 65535):
        return Image.fromarray((values / 256).astype(np.uint8))
    values = np.nan_to_num(values)
    low, high = float(values.min()), float(values.max())
    if image.mode == "F" and 0 <= low and high <= 1:
        low, high = 0.0, 1.0
    elif 0 <= low and high <= 255:
        low, high = 0.0, 255.0
    return Image.fromarray(np.round((values - low) * (255 / max(high - low, 1e-12))).astype(np.uint8))


def _flatten(image: Image.Image) -> Image.Image:
    """RGB, with anything transparent laid on white."""
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _from_array(array: np.ndarray, limits: ImageLimits) -> UInt8[np.ndarray, "H W 3"]:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(
            f"expected an array of uint8 with shape (H, W, 3), got {array.dtype} with shape {array.shape}; "
            "scale other types to 0..255 and put channels last"
        )
    _check_pixels(array.shape[0], array.shape[1], "the array", limits)
    if array.ndim == 3 and array.shape[2] == 3:
        return np.ascontiguousarray(array)
    squeezed = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    return np.ascontiguousarray(np.asarray(_flatten(Image.fromarray(np.ascontiguousarray(squeezed)))))
