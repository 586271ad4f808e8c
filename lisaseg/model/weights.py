"""The weight files of a folder, and their tensors: mapped into memory, so that bytes are read where they are used."""

import json
import pickle
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from lisaseg.errors import CheckpointError

STEMS = ("model.safetensors", "pytorch_model.bin")
"""Names of weights in one file, as folders of `transformers` have them; `NAME.index.json` stands for several files."""
ALIGNMENT = 64
"""Bytes: where a tensor starts in memory, so that the same weights give the same bits from any file."""


def weight_files(folder: Path) -> dict[Path, list[str]]:
    """The files that hold a folder's weights, safetensors before pickles, and what an index, if any, says is in each.

    Raises:
        CheckpointError: there are none, the index cannot be read, or it names a file that is not there.
    """
    for stem in STEMS:
        index = folder / f"{stem}.index.json"
        if index.is_file():
            return _indexed(index)
        if (folder / stem).is_file():
            return {folder / stem: []}
    raise CheckpointError(f"{folder} holds no weights: expected {' or '.join(STEMS)}, or shards with an index")


def open_weights(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder by its name in the files; nothing is read before it is used.

    Raises:
        CheckpointError: a file is missing, truncated, no file of weights, holds code, or lacks what its index names.
    """
    weights: dict[str, Tensor] = {}
    for path, expected in weight_files(folder).items():
        found = open_file(path)
        absent = sorted(set(expected) - set(found))
        if absent:
            raise CheckpointError(f"{path} lacks {listed(absent)}, which the index says it has; get a whole copy of it")
        weights.update(found)
    return weights


def open_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file or one pickle of tensors and nothing else.

    Raises:
        CheckpointError: it cannot be read, or it is a pickle that would run code.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        record = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is refused: it holds more than tensors and could run code, or it is no file of weights; "
            "get the checkpoint from its authors, or as safetensors"
        ) from error
    except (OSError, ValueError, RuntimeError, EOFError, KeyError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"cannot read the weights in {path} (truncated or damaged? {path.stat().st_size:,} bytes): {reason}"
        ) from error
    if not isinstance(record, dict) or not all(isinstance(value, Tensor) for value in record.values()):
        raise CheckpointError(f"{path} is no table of tensors; expected a state dict")
    return record


def to_safetensors(tensors: dict[str, Tensor]) -> bytes:
    """A file of tensors whose data start aligned; the format lets its header end in spaces."""
    data = save(tensors, metadata={"format": "pt"})
    end = 8 + int.from_bytes(data[:8], "little")
    padding = -end % ALIGNMENT
    return b"".join(((end - 8 + padding).to_bytes(8, "little"), data[8:end], b" " * padding, data[end:]))


def listed(names: list[str], most: int = 5) -> str:
    """Names for a message: the first of them, and how many more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _indexed(index: Path) -> dict[Path, list[str]]:
    files: dict[Path, list[str]] = {}
    try:
        for name, file in json.loads(index.read_text("utf-8"))["weight_map"].items():
            files.setdefault(index.parent / file, []).append(name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"cannot read {index}: {error!r}; expected a weight_map of names and files") from error
    absent = sorted(path.name for path in files if not path.is_file())
    if absent:
        raise CheckpointError(
            f"{index} names {listed(absent)}, which {index.parent} does not hold; fetch the rest of it"
        )
    return files
