"""Models by name. The hub is a folder here: the cache as huggingface_hub lays it out, and no network."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from lisaseg.config import OFFICIAL, LoadOptions
from lisaseg.errors import CheckpointError
from lisaseg.model.checkpoints import load_model, open_checkpoint
from lisaseg.model.hub import find_model, full_name

CHECKPOINT = Path(__file__).parents[1] / "golden" / "llava_v1" / "checkpoint"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def fill(cache: Path, repo: str, source: Path) -> Path:
    """Puts a folder into the cache as if it had been fetched from a repository."""
    home = cache / f"models--{repo.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("0" * 40)
    return Path(shutil.copytree(source, home / "snapshots" / ("0" * 40)))


@pytest.mark.parametrize("name", [*OFFICIAL, *OFFICIAL.values()])
def test_published_checkpoints_are_found_by_short_name_and_hub_id(cache: Path, name: str) -> None:
    folder = fill(cache, OFFICIAL.get(name, name), CHECKPOINT)
    assert find_model(name) == folder
    assert full_name(name) == OFFICIAL.get(name, name).removeprefix("xinlai/")


def test_a_published_checkpoint_finds_its_vision_tower_on_the_hub(cache: Path) -> None:
    folder = fill(cache, OFFICIAL["lisa-7b"], CHECKPOINT)
    record = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**record, "vision_tower": "openai/clip-vit-large-patch14"}))
    fill(cache, "openai/clip-vit-large-patch14", folder / "clip")
    shutil.rmtree(folder / "clip")
    lisa, processor = load_model("lisa-7b", LoadOptions(device="cpu"))
    assert lisa.config.model_name == "LISA-7B-v1"
    assert processor.tokenizer.seg_id == 1024


def test_settings_are_enough_where_no_weights_are_asked_for(cache: Path) -> None:
    folder = fill(cache, OFFICIAL["lisa-7b"], CHECKPOINT)
    (folder / "pytorch_model.bin").unlink()
    (folder / "clip" / "pytorch_model.bin").unlink()
    assert open_checkpoint("lisa-7b", with_weights=False).weights == {}
    with pytest.raises(CheckpointError, match="holds no weights"):
        open_checkpoint("lisa-7b")


def test_another_kind_of_model_is_refused_before_its_weights_are_fetched(cache: Path) -> None:
    folder = fill(cache, "someone/bert", CHECKPOINT)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="'someone/bert' on the hub is a 'bert' model; expected LISA"):
        find_model("someone/bert")


def test_a_repository_without_a_configuration_is_no_model(cache: Path) -> None:
    (fill(cache, "someone/data", CHECKPOINT) / "config.json").unlink()
    with pytest.raises(CheckpointError, match="is no model that can be read"):
        find_model("someone/data")


@pytest.mark.parametrize("name", ["someone/lisa-tiny", "lisa-7b", "lisa-13b-explanatory"])
def test_without_a_network_and_a_copy_it_says_so(cache: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="the hub cannot be reached and no copy is cached"):
        find_model(name)


def test_an_unknown_name_lists_what_is_known() -> None:
    with pytest.raises(CheckpointError, match=r"unknown model 'lisa-99b': expected nano, lisa-7b, .*lisa-13b"):
        find_model("lisa-99b")


def test_a_name_too_long_for_a_path_is_an_unknown_model() -> None:
    with pytest.raises(CheckpointError, match="unknown model"):
        find_model("a" * 5000)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="is a file; a model is a folder"):
        find_model(str(tmp_path / "weights.bin"))
