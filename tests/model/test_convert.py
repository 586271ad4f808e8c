import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from lisaseg.config import Dtype
from lisaseg.errors import CheckpointError, OutputError
from lisaseg.model import convert as convert_module
from lisaseg.model.convert import PLAN_FILE, convert
from lisaseg.model.weights import ALIGNMENT, open_file, open_weights
from lisaseg.segmenter import Segmenter

GOLDEN = Path(__file__).parents[1] / "golden" / "llava_v1"
SOURCE = str(GOLDEN / "checkpoint")
QUESTION = "Can you segment the food that tastes spicy and hot?"
SHARD_BYTES = 4_000_000
"""Makes several shards of the tiny checkpoint."""


@pytest.mark.parametrize("dtype", [None, "fp32", "bf16", "fp16"])
def test_answers_are_bit_identical(tmp_path: Path, dtype: Dtype | None) -> None:
    convert(SOURCE, tmp_path / "out", dtype=dtype, shard_bytes=SHARD_BYTES)
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 2
    loaded = [Segmenter.load(model, device="cpu", dtype=dtype) for model in (SOURCE, str(tmp_path / "out"))]
    for (name, one), (_, other) in zip(*(seg.lisa.state_dict().items() for seg in loaded), strict=True):
        assert torch.equal(one, other), name
        assert one.dtype == other.dtype
    before, after = (seg.segment(GOLDEN / "scene0.png", QUESTION) for seg in loaded)
    assert before.raw_text == after.raw_text
    for one, other in zip(before.segments, after.segments, strict=True):
        assert np.array_equal(one.logits, other.logits)


def test_weights_keep_their_precision_unless_told_otherwise(tmp_path: Path) -> None:
    source = Path(shutil.copytree(SOURCE, tmp_path / "mixed"))
    weights = torch.load(source / "pytorch_model.bin", weights_only=True)
    mixed = {name: tensor if "visual_model" in name else tensor.bfloat16() for name, tensor in weights.items()}
    torch.save(mixed, source / "pytorch_model.bin")
    convert(str(source), tmp_path / "out")
    written = open_weights(tmp_path / "out")
    assert {tensor.dtype for name, tensor in written.items() if "segmenter" in name} == {torch.float32}
    assert {tensor.dtype for name, tensor in written.items() if "language_model" in name} == {torch.bfloat16}


def test_shards_are_no_larger_than_asked(tmp_path: Path) -> None:
    convert(SOURCE, tmp_path / "out", shard_bytes=SHARD_BYTES)
    for path in (tmp_path / "out").glob("model-*.safetensors"):
        tensors = open_file(path)
        assert len(tensors) == 1 or sum(t.numel() * t.itemsize for t in tensors.values()) <= SHARD_BYTES
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(open_weights(tmp_path / "out"))


def test_only_tensors_of_odd_sizes_lie_apart_and_unaligned(tmp_path: Path) -> None:
    convert(SOURCE, tmp_path / "out", shard_bytes=SHARD_BYTES)
    *even, odd = (open_file(path) for path in sorted((tmp_path / "out").glob("model-*.safetensors")))
    assert all(t.data_ptr() % ALIGNMENT == 0 for tensors in even for t in tensors.values())
    assert all(t.numel() * t.itemsize % ALIGNMENT for t in odd.values())


def interrupted_after(number: int) -> Callable[[Sequence[int], str], Iterator[int]]:
    def progress(shards: Sequence[int], _: str) -> Iterator[int]:
        for count, shard in enumerate(shards):
            if count == number:
                raise KeyboardInterrupt
            yield shard

    return progress


def test_an_interrupted_conversion_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        convert(SOURCE, out, shard_bytes=SHARD_BYTES, progress=interrupted_after(2))
    written = {path: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
    assert len(written) == 2
    assert not (out / "config.json").exists()
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        Segmenter.load(str(out))
    seen: list[int] = []
    convert(SOURCE, out, shard_bytes=SHARD_BYTES, progress=lambda shards, _: seen.extend(shards) or shards)
    assert seen[0] == 2
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert not (out / PLAN_FILE).exists()
    Segmenter.load(str(out))


def test_part_of_another_conversion_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        convert(SOURCE, out, shard_bytes=SHARD_BYTES, progress=interrupted_after(1))
    with pytest.raises(OutputError, match="holds part of another conversion"):
        convert(SOURCE, out, shard_bytes=SHARD_BYTES, dtype="bf16")


def test_a_folder_with_anything_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty"):
        convert(SOURCE, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(convert_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match=r"has 0\.0 GB free and 0\.0 GB are needed"):
        convert(SOURCE, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_weights_that_do_not_fit_are_refused_before_anything_is_written(published: Path, tmp_path: Path) -> None:
    weights = torch.load(published / "pytorch_model.bin", weights_only=True)
    del weights["lm_head.weight"]
    torch.save(weights, published / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"missing keys: vlm\.lm_head\.weight"):
        convert(str(published), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_of_our_own_changes_its_precision(tiny_model: str, tmp_path: Path) -> None:
    convert(tiny_model, tmp_path / "out", dtype="bf16")
    dtypes = {tensor.dtype for tensor in open_weights(tmp_path / "out").values()}
    assert torch.bfloat16 in dtypes
    assert Segmenter.load(str(tmp_path / "out")).lisa.config.template == "plain"
