"""Quantised loading, on the CPU: bitsandbytes computes there too."""

import importlib.util
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lisaseg.config import Dtype, LoadOptions, Quantize
from lisaseg.errors import DeviceError, MissingExtraError
from lisaseg.model.checkpoints import load_model
from lisaseg.model.quantize import quantization_config
from lisaseg.segmenter import Segmenter

GOLDEN = Path(__file__).parents[1] / "golden" / "llava_v1"
QUESTION = "Can you segment the food that tastes spicy and hot?"
EXPECTED = load_file(GOLDEN / "golden.safetensors")["case0_3.mask_logits"]
ANSWERS = ["vlm.lm_head", "vlm.model.multi_modal_projector", "projection.0", "projection.2"]


def load(**options: Any) -> Segmenter:
    return Segmenter.load(str(GOLDEN / "checkpoint"), device="cpu", **options)


def quantized(segmenter: Segmenter) -> set[str]:
    """Names of the layers that are stored in fewer bits."""
    return {
        name
        for name, module in segmenter.lisa.named_modules()
        if type(module).__name__ in ("Linear4bit", "Linear8bitLt")
    }


@pytest.mark.parametrize("quantize", ["8bit", "4bit"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("quantize_all", [False, True])
def test_words_stay_and_masks_hardly_move(quantize: Quantize, dtype: Dtype, quantize_all: bool) -> None:
    segmenter = load(quantize=quantize, dtype=dtype, quantize_all=quantize_all)
    answer = segmenter.segment(GOLDEN / "scene0.png", "Segment the left one, and the right one too.")
    assert answer.raw_text == "It is [SEG] and [SEG]."
    found = torch.stack([torch.from_numpy(segment.logits[::7, ::7]) for segment in answer.segments])
    torch.testing.assert_close(found, EXPECTED, atol=0.01, rtol=0)  # logits here are up to 0.2


@pytest.mark.parametrize("quantize", ["8bit", "4bit"])
def test_only_the_body_of_the_language_model_is_quantised(quantize: Quantize) -> None:
    names = quantized(load(quantize=quantize))
    assert len(names) == 2 * 7
    assert all(name.startswith("vlm.model.language_model.layers.") for name in names)


@pytest.mark.parametrize("quantize", ["8bit", "4bit"])
def test_all_is_what_the_original_quantises(quantize: Quantize) -> None:
    names = quantized(load(quantize=quantize, quantize_all=True))
    assert {name for name in names if "language_model" not in name} == set(ANSWERS)


def test_four_bits_are_nf4_with_double_quantisation() -> None:
    weight = load(quantize="4bit").lisa.vlm.model.language_model.layers[0].mlp.up_proj.weight
    assert weight.quant_type == "nf4"
    assert weight.compress_statistics


def test_a_quantised_model_gives_the_same_answer_twice() -> None:
    segmenter = load(quantize="4bit")
    one, two = (segmenter.segment(GOLDEN / "scene1.png", QUESTION) for _ in range(2))
    assert [segment.area for segment in one.segments] == [segment.area for segment in two.segments]


def test_without_bitsandbytes_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else find(name))
    with pytest.raises(MissingExtraError, match=r"needs bitsandbytes: pip install 'lisaseg\[quantize\]'"):
        load(quantize="4bit")


def test_a_device_that_cannot_quantise_is_refused() -> None:
    with pytest.raises(DeviceError, match="works on cuda and cpu, not on mps"):
        quantization_config(LoadOptions(quantize="8bit"), torch.device("mps"), torch.float16)


def test_nothing_is_quantised_unless_asked_for() -> None:
    assert quantization_config(LoadOptions(), torch.device("mps"), torch.float16) is None
    assert quantized(load()) == set()


def test_bitsandbytes_does_not_warn_of_every_cast(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load(quantize="8bit", dtype="fp32").segment(GOLDEN / "scene0.png", QUESTION)
    assert not [record for record in caplog.records if record.name.startswith("bitsandbytes")]


def test_our_own_layout_quantises_too(tiny_model: str) -> None:
    lisa, _ = load_model(tiny_model, LoadOptions(quantize="8bit", device="cpu"))
    assert lisa.vlm.model.language_model.layers[0].mlp.up_proj.weight.dtype == torch.int8
