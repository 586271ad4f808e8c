"""Hop one: whatever a caller has for a picture becomes upright 8-bit RGB, or one clear error."""

import hashlib
import io
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from lisaseg.config import ImageLimits
from lisaseg.errors import ImageError

ImageSource = str | os.PathLike | bytes | BinaryIO | Image.Image | np.ndarray
"""What may be given for a picture: path, encoded bytes, binary file, PIL picture, or HWC uint8 RGB array."""

_BROKEN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What Pillow's decoders raise on damaged files: each its own kind, AVIF a RuntimeError, DDS a NotImplementedError."""

_NO_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
"""Formats that Pillow knows but cannot decode by itself; for EPS it would run Ghostscript."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture upright, by its EXIF orientation."""

_quiet_lock = threading.Lock()


def read(source: ImageSource, limits: ImageLimits | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """Reads a picture.

    EXIF orientation is applied, the first frame of animations is taken, transparency is laid on white, 16-bit and
    float pictures are scaled down to 8 bits, CMYK and palettes are converted.

    Args:
        source: path, encoded bytes, binary file (read from where it stands, left open), PIL picture (left as it is, at
            its current frame), or array: HWC uint8 RGB, also RGBA, HW or HW1 grey.
        limits: largest size that is read, by default `ImageLimits()`.

    Returns:
        HWC uint8 RGB, the caller's own to change.

    Raises:
        ImageError: it is missing, not a picture, damaged, or over the limits.
    """
    limits = limits or ImageLimits()
    if isinstance(source, np.ndarray):
        return _from_array(source, limits)
    if isinstance(source, Image.Image):
        return _to_rgb(source, "the picture", limits)
    name, data = _load(source, limits)
    with _open(data, name) as image:
        return _to_rgb(image, name, limits)


def digest(image: UInt8[np.ndarray, "H W 3"]) -> str:
    """Equal for pictures whose every pixel is equal, wherever they come from."""
    return hashlib.blake2b(
        np.ascontiguousarray(image).data, digest_size=16, salt=b"%dx%d" % image.shape[:2]
    ).hexdigest()


def _load(source: Any, limits: ImageLimits) -> tuple[str, bytes]:
    """A name for messages, and the encoded bytes."""
    limit = limits.max_megabytes * 1_000_000
    if isinstance(source, bytes | bytearray | memoryview):
        name, data = "the picture given as bytes", bytes(source[: limit + 1])
    elif isinstance(source, str | os.PathLike):
        path = Path(os.fsdecode(source))
        name = _shown(str(path))
        data = _read_path(path, name, limit)
    elif hasattr(source, "read"):
        name = getattr(source, "name", None)
        name = _shown(name) if isinstance(name, str) else "the picture given as a file"
        data = _read_file(source, name, limit)
    else:
        raise ImageError(
            f"expected a picture as a path, bytes, binary file, PIL image or numpy array, got {type(source).__name__}"
        )
    if not data:
        raise ImageError(f"{name} is empty (0 bytes, or read to its end); expected a picture such as JPEG or PNG")
    if len(data) > limit:
        raise ImageError(
            f"{name} is larger than {limits.max_megabytes} MB; "
            "raise the limit with --max-megabytes or ImageLimits(max_megabytes=...)"
        )
    return name, data


def _read_path(path: Path, name: str, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except FileNotFoundError as error:
        raise ImageError(f"there is no picture {name}: the file does not exist; check the path") from error
    except IsADirectoryError as error:
        raise ImageError(f"{name} is a folder; expected a picture, name a file in it") from error
    except PermissionError as error:
        raise ImageError(f"cannot read {name}: you have no permission to; change its access rights") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot read {name}: {_reason(error)}; check the path") from error


def _read_file(file: Any, name: str, limit: int) -> bytes:
    try:
        data = file.read(limit + 1)
    except UnicodeDecodeError:
        data = None
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot read {name}: {_reason(error)}; open it anew in binary mode ('rb')") from error
    if not isinstance(data, bytes):
        raise ImageError(f"{name} is open as text; open it in binary mode ('rb')")
    return data


def _open(data: bytes, name: str) -> Image.Image:
    """The picture with its header read, its pixels not decoded yet."""
    try:
        with _quiet():
            image = _identify(data)
    except Image.DecompressionBombError as error:
        raise _too_big_for_pillow(name) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name} is not a picture in a known format: expected JPEG, PNG, WebP, TIFF, ..., "
            f"got {len(data)} bytes of something else"
        ) from error
    except _BROKEN as error:
        raise _damaged(name, error) from error
    return image


