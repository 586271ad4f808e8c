import json
from pathlib import Path

import pytest
import torch

from lisaseg.config import RECIPES, LisaRecipe, LoadOptions
from lisaseg.errors import CheckpointError, MissingExtraError
from lisaseg.model import adapters
from lisaseg.model.adapters import add_adapter, apply_adapter
from lisaseg.model.checkpoints import load_model
from lisaseg.model.merge import merge
from lisaseg.segmenter import Segmenter

CPU = LoadOptions(device="cpu")


@pytest.fixture
def adapter(talking_model: str, tmp_path: Path) -> Path:
    """An adapter whose every weight was moved by some random training."""
    lisa, _ = load_model(talking_model, CPU)
    learner = add_adapter(lisa, RECIPES["lisa-7b"], talking_model)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in learner.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))
    learner.save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter"


def test_a_recipe_trains_its_parts_and_low_rank_changes_and_nothing_else(tiny_model: str) -> None:
    lisa, _ = load_model(tiny_model, CPU)
    learner = add_adapter(lisa, LisaRecipe(), tiny_model)
    trained = [name for name, parameter in learner.named_parameters() if parameter.requires_grad]
    assert all(any(part in name for part in (".lora_", ".projection.", ".mask_decoder.")) for name in trained)
    for part in ("q_proj.lora_A", "v_proj.lora_B", "projection.2", "mask_decoder.modules_to_save"):
        assert any(part in name for name in trained), part
    assert not any("patch_embed" in name or "vision_tower" in name for name in trained)
    assert not any("mask_decoder" in name and ".lora_" in name for name in trained)
    assert all(p.dtype == torch.float32 for p in learner.parameters() if p.requires_grad)


def test_the_paper_trains_embeddings_and_head_too(tiny_model: str) -> None:
    lisa, _ = load_model(tiny_model, CPU)
    trained = [n for n, p in add_adapter(lisa, RECIPES["lisa-7b"], "").named_parameters() if p.requires_grad]
    assert any("embed_tokens" in name for name in trained)
    assert any("lm_head" in name for name in trained)


def test_an_adapter_changes_the_model_that_it_is_laid_over(talking_model: str, adapter: Path) -> None:
    plain, _ = load_model(talking_model, CPU)
    changed, _ = load_model(talking_model, LoadOptions(device="cpu", adapter=str(adapter)))
    one, other = plain.state_dict(), changed.state_dict()
    assert one.keys() == other.keys()
    moved = {name for name in one if not torch.equal(one[name], other[name])}
    assert "vlm.model.language_model.layers.0.self_attn.q_proj.weight" in moved
    assert "projection.0.weight" in moved
    assert "vlm.model.language_model.layers.0.self_attn.k_proj.weight" not in moved
    assert not any(parameter.requires_grad for parameter in changed.parameters())


def test_a_merged_model_is_the_model_with_its_adapter(talking_model: str, adapter: Path, tmp_path: Path) -> None:
    merge(str(adapter), talking_model, tmp_path / "merged", dtype="fp32")
    merged, _ = load_model(str(tmp_path / "merged"), CPU)
    laid_over, _ = load_model(talking_model, LoadOptions(device="cpu", adapter=str(adapter)))
    one, other = merged.state_dict(), laid_over.state_dict()
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=1e-6, rtol=0, msg=name)


def test_the_segmenter_takes_an_adapter(talking_model: str, adapter: Path, red: Path) -> None:
    answer = Segmenter.load(talking_model, adapter=adapter).segment(red, "Segment the dog.")
    assert answer.raw_text


@pytest.fixture
def red(tmp_path: Path) -> Path:
    from PIL import Image

    path = tmp_path / "red.png"
    Image.new("RGB", (80, 60), "red").save(path)
    return path


@pytest.mark.parametrize("name", ["nowhere", "a/b/c"])
def test_no_adapter_there(talking_model: str, name: str) -> None:
    with pytest.raises(CheckpointError, match="there is no adapter"):
        load_model(talking_model, LoadOptions(device="cpu", adapter=name))


def test_a_folder_that_is_no_adapter(talking_model: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no adapter_config\.json"):
        load_model(talking_model, LoadOptions(device="cpu", adapter=str(tmp_path)))


def test_an_adapter_of_another_model(adapter: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be laid over nano"):
        load_model("nano", LoadOptions(device="cpu", adapter=str(adapter)))


def test_a_truncated_adapter(talking_model: str, adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be laid over"):
        load_model(talking_model, LoadOptions(device="cpu", adapter=str(adapter)))


def test_peft_is_missing(talking_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lisa, _ = load_model(talking_model, CPU)
    monkeypatch.setattr(adapters.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"lisaseg\[train\]"):
        apply_adapter(lisa, "anything")


def test_a_kind_of_adapter_that_cannot_be_merged(talking_model: str, adapter: Path, tmp_path: Path) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "use_dora": True}))
    with pytest.raises(CheckpointError, match="merge it with PEFT"):
        merge(str(adapter), talking_model, tmp_path / "merged")
