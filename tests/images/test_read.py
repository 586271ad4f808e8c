import io
import os
import struct
import zlib
from collections.abc import Callable
from inspect import unwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from lisaseg.config import ImageLimits
from lisaseg.errors import ImageError
from lisaseg.images.read import read

RED = np.full((5, 7, 3), (200, 30, 40), np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
read_unchecked: Callable[..., np.ndarray] = unwrap(read)
"""As outside the tests, where no annotation is checked at run time."""


def encode(picture: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """An 8-bit grey PNG, its header followed by the chunks given."""
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (header, *chunks)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def message_of(source: Any, limits: ImageLimits | None = None) -> str:
    """What a person is told when a picture cannot be read: always one line."""
    with pytest.raises(ImageError) as caught:
        read_unchecked(source, limits)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "red.png"
    file.write_bytes(encode(Image.fromarray(RED)))
    return file


class TestSources:
    def test_a_path_as_text_or_path(self, path: Path) -> None:
        np.testing.assert_array_equal(read(str(path)), RED)
        np.testing.assert_array_equal(read(path), RED)

    def test_a_path_with_odd_letters(self, path: Path) -> None:
        odd = path.rename(path.with_name("ein bild – 猫.png"))
        np.testing.assert_array_equal(read(odd), RED)

    def test_a_path_like_of_bytes(self, path: Path) -> None:
        with os.scandir(os.fsencode(path.parent)) as entries:
            np.testing.assert_array_equal(read_unchecked(next(entries)), RED)

    def test_bytes(self, path: Path) -> None:
        np.testing.assert_array_equal(read(path.read_bytes()), RED)

    def test_a_file_is_read_from_where_it_stands_and_left_open(self, path: Path) -> None:
        file = io.BytesIO(b"a header of its own" + path.read_bytes())
        file.seek(19)
        np.testing.assert_array_equal(read_unchecked(file), RED)
        assert not file.closed

    def test_an_open_file_on_disk(self, path: Path) -> None:
        with path.open("rb") as file:
            np.testing.assert_array_equal(read(file), RED)
            assert not file.closed

    def test_a_pil_picture_is_left_as_it_is(self) -> None:
        picture = Image.fromarray(RED).convert("RGBA")
        before = picture.copy()
        np.testing.assert_array_equal(read(picture), RED)
        assert picture == before

    def test_a_pil_picture_that_is_not_decoded_yet(self, path: Path) -> None:
        with Image.open(path) as picture:
            np.testing.assert_array_equal(read(picture), RED)

    def test_an_array_is_copied(self) -> None:
        array = RED.copy()
        found = read(array)
        found[:] = 0
        np.testing.assert_array_equal(array, RED)

    def test_the_result_may_be_changed_whatever_the_source(self, path: Path) -> None:
        for source in (path, path.read_bytes(), Image.open(path), RED, RED[..., 0]):
            assert read(source).flags.writeable

    def test_an_array_seen_backwards(self) -> None:
        np.testing.assert_array_equal(read(NOISE[::-1, ::-2, ::-1]), NOISE[::-1, ::-2, ::-1])

    @pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1)])
    def test_a_grey_array(self, shape: tuple[int, ...]) -> None:
        np.testing.assert_array_equal(read(np.full(shape, 90, np.uint8)), np.full((5, 7, 3), 90))

    def test_a_transparent_array_is_laid_on_white(self) -> None:
        array = np.zeros((1, 3, 4), np.uint8)
        array[0, :, 3] = (0, 102, 255)
        assert read(array)[0, :, 0].tolist() == [255, 153, 0]