def _identify(data: bytes) -> Image.Image:
    """`Image.open` without Pillow's limit on pixels, which is global to the process: the caller checks its own.

    Raises:
        UnidentifiedImageError: no format fits.
    """
    Image.init()
    for format_name in Image.ID:
        factory, accepts = Image.OPEN[format_name]
        accepted = accepts is None or accepts(data[:16])
        if format_name in _NO_PICTURES or not accepted or isinstance(accepted, str):  # a text says what is missing
            continue
        try:
            return factory(io.BytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # by Pillow's rule: another format
            continue
    raise UnidentifiedImageError("no format fits")


def _to_rgb(image: Image.Image, name: str, limits: ImageLimits) -> UInt8[np.ndarray, "H W 3"]:
    width, height = image.size
    _check_pixels(height, width, name, limits)
    noisy = image.format == "ICO" or width * height > (Image.MAX_IMAGE_PIXELS or width * height)
    try:
        with _quiet() if noisy else nullcontext():  # the others decode side by side
            image.load()
        turn = _turn(image)
    except Image.DecompressionBombError as error:
        raise _too_big_for_pillow(name) from error
    except _BROKEN as error:
        raise _damaged(name, error) from error
    upright = image if turn is None else image.transpose(turn)
    try:
        return np.array(_flatten(_to_8_bit(upright)))
    except ValueError as error:
        raise ImageError(
            f"{name} has colours of a kind that cannot be read ({image.mode}): save it as RGB, for example as PNG"
        ) from error


def _check_pixels(height: int, width: int, name: str, limits: ImageLimits) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels ({width}x{height}); expected at least 1x1")
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{name} has {width}x{height} pixels, over the limit of {limits.max_pixels}; "
            "raise it with --max-pixels or ImageLimits(max_pixels=...)"
        )


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes it upright by its EXIF data; damaged EXIF data is passed over, as it is no part of the picture."""
    try:
        with _quiet():
            return _TURNS.get(image.getexif().get(_ORIENTATION))
    except _BROKEN:
        return None


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Integers of 16 bits and more, and floats, scaled to 0..255; other modes as they are."""
    if not image.mode.startswith(("I", "F")):
        return image
    with np.errstate(invalid="ignore"):  # of NaN, some kinds warn when cast
        values = np.asarray(image).astype(np.float32 if image.mode.startswith("I;16") else np.float64)
    finite = values[np.isfinite(values)]
    low, high = _value_range(image.mode, finite if finite.size else np.zeros(1))
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    return Image.fromarray(np.round((values - low) * (255 / max(high - low, 1e-12))).astype(np.uint8))


def _value_range(mode: str, values: np.ndarray) -> tuple[float, float]:
    """The values that become black and white: the narrowest usual range that holds all, else the picture's own."""
    if mode.startswith("I;16"):
        return 0.0, 65535.0
    low, high = float(values.min()), float(values.max())
    usual = (1.0, 255.0) if mode == "F" else (255.0, 65535.0)
    return next(((0.0, top) for top in usual if low >= 0 and high <= top), (low, high))


def _flatten(image: Image.Image) -> Image.Image:
    """RGB, with anything transparent laid on white."""
    if image.mode in ("La", "RGBa"):  # premultiplied
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if "A" in image.getbands() or "transparency" in image.info:
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
        return np.array(array, order="C")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    return np.array(_flatten(Image.fromarray(np.ascontiguousarray(array))))


@contextmanager
def _quiet() -> Generator[None]:
    """Silences Pillow's warnings, and nobody else's; one thread at a time, as the filters belong to the process."""
    with _quiet_lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


def _shown(path: str) -> str:
    """A path in a message: on one line, and not endless."""
    line = "".join(letter if letter.isprintable() else "?" for letter in path)
    return line if len(line) <= 200 else f"{line[:100]}…{line[-99:]}"


def _damaged(name: str, error: Exception) -> ImageError:
    return ImageError(f"{name} is damaged or cut short ({_reason(error)}); get a whole copy of it")


def _too_big_for_pillow(name: str) -> ImageError:
    return ImageError(
        f"{name} has more pixels than Pillow decodes in its format; make it smaller, or save it as PNG or JPEG"
    )


def _reason(error: Exception) -> str:
    """One line: the system's or decoder's words, or the kind of error where there are none."""
    words = " ".join(str(getattr(error, "strerror", None) or error).split())
    return words or type(error).__name__
