"""The model that a LISA starts from: LLaVA, SAM and CLIP as published, a new `[SEG]`, an unlearned projection."""

import json
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lisaseg.config import Dtype
from lisaseg.errors import CheckpointError
from lisaseg.language.prompts import IMAGE_END, IMAGE_START, SEG_TOKEN
from lisaseg.language.tokenizer import Tokenizer
from lisaseg.model.checkpoints import Checkpoint, check_config, find_tower, read_record
from lisaseg.model.convert import write_checkpoint
from lisaseg.model.hub import find_model
from lisaseg.model.official import clip_images, read_official_config, rename, rename_clip
from lisaseg.model.processor import Processor
from lisaseg.model.weights import open_file, open_weights

PROMPT_WIDTH = 256
"""Width of SAM's prompts."""
_NOT_WEIGHTS = ("pixel_mean", "pixel_std")


def assemble(
    llava: str,
    sam: Path,
    out: Path,
    *,
    vision_tower: str | None = None,
    dtype: Dtype | None = None,
    seed: int = 0,
) -> None:
    """Writes a LISA that has not learned yet: `[SEG]` says nothing, and masks are SAM's guesses.

    Args:
        llava: folder or hub id of a LLaVA v1 model.
        sam: Meta's file of weights, such as sam_vit_h_4b8939.pth.
        out: a folder that is empty, missing, or holds part of the same.
        vision_tower: folder or hub id of CLIP, instead of the one that LLaVA's config.json names.
        dtype: precision of the weights; by default each keeps its own.
        seed: decides new embeddings and the projection.

    Raises:
        CheckpointError: a part cannot be read, is of another kind, or they do not fit each other.
        OutputError: the folder holds something else, or cannot be written to.
    """
    folder = find_model(llava)
    record = read_record(folder)
    weights = open_weights(folder)
    if record.get("model_type") != "llava" or "model.mm_projector.weight" not in weights:
        raise CheckpointError(f"{folder} is no LLaVA v1 model: expected model_type llava and one linear mm_projector")
    if any(name.startswith(("model.text_hidden_fcs.", "model.visual_model.")) for name in weights):
        raise CheckpointError(f"{folder} is a LISA already; train it with `lisaseg train finetune`")
    tokenizer = _with_new_tokens(folder)
    tower = find_tower(folder, record, vision_tower, with_weights=True)
    generator = torch.Generator().manual_seed(seed)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = _grown(weights[name], len(tokenizer), record.get("initializer_range", 0.02), generator)
    weights |= _projection(record["hidden_size"], seed)
    weights |= {f"model.visual_model.{name}": tensor for name, tensor in _sam(sam).items()}
    record |= {"vocab_size": len(tokenizer), "mm_use_im_start_end": True}
    config = check_config(folder, lambda record: read_official_config(folder, record, read_record(tower)), record)
    config.model_name = out.resolve().name
    checkpoint = Checkpoint(
        folder=folder,
        config=config,
        processor=Processor(config, tokenizer, clip_images(tower, cast(int, config.vision.image_size))),
        weights={**rename(weights), **rename_clip(open_weights(tower))},
    )
    write_checkpoint(checkpoint, out, f"{folder.resolve()} and {sam.resolve()}, seed {seed}", dtype=dtype)


def _with_new_tokens(folder: Path) -> Tokenizer:
    """LLaVA's tokenizer and those of LISA's tokens that it lacks, in the order in which the original adds them."""
    path = folder / "added_tokens.json"
    try:
        model = (folder / "tokenizer.model").read_bytes()
        added: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"no readable tokenizer in {folder} (tokenizer.model): {error}") from error
    size = max([Tokenizer.num_pieces(model), *(number + 1 for number in added.values())])
    for token in (SEG_TOKEN, IMAGE_START, IMAGE_END):
        if token not in added:
            added[token], size = size, size + 1
    return Tokenizer(model, added)


def _grown(rows: Tensor, number: int, spread: float, generator: torch.Generator) -> Tensor:
    """Embeddings with new rows drawn as all were before training; rows beyond the vocabulary are dropped."""
    new = torch.randn(max(0, number - len(rows)), rows.shape[1], generator=generator) * spread
    return torch.cat([rows[:number], new.to(rows.dtype)])


def _projection(width: int, seed: int) -> dict[str, Tensor]:
    """Two linear layers as PyTorch starts them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = {"0": nn.Linear(width, width), "2": nn.Linear(width, PROMPT_WIDTH)}
    return {
        f"model.text_hidden_fcs.0.{place}.{name}": tensor.detach()
        for place, layer in layers.items()
        for name, tensor in layer.named_parameters()
    }


def _sam(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; expected SAM's weights, such as sam_vit_h_4b8939.pth")
    weights = open_file(path)
    if "mask_decoder.iou_token.weight" not in weights:
        raise CheckpointError(f"{path} holds no SAM: expected Meta's names, such as mask_decoder.iou_token.weight")
    return {name: tensor for name, tensor in weights.items() if name not in _NOT_WEIGHTS}
