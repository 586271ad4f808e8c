"""Parity: what the original code answered with the same weights, in fp32."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from lisaseg.config import AskOptions
from lisaseg.images.read import read
from lisaseg.language.tokenizer import IMAGE_ID, Tokenizer
from lisaseg.model.answer import answer
from lisaseg.model.checkpoints import open_checkpoint
from lisaseg.model.lisa import Lisa, states_before
from lisaseg.model.official import read_official_config, rename, rename_clip
from lisaseg.model.processor import ImageSize, Inputs, Pixels
from lisaseg.model.stopwatch import Stopwatch
from lisaseg.segmenter import Segmenter
from lisaseg.training.losses import IGNORE_LABEL, answer_loss, bce_loss, dice_loss

GOLDEN = Path(__file__).parents[1] / "golden"
LLAVA_V1 = GOLDEN / "llava_v1"
RECORD = json.loads((LLAVA_V1 / "golden.json").read_text("utf-8"))
ARRAYS = load_file(LLAVA_V1 / "golden.safetensors")
FORMULA = json.loads((GOLDEN / "formula" / "fixture.json").read_text("utf-8"))
FORMULA_ARRAYS: dict[str, NDArray[Any]] = dict(np.load(GOLDEN / "formula" / "fixture.npz"))

every_case = pytest.mark.parametrize("case", RECORD["cases"], ids=lambda case: case["key"])
both_pictures = pytest.mark.parametrize("picture", [0, 1])


def close(found: Tensor, expected: Tensor | NDArray[Any], tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected), atol=tolerance, rtol=0)


@pytest.fixture(scope="module")
def golden() -> Segmenter:
    return Segmenter.load(str(LLAVA_V1 / "checkpoint"), device="cpu")


def folded(ids: list[int]) -> list[int]:
    """The picture as the one id of the original, which is not yet expanded to all its positions."""
    return [number for place, number in enumerate(ids) if number != IMAGE_ID or ids[place - 1] != IMAGE_ID]


class TestGolden:
    @every_case
    def test_token_ids_words_and_masks(self, golden: Segmenter, case: dict[str, Any]) -> None:
        processor, picture = golden.processor, read(LLAVA_V1 / case["image"])
        inputs = processor([picture], [(0, [(case["question"], None)])])
        assert folded(inputs.token_ids_BL[0].tolist()) == case["prompt_ids"]
        (reply,) = answer(golden.lisa, processor.tokenizer, inputs, AskOptions(), Stopwatch(device=golden.lisa.device))
        assert [*reply.token_ids, processor.tokenizer.eos_id] == case["output_ids"][len(case["prompt_ids"]) :]
        assert len(reply.logits_Nhw) == case["num_masks"]
        if case["num_masks"]:
            masks = processor.restore(reply.logits_Nhw, inputs.pixels.sizes[0])
            assert masks.shape[1:] == (case["height"], case["width"])
            close(masks[:, ::7, ::7], ARRAYS[f"{case['key']}.mask_logits"])

    @both_pictures
    def test_pixels_and_image_embedding(self, golden: Segmenter, picture: int) -> None:
        pixels = golden.processor.pixels([read(LLAVA_V1 / f"scene{picture}.png")])
        close(pixels.vlm[0, :, ::16, ::16], ARRAYS[f"image{picture}.clip_pixels"], 1e-6)
        close(pixels.segmenter[0, :, ::32, ::32], ARRAYS[f"image{picture}.sam_pixels"], 1e-6)
        embedding = golden.lisa.look(pixels.segmenter)
        close(embedding[0, :, ::8, ::8], ARRAYS[f"image{picture}.sam_embedding"])

    def test_all_cases_in_one_batch(self, golden: Segmenter) -> None:
        pairs = [(LLAVA_V1 / case["image"], case["question"]) for case in RECORD["cases"]]
        for case, found in zip(RECORD["cases"], golden.segment_batch(pairs, batch_size=10), strict=True):
            assert len(found.segments) == case["num_masks"]
            for segment, expected in zip(found.segments, ARRAYS[f"{case['key']}.mask_logits"], strict=False):
                close(torch.from_numpy(segment.logits[::7, ::7]), expected)

    def test_parity_changes_nothing_in_fp32(self, golden: Segmenter) -> None:
        strict = Segmenter.load(str(LLAVA_V1 / "checkpoint"), device="cpu", parity=True)
        pair = (LLAVA_V1 / "scene0.png", RECORD["cases"][3]["question"])
        for one, other in zip(golden.segment(*pair).segments, strict.segment(*pair).segments, strict=True):
            assert np.array_equal(one.logits, other.logits)

    def test_training_losses(self, golden: Segmenter) -> None:
        """Image 0, two dialogues, every token learned that follows another, discs for masks, weights 1, 2 and 0.5."""
        processor, lisa, training = golden.processor, golden.lisa, RECORD["training"]
        picture = read(LLAVA_V1 / "scene0.png")
        dialogues = [_turn(prompt) for prompt in training["prompts"]]
        inputs = processor([picture], [(0, dialogue) for dialogue in dialogues])
        is_word = (inputs.attention_mask_BL == 1) & (inputs.token_ids_BL != IMAGE_ID)
        is_word &= inputs.token_ids_BL != processor.tokenizer.bos_id  # first in its row, whatever padding stands before
        labels = inputs.token_ids_BL.masked_fill(~is_word, IGNORE_LABEL)
        with torch.no_grad():
            pictures = lisa.encode(inputs.pixels.vlm, inputs.pixels.segmenter)
            states = _read(lisa, inputs, pictures.vlm_IPD)
            drawn, rows = states_before(states, inputs.token_ids_BL, processor.tokenizer.seg_id)
            low, _ = lisa.draw(drawn, pictures.segmenter_ICHW, inputs.picture_of_row_B[rows])
            logits = processor.restore(low, inputs.pixels.sizes[0])
            targets = _discs(picture.shape[0], picture.shape[1], (0.2, 0.3, 0.1))
            found = {
                "ce_loss": answer_loss(lisa.vlm.lm_head, states, labels),
                "mask_bce_loss": 2.0 * bce_loss(logits, targets),
                "mask_dice_loss": 0.5 * dice_loss(logits, targets),
            }
        for name, loss in found.items():
            assert float(loss) == pytest.approx(training["losses"][name], abs=1e-4), name
        assert float(sum(found.values())) == pytest.approx(training["losses"]["loss"], abs=1e-4)


def _turn(prompt: str) -> list[tuple[str, str | None]]:
    question, said = prompt.split("<im_end>\n")[1].split(" ASSISTANT: ")
    return [(question, said.removesuffix("</s>"))]


def _read(lisa: Lisa, inputs: Inputs, vlm_IPD: Tensor) -> Tensor:
    """Last hidden states of whole rows."""
    positions = (inputs.attention_mask_BL.cumsum(dim=1) - 1).clamp(min=0)
    embeddings = lisa.embed(inputs.token_ids_BL, vlm_IPD, inputs.picture_of_row_B)
    return lisa.read(embeddings, inputs.attention_mask_BL, positions)


def _discs(height: int, width: int, radii: tuple[float, ...]) -> Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    distance = ((y - 0.4 * height) ** 2 + (x - 0.5 * width) ** 2).sqrt()
    return torch.stack([(distance <= radius * min(height, width)).float() for radius in radii])


@pytest.fixture(scope="module")
def formula() -> Lisa:
    """The network whose weights are a formula of their names' order and their elements' numbers."""
    names = json.loads((GOLDEN / "formula" / "names.json").read_text("utf-8"))
    weights = {name: _formula_weight(name, shape, place) for place, (name, shape) in enumerate(names)}
    clip = {name: tensor for name, tensor in weights.items() if "vision_tower" in name}
    prefix = "model.vision_tower.vision_tower.vision_model."
    record = dict(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        mm_hidden_size=32,
    )
    vision = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, patch_size=14)
    config = read_official_config(Path("nowhere"), record, vision)
    for name, value in dict(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, global_attn_indexes=[1], mlp_dim=128
    ).items():
        setattr(config.segmenter_config.vision_config, name, value)
    renamed = {
        **rename({name: tensor for name, tensor in weights.items() if name not in clip}),
        **rename_clip({name.removeprefix(prefix): tensor for name, tensor in clip.items()}),
    }
    loaded: Any = Lisa.from_pretrained(None, config=config, state_dict=renamed, output_loading_info=True)
    lisa, report = loaded
    assert not any(report[trouble] for trouble in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return lisa.eval()


def _formula_weight(name: str, shape: list[int], place: int) -> Tensor:
    count = np.arange(1, np.prod(shape, dtype=np.int64) + 1, dtype=np.float64)
    value = 2 * _fraction(np.sin(12.9898 * count + 78.233 * (place + 1)) * 43758.5453) - 1
    fan = (shape[-1] if len(shape) == 2 else int(np.prod(shape[1:]))) or 1
    if len(shape) == 1 and name.endswith("weight"):
        value = 1 + 0.1 * value
    elif name.endswith("bias"):
        value = 0.05 * value
    elif not name.endswith("gaussian_matrix"):
        value = value * np.sqrt(3) / np.sqrt(fan)
    return torch.from_numpy(value.reshape(shape)).float()


def _fraction(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x - np.floor(x)


def _formula_inputs(rows: list[list[int]]) -> Inputs:
    """The fixture's pictures, and its rows with the picture's 256 positions, padded on the right."""
    vlm, segmenter = (
        torch.from_numpy(4 * _fraction(np.sin(a * np.arange(1, 3 * side**2 + 1)) * 43758.5453) - 2)
        .float()
        .reshape(1, 3, side, side)
        for side, a in ((224, 0.0137), (1024, 0.00071))
    )
    segmenter[:, :, 768:] = 0
    ids = torch.tensor([[i for number in row for i in [number] * (256 if number == IMAGE_ID else 1)] for row in rows])
    size = ImageSize(original=(48, 64), resized=(768, 1024))
    return Inputs(
        token_ids_BL=ids,
        attention_mask_BL=(ids != 0).long(),
        picture_of_row_B=torch.zeros(len(rows), dtype=torch.long),
        pixels=Pixels(vlm=vlm, segmenter=segmenter, sizes=(size,)),
    )


FORMULA_SEG = 319


class TestFormula:
    """A second network of the original code, every weight of it known; SAM has other sizes and a windowed block."""

    @torch.inference_mode()
    def test_every_stage_of_a_forward_pass(self, formula: Lisa, golden: Segmenter) -> None:
        expected, inputs = FORMULA_ARRAYS, _formula_inputs(FORMULA["rows"])
        pictures = formula.encode(inputs.pixels.vlm, inputs.pixels.segmenter)
        close(pictures.vlm_IPD, expected["projected"])
        close(pictures.segmenter_ICHW[0, :, ::8, ::8], expected["sam_embedding_slice"])
        positions = formula.segmenter.get_image_wide_positional_embeddings()
        close(positions[0, :, ::8, ::8], expected["dense_pe_slice"])
        states = _read(formula, inputs, pictures.vlm_IPD)
        is_word = inputs.attention_mask_BL == 1
        close(states[:, -16:][is_word[:, -16:]], expected["last_hidden"][is_word[:, -16:]])
        close(formula.vlm.lm_head(states[:, -4:])[is_word[:, -4:]], expected["logits_tail"][is_word[:, -4:]])
        drawn, rows = states_before(states, inputs.token_ids_BL, FORMULA_SEG)
        close(formula.projection(drawn), expected["seg_embeddings"])
        low, predicted_iou = formula.draw(drawn, pictures.segmenter_ICHW, torch.zeros_like(rows))
        close(low, expected["low_res_masks"][:, 0])
        close(predicted_iou, expected["iou_pred"][:, 0])
        close(golden.processor.restore(low, inputs.pixels.sizes[0]), expected["val_pred_masks"])

    def test_losses(self, formula: Lisa, golden: Segmenter) -> None:
        inputs = _formula_inputs(FORMULA["rows"])
        labels = torch.full_like(inputs.token_ids_BL, IGNORE_LABEL)
        for row, given in enumerate(FORMULA["labels"]):
            labels[row, -len(given) + 6 :] = torch.tensor(given[6:])  # after the picture, at index 5
        targets = torch.zeros(2, 48, 64)
        targets[0, 10:30, 5:40] = targets[1, 20:44, 30:60] = 1
        with torch.no_grad():
            pictures = formula.encode(inputs.pixels.vlm, inputs.pixels.segmenter)
            states = _read(formula, inputs, pictures.vlm_IPD)
            drawn, rows = states_before(states, inputs.token_ids_BL, FORMULA_SEG)
            low, _ = formula.draw(drawn, pictures.segmenter_ICHW, torch.zeros_like(rows))
            logits = golden.processor.restore(low, inputs.pixels.sizes[0])
            ce = answer_loss(formula.vlm.lm_head, states, labels)
        assert float(ce) == pytest.approx(FORMULA["losses"]["ce_loss"], abs=1e-4)
        assert 2 * float(bce_loss(logits, targets)) == pytest.approx(FORMULA["losses"]["mask_bce_loss"], abs=1e-4)
        assert float(dice_loss(logits, targets)) / 2 == pytest.approx(FORMULA["losses"]["mask_dice_loss"], abs=1e-4)

    @pytest.mark.parametrize("name", ["generated", "generated2"])
    @pytest.mark.parametrize("draw_prompt", [False, True])
    def test_greedy_answers_and_seg_in_the_prompt(
        self, formula: Lisa, golden: Segmenter, name: str, draw_prompt: bool
    ) -> None:
        """The second row has a `[SEG]` in its prompt: the original draws it, and so does parity and nothing else."""
        (row,) = FORMULA[name]
        prompt = row[: -8 if name == "generated" else -3]
        model = (LLAVA_V1 / "checkpoint" / "tokenizer.model").read_bytes()
        tokenizer = Tokenizer(model, {"[SEG]": FORMULA_SEG, "<im_start>": 301, "<im_end>": 302})
        inputs, watch = _formula_inputs([prompt]), Stopwatch(device=formula.device)
        (reply,) = answer(
            formula,
            tokenizer,
            inputs,
            AskOptions(max_new_tokens=len(row) - len(prompt)),
            watch,
            draw_prompt=draw_prompt,
        )
        assert reply.token_ids == row[len(prompt) :]
        masks = golden.processor.restore(reply.logits_Nhw, inputs.pixels.sizes[0])
        if draw_prompt and FORMULA_SEG in prompt:
            close(masks, FORMULA_ARRAYS["gen_prompt_seg_masks"])
        else:
            assert len(masks) == 0


def test_seg_in_the_instruction_is_drawn_for_parity_alone(golden: Segmenter) -> None:
    instruction = "Segment the left one [SEG], and the right one too."
    strict = Segmenter(replace(golden.engine, parity=True))
    relaxed_answer, strict_answer = (seg.segment(LLAVA_V1 / "scene0.png", instruction) for seg in (golden, strict))
    assert strict_answer.raw_text == relaxed_answer.raw_text
    assert len(strict_answer.segments) == len(relaxed_answer.segments) + 1
    assert [segment.index for segment in strict_answer.segments] == list(range(len(strict_answer.segments)))


def test_the_golden_folder_is_understood(golden: Segmenter) -> None:
    config = open_checkpoint(str(LLAVA_V1 / "checkpoint")).config
    assert config.template == "llava_v1"
    assert config.model_name == "checkpoint"
    assert config.num_image_tokens == 256
    assert golden.processor.tokenizer.seg_id == RECORD["seg_token_idx"]
