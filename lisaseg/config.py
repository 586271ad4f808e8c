"""Options as frozen values, checked when made; the command line builds the same values from its flags."""

from dataclasses import dataclass
from typing import Literal

Dtype = Literal["fp32", "bf16", "fp16"]
"""Precisions a model can run in."""


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """What a picture may be as large as, against decompression bombs."""

    max_pixels: int = 200_000_000
    """Most pixels (width x height) that are decoded."""
    max_megabytes: int = 512
    """Largest encoded size that is read, in 10^6 bytes."""

    def __post_init__(self) -> None:
        _at_least(self.max_pixels, 1, "--max-pixels")
        _at_least(self.max_megabytes, 1, "--max-megabytes")


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """Where a model runs and in which precision; None chooses the best this machine has."""

    device: str | None = None
    """`cuda`, `cuda:1`, `mps` or `cpu`."""
    dtype: Dtype | None = None
    """`fp32`, `bf16` or `fp16`."""

    def __post_init__(self) -> None:
        if self.dtype not in (None, "fp32", "bf16", "fp16"):
            raise ValueError(f"--dtype must be fp32, bf16 or fp16, got {self.dtype!r}")


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """How an answer is decoded: greedily, up to a length."""

    max_new_tokens: int = 512
    """Longest answer in tokens."""

    def __post_init__(self) -> None:
        _at_least(self.max_new_tokens, 1, "--max-new-tokens")


def _at_least(value: int, least: int, flag: str) -> None:
    if value < least:
        raise ValueError(f"{flag} must be at least {least}, got {value}")


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What `lisaseg evaluate nano` asks."""

    scenes: int = 300
    """New scenes, each asked about every thing in it, one need and one absent thing."""
    concepts: tuple[str, ...] = FIRST_WORLD
    """Things the model has learned."""
    sprites_per_concept: int = 6
    """Cut-outs of each that it has seen."""
    batch_size: int = 16
    """Questions answered together."""
    examples: int = 0
    """Overlays to keep of each set, the first ones."""

    def __post_init__(self) -> None:
        _at_least(self.scenes, 1, "--scenes")
        _at_least(self.batch_size, 1, "--batch-size")
