"""Where a model runs and in which precision: chosen once, when it is loaded."""

import os
from dataclasses import replace

import torch

from lisaseg.config import LoadOptions
from lisaseg.errors import DeviceError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Names of precisions as options use them."""


def choose_device(options: LoadOptions) -> tuple[torch.device, torch.dtype]:
    """The device and dtype asked for, or the best this machine has: CUDA (bf16, else fp16), MPS (fp16), CPU (fp32).

    Raises:
        DeviceError: the device is unknown or absent.
    """
    device = _device(options.device)
    if options.dtype is not None:
        return device, DTYPES[options.dtype]
    if device.type == "cuda":
        if options.quantize == "8bit":  # LLM.int8 computes in fp16
            return device, torch.float16
        return device, torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return device, torch.float16 if device.type == "mps" else torch.float32


def _device(name: str | None) -> torch.device:
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name is None:
        return torch.device(next(kind for kind, is_present in present.items() if is_present))
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"unknown device {name!r} for --device: expected cuda, cuda:N, mps or cpu") from error
    here = ", ".join(kind for kind, is_present in present.items() if is_present)
    too_far = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    if not present.get(device.type) or too_far:
        raise DeviceError(f"--device {name} is not to be had on this machine; it has {here}")
    return device


def on_own_device(options: LoadOptions) -> LoadOptions:
    """The same options; where a launcher started several processes, with the GPU of this one."""
    rank = os.environ.get("LOCAL_RANK")
    if options.device is not None or rank is None or not torch.cuda.is_available():
        return options
    return replace(options, device=f"cuda:{rank}")
