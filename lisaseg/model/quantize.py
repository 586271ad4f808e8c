"""Fewer bits for the language model's weights, by bitsandbytes; what decides about masks stays as it is."""

import importlib.util
import logging
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from lisaseg.config import LoadOptions
from lisaseg.errors import DeviceError, MissingExtraError

PICTURES = ("vlm.model.vision_tower", "segmenter")
"""Parts that are never quantised: CLIP and SAM."""
ANSWERS = ("vlm.lm_head", "vlm.model.multi_modal_projector", "projection")
"""Parts that only `quantize_all` quantises: they decide about words and masks, and are small."""


def quantization_config(options: LoadOptions, device: torch.device, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """How `transformers` is to quantise while it loads, or None.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
        DeviceError: it does not work on that device.
    """
    if options.quantize is None:
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtraError("--quantize needs bitsandbytes: pip install 'lisaseg[quantize]'")
    if device.type not in ("cuda", "cpu"):
        raise DeviceError(
            f"--quantize works on cuda and cpu, not on {device.type}; leave it out or choose --device cpu"
        )
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of every cast to fp16
    return BitsAndBytesConfig(
        load_in_8bit=options.quantize == "8bit",
        load_in_4bit=options.quantize == "4bit",
        llm_int8_skip_modules=[*PICTURES, *(() if options.quantize_all else ANSWERS)],
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def is_quantized(name: str, options: LoadOptions) -> bool:
    """Whether a linear layer of that name is stored in fewer bits."""
    kept = (*PICTURES, *(() if options.quantize_all else ANSWERS))
    return options.quantize is not None and not name.startswith(kept)


def prepare_quantized(lisa: nn.Module) -> None:
    """Keeps layers of odd sizes, such as a head of 32003 words, off a CPU kernel of bitsandbytes that fails on them."""
    layers: list[Any] = [module for module in lisa.modules() if hasattr(module, "support_avx512bf16_for_cpu")]
    for layer in layers:
        if layer.out_features % 32 or layer.in_features % 64:
            layer.support_avx512bf16_for_cpu = False
