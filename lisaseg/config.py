"""Options as frozen values, checked when made; the command line builds the same values from its flags."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Dtype = Literal["fp32", "bf16", "fp16"]
"""Precisions a model can run in."""
Quantize = Literal["8bit", "4bit"]
"""How the language model's weights may be stored in fewer bits: LLM.int8, or nf4 with double quantisation."""
BUNDLED = ("nano",)
"""Models inside the package, by name."""
OFFICIAL = {
    "lisa-7b": "xinlai/LISA-7B-v1",
    "lisa-7b-explanatory": "xinlai/LISA-7B-v1-explanatory",
    "lisa-13b": "xinlai/LISA-13B-llama2-v1",
    "lisa-13b-explanatory": "xinlai/LISA-13B-llama2-v1-explanatory",
}
"""Short names of the published checkpoints, and where they are on the Hugging Face hub."""
CACHE_MB = 1024
"""Megabytes (10^6 bytes) of pictures and contexts that a model remembers unless told otherwise."""
FIRST_WORLD = tuple(
    (
        "dog cat horse cow sheep elephant zebra giraffe bear bird fish butterfly penguin "
        "car bus truck train airplane bicycle boat chair couch bed lamp clock cup bottle book laptop umbrella sink "
        "apple banana orange pizza cake flower tree hat"
    ).split()
)
"""The concepts that nano's first edition learns."""


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
    quantize: Quantize | None = None
    """Store the language model's weights in `8bit` (LLM.int8) or `4bit` (nf4); the rest stays as it is."""
    quantize_all: bool = False
    """Quantise the language model's head and both projections too, as the original does; masks suffer."""
    vision_tower: str | None = None
    """CLIP for a published checkpoint, a folder or a hub id, instead of the one that its config.json names."""
    parity: bool = False
    """Answer like the original in every detail: SAM's positions in the model's precision, and a mask for each `[SEG]`
    in the instruction too."""

    def __post_init__(self) -> None:
        if self.dtype not in (None, "fp32", "bf16", "fp16"):
            raise ValueError(f"--dtype must be fp32, bf16 or fp16, got {self.dtype!r}")
        if self.quantize not in (None, "8bit", "4bit"):
            raise ValueError(f"--quantize must be 8bit or 4bit, got {self.quantize!r}")
        if self.quantize_all and self.quantize is None:
            raise ValueError("--quantize-all says what to quantise; say how, too, with --quantize 8bit or 4bit")


@dataclass(frozen=True, kw_only=True)
class AskOptions:
    """How a question is answered: how words are chosen, and which masks count."""

    max_new_tokens: int = 512
    """Longest answer in tokens."""
    temperature: float = 0.0
    """0 takes the likeliest token each time; above it tokens are drawn, the more freely the higher."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that together have this probability."""
    seed: int = 0
    """Decides what is drawn: the same question with the same seed has the same answer."""
    min_score: float = 0.0
    """Segments with a lower score are set apart, and listed as dropped."""
    min_area: int = 0
    """Segments with fewer pixels are set apart, and listed as dropped."""

    def __post_init__(self) -> None:
        _at_least(self.max_new_tokens, 1, "--max-new-tokens")
        _at_least(self.temperature, 0, "--temperature")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"--top-p must be above 0 and at most 1, got {self.top_p}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"--seed must be between 0 and 2**63 - 1, got {self.seed}")
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"--min-score must be between 0 and 1, got {self.min_score}")
        _at_least(self.min_area, 0, "--min-area")


@dataclass(frozen=True, kw_only=True)
class NanoRecipe:
    """How nano is trained from nothing. Every field is a flag of `lisaseg train nano`."""

    concepts: tuple[str, ...] = FIRST_WORLD
    """Names of the things it learns."""
    sprites_per_concept: int = 2
    """Cut-outs of each that it sees."""
    scenes: int = 70_000
    """Scenes to learn from, each made once."""
    look_scenes: int = 30_000
    """How many of them, the first ones, only teach the image encoders (no dialogue yet)."""
    photo_share: float = 0.15
    """Share of photographs among the later scenes."""
    turns: int = 4
    """Turns of dialogue over each scene."""
    batch_size: int = 16
    """Scenes per step."""
    learning_rate: float = 1e-3
    """Peak of AdamW's learning rate, after a warm-up of 200 steps, then along a cosine to 0."""
    seed: int = 0
    """Decides every scene and every initial weight."""

    def __post_init__(self) -> None:
        if self.look_scenes > self.scenes:
            raise ValueError(f"--look-scenes {self.look_scenes} is more than --scenes {self.scenes}")
        if not 0 <= self.photo_share <= 1:
            raise ValueError(f"--photo-share must be between 0 and 1, got {self.photo_share}")
        _at_least(self.look_scenes, 0, "--look-scenes")
        _at_least(len(self.concepts), 1, "the number of --concepts")
        for name in ("scenes", "sprites_per_concept", "turns", "batch_size"):
            _at_least(getattr(self, name), 1, f"--{name.replace('_', '-')}")


@dataclass(frozen=True, kw_only=True)
class ClickRecipe:
    """How a model learns to follow clicks. Every field is a flag of `lisaseg train clicks`."""

    scenes: int = 4000
    """Scenes to click in; what the model sees of them is computed once and kept in memory, 75 kB each."""
    passes: int = 10
    """How often each is clicked in, at other places every time."""
    batch_size: int = 16
    """Scenes per step."""
    learning_rate: float = 1e-3
    """Peak of AdamW's learning rate, after a warm-up of 200 steps, then along a cosine to 0."""
    seed: int = 0
    """Decides every scene and every click."""

    def __post_init__(self) -> None:
        for name in ("scenes", "passes", "batch_size"):
            _at_least(getattr(self, name), 1, f"--{name.replace('_', '-')}")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where and how a training runs; nothing here changes what is learned but rounding."""

    out: Path
    """Folder of the run: `checkpoints/`, TensorBoard's `logs/`, and at the end `model/`."""
    pack: Path | None = None
    """The training pack's folder; by default the one that the variable LISASEG_NANO_PACK names."""
    start: Path | None = None
    """A model's folder to start from, with its tokenizer; by default fresh weights, and for clicks the bundled nano."""
    device: str | None = None
    """`cpu`, or by default the GPU where there is one."""
    bf16: bool = False
    """Mixed precision in bfloat16."""
    workers: int = 1
    """Processes that make scenes ahead."""
    save_steps: int = 250
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        _at_least(self.workers, 0, "--workers")
        _at_least(self.save_steps, 1, "--save-steps")


@dataclass(frozen=True, kw_only=True)
class NanoReportOptions:
    """What `lisaseg nano-report` asks."""

    scenes: int = 300
    """New scenes, each asked about every thing in it, one need and one absent thing."""
    concepts: tuple[str, ...] = FIRST_WORLD
    """Things the model has learned."""
    sprites_per_concept: int = NanoRecipe.sprites_per_concept
    """Cut-outs of each that it has seen."""
    batch_size: int = 16
    """Questions answered together."""
    examples: int = 0
    """Overlays to keep of each set, the first ones."""

    def __post_init__(self) -> None:
        _at_least(self.scenes, 1, "--scenes")
        _at_least(len(self.concepts), 1, "the number of --concepts")
        _at_least(self.sprites_per_concept, 1, "--sprites-per-concept")
        _at_least(self.batch_size, 1, "--batch-size")
        _at_least(self.examples, 0, "--examples")


def _at_least(value: int | float, least: int, flag: str) -> None:
    if not least <= value < float("inf"):  # not-a-number is neither
        raise ValueError(f"{flag} must be at least {least}, got {value}")
