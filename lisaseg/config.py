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


def _at_least(value: int | float, least: int, flag: str) -> None:
    if not least <= value < float("inf"):  # not-a-number is neither
        raise ValueError(f"{flag} must be at least {least}, got {value}")


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
    adapter: str | None = None
    """What `lisaseg train` left in `adapter/`, a folder or a hub id, to be laid over the model."""
    parity: bool = False
    """Answer like the original in every detail: SAM's positions in the model's precision, and a mask for each `[SEG]`
    in the instruction too."""

    def __post_init__(self) -> None:
        if self.adapter is not None and not str(self.adapter).strip():
            raise ValueError("--adapter needs a folder or a hub id")
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


Part = Literal["projection", "mask_decoder", "embed_tokens", "lm_head", "projector", "vision_tower", "image_encoder"]
"""Parts of the network that may be trained whole: the projection of `[SEG]`, SAM's mask decoder, the language model's
embeddings and head, LLaVA's projector, CLIP, and SAM's image encoder."""
Tracker = Literal["tensorboard", "wandb", "mlflow"]
"""Where a training is logged."""


@dataclass(frozen=True, kw_only=True)
class LisaRecipe:
    """How a LISA model learns. Every field is a flag of `lisaseg train`."""

    lora_rank: int = 8
    """Rank of the low-rank changes to the language model."""
    lora_alpha: int = 16
    """Strength of these changes, relative to their rank."""
    lora_dropout: float = 0.05
    """Share of inputs that they do not see in training."""
    lora_layers: tuple[str, ...] = ("q_proj", "v_proj")
    """Linear layers of the language model that are changed, by the ends of their names."""
    parts: tuple[Part, ...] = ("projection", "mask_decoder")
    """Parts that are trained whole."""
    steps: int = 500
    """Steps of the optimiser."""
    batch_size: int = 2
    """Pictures per process that are learned from at once."""
    accumulate: int = 1
    """Batches per step, and process."""
    learning_rate: float = 3e-4
    """Peak of AdamW's learning rate; then it falls to 0 along a line."""
    warmup: int = 100
    """Steps until the peak; at most a tenth of all."""
    answer_weight: float = 1.0
    """Weight of the answer's cross entropy."""
    bce_weight: float = 2.0
    """Weight of the masks' binary cross entropy."""
    dice_weight: float = 0.5
    """Weight of the masks' dice loss."""
    max_tokens: int = 512
    """Longest dialogue, its picture included; nothing is cut that would lose a `[SEG]`."""
    dialogues: int = 3
    """Classes, phrases or dialogues that are learned of one picture at once."""
    explanatory: float = 0.1
    """How often an explanation is given without a mask, where there is one; -1 never explains."""
    rates: tuple[float, ...] = (9.0, 3.0, 3.0, 1.0)
    """How often semantic, referring, question and reasoning data come, in the paper's mixture."""
    ignored_is_background: bool = False
    """Learn pixels that nobody labelled as background, as the original does; else they are left out."""
    augment: bool = True
    """Show other views: mirrored where the words allow it, other light."""
    base_in_4bit: bool = False
    """Keep the language model that is changed in 4 bits (QLoRA)."""
    seed: int = 0
    """Decides every lesson and every initial weight."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "dialogues", "max_tokens", "lora_rank", "lora_alpha"):
            _at_least(getattr(self, name), 1, f"--{name.replace('_', '-')}")
        for name in ("warmup", "answer_weight", "bce_weight", "dice_weight", "learning_rate", "seed"):
            _at_least(getattr(self, name), 0, f"--{name.replace('_', '-')}")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"--lora-dropout must be at least 0 and below 1, got {self.lora_dropout}")
        if self.explanatory != -1 and not 0 <= self.explanatory <= 1:
            raise ValueError(f"--explanatory must be between 0 and 1, or -1 for never, got {self.explanatory}")
        if len(self.rates) != 4 or min(self.rates) < 0 or sum(self.rates) <= 0:
            raise ValueError(f"--rates must be four numbers, none of them negative, got {self.rates}")


PAPER = LisaRecipe(
    parts=("embed_tokens", "lm_head", "mask_decoder", "projection"),
    steps=5000,
    accumulate=10,
    ignored_is_background=True,
    augment=False,
)
"""LISA as it was trained."""
RECIPES = {
    "lisa-7b": PAPER,
    "lisa-13b": PAPER,
    "finetune": LisaRecipe(),
    "qlora": LisaRecipe(base_in_4bit=True),
}
"""Recipes by name; flags change what they say."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What a training learns from, where it runs, and what it leaves."""

    out: Path
    """Folder of the run; the same command goes on there after an interrupt, any other one is refused."""
    data_root: Path | None = None
    """Folder of published data sets; by default the one that the variable LISASEG_DATA names."""
    val: str | None = None
    """Data to choose the best checkpoint by, named like --data; by default a share of it is held out."""
    val_share: float = 0.1
    """Share of the data that is held out where --val is not given; 0 for none."""
    val_limit: int = 200
    """Most pictures that are measured each time."""
    eval_steps: int = 100
    """Steps between two measurements, each with a checkpoint."""
    patience: int = 0
    """Stop after so many measurements without a better gIoU; 0 never does."""
    device: str | None = None
    """`cpu`, or by default the GPU where there is one."""
    precision: Dtype | None = None
    """`bf16`, `fp16` or `fp32`; by default bf16 where the GPU has it, else fp16, and fp32 on a CPU."""
    gradient_checkpointing: bool = True
    """Compute the language model's states twice instead of keeping them: slower, and in much less memory."""
    workers: int = 2
    """Processes that make lessons ahead, for each process that learns."""
    track: tuple[Tracker, ...] = ("tensorboard",)
    """Where losses, measurements and sample pictures go beside the run's folder."""
    strict: bool = False
    """Stop at the first picture that cannot be used, instead of telling and going on."""
    merged: bool = False
    """Write the whole model at the end, in `model/`, beside the adapter."""
    deepspeed: Path | None = None
    """A DeepSpeed configuration, such as recipes/zero2.json."""
    push_to_hub: str | None = None
    """Hub id that the adapter is uploaded to at the end."""
    dry_run: bool = False
    """Say what would be trained and how much memory it takes, and end."""

    def __post_init__(self) -> None:
        for name, least in (("val_limit", 1), ("eval_steps", 1), ("patience", 0), ("workers", 0)):
            _at_least(getattr(self, name), least, f"--{name.replace('_', '-')}")
        if not 0 <= self.val_share < 1:
            raise ValueError(f"--val-share must be at least 0 and below 1, got {self.val_share}")


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
