"""From a model's name to a network that answers: our own layout or a published one, in any precision.

Our layout is a folder with `config.json` (`model_type: lisaseg`), safetensors weights, `tokenizer.model`,
`added_tokens.json` and `preprocessor_config.json`. A published LISA folder is read as it is (`official`).
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from huggingface_hub.utils import enable_progress_bars
from safetensors import SafetensorError
from torch import Tensor
from transformers.utils import logging

from lisaseg.config import LoadOptions
from lisaseg.errors import CheckpointError, OutputError
from lisaseg.files import is_folder, make_folder
from lisaseg.language.tokenizer import Tokenizer
from lisaseg.model.adapters import apply_adapter
from lisaseg.model.configuration import LisaConfig
from lisaseg.model.devices import choose_device
from lisaseg.model.hub import find_model, full_name
from lisaseg.model.lisa import Lisa
from lisaseg.model.memory import refuse_what_cannot_fit, telling_out_of_memory
from lisaseg.model.official import clip_images, read_official_config, refuse_lookalikes, rename, rename_clip
from lisaseg.model.processor import Processor
from lisaseg.model.quantize import prepare_quantized, quantization_config
from lisaseg.model.weights import ALIGNMENT, listed, open_weights


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """A model on disk, understood but not loaded."""

    folder: Path
    config: LisaConfig
    processor: Processor
    weights: dict[str, Tensor]
    """Mapped into memory, not read; by our names. Empty where they are not on this machine."""


def open_checkpoint(name: str, *, vision_tower: str | None = None, with_weights: bool = True) -> Checkpoint:
    """Understands a model: its configuration and tokenizer are read, its weights only mapped.

    Args:
        name: `nano`, a published checkpoint's short name, a folder, or a hub id.
        vision_tower: folder or hub id of CLIP, for a published checkpoint, instead of the one its config.json names.
        with_weights: False needs no weights, and fetches none.

    Raises:
        CheckpointError: it cannot be found or read, or is no LISA model.
    """
    folder = find_model(name, with_weights=with_weights)
    record = read_record(folder)
    kind = record.get("model_type", "nameless")
    if kind not in (LisaConfig.model_type, "llava"):
        raise CheckpointError(f"{folder} is a {kind!r} model; expected a LISA checkpoint (lisaseg or llava)")
    weights = open_weights(folder) if with_weights else {}
    if kind == LisaConfig.model_type:
        if vision_tower is not None:
            raise CheckpointError(f"{folder} holds its own vision tower; --vision-tower is for published checkpoints")
        config = check_config(folder, LisaConfig.from_dict, record)
        processor = Processor.load(folder, config)
    else:
        refuse_lookalikes(folder, record, weights)
        tower = find_tower(folder, record, vision_tower, with_weights=with_weights)
        config = check_config(folder, lambda record: read_official_config(folder, record, read_record(tower)), record)
        config.model_name = full_name(name)
        side = cast(int, config.vision.image_size)
        processor = Processor(config, Tokenizer.load(folder), clip_images(tower, side))
        weights = {**rename(weights), **rename_clip(open_weights(tower) if with_weights else {})}
    if len(processor.tokenizer) > config.text.vocab_size:
        raise CheckpointError(
            f"tokenizer and weights in {folder} do not belong together: {len(processor.tokenizer)} tokens, "
            f"{config.text.vocab_size} embeddings"
        )
    return Checkpoint(folder=folder, config=config, processor=processor, weights=weights)


def load_model(name: str, options: LoadOptions) -> tuple[Lisa, Processor]:
    """Reads a model, ready to answer on the device and in the precision of the options.

    Raises:
        CheckpointError: it cannot be found or read, or its weights do not fit its configuration.
        DeviceError: the device is not to be had, or has too little memory, or cannot quantise.
        MissingExtraError: quantisation is asked for without bitsandbytes, or an adapter without PEFT.
    """
    device, dtype = choose_device(options)
    quantization = quantization_config(options, device, dtype)
    checkpoint = open_checkpoint(name, vision_tower=options.vision_tower)
    refuse_what_cannot_fit(checkpoint.config, device, dtype, options)
    with telling_out_of_memory(device):
        lisa = _fill(checkpoint, device, dtype, quantization)
        if options.adapter is not None:
            apply_adapter(lisa, options.adapter, merge=options.quantize is None)
    if options.parity:
        lisa.segmenter.shared_image_embedding.to(dtype)
    return lisa, checkpoint.processor


def quieten_libraries(*, keep_downloads: bool, keep_loading: bool = False) -> None:
    """From now on transformers tells errors only; bars of downloads and of loading are shown where they are kept."""
    logging.set_verbosity_error()
    if keep_loading:
        logging.enable_progress_bar()
    else:
        logging.disable_progress_bar()
    if keep_downloads:
        enable_progress_bars()


def read_record(folder: Path) -> dict[str, Any]:
    """The config.json of a folder, or CheckpointError."""
    path = folder / "config.json"
    try:
        record = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} holds no model: it has no config.json") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if not isinstance(record, dict):
        raise CheckpointError(f"{path} is no table of settings; get a whole copy of the model")
    return record


def check_config(folder: Path, read: Callable[[dict[str, Any]], LisaConfig], record: dict[str, Any]) -> LisaConfig:
    """A configuration that makes a network, or an error that names the file."""
    path = folder / "config.json"
    try:
        config = read(record)
        fits = 0 < config.num_image_tokens < config.max_prompt_tokens < config.text.max_position_embeddings
    except (TypeError, ValueError, AttributeError, KeyError, ArithmeticError, StrictDataclassError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise CheckpointError(f"{path} describes no LISA network: {reason}") from error
    if not fits:
        raise CheckpointError(f"{path} leaves no room for words: picture, prompt and positions do not fit each other")
    return config


def find_tower(folder: Path, record: dict[str, Any], asked: str | None, *, with_weights: bool) -> Path:
    """CLIP's folder: the one asked for, else what config.json names, in the checkpoint, elsewhere, or on the hub."""
    named = asked or record.get("vision_tower") or record.get("mm_vision_tower")
    if not isinstance(named, str):
        raise CheckpointError(f"{folder} names no vision tower; give CLIP's folder or hub id with --vision-tower")
    if asked is None and is_folder(folder / named):
        return folder / named
    try:
        return find_model(named, with_weights=with_weights)
    except CheckpointError as error:
        raise CheckpointError(
            f"the vision tower of {folder} cannot be had ({error}); --vision-tower names another folder or hub id"
        ) from error


