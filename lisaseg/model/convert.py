"""Any model that can be read, to our own layout: safetensors in shards, each written whole or not at all."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lisaseg.config import Dtype
from lisaseg.errors import OutputError
from lisaseg.files import is_file, make_folder, remove, write_atomic
from lisaseg.model.checkpoints import Checkpoint, check_fit, open_checkpoint
from lisaseg.model.devices import DTYPES
from lisaseg.model.lisa import FP32_ALWAYS, FP32_IN_FP16
from lisaseg.model.weights import ALIGNMENT, to_safetensors

SHARD_BYTES = 2_000_000_000
PLAN_FILE = ".lisaseg-convert.json"
"""In a folder that is being written: what from, so that only the same conversion goes on."""


def convert(
    model: str,
    out: Path,
    *,
    dtype: Dtype | None = None,
    vision_tower: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[Sequence[int], str], Iterable[int]] = lambda shards, _: shards,
) -> None:
    """Writes a model to a new folder. After an interrupt, the same call goes on with the first shard that is missing.

    Args:
        model: what `Segmenter.load` takes.
        out: a folder that is empty, missing, or holds part of the same conversion.
        dtype: precision of all weights but those that are always kept in fp32; by default each keeps its own.
        vision_tower: as for `Segmenter.load`.
        shard_bytes: size that no file exceeds, unless one tensor alone does.
        progress: wraps the iteration over shards to show how far it is.

    Raises:
        CheckpointError: the model cannot be read, or its weights do not fit its configuration.
        OutputError: the folder holds something else, or cannot be written to, or the disk is too small.
    """
    checkpoint = open_checkpoint(model, vision_tower=vision_tower)
    source = str(checkpoint.folder.resolve())
    write_checkpoint(checkpoint, out, source, dtype=dtype, shard_bytes=shard_bytes, progress=progress)


def write_checkpoint(
    checkpoint: Checkpoint,
    out: Path,
    source: str,
    *,
    dtype: Dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[Sequence[int], str], Iterable[int]] = lambda shards, _: shards,
) -> None:
    """Writes what was understood of a model, as `convert` does.

    Args:
        checkpoint: its weights are read one shard at a time.
        out: as for `convert`.
        source: what it was made from; an interrupted call goes on only with the same.
        dtype: as for `convert`.
        shard_bytes: as for `convert`.
        progress: as for `convert`.

    Raises:
        CheckpointError: weights and configuration do not fit each other.
        OutputError: as for `convert`.
    """
    check_fit(checkpoint)
    dtypes = {name: _dtype_on_disk(name, tensor, dtype) for name, tensor in checkpoint.weights.items()}
    sizes = {name: tensor.numel() * dtypes[name].itemsize for name, tensor in checkpoint.weights.items()}
    shards = _split(sizes, shard_bytes)
    _claim(out, {"source": source, "dtype": dtype, "shards": shards})
    paths = [out / f"model-{number + 1:05}-of-{len(shards):05}.safetensors" for number in range(len(shards))]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    _refuse_small_disk(out, sum(sizes[name] for number in missing for name in shards[number]))
    for number in progress(missing, "shards"):
        tensors = {name: checkpoint.weights[name].to(dtypes[name]).contiguous() for name in shards[number]}
        write_atomic(paths[number], to_safetensors(tensors))
    names = {name: path.name for path, shard in zip(paths, shards, strict=True) for name in shard}
    _finish(checkpoint, out, {"metadata": {"total_size": sum(sizes.values())}, "weight_map": names})


def _dtype_on_disk(name: str, tensor: Tensor, dtype: Dtype | None) -> torch.dtype:
    """So that loading in `dtype` gives what the source gives: parts that `Lisa` keeps in fp32 keep what they have."""
    kept = [*FP32_ALWAYS, *(FP32_IN_FP16 if dtype == "fp16" else ())]
    return tensor.dtype if dtype is None or any(part in name for part in kept) else DTYPES[dtype]


def _split(sizes: dict[str, int], most: int) -> list[list[str]]:
    """Names in order, cut into runs of at most so many bytes; odd sizes apart: they misalign what follows them."""
    even = {name: size for name, size in sizes.items() if size % ALIGNMENT == 0}
    odd = {name: size for name, size in sizes.items() if name not in even}
    return [*_runs(even, most), *_runs(odd, most)]


def _runs(sizes: dict[str, int], most: int) -> Iterator[list[str]]:
    run: list[str] = []
    room = most
    for name, size in sizes.items():
        if size > room and run:
            yield run
            run, room = [], most
        run.append(name)
        room -= size
    if run:
        yield run


def _claim(out: Path, plan: dict[str, object]) -> None:
    """Makes the folder ours, or goes on where the same plan was interrupted."""
    make_folder(out)
    note, text = out / PLAN_FILE, json.dumps(plan)
    if is_file(note):
        if note.read_text("utf-8") != text:
            raise OutputError(f"{out} holds part of another conversion; remove it, or choose another folder")
    elif any(out.iterdir()):
        raise OutputError(f"{out} is not empty; choose a folder that is empty or not there")
    else:
        write_atomic(note, text.encode())


def _refuse_small_disk(out: Path, size: int) -> None:
    free = shutil.disk_usage(out).free
    if size > free:
        raise OutputError(f"{out} has {free / 1e9:.1f} GB free and {size / 1e9:.1f} GB are needed; choose another disk")


def _finish(checkpoint: Checkpoint, out: Path, index: dict[str, object]) -> None:
    """The small files; config.json last, since it makes the folder a model."""
    write_atomic(out / "model.safetensors.index.json", json.dumps(index, indent=1).encode())
    checkpoint.processor.save(out)
    checkpoint.config.architectures = ["Lisa"]
    write_atomic(out / "config.json", checkpoint.config.to_json_string(use_diff=False).encode())
    remove(out / PLAN_FILE)
