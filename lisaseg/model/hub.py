"""Models by name: bundled, published under a short name, in a local folder, or on the Hugging Face hub."""

import errno
import json
from importlib.resources import files
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from lisaseg.config import BUNDLED, OFFICIAL
from lisaseg.errors import CheckpointError
from lisaseg.files import is_file, is_folder

READABLE = ("lisaseg", "llava", "clip", "clip_vision_model")
"""Values of `model_type` that a model or its vision tower may have."""
_SMALL = ["*.json", "*.model"]


def find_model(name: str, *, with_weights: bool = True) -> Path:
    """The folder of a model: a bundled one, a local folder, or one of the hub (fetched, or from the cache).

    Args:
        name: `nano`, a short name of `config.OFFICIAL`, a folder, or a hub id.
        with_weights: False leaves weights on the hub.

    Raises:
        CheckpointError: there is no such model, it is of a kind that cannot be read (told before its weights are
            fetched), or the hub cannot be reached and nothing is cached.
    """
    if name in BUNDLED:
        return Path(str(files("lisaseg").joinpath(name)))
    if is_folder(name):
        return Path(name)
    if is_file(name):
        raise CheckpointError(f"{name} is a file; a model is a folder with a config.json, or a hub id")
    name = OFFICIAL.get(name, name)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(
            f"unknown model {name!r}: expected {', '.join((*BUNDLED, *OFFICIAL))}, an existing folder, "
            "or a hub id such as owner/name"
        )
    folder = _fetch(name, _SMALL)
    _refuse_other_kinds(name, folder)
    if with_weights:
        _fetch_weights(name, folder)
    return folder


def find_adapter(name: str) -> Path:
    """The folder of an adapter in PEFT's format: a local one, or one of the hub.

    Raises:
        CheckpointError: there is none, or the hub cannot be reached and nothing is cached.
    """
    if not is_folder(name) and (is_file(name) or name.count("/") != 1 or name.startswith((".", "/", "~"))):
        raise CheckpointError(f"there is no adapter {name}: expected a folder that `lisaseg train` wrote, or a hub id")
    folder = Path(name) if is_folder(name) else _fetch(name, ["adapter_config.json", "adapter_model.safetensors"])
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / file).is_file():
            raise CheckpointError(f"{name} holds no adapter: it has no {file}")
    return folder


def full_name(name: str) -> str:
    """What a model calls itself: the last part of its folder or hub id."""
    return Path(OFFICIAL.get(name, name)).resolve().name if is_folder(name) else OFFICIAL.get(name, name).split("/")[-1]


def _refuse_other_kinds(name: str, folder: Path) -> None:
    try:
        kind = json.loads((folder / "config.json").read_text("utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{name!r} on the hub is no model that can be read: {error!r}") from error
    if kind not in READABLE:
        raise CheckpointError(f"{name!r} on the hub is a {kind!r} model; expected LISA or a CLIP vision tower")


def _fetch_weights(name: str, folder: Path) -> None:
    """Safetensors where there are any, else pickles; never both."""
    is_sharded_pickle = (folder / "pytorch_model.bin.index.json").is_file()
    if not is_sharded_pickle or (folder / "model.safetensors.index.json").is_file():
        _fetch(name, ["model*.safetensors"])
    if not any(folder.glob("model*.safetensors")):
        _fetch(name, ["pytorch_model*.bin"])


def _fetch(name: str, patterns: list[str]) -> Path:
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise CheckpointError(f"the hub has no model {name!r} (or it is private and needs HF_TOKEN)") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise CheckpointError(
                f"cannot store {name!r} in the hub's cache: {error}; HF_HOME names another"
            ) from error
        raise CheckpointError(
            f"cannot fetch {name!r}: the hub cannot be reached and no copy is cached; connect once, or give a folder"
        ) from error
