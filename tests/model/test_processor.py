import numpy as np
import pytest
import torch

from lisaseg.errors import InstructionError
from lisaseg.language.tokenizer import IMAGE_ID
from lisaseg.model.processor import ImageSize, Processor
from lisaseg.segmenter import Segmenter


@pytest.fixture(scope="module")
def processor(tiny_model: str) -> Processor:
    return Segmenter.load(tiny_model).processor


def test_rows_are_padded_on_the_left(processor: Processor) -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    inputs = processor(
        [picture], [(0, [("Segment the dog.", None)]), (0, [("Segment the large brown dog, please.", None)])]
    )
    short, long = inputs.attention_mask_BL
    assert long.all()
    assert short[-1] == 1
    assert short[0] == 0
    assert (inputs.token_ids_BL[0][short == 0] == processor.tokenizer.pad_id).all()
    assert inputs.picture_of_row_B.tolist() == [0, 0]
    assert inputs.pixels.vlm.shape[0] == 1


def test_an_answered_turn_is_part_of_the_prompt(processor: Processor) -> None:
    first = processor.encode([("Segment the dog.", None)])
    second = processor.encode([("Segment the dog.", "It is the dog [SEG]."), ("And the cat?", None)])
    assert second[: len(first)] == first
    assert processor.tokenizer.seg_id in second
    assert second.count(IMAGE_ID) == processor.config.num_image_tokens


@pytest.mark.parametrize("words", ["", "   ", "\n\t"])
def test_an_empty_instruction_is_refused(processor: Processor, words: str) -> None:
    with pytest.raises(InstructionError, match="empty"):
        processor.encode([(words, None)])


def test_a_book_is_refused_with_its_length_and_the_limit(processor: Processor) -> None:
    with pytest.raises(
        InstructionError, match=rf"takes \d+ tokens and this model reads {processor.config.max_prompt_tokens}"
    ):
        processor.encode([("dog " * 10_000, None)])


def test_a_picture_marker_in_the_words_adds_no_picture(processor: Processor) -> None:
    ids = processor.encode([("Segment the <image> in this <image>.", None)])
    assert ids.count(IMAGE_ID) == processor.config.num_image_tokens


@pytest.mark.parametrize("size", [(1, 1), (200, 20000), (20000, 200), (1, 3000), (3000, 1), (480, 640)])
def test_masks_come_back_at_the_size_of_any_picture(processor: Processor, size: tuple[int, int]) -> None:
    pixels = processor.pixels([np.full((*size, 3), 99, np.uint8)])
    side = processor.segmenter_side
    assert pixels.segmenter.shape == (1, 3, side, side)
    assert pixels.sizes[0].original == size
    masks = processor.restore(torch.ones(2, side // 4, side // 4), pixels.sizes[0])
    assert masks.shape == (2, *size)
    assert masks.dtype == torch.float32
    assert (masks == 1).all()


def test_padding_is_cut_off_before_a_mask_is_scaled_up(processor: Processor) -> None:
    side = processor.segmenter_side
    low = torch.full((1, side // 4, side // 4), -1.0)
    low[:, : side // 8] = 1.0  # the upper half of the square is the whole of a picture of 2:1
    restored = processor.restore(low, ImageSize(original=(100, 200), resized=(side // 2, side)))
    assert (restored[0, :90] > 0).all()


def test_segmenter_pixels_are_normalised_and_padded_with_zero_after_that(processor: Processor) -> None:
    side = processor.segmenter_side
    white = processor.pixels([np.full((side // 2, side, 3), 255, np.uint8)]).segmenter
    expected = (torch.ones(3) - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(white[0, :, 0, 0], expected, atol=1e-5, rtol=0)
    assert (white[0, :, side // 2 :] == 0).all()


def test_bytes_of_another_encoding_in_the_words_are_read_as_question_marks(processor: Processor) -> None:
    assert processor.encode([("dog \udcff", None)]) == processor.encode([("dog ?", None)])


def test_a_hair_of_a_picture_costs_no_more_than_a_picture(processor: Processor) -> None:
    pixels = processor.pixels([np.full((1, 1_000_000, 3), 50, np.uint8)])
    assert pixels.sizes[0].original == (1, 1_000_000)
    assert pixels.segmenter.shape[-1] == processor.segmenter_side