class TestModes:
    @pytest.mark.parametrize(
        "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV"]
    )
    def test_a_colour_survives(self, mode: str) -> None:
        color = (255, 255, 255) if mode in ("1", "L", "LA", "La") else (200, 30, 40)
        picture = Image.new("RGB", (7, 5), color)
        for step in {"La": ("LA", "La"), "RGBa": ("RGBA", "RGBa"), "PA": ("P", "PA")}.get(mode, (mode,)):
            picture = picture.quantize(2) if step == "P" else picture.convert(step)
        found = read(picture)
        assert found.shape == (5, 7, 3)
        assert found.dtype == np.uint8
        np.testing.assert_allclose(found, np.full((5, 7, 3), color), atol=4)

    def test_a_mode_that_pillow_cannot_convert(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """LAB is one in the older versions of Pillow."""

        def refuse(*_: object) -> None:
            raise ValueError("conversion from LAB to RGB not supported")

        monkeypatch.setattr(Image.Image, "convert", refuse)
        message = message_of(Image.new("LAB", (2, 2)))
        assert "has colours of a kind that cannot be read (LAB): save it as RGB" in message

    @pytest.mark.parametrize("mode", ["LA", "PA", "RGBA"])
    def test_what_is_transparent_becomes_white(self, mode: str) -> None:
        picture = Image.new("RGBA", (4, 4), (0, 0, 0, 0)).convert(mode)
        np.testing.assert_array_equal(read(picture), np.full((4, 4, 3), 255))

    @pytest.mark.parametrize("transparency", [0, b"\x00\xff"], ids=["one index", "alpha for each index"])
    def test_a_palette_with_transparency(self, transparency: int | bytes) -> None:
        picture = Image.new("P", (2, 1))
        picture.putpalette([0, 0, 0, 200, 30, 40])
        picture.putpixel((1, 0), 1)
        found = read(encode(picture, transparency=transparency))
        assert found.tolist() == [[[255, 255, 255], [200, 30, 40]]]

    def test_one_colour_of_an_rgb_png_may_be_transparent(self) -> None:
        picture = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
        assert read(encode(picture, transparency=(1, 2, 3))).tolist() == [[[255, 255, 255], [4, 5, 6]]]

    @pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
    def test_16_bits_are_scaled(self, file_format: str) -> None:
        values = np.array([[0, 257, 32896, 65535]], np.uint16)
        found = read(encode(Image.fromarray(values), file_format))
        assert found[0].tolist() == [[value] * 3 for value in (0, 1, 128, 255)]

    @pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
    def test_every_order_of_16_bits(self, mode: str) -> None:
        assert read(Image.new(mode, (2, 2), 32896)).tolist() == np.full((2, 2, 3), 128).tolist()

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([0, 100, 255], [0, 100, 255]),
            ([0, 257, 65535], [0, 1, 255]),
            ([-1000, 0, 1000], [0, 128, 255]),
            ([7, 7, 7], [7, 7, 7]),
            ([-7, -7, -7], [0, 0, 0]),
        ],
        ids=["8 bits", "16 bits", "own range", "flat", "flat and negative"],
    )
    def test_32_bit_integers_are_scaled_from_the_range_they_seem_to_have(
        self, values: list[int], expected: list[int]
    ) -> None:
        found = read(Image.fromarray(np.array([values], np.int32)))
        assert found[0].tolist() == [[value] * 3 for value in expected]

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([0, 0.5, 1], [0, 128, 255]),
            ([0, 100, 255], [0, 100, 255]),
            ([-1, 0, 3], [0, 64, 255]),
            ([0, np.nan, np.inf, -np.inf, 1], [0, 0, 255, 0, 255]),
            ([np.nan, np.nan], [0, 0]),
            ([-3e38, 0, 3e38], [0, 128, 255]),
        ],
        ids=["0..1", "0..255", "own range", "not finite", "nothing finite", "huge"],
    )
    def test_floats_are_scaled_from_the_range_they_seem_to_have(self, values: list[float], expected: list[int]) -> None:
        found = read(Image.fromarray(np.array([values], np.float32)))
        assert found[0].tolist() == [[value] * 3 for value in expected]

    def test_a_signalling_nan_is_black(self) -> None:
        values = np.frombuffer(struct.pack("<If", 0x7F800001, 255.0), np.float32)[None]
        assert read(Image.fromarray(values))[0, :, 0].tolist() == [0, 255]


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("file_format", ["PNG", "TIFF", "JPEG", "WEBP"])
    def test_a_picture_is_turned_upright(self, orientation: int, file_format: str) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options = {"quality": 100, "exif": exif} | ({"lossless": True} if file_format == "WEBP" else {})
        picture = Image.fromarray(np.kron(NOISE[:3, :4], np.ones((16, 16, 1), np.uint8)))
        data = encode(picture, file_format, **options)
        expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        found = read(data)
        assert found.shape == ((48, 64, 3) if orientation < 5 else (64, 48, 3))
        np.testing.assert_array_equal(found, expected)

    def test_a_pil_picture_is_turned_but_its_own_pixels_stay(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        picture = Image.open(io.BytesIO(encode(Image.fromarray(NOISE), exif=exif)))
        np.testing.assert_array_equal(read(picture), np.rot90(NOISE, -1))
        assert picture.size == (32, 24)

    @pytest.mark.parametrize("orientation", [0, 9, 65535])
    def test_an_orientation_that_does_not_exist_turns_nothing(self, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        np.testing.assert_array_equal(read(encode(Image.fromarray(NOISE), exif=exif)), NOISE)

    @pytest.mark.parametrize(
        "exif",
        [
            b"",
            b"Exif\x00\x00",
            b"Exif\x00\x00garbage",
            b"Exif\x00\x00II*\x00\xff\xff\xff\xff",
            b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff",
            b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x02\x00\x12\x01\x03\x00\xff\xff\xff\xff\x06\x00\x00\x00",
            b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x02\x00\x00\x00\x09\x00\x00\x00\xf0\x00\x00",
        ],
    )
    @pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
    def test_damaged_exif_data_is_passed_over(self, exif: bytes, file_format: str) -> None:
        assert read(encode(Image.fromarray(NOISE), file_format, exif=exif)).shape == NOISE.shape

    @given(st.binary(max_size=80))
    def test_any_exif_data_is_passed_over(self, tail: bytes) -> None:
        exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00" + tail
        assert read(encode(Image.fromarray(RED), "JPEG", exif=exif)).size == RED.size


class TestShapes:
    @pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
    def test_the_first_frame_of_many(self, file_format: str) -> None:
        first, second = (Image.new("RGB", (8, 8), color) for color in ("white", "black"))
        data = encode(first, file_format, save_all=True, append_images=[second])
        np.testing.assert_array_equal(read(data), np.full((8, 8, 3), 255))

    def test_a_pil_picture_is_read_at_its_frame(self) -> None:
        frames = [Image.new("L", (8, 8), value) for value in (255, 0)]
        picture = Image.open(io.BytesIO(encode(frames[0], "GIF", save_all=True, append_images=frames[1:])))
        picture.seek(1)
        np.testing.assert_array_equal(read(picture), np.zeros((8, 8, 3)))
        assert picture.tell() == 1

    @pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
    def test_one_pixel(self, file_format: str) -> None:
        found = read(encode(Image.new("RGB", (1, 1), "white"), file_format))
        assert found.tolist() == [[[255, 255, 255]]]

    @pytest.mark.parametrize("size", [(20_000, 200), (200, 20_000)])
    def test_a_strip(self, size: tuple[int, int]) -> None:
        assert read(encode(Image.new("L", size), compress_level=1)).shape == (size[1], size[0], 3)

    def test_an_icon_whose_header_lies_about_its_size(self) -> None:
        icon = bytearray(encode(Image.new("RGB", (32, 32), "white"), "ICO"))
        icon[6:8] = (16, 16)
        assert read(bytes(icon)).shape == (32, 32, 3)


class TestLimits:
    def test_pixels_are_counted_before_they_are_decoded(self) -> None:
        """There is nothing to decode here: any look at the pixels would call the file damaged."""
        message = message_of(png(60_000, 60_000, (b"IDAT", b"")))
        assert "has 60000x60000 pixels, over the limit of 200000000" in message
        assert "--max-pixels" in message

    @pytest.mark.parametrize("source", [RED, Image.fromarray(RED), encode(Image.fromarray(RED))])
    def test_the_limit_holds_for_every_source(self, source: Any) -> None:
        assert "7x5 pixels, over the limit of 34" in message_of(source, ImageLimits(max_pixels=34))
        assert read(source, ImageLimits(max_pixels=35)).shape == (5, 7, 3)

    def test_only_our_limit_counts_and_pillow_is_silent_about_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        for file_format in ("PNG", "JPEG", "BMP"):
            assert read(encode(Image.fromarray(NOISE), file_format)).shape == NOISE.shape

    def test_a_format_in_which_pillow_keeps_its_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        icon = encode(Image.fromarray(NOISE), "ICO", sizes=[(24, 24)])
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        assert "more pixels than Pillow decodes" in message_of(icon)

    def test_pillow_without_a_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        np.testing.assert_array_equal(read(encode(Image.fromarray(NOISE))), NOISE)

    def test_the_encoded_size_is_limited_whatever_it_holds(self, tmp_path: Path) -> None:
        data = encode(Image.fromarray(RED)) + bytes(1_000_001)
        (tmp_path / "large.png").write_bytes(data)
        for source in (data, tmp_path / "large.png", io.BytesIO(data)):
            message = message_of(source, ImageLimits(max_megabytes=1))
            assert "is larger than 1 MB" in message
            assert "--max-megabytes" in message


class TestBadInput:
    def test_a_missing_file(self, tmp_path: Path) -> None:
        message = message_of(tmp_path / "none.jpg")
        assert "none.jpg: the file does not exist; check the path" in message

    def test_a_folder(self, tmp_path: Path) -> None:
        assert "is a folder; expected a picture" in message_of(tmp_path)
        assert ". is a folder" in message_of("")

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
    def test_a_file_that_may_not_be_read(self, path: Path) -> None:
        path.chmod(0)
        assert "no permission" in message_of(path)

    @pytest.mark.parametrize("name", ["x" * 5000, "a/" * 5000 + "a.png"])
    def test_a_path_that_is_too_long_is_not_repeated_whole(self, name: str) -> None:
        message = message_of(name)
        assert "File name too long; check the path" in message
        assert len(message) < 300

    def test_a_path_with_a_nul(self) -> None:
        assert "cannot read a?b.png" in message_of("a\0b.png")

    def test_a_path_of_several_lines_is_told_in_one(self) -> None:
        assert "there is no picture first?second.png" in message_of("first\nsecond.png")

    def test_a_path_that_is_no_text(self) -> None:
        message = message_of(os.fsdecode(b"\xff.png"))
        assert "there is no picture ?.png" in message
        assert message.encode()

    def test_a_text_file_named_jpg(self, tmp_path: Path) -> None:
        (tmp_path / "notes.jpg").write_text("Dear diary, no pixels today.")
        message = message_of(tmp_path / "notes.jpg")
        assert "notes.jpg is not a picture in a known format" in message
        assert "expected JPEG, PNG" in message
        assert "got 28 bytes of something else" in message

    def test_zero_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "empty.jpg").touch()
        assert "empty.jpg is empty (0 bytes" in message_of(tmp_path / "empty.jpg")
        assert "is empty" in message_of(b"")

    def test_a_file_that_was_read_before(self, path: Path) -> None:
        with path.open("rb") as file:
            file.read()
            assert "red.png is empty (0 bytes, or read to its end)" in message_of(file)

    @pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
    def test_a_file_cut_short(self, file_format: str, tmp_path: Path) -> None:
        data = encode(Image.fromarray(NOISE), file_format)
        (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
        message = message_of(tmp_path / "cut.jpg")
        assert "cut.jpg is damaged or cut short" in message
        assert "get a whole copy of it" in message

    def test_damaged_pixels(self) -> None:
        data = png(8, 8, (b"IDAT", b"no zlib stream"), (b"IEND", b""))
        assert "the picture given as bytes is damaged or cut short" in message_of(data)

    @pytest.mark.skipif("AVIF" not in Image.registered_extensions().values(), reason="this Pillow reads no AVIF")
    def test_a_decoder_that_raises_what_others_do_not(self) -> None:
        data = bytearray(encode(Image.fromarray(NOISE), "AVIF"))
        start = data.index(b"mdat") + 4
        data[start:] = bytes(len(data) - start)
        assert "is damaged or cut short" in message_of(bytes(data))

    def test_no_program_is_started_for_eps(self, tmp_path: Path) -> None:
        data = encode(Image.fromarray(RED), "EPS")
        assert "is not a picture in a known format" in message_of(data)

    def test_a_file_open_as_text(self, path: Path, tmp_path: Path) -> None:
        (tmp_path / "plain.txt").write_text("plain")
        for file in (path, tmp_path / "plain.txt"):
            with file.open(encoding="utf-8") as text:
                message = message_of(text)
                assert f"{file} is open as text; open it in binary mode ('rb')" in message

    def test_a_closed_file(self, path: Path) -> None:
        with path.open("rb") as file:
            pass
        assert "red.png: read of closed file" in message_of(file)

    def test_a_file_open_for_writing(self, tmp_path: Path) -> None:
        with (tmp_path / "new.png").open("wb") as file:
            assert "new.png: read" in message_of(file)

    def test_a_closed_pil_picture(self, path: Path) -> None:
        with Image.open(path) as picture:
            pass
        assert "the picture is damaged or cut short" in message_of(picture)

    @pytest.mark.parametrize(
        "array",
        [
            np.zeros((4, 4, 3), np.float32),
            np.zeros((4, 4, 3), np.int64),
            np.zeros((3, 4, 5), np.uint8),
            np.zeros((4, 4, 2), np.uint8),
            np.zeros((1, 4, 4, 3), np.uint8),
            np.zeros(4, np.uint8),
            np.zeros((), np.uint8),
            np.zeros((4, 4), bool),
        ],
        ids=lambda array: f"{array.dtype}{array.shape}",
    )
    def test_an_array_of_another_kind(self, array: np.ndarray) -> None:
        message = message_of(array)
        assert f"expected an array of uint8 with shape (H, W, 3), got {array.dtype}" in message
        assert "scale other types to 0..255" in message

    @pytest.mark.parametrize(
        "source", [np.zeros((0, 4, 3), np.uint8), np.zeros((4, 0), np.uint8), Image.new("RGB", (0, 3))]
    )
    def test_no_pixels(self, source: Any) -> None:
        assert "has no pixels" in message_of(source)

    @pytest.mark.parametrize("source", [3, None, ["a.jpg"]])
    def test_something_else(self, source: Any) -> None:
        message = message_of(source)
        assert f"or numpy array, got {type(source).__name__}" in message


def _whole_files() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(NOISE)
    return [
        encode(picture, "JPEG", exif=exif),
        encode(picture, "JPEG", progressive=True, quality=40),
        encode(picture, "PNG", exif=exif),
        encode(picture.quantize(16), "PNG", transparency=3),
        encode(picture, "WEBP", exif=exif),
        encode(picture.convert("RGBA"), "WEBP", lossless=True),
        encode(picture, "GIF", save_all=True, append_images=[picture]),
        encode(picture, "TIFF", exif=exif),
    ]


WHOLE_FILES = _whole_files()


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    """A whole file with some bytes changed, some left out and its end cut off."""
    data = bytearray(draw(st.sampled_from(WHOLE_FILES)))
    for _ in range(draw(st.integers(0, 6))):
        data[draw(st.integers(0, len(data) - 1) | st.integers(0, 60))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        start = draw(st.integers(0, len(data)))
        del data[start : start + draw(st.integers(1, 40))]
    return bytes(data[: draw(st.integers(0, len(data)) | st.just(len(data)))])


class TestFuzz:
    """Warnings are errors here, so these also show that Pillow's stay inside."""

    @given(st.binary(max_size=400))
    def test_any_bytes_are_read_or_refused(self, data: bytes) -> None:
        self.read_or_refuse(data)

    @given(
        st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x20\0\0\0WEBP", b"GIF89a", b"BM", b"II*\0"]),
        st.binary(max_size=200),
    )
    def test_any_bytes_after_a_known_beginning_are_read_or_refused(self, start: bytes, data: bytes) -> None:
        self.read_or_refuse(start + data)

    @settings(max_examples=500)
    @given(damaged_files())
    def test_damaged_files_are_read_or_refused(self, data: bytes) -> None:
        self.read_or_refuse(data)

    @staticmethod
    def read_or_refuse(data: bytes) -> None:
        limits = ImageLimits(max_pixels=1_000_000)
        try:
            found = read(data, limits)  # of the right type and shape: that is checked
        except ImageError as error:
            message = str(error)
        else:
            message = f"read {found.shape}"
        assert len(message.splitlines()) == 1
