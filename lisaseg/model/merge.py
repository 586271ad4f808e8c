"""An adapter merged into its model on disk, tensor by tensor: what PEFT left, or the original's own training."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from lisaseg.config import Dtype, LisaRecipe
from lisaseg.errors import CheckpointError
from lisaseg.files import is_file
from lisaseg.model.checkpoints import Checkpoint, open_checkpoint
from lisaseg.model.convert import write_checkpoint
from lisaseg.model.hub import find_adapter
from lisaseg.model.official import rename
from lisaseg.model.weights import listed, open_file

_PREFIX = "base_model.model."
_LORA = re.compile(r"(.*)\.lora_([AB])(\.default)?\.weight$")
_SAME = (
    (re.compile(r"^vlm\.(language_model\.)?lm_head\."), "lm_head."),
    (re.compile(r"^vlm\.(model\.)?language_model\.(model\.)?"), "language_model."),
    (re.compile(r"^vlm\.(model\.)?(vision_tower|multi_modal_projector)\.(vision_model\.)?"), r"\2."),
)
"""Names that differ between versions of `transformers`, made one."""


def merge(
    adapter: str,
    base: str,
    out: Path,
    *,
    dtype: Dtype | None = None,
    lora_alpha: int = LisaRecipe.lora_alpha,
    progress: Callable[[Sequence[int], str], Iterable[int]] = lambda shards, _: shards,
) -> None:
    """Writes a model with what was learned in it. After an interrupt, the same call goes on.

    Args:
        adapter: a folder or hub id in PEFT's format, or a `pytorch_model.bin` that DeepSpeed's zero_to_fp32 made of a
            training with the original code.
        base: the model that was trained: what `Segmenter.load` takes.
        out: a folder that is empty, missing, or holds part of the same.
        dtype: precision of the weights; by default each keeps its own.
        lora_alpha: strength of the changes in a `pytorch_model.bin`, which does not say it.
        progress: wraps the iteration over shards to show how far it is.

    Raises:
        CheckpointError: one of them cannot be read, or they do not belong together.
        OutputError: the folder holds something else, or cannot be written to.
    """
    checkpoint = open_checkpoint(base)
    if is_file(adapter):
        learned, alpha = _original(Path(adapter)), lora_alpha
    else:
        learned, alpha = _peft(find_adapter(adapter))
    merged = replace(checkpoint, weights=merge_weights(checkpoint, learned, alpha, adapter))
    write_checkpoint(merged, out, f"{adapter} in {checkpoint.folder.resolve()}", dtype=dtype, progress=progress)


def merge_weights(
    checkpoint: Checkpoint, learned: Mapping[str, Tensor], alpha: int | float, adapter: str
) -> dict[str, Tensor]:
    """The weights of a model with those that were trained whole replaced, and low-rank changes added; both in fp32.

    Raises:
        CheckpointError: something was learned that the model does not have.
    """
    names = {_plain(name): name for name in checkpoint.weights}
    weights, halves = dict(checkpoint.weights), {}
    for name, tensor in learned.items():
        found = _LORA.match(name)
        if found:
            halves.setdefault(f"{found[1]}.weight", {})[found[2]] = tensor
        elif _plain(name) in names:
            weights[names[_plain(name)]] = tensor
    lone = [name for name, half in halves.items() if len(half) != 2]
    whole = [name for name in learned if not _LORA.match(name)]
    strange = sorted({*lone, *(name for name in (*halves, *whole) if _plain(name) not in names)})
    stranger = f"{adapter} was not learned by {checkpoint.config.model_name}"
    if strange:
        raise CheckpointError(f"{stranger}: it changes {listed(strange)}")
    for name, half in halves.items():
        own = names[_plain(name)]
        change = half["B"].float() @ half["A"].float() * (alpha / len(half["A"]))
        if change.shape != weights[own].shape:
            raise CheckpointError(
                f"{stranger}: {name} is {list(change.shape)} there and {list(weights[own].shape)} here"
            )
        weights[own] = weights[own].float() + change
    return weights


def _plain(name: str) -> str:
    for pattern, replacement in _SAME:
        name = pattern.sub(replacement, name)
    return name


def _peft(folder: Path) -> tuple[dict[str, Tensor], int | float]:
    """What was learned, by the names of our network, and LoRA's alpha."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        alpha = float(config["lora_alpha"])
        plain = config["peft_type"] == "LORA" and not any(config.get(key) for key in ("use_rslora", "use_dora"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} holds no adapter that can be read: {error!r}") from error
    if not plain:
        raise CheckpointError(f"{folder} is no plain LoRA adapter; merge it with PEFT")
    learned = open_file(folder / "adapter_model.safetensors")
    return {name.removeprefix(_PREFIX): tensor for name, tensor in learned.items()}, alpha


def _original(path: Path) -> dict[str, Tensor]:
    """The same of the original's state dict; CLIP, which it never changed, is left out."""
    state = open_file(path)
    if not all(name.startswith(_PREFIX) for name in state):
        raise CheckpointError(
            f"{path} is no state of the original's training: expected names that start with {_PREFIX}"
        )
    learned = {name.removeprefix(_PREFIX): tensor for name, tensor in state.items() if "vision_tower" not in name}
    return rename(learned)
