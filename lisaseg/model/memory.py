"""How much memory a model takes, told from its configuration before anything is loaded."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import psutil
import torch
from torch import nn

from lisaseg.config import LoadOptions
from lisaseg.errors import DeviceError
from lisaseg.model.configuration import LisaConfig
from lisaseg.model.lisa import Lisa
from lisaseg.model.quantize import is_quantized

BYTES_OF_NF4 = 0.5 + (1 + 4 / 256) / 64
"""A weight in 4 bits: half a byte, a scale of one byte for 64 of them, and a scale of four bytes for 256 scales."""
NEW_TOKENS = 200
"""Length of the answer that working memory is estimated for."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Bytes that a model takes."""

    weights: int
    working: int
    """Estimate of what one answer takes beside the weights: the KV cache, and SAM's global attention."""

    @property
    def total(self) -> int:
        """Both together."""
        return self.weights + self.working


def skeleton(config: LisaConfig) -> Lisa:
    """The network without a byte of weights."""
    with torch.device("meta"):
        return Lisa(config)


def estimate(config: LisaConfig, dtype: torch.dtype, options: LoadOptions) -> Needs:
    """What a model takes in a precision, quantised as the options say."""
    lisa = skeleton(config)
    quantized = {
        module.weight: 1 if options.quantize == "8bit" else BYTES_OF_NF4
        for name, module in lisa.named_modules()
        if isinstance(module, nn.Linear) and is_quantized(name, options)
    }
    weights = sum(parameter.numel() * quantized.get(parameter, dtype.itemsize) for parameter in lisa.parameters())
    return Needs(weights=int(weights), working=_working_bytes(config, dtype))


def refuse_what_cannot_fit(config: LisaConfig, device: torch.device, dtype: torch.dtype, options: LoadOptions) -> None:
    """Raises DeviceError where a device has too little free memory; the message says what would fit."""
    needs, free = estimate(config, dtype, options).total, free_bytes(device)
    if free is None or needs <= free:
        return
    others = {
        name: estimate(config, other, changed).total
        for name, other, changed in (
            ("--dtype bf16", torch.bfloat16, LoadOptions()),
            ("--quantize 8bit", dtype, LoadOptions(quantize="8bit")),
            ("--quantize 4bit", dtype, LoadOptions(quantize="4bit")),
            ("--quantize 4bit --dtype bf16", torch.bfloat16, LoadOptions(quantize="4bit")),
        )
    }
    fitting = [f"{name} ({_gigabytes(size)})" for name, size in others.items() if size <= free and size < needs]
    raise DeviceError(
        f"not enough memory on {device}: {config.model_name} needs about {_gigabytes(needs)} this way and "
        f"{_gigabytes(free)} are free; " + (f"what fits: {', '.join(fitting)}" if fitting else "nothing smaller fits")
    )


@contextmanager
def telling_out_of_memory(device: torch.device) -> Generator[None]:
    """Turns a failed allocation inside the block into a DeviceError that says what helps."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError, and the CPU has only that
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "can't allocate memory" not in str(error):
            raise
        raise DeviceError(
            f"out of memory on {device}; fewer or smaller pictures at a time, --quantize 8bit or 4bit, or a smaller "
            "model help"
        ) from error


def free_bytes(device: torch.device) -> int | None:
    """Free memory of a device, or None where nobody can tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available if device.type == "cpu" else None


def _working_bytes(config: LisaConfig, dtype: torch.dtype) -> int:
    text, sam = config.text, config.sam
    heads = cast(int, text.num_key_value_heads)
    positions = config.num_image_tokens + 2 * NEW_TOKENS
    cache = 2 * text.num_hidden_layers * heads * (text.hidden_size // text.num_attention_heads) * positions
    attention = 3 * sam.num_attention_heads * config.segmenter_cells**4  # scores, position biases, and their sum
    return (cache + attention) * dtype.itemsize


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
