"""How a model is measured. Imports nothing heavy: the command line makes its flags from it."""

from dataclasses import dataclass
from typing import Literal

Protocol = Literal["lisa", "generate", "seg-zero"]
"""How a model is asked, and by whose rule its masks are scored."""
PROTOCOLS = ("lisa", "generate", "seg-zero")


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """How a model is asked and scored."""

    protocol: Protocol = "lisa"
    """`lisa` as published: the answer `[SEG].` is put into the model's mouth. `generate`: it answers freely, and all
    that it draws counts together. `seg-zero`: it answers freely, and pixels to be ignored count as target."""
    batch_size: int = 4
    """Pictures that are encoded together; up to four times as many questions are answered together."""
    limit: int | None = None
    """Measure the first so many pictures only."""
    strict: bool = False
    """Stop at the first picture that cannot be used, instead of telling and going on."""
    max_new_tokens: int = 512
    """Longest answer in tokens, where the model answers freely."""
    min_pixels: int = 1
    """gRefCOCO: a prediction of fewer pixels says that nothing is meant. Some authors take 50."""

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"--protocol must be one of {', '.join(PROTOCOLS)}, got {self.protocol!r}")
        for name in ("batch_size", "max_new_tokens", "min_pixels"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit must be at least 1, got {self.limit}")
