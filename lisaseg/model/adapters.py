"""Adapters: what a training changed of a model, in PEFT's format, laid over the model or merged into it."""

import importlib.util
import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from safetensors import SafetensorError

from lisaseg.config import LisaRecipe, Part
from lisaseg.errors import CheckpointError, MissingExtraError
from lisaseg.model.hub import find_adapter
from lisaseg.model.lisa import Lisa

if TYPE_CHECKING:
    from peft import PeftModel

MODULES: dict[Part, tuple[str, ...]] = {
    "projection": ("projection.0", "projection.2"),  # SAM's patch embedding ends in "projection" too
    "mask_decoder": ("segmenter.mask_decoder",),
    "embed_tokens": ("embed_tokens",),
    "lm_head": ("lm_head",),
    "projector": ("multi_modal_projector",),
    "vision_tower": ("vlm.model.vision_tower",),
    "image_encoder": ("segmenter.vision_encoder",),
}
"""The modules of each part, by the ends of their names."""


def add_adapter(lisa: Lisa, recipe: LisaRecipe, base: str) -> "PeftModel":
    """The model with everything frozen but what the recipe trains, which is kept in fp32.

    Args:
        lisa: changed in place.
        recipe: what is trained.
        base: what the model was loaded by; the adapter names it.

    Raises:
        MissingExtraError: PEFT is not installed.
    """
    _require_peft()
    from peft import LoraConfig, get_peft_model

    layers = "|".join(recipe.lora_layers)
    config = LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        bias="none",
        target_modules=rf"vlm\.model\.language_model\..*\.({layers})",
        modules_to_save=[module for part in recipe.parts for module in MODULES[part]],
    )
    lisa.name_or_path = base
    with _without_warnings():
        learner = cast("PeftModel", get_peft_model(cast(Any, lisa), config))
    for parameter in learner.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    without_embeddings = partial(learner.save_pretrained, save_embedding_layers=False)  # they are parts, or frozen
    cast(Any, learner).save_pretrained = without_embeddings
    return learner


def apply_adapter(lisa: Lisa, adapter: str, *, merge: bool = True) -> None:
    """Lays an adapter over a model, in place.

    Args:
        lisa: the model that it was trained on.
        adapter: its folder, or a hub id.
        merge: adds the changes to the weights themselves, which is as fast as the model without them; a quantised
            model keeps them apart, as its weights cannot hold them.

    Raises:
        CheckpointError: it cannot be read or does not fit the model.
        MissingExtraError: PEFT is not installed.
    """
    _require_peft()
    from peft import PeftModel

    folder = find_adapter(adapter)
    dtypes = {name: parameter.dtype for name, parameter in lisa.named_parameters()}
    try:
        with _without_warnings():
            learned = PeftModel.from_pretrained(cast(Any, lisa), str(folder))
    except (RuntimeError, ValueError, KeyError, TypeError, OSError, SafetensorError, UserWarning) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"the adapter {adapter} cannot be laid over {lisa.config.model_name}: {reason}"
        ) from error
    if merge:
        learned.merge_and_unload()
    for name, parameter in lisa.named_parameters():
        parameter.requires_grad_(False)
        own = name.replace(".modules_to_save.default", "")
        if own in dtypes:  # trained in fp32, used in the precision of the rest
            parameter.data = parameter.data.to(dtypes[own])
    lisa.eval()


@contextmanager
def _without_warnings() -> Generator[None]:
    """PEFT asks networks by names that transformers is about to drop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("error", "Found missing adapter keys")  # it is of a smaller model
        yield


def _require_peft() -> None:
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # PEFT imports it, and it misses a kernel nobody needs
    if importlib.util.find_spec("peft") is None:
        raise MissingExtraError("adapters need peft: pip install 'lisaseg[train]'")
