import numpy as np
import pytest
import torch

from lisaseg.config import AskOptions
from lisaseg.language.tokenizer import IMAGE_ID
from lisaseg.model.answer import answer
from lisaseg.model.generate import decode_steps
from lisaseg.model.lisa import Lisa, states_before
from lisaseg.model.processor import Inputs, Processor
from lisaseg.model.stopwatch import Stopwatch
from lisaseg.segmenter import Segmenter


@pytest.fixture
def lisa(tiny_model: str) -> Lisa:
    return Segmenter.load(tiny_model).lisa


@pytest.fixture
def processor(tiny_model: str) -> Processor:
    return Segmenter.load(tiny_model).processor


def pictures(number: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, 256, (90 + 10 * i, 120, 3), dtype=np.uint8) for i in range(number)]


def read_all(lisa: Lisa, inputs: Inputs) -> torch.Tensor:
    """Last hidden states of a batch without a cache."""
    embeddings = lisa.embed(inputs.token_ids_BL, lisa.see(inputs.pixels.vlm), inputs.picture_of_row_B)
    positions = (inputs.attention_mask_BL.cumsum(dim=1) - 1).clamp(min=0)
    return lisa.read(embeddings, inputs.attention_mask_BL, positions, use_cache=False)


@torch.inference_mode()
def test_cached_steps_equal_reading_everything_again(lisa: Lisa, processor: Processor) -> None:
    inputs = processor(pictures(), [(0, [("Segment the dog.", None)])])
    embeddings = lisa.embed(inputs.token_ids_BL, lisa.see(inputs.pixels.vlm), inputs.picture_of_row_B)
    steps = list(decode_steps(lisa, embeddings, inputs.attention_mask_BL, 6))
    tokens = torch.stack([step.tokens_B for step in steps], dim=1)
    whole = torch.cat([embeddings, lisa.vlm.get_input_embeddings()(tokens)], dim=1)
    states = lisa.read(whole, torch.ones(whole.shape[:2], dtype=torch.long), use_cache=False)
    start = embeddings.shape[1] - 1
    for number, step in enumerate(steps):
        torch.testing.assert_close(step.states_BD, states[:, start + number], atol=1e-4, rtol=1e-4)
        assert lisa.vlm.lm_head(states[:, start + number]).argmax(dim=-1) == step.tokens_B


@torch.inference_mode()
def test_left_padding_changes_nothing(lisa: Lisa, processor: Processor) -> None:
    short, long = (
        [("Segment the dog.", None)],
        [("Which of these animals would you rather have at home, and why?", None)],
    )
    images = pictures(2)
    together = read_all(lisa, processor(images, [(0, short), (1, long)]))
    alone = read_all(lisa, processor(images[:1], [(0, short)]))
    torch.testing.assert_close(together[0, -1], alone[0, -1], atol=1e-4, rtol=1e-4)


def test_the_picture_stands_where_its_marker_is(lisa: Lisa, processor: Processor) -> None:
    inputs = processor(pictures(), [(0, [("Segment the dog.", None)])])
    features = torch.full((1, lisa.config.num_image_tokens, lisa.config.text.hidden_size), 7.0)
    embeddings = lisa.embed(inputs.token_ids_BL, features, inputs.picture_of_row_B)
    is_picture = inputs.token_ids_BL == IMAGE_ID
    assert is_picture.sum() == lisa.config.num_image_tokens
    assert (embeddings[is_picture] == 7).all()
    assert (embeddings[~is_picture] != 7).any()


def test_each_row_reads_its_own_picture(lisa: Lisa, processor: Processor) -> None:
    rows = [(1, [("Segment the dog.", None)]), (0, [("Segment the dog.", None)])]
    inputs = processor(pictures(2), rows)
    features = torch.stack(
        [torch.full((lisa.config.num_image_tokens, lisa.config.text.hidden_size), f) for f in (1.0, 2.0)]
    )
    embeddings = lisa.embed(inputs.token_ids_BL, features, inputs.picture_of_row_B)
    is_picture = inputs.token_ids_BL == IMAGE_ID
    assert (embeddings[0][is_picture[0]] == 2).all()
    assert (embeddings[1][is_picture[1]] == 1).all()


