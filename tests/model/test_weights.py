import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lisaseg.errors import CheckpointError
from lisaseg.model.weights import ALIGNMENT, listed, open_file, open_weights, to_safetensors

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.bias": torch.ones(4, dtype=torch.bfloat16)}


def write_sharded(folder: Path, suffix: str) -> None:
    """Two shards and an index, as safetensors or as pickles."""
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    files = {name: f"{stem}-0000{number}-of-00002.{suffix}" for number, name in enumerate(TENSORS, 1)}
    for name, file in files.items():
        write(folder / file, {name: TENSORS[name]})
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def write(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)


@pytest.fixture(params=["safetensors", "bin"])
def suffix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_shards_are_read_as_they_were_written(tmp_path: Path, suffix: str) -> None:
    write_sharded(tmp_path, suffix)
    found = open_weights(tmp_path)
    assert set(found) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype


def test_one_file_needs_no_index(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "pytorch_model.bin")
    assert set(open_weights(tmp_path)) == set(TENSORS)


def test_pickles_older_than_zip_are_read(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert torch.equal(open_weights(tmp_path)["a.weight"], TENSORS["a.weight"])


def test_safetensors_go_before_pickles(tmp_path: Path) -> None:
    write_sharded(tmp_path, "safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    assert set(open_weights(tmp_path)) == set(TENSORS)


def test_no_weights_at_all(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no weights: expected model\.safetensors or pytorch_model\.bin"):
        open_weights(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path, suffix: str) -> None:
    write_sharded(tmp_path, suffix)
    next(tmp_path.glob(f"*-00002-of-00002.{suffix}")).unlink()
    with pytest.raises(
        CheckpointError, match=rf"index\.json names .*-00002-of-00002\.{suffix}, which .* does not hold"
    ):
        open_weights(tmp_path)


def test_a_truncated_shard_is_named(tmp_path: Path, suffix: str) -> None:
    write_sharded(tmp_path, suffix)
    shard = next(tmp_path.glob(f"*-00001-of-00002.{suffix}"))
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=r"-00001-of-00002") as told:
        open_weights(tmp_path)
    assert "truncated or damaged" in str(told.value) or "is refused" in str(told.value)


def test_a_shard_without_what_the_index_says(tmp_path: Path, suffix: str) -> None:
    write_sharded(tmp_path, suffix)
    write(next(tmp_path.glob(f"*-00001-of-00002.{suffix}")), {"another": torch.ones(1)})
    with pytest.raises(CheckpointError, match=r"lacks a\.weight, which the index says it has"):
        open_weights(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": [1]}', "{}"])
def test_a_damaged_index_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"cannot read .*model\.safetensors\.index\.json"):
        open_weights(tmp_path)


class Mischief:
    """What a pickle may not do."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code ran",)


@pytest.mark.parametrize(
    "write_pickle", [torch.save, lambda record, path: path.write_bytes(pickle.dumps(record, protocol=2))]
)
def test_a_pickle_with_code_in_it_is_refused_and_not_run(
    tmp_path: Path, write_pickle: "object", capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(write_pickle)
    write_pickle({"a": Mischief()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is refused: it holds more than tensors"):
        open_weights(tmp_path)
    assert "code ran" not in capsys.readouterr().out


def test_a_pickle_of_something_else_is_no_table_of_tensors(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="is no table of tensors"):
        open_file(tmp_path / "pytorch_model.bin")


def test_an_empty_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights.{suffix}"
    path.touch()
    with pytest.raises(CheckpointError, match="weights"):
        open_file(path)


def test_long_lists_are_cut() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcdefg")) == "a, b, c, d, e and 2 more"


def test_data_start_aligned_and_read_as_they_were_written(tmp_path: Path) -> None:
    for count in range(1, 9):  # headers of several lengths
        tensors = {f"{'x' * count}{number}": torch.full((64,), float(number)) for number in range(count)}
        (tmp_path / "model.safetensors").write_bytes(to_safetensors(tensors))
        found = open_file(tmp_path / "model.safetensors")
        assert set(found) == set(tensors)
        for name, tensor in found.items():
            assert torch.equal(tensor, tensors[name])
            assert tensor.data_ptr() % ALIGNMENT == 0
