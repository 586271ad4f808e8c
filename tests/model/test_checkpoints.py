import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lisaseg.config import LoadOptions
from lisaseg.errors import CheckpointError, DeviceError, OutputError
from lisaseg.model.checkpoints import load_model, save_model
from lisaseg.model.hub import find_model


@pytest.fixture
def copy(tiny_model: str, tmp_path: Path) -> Path:
    """A copy of the model that a test may damage."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_a_saved_model_loads_to_the_same_weights(tiny_model: str, tmp_path: Path) -> None:
    lisa, processor = load_model(tiny_model, LoadOptions())
    save_model(lisa, processor, tmp_path / "again", torch.float32)
    again, again_processor = load_model(str(tmp_path / "again"), LoadOptions())
    for (name, one), (_, other) in zip(lisa.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(one, other), name
    assert again_processor.encode([("Segment the dog.", None)]) == processor.encode([("Segment the dog.", None)])
    assert not again.training


def test_half_precision_on_disk_becomes_the_precision_asked_for(tiny_model: str, tmp_path: Path) -> None:
    lisa, processor = load_model(tiny_model, LoadOptions())
    save_model(lisa, processor, tmp_path / "half", torch.float16)
    assert {tensor.dtype for tensor in load_file(tmp_path / "half" / "model.safetensors").values()} == {torch.float16}
    assert load_model(str(tmp_path / "half"), LoadOptions())[0].dtype == torch.float32
    assert load_model(str(tmp_path / "half"), LoadOptions(dtype="fp16"))[0].dtype == torch.float16
    assert lisa.dtype == torch.float32


def test_an_unknown_name_lists_what_is_known() -> None:
    with pytest.raises(CheckpointError, match="unknown model 'lisa-99b': expected nano"):
        find_model("lisa-99b")


def test_a_hub_id_without_a_network_says_so() -> None:
    with pytest.raises(CheckpointError, match="cannot be reached and no copy is cached"):
        find_model("someone/lisa-tiny")


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="is a file; a model is a folder"):
        find_model(str(tmp_path / "weights.bin"))


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no model: it has no config\.json"):
        load_model(str(tmp_path), LoadOptions())


def test_another_kind_of_model_is_named(copy: Path) -> None:
    (copy / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="is a 'bert' model"):
        load_model(str(copy), LoadOptions())


def test_a_damaged_configuration_is_named(copy: Path) -> None:
    (copy / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"cannot read .*config\.json"):
        load_model(str(copy), LoadOptions())


def test_truncated_weights_are_refused(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="cannot read the weights"):
        load_model(str(copy), LoadOptions())


def test_missing_weights_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot read the weights"):
        load_model(str(copy), LoadOptions())


@pytest.mark.parametrize("trouble", ["missing", "unexpected", "mismatched"])
def test_weights_that_do_not_fit_are_listed(copy: Path, trouble: str) -> None:
    weights = load_file(copy / "model.safetensors")
    if trouble == "missing":
        del weights["projection.0.weight"]
    elif trouble == "unexpected":
        weights["projection.9.weight"] = torch.zeros(1)
    else:
        weights["projection.0.weight"] = torch.zeros(2, 2)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"projection\.[09]\.weight"):
        load_model(str(copy), LoadOptions())


@pytest.mark.parametrize("name", ["tokenizer.model", "added_tokens.json", "preprocessor_config.json"])
def test_a_missing_side_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load_model(str(copy), LoadOptions())


def test_a_tokenizer_of_another_model_is_refused(copy: Path) -> None:
    (copy / "added_tokens.json").write_text(json.dumps({"[SEG]": 90000, "<im_start>": 90001, "<im_end>": 90002}))
    with pytest.raises(CheckpointError, match="do not belong together"):
        load_model(str(copy), LoadOptions())


@pytest.mark.parametrize(
    ("device", "message"), [("abacus", "unknown device 'abacus'"), ("cuda:97", "not to be had on this machine")]
)
def test_an_absent_device_is_refused(tiny_model: str, device: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        load_model(tiny_model, LoadOptions(device=device))


@pytest.mark.parametrize(
    ("key", "value"),
    [("vlm_config", {"text_config": "llama"}), ("max_prompt_tokens", "many"), ("max_prompt_tokens", 100_000)],
)
def test_a_configuration_that_makes_no_network_is_refused(copy: Path, key: str, value: object) -> None:
    record = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**record, key: value}))
    with pytest.raises(CheckpointError, match=r"describes no LISA network|leaves no room for words"):
        load_model(str(copy), LoadOptions())


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "added_tokens.json"])
def test_a_list_in_place_of_a_record_is_refused(copy: Path, name: str) -> None:
    (copy / name).write_text("[]")
    with pytest.raises(CheckpointError):
        load_model(str(copy), LoadOptions())


def test_a_name_too_long_for_a_path_is_an_unknown_model() -> None:
    with pytest.raises(CheckpointError, match="unknown model"):
        find_model("a" * 5000)


def test_a_model_that_cannot_be_written_leaves_nothing(tiny_model: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    lisa, processor = load_model(tiny_model, LoadOptions())
    with pytest.raises(OutputError):
        save_model(lisa, processor, tmp_path / "file" / "model")