def test_the_state_before_seg_is_the_one_that_draws() -> None:
    ids = torch.tensor([[5, 9, 6, 9], [9, 5, 5, 5]])
    states = torch.arange(8.0).reshape(2, 4, 1)
    found, rows = states_before(states, ids, seg_id=9)
    assert found.flatten().tolist() == [0.0, 2.0]
    assert rows.tolist() == [0, 0]


@torch.inference_mode()
def test_all_masks_of_a_batch_equal_masks_one_by_one(lisa: Lisa) -> None:
    side, width = lisa.config.segmenter_side, lisa.config.text.hidden_size
    torch.manual_seed(0)
    embeddings, states = lisa.look(torch.randn(2, 3, side, side)), torch.randn(3, width)
    together, iou = lisa.draw(states, embeddings, torch.tensor([0, 1, 1]))
    assert together.shape == (3, side // 4, side // 4)
    assert iou.shape == (3,)
    for number, picture in enumerate((0, 1, 1)):
        alone, _ = lisa.draw(states[number : number + 1], embeddings, torch.tensor([picture]))
        torch.testing.assert_close(alone[0], together[number], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_many_masks_take_several_calls_and_come_out_the_same(lisa: Lisa, monkeypatch: pytest.MonkeyPatch) -> None:
    side, width = lisa.config.segmenter_side, lisa.config.text.hidden_size
    torch.manual_seed(0)
    embeddings, states, pictures = lisa.look(torch.randn(2, 3, side, side)), torch.randn(5, width), torch.arange(5) % 2
    together, iou = lisa.draw(states, embeddings, pictures)
    monkeypatch.setattr("lisaseg.model.lisa.MASKS_PER_CALL", 2)
    in_calls, iou_in_calls = lisa.draw(states, embeddings, pictures)
    torch.testing.assert_close(in_calls, together, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(iou_in_calls, iou, atol=1e-4, rtol=1e-4)


def test_no_seg_draws_no_mask(lisa: Lisa) -> None:
    side = lisa.config.segmenter_side
    masks, iou = lisa.draw(
        torch.zeros(0, lisa.config.text.hidden_size),
        torch.zeros(1, 128, side // 16, side // 16),
        torch.zeros(0, dtype=torch.long),
    )
    assert masks.shape == (0, side // 4, side // 4)
    assert iou.shape == (0,)


def test_the_encoder_of_the_segmenter_can_learn(lisa: Lisa) -> None:
    side = lisa.config.segmenter_side
    lisa.look(torch.randn(1, 3, side, side)).sum().backward()
    assert lisa.segmenter.vision_encoder.patch_embed.projection.weight.grad is not None


def test_an_answer_is_no_longer_than_asked(lisa: Lisa, processor: Processor) -> None:
    inputs = processor(pictures(), [(0, [("Segment the dog.", None)])])
    options = AskOptions(max_new_tokens=3)
    (reply,) = answer(lisa, processor.tokenizer, inputs, options, Stopwatch(device=lisa.device))
    assert len(reply.token_ids) <= 3


def test_an_answer_never_outgrows_the_positions_of_the_model(lisa: Lisa, processor: Processor) -> None:
    inputs = processor(pictures(), [(0, [("dog " * 60, None)])])
    lisa.config.text.max_position_embeddings = inputs.token_ids_BL.shape[1] + 2
    with torch.no_grad():
        lisa.vlm.lm_head.weight[processor.tokenizer.eos_id] = -1e3 * lisa.vlm.lm_head.weight.mean(dim=0)
    (reply,) = answer(lisa, processor.tokenizer, inputs, AskOptions(max_new_tokens=50), Stopwatch(device=lisa.device))
    assert len(reply.token_ids) <= 2
