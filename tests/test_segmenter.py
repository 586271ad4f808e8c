from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lisaseg.config import AskOptions, ImageLimits
from lisaseg.errors import CheckpointError, ImageError, InstructionError
from lisaseg.model.lisa import Lisa
from lisaseg.segmenter import Segmenter


@pytest.fixture(scope="module")
def talker(talking_model: str) -> Segmenter:
    return Segmenter.load(talking_model)


@pytest.fixture
def picture() -> np.ndarray:
    """The kind of picture that the talking model has learned to answer about."""
    image = np.zeros((120, 160, 3), np.uint8)
    image[30:90, 40:110] = (200, 60, 40)
    return image


def test_an_answer_has_words_and_a_mask_for_each_seg(talker: Segmenter, picture: np.ndarray) -> None:
    answer = talker.segment(picture, "Segment the dog.", options=AskOptions(max_new_tokens=20))
    assert answer.raw_text == "It is the dog [SEG]."
    assert answer.text == "It is the dog."
    (segment,) = answer.segments
    assert segment.phrase == "the dog"
    assert segment.logits.shape == segment.mask.shape == (120, 160)
    assert segment.logits.dtype == np.float32
    assert answer.timings["total"] == pytest.approx(sum(v for k, v in answer.timings.items() if k != "total"))


def test_a_batch_answers_as_one_by_one(talker: Segmenter, picture: np.ndarray) -> None:
    other = np.full((50, 90, 3), 77, np.uint8)
    pairs = [
        (picture, "Segment the dog."),
        (other, "Where is the small brown dog in this image?"),
        (picture, "Find it."),
    ]
    together = talker.segment_batch(pairs, batch_size=3, options=AskOptions(max_new_tokens=12))
    for answer, (image, text) in zip(together, pairs, strict=True):
        alone = talker.segment(image, text, options=AskOptions(max_new_tokens=12))
        assert answer.raw_text == alone.raw_text
        assert len(answer.segments) == len(alone.segments)
        for one, other_segment in zip(answer.segments, alone.segments, strict=True):
            np.testing.assert_allclose(one.logits, other_segment.logits, atol=1e-3)


def test_a_batch_encodes_each_picture_once(
    talker: Segmenter, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    look = Lisa.look
    monkeypatch.setattr(Lisa, "look", lambda self, pixels: (encoded.append(len(pixels)), look(self, pixels))[1])
    talker.segment_batch([(picture, "Segment the dog."), (picture, "Find it.")], options=AskOptions(max_new_tokens=2))
    assert encoded == [1]


def test_a_long_list_is_cut_into_batches_in_order(talker: Segmenter, picture: np.ndarray) -> None:
    answers = talker.segment_batch(
        [(picture, f"Segment dog {i}.") for i in range(5)], batch_size=2, options=AskOptions(max_new_tokens=2)
    )
    assert [answer.instruction for answer in answers] == [f"Segment dog {i}." for i in range(5)]
    assert talker.segment_batch([]) == []


def test_answers_are_deterministic(talker: Segmenter, picture: np.ndarray) -> None:
    one, same = (talker.segment(picture, "Segment the dog.", options=AskOptions(max_new_tokens=12)) for _ in range(2))
    assert one.raw_text == same.raw_text
    assert np.array_equal(one.segments[0].logits, same.segments[0].logits)


def test_the_source_keeps_its_name(talker: Segmenter, picture: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "dog.png"
    Image.fromarray(picture).save(path)
    assert talker.segment(path, "Find it.", options=AskOptions(max_new_tokens=1)).source == str(path)
    assert talker.segment(path.read_bytes(), "Find it.", options=AskOptions(max_new_tokens=1)).source == "image"
    with Image.open(path) as opened, path.open("rb") as file:
        assert talker.segment(opened, "Find it.", options=AskOptions(max_new_tokens=1)).source == str(path)
        assert talker.segment(file, "Find it.", options=AskOptions(max_new_tokens=1)).source == str(path)


def test_masks_have_the_size_of_any_picture(talker: Segmenter) -> None:
    for height, width in ((1, 1), (200, 3000), (3000, 20)):
        answer = talker.segment(
            np.zeros((height, width, 3), np.uint8), "Segment the dog.", options=AskOptions(max_new_tokens=12)
        )
        assert all(segment.mask.shape == (height, width) for segment in answer.segments)
        assert answer.overlay().size == (width, height)


def test_half_precision_answers_too(talking_model: str, picture: np.ndarray) -> None:
    segmenter = Segmenter.load(talking_model, dtype="bf16")
    assert segmenter.lisa.dtype == torch.bfloat16
    answer = segmenter.segment(picture, "Segment the dog.", options=AskOptions(max_new_tokens=12))
    assert all(segment.logits.dtype == np.float32 for segment in answer.segments)


def test_mistakes_of_callers_are_told(talker: Segmenter, picture: np.ndarray) -> None:
    with pytest.raises(InstructionError, match="empty"):
        talker.segment(picture, " ")
    with pytest.raises(ImageError, match="does not exist"):
        talker.segment("nowhere.jpg", "Segment the dog.")
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        talker.segment_batch([(picture, "x")], batch_size=0)
    with pytest.raises(ValueError, match="--max-new-tokens"):
        talker.segment(picture, "x", options=AskOptions(max_new_tokens=0))
    with pytest.raises(CheckpointError, match="unknown model"):
        Segmenter.load("nobody")


def test_limits_hold_for_every_picture(talking_model: str, picture: np.ndarray) -> None:
    small = Segmenter.load(talking_model, limits=ImageLimits(max_pixels=100))
    with pytest.raises(ImageError, match="limit of 100"):
        small.segment(picture, "Segment the dog.")
