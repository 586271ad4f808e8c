"""What a model is and what it takes, before anything is loaded."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch

from lisaseg.config import BUNDLED, LoadOptions
from lisaseg.errors import CheckpointError
from lisaseg.files import is_folder
from lisaseg.model.checkpoints import check_fit, open_checkpoint
from lisaseg.model.configuration import LisaConfig
from lisaseg.model.hub import find_model
from lisaseg.model.memory import Needs, estimate, skeleton
from lisaseg.model.weights import weight_files

PRECISIONS: dict[str, tuple[torch.dtype, LoadOptions]] = {
    "fp32": (torch.float32, LoadOptions()),
    "bf16 or fp16": (torch.bfloat16, LoadOptions()),
    "8bit": (torch.float16, LoadOptions(quantize="8bit")),
    "4bit": (torch.bfloat16, LoadOptions(quantize="4bit")),
}


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A model in figures."""

    name: str
    folder: str
    template: str
    language_model: dict[str, int]
    vision_tower: dict[str, int]
    segmenter: dict[str, int]
    tokens: dict[str, int]
    """Ids of the added tokens."""
    vocabulary: int
    """Rows of the embeddings."""
    longest_prompt: int
    """Tokens of a prompt, the picture's included."""
    parameters: dict[str, int]
    """How many numbers each part has."""
    stored: dict[str, int] | None
    """How many numbers are stored in each precision; None where the weights are not on this machine."""
    bytes_on_disk: int | None
    memory: dict[str, Needs]
    """Estimates of what it takes, by precision; beside the quantised weights the rest is in half precision."""

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data; memory in bytes."""
        return {
            **asdict(self),
            "memory": {name: {**vars(need), "total": need.total} for name, need in self.memory.items()},
        }


def summarize(model: str, *, vision_tower: str | None = None) -> Summary:
    """Reads configuration, tokenizer and headers, and checks that the weights fit; a hub's weights are not fetched.

    Raises:
        CheckpointError: as `open_checkpoint` and `check_fit`.
    """
    is_here = model in BUNDLED or is_folder(model) or _is_cached(model)
    checkpoint = open_checkpoint(model, vision_tower=vision_tower, with_weights=is_here)
    stored: Counter[str] = Counter()
    for tensor in checkpoint.weights.values():
        stored[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    if is_here:
        check_fit(checkpoint)
    config = checkpoint.config
    return Summary(
        name=config.model_name,
        folder=str(checkpoint.folder),
        template=config.template,
        **_parts(config),
        tokens=dict(checkpoint.processor.tokenizer.added),
        vocabulary=config.text.vocab_size,
        longest_prompt=config.max_prompt_tokens,
        parameters=_parameters(config),
        stored=dict(stored) if is_here else None,
        bytes_on_disk=_size(checkpoint.folder) if is_here else None,
        memory={name: estimate(config, *how) for name, how in PRECISIONS.items()},
    )


def _is_cached(model: str) -> bool:
    """Whether a hub's weights have been fetched, all of them."""
    try:
        return bool(weight_files(find_model(model, with_weights=False)))
    except CheckpointError:
        return False


def _parts(config: LisaConfig) -> dict[str, dict[str, int]]:
    tower = {"image_side": cast(int, config.vision.image_size), "picture_tokens": config.num_image_tokens}
    return {
        part: {
            "layers": shape.num_hidden_layers,
            "width": shape.hidden_size,
            "heads": shape.num_attention_heads,
            **more,
        }
        for part, shape, more in (
            ("language_model", config.text, {}),
            ("vision_tower", config.vision, tower),
            ("segmenter", config.sam, {"image_side": config.segmenter_side}),
        )
    }


def _parameters(config: LisaConfig) -> dict[str, int]:
    lisa = skeleton(config)
    parts = {
        "language model": lisa.vlm.model.language_model,
        "language model's head": lisa.vlm.lm_head,
        "vision tower": lisa.vlm.model.vision_tower,
        "projector": lisa.vlm.model.multi_modal_projector,
        "[SEG] projection": lisa.projection,
        "segmenter": lisa.segmenter,
    }
    return {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in parts.items()}


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in weight_files(folder))
