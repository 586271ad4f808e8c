"""Models by name: bundled, in a local folder, or on the Hugging Face hub; and our own layout on disk.

A folder holds `config.json` (`model_type: lisaseg`), safetensors weights, `tokenizer.model`, `added_tokens.json` and
`preprocessor_config.json`.
"""

import json
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    StrictDataclassError,
)
from huggingface_hub.utils import enable_progress_bars
from safetensors import SafetensorError
from transformers.utils import logging

from lisaseg.config import BUNDLED, LoadOptions
from lisaseg.errors import CheckpointError
from lisaseg.files import is_file, is_folder, make_folder, write_atomic
from lisaseg.model.configuration import LisaConfig
from lisaseg.model.devices import choose_device
from lisaseg.model.lisa import Lisa
from lisaseg.model.processor import Processor


def find_model(name: str) -> Path:
    """The folder of a model: a bundled one, a local folder, or a hub id (fetched, or from the cache).

    Raises:
        CheckpointError: there is no such model, or the hub cannot be reached and nothing is cached.
    """
    if name in BUNDLED:
        return Path(str(files("lisaseg").joinpath(name)))
    if is_folder(name):
        return Path(name)
    if is_file(name):
        raise CheckpointError(f"{name} is a file; a model is a folder with a config.json, or a hub id")
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(
            f"unknown model {name!r}: expected {', '.join(BUNDLED)}, an existing folder, or a hub id such as owner/name"
        )
    return _fetch(name)


def _fetch(name: str) -> Path:
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.model"]))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise CheckpointError(f"the hub has no model {name!r} (or it is private and needs HF_TOKEN)") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise CheckpointError(
            f"cannot fetch {name!r}: the hub cannot be reached and no copy is cached; connect once, or give a folder"
        ) from error


def quieten_libraries(*, keep_downloads: bool) -> None:
    """From now on transformers tells errors only and shows no bars; the hub shows those of downloads, or none."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if keep_downloads:
        enable_progress_bars()


def load_model(name: str, options: LoadOptions) -> tuple[Lisa, Processor]:
    """Reads a model, ready to answer on the device and in the precision of the options.

    Raises:
        CheckpointError: it cannot be found or read, or its weights do not fit its configuration.
        DeviceError: the device is not to be had.
    """
    device, dtype = choose_device(options)
    folder = find_model(name)
    config = _read_config(folder)
    processor = Processor.load(folder, config)
    if len(processor.tokenizer) > config.text.vocab_size:
        raise CheckpointError(
            f"tokenizer and weights in {folder} do not belong together: {len(processor.tokenizer)} tokens, "
            f"{config.text.vocab_size} embeddings"
        )
    return _read_weights(folder, config, dtype).to(device).eval(), processor


def _read_config(folder: Path) -> LisaConfig:
    path = folder / "config.json"
    try:
        record = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} holds no model: it has no config.json") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    kind = record.get("model_type", "nameless") if isinstance(record, dict) else "nameless"
    if kind != LisaConfig.model_type:
        raise CheckpointError(
            f"{folder} is a {kind!r} model; expected one that lisaseg has written "
            f"(model_type {LisaConfig.model_type!r})"
        )
    try:
        config = LisaConfig.from_dict(record)
        fits = 0 < config.num_image_tokens < config.max_prompt_tokens < config.text.max_position_embeddings
    except (TypeError, ValueError, AttributeError, KeyError, ArithmeticError, StrictDataclassError) as error:
        raise CheckpointError(f"{path} describes no LISA network: {' '.join(str(error).split())}") from error
    if not fits:
        raise CheckpointError(f"{path} leaves no room for words: picture, prompt and positions do not fit each other")
    return config


def _read_weights(folder: Path, config: LisaConfig, dtype: torch.dtype) -> Lisa:
    try:
        loaded: Any = Lisa.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are named below
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"cannot read the weights in {folder}: {reason}") from error
    lisa, report = loaded
    for trouble in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report.get(trouble):
            names = sorted(map(str, report[trouble]))
            raise CheckpointError(
                f"the weights in {folder} do not fit its config.json: {trouble.replace('_', ' ')}: "
                f"{', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
            )
    return lisa


def save_model(lisa: Lisa, processor: Processor, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Writes a model that `load_model` reads back, its weights in `dtype`; the model given is not changed."""
    make_folder(folder)
    weights = {name: tensor.to(dtype) for name, tensor in lisa.state_dict().items()}
    with tempfile.TemporaryDirectory() as room:
        lisa.save_pretrained(room, state_dict=weights)
        processor.save(Path(room))
        for file in sorted(Path(room).iterdir()):
            write_atomic(folder / file.name, file.read_bytes())