def check_fit(checkpoint: Checkpoint) -> None:
    """Raises CheckpointError where weights and configuration do not fit each other; reads no weights."""
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in checkpoint.weights.items()}
    _fill(replace(checkpoint, weights=shapes), torch.device("meta"), torch.float32, None)


def _fill(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, quantization: Any) -> Lisa:
    """The network with every parameter filled, tensor by tensor, each at once in its place and precision."""
    strange = sorted(name for name, tensor in checkpoint.weights.items() if not tensor.is_floating_point())
    if strange:
        raise CheckpointError(
            f"the weights in {checkpoint.folder} are of a wrong dtype: {listed(strange)} "
            f"({checkpoint.weights[strange[0]].dtype}); expected float32, float16 or bfloat16"
        )
    config = checkpoint.config
    for part in (config.vision, config.text):
        part.dtype = dtype  # else they would be made in the precision that their file names
    loaded: Any = Lisa.from_pretrained(
        None,
        config=config,
        state_dict=checkpoint.weights,
        dtype=dtype,
        device_map={"": device},
        quantization_config=quantization,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are named below
    )
    lisa, report = loaded
    for trouble in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report.get(trouble):
            raise CheckpointError(
                f"the weights in {checkpoint.folder} do not fit its config.json: {trouble.replace('_', ' ')}: "
                f"{listed(sorted(map(_told, report[trouble])))}"
            )
    prepare_quantized(lisa)
    _align(lisa)
    return lisa.eval()


def _align(lisa: Lisa) -> None:
    """Moves weights that lie anywhere in a mapped file: matrix products differ in their last bit by alignment."""
    for parameter in lisa.parameters():
        if parameter.device.type == "cpu" and parameter.data_ptr() % ALIGNMENT:
            parameter.data = parameter.data.clone()


def _told(trouble: Any) -> str:
    """A key, or a key with the shape it has and the shape it should have."""
    if isinstance(trouble, str):
        return trouble
    name, found, expected = trouble
    return f"{name} is {list(found)} instead of {list(expected)}"


def save_model(lisa: Lisa, processor: Processor, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Writes a model that `load_model` reads back, its weights in `dtype`; the model given is not changed.

    Raises:
        OutputError: the folder cannot be written to; no file of it is half-written.
    """
    make_folder(folder)
    weights = {name: tensor.to(dtype) for name, tensor in lisa.state_dict().items()}
    try:
        with tempfile.TemporaryDirectory(dir=folder) as room:
            lisa.save_pretrained(room, state_dict=weights)
            processor.save(Path(room))
            for file in sorted(Path(room).iterdir()):
                file.replace(folder / file.name)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot write the model to {folder}: {error}; choose another folder") from error
