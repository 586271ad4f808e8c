"""What the original's own training leaves, read as `merge` reads it."""

from pathlib import Path

import pytest
import torch

from lisaseg.config import LoadOptions
from lisaseg.errors import CheckpointError, OutputError
from lisaseg.model.checkpoints import load_model
from lisaseg.model.merge import merge
from lisaseg.model.weights import open_weights

Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def state(published: Path, tmp_path: Path) -> Path:
    """As zero_to_fp32 writes it: PEFT's names of 2023, LoRA beside its layer, and CLIP."""
    weights = {f"base_model.model.{name}": tensor.clone() for name, tensor in open_weights(published).items()}
    torch.manual_seed(0)
    weights[f"base_model.model.{Q}.lora_A.default.weight"] = torch.randn(8, 64)
    weights[f"base_model.model.{Q}.lora_B.default.weight"] = torch.randn(64, 8)
    weights["base_model.model.model.text_hidden_fcs.0.2.bias"] += 1
    weights["base_model.model.model.vision_tower.vision_tower.embeddings.class_embedding"] = torch.zeros(32)
    torch.save(weights, tmp_path / "pytorch_model.bin")
    return tmp_path / "pytorch_model.bin"


def test_low_rank_changes_are_added_and_the_rest_is_replaced(published: Path, state: Path, tmp_path: Path) -> None:
    merge(str(state), str(published), tmp_path / "merged", lora_alpha=16)
    before, _ = load_model(str(published), LoadOptions(device="cpu"))
    after, _ = load_model(str(tmp_path / "merged"), LoadOptions(device="cpu"))
    learned = torch.load(state, weights_only=True)
    down = learned[f"base_model.model.{Q}.lora_A.default.weight"]
    up = learned[f"base_model.model.{Q}.lora_B.default.weight"]
    one, other = before.state_dict(), after.state_dict()
    name = "vlm.model.language_model.layers.0.self_attn.q_proj.weight"
    torch.testing.assert_close(other[name], one[name] + 2 * up @ down)
    torch.testing.assert_close(other["projection.2.bias"], one["projection.2.bias"] + 1)
    same = {key for key in one if torch.equal(one[key], other[key])}
    assert set(one) - same == {name, "projection.2.bias"}


def test_a_state_of_something_else(published: Path, tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.bin")
    with pytest.raises(CheckpointError, match=r"names that start with base_model\.model\."):
        merge(str(tmp_path / "other.bin"), str(published), tmp_path / "merged")


def test_a_state_of_another_model(published: Path, tmp_path: Path) -> None:
    torch.save({"base_model.model.model.layers.9.mlp.weight": torch.zeros(1)}, tmp_path / "other.bin")
    with pytest.raises(CheckpointError, match=r"was not learned by published: it changes .*layers\.9"):
        merge(str(tmp_path / "other.bin"), str(published), tmp_path / "merged")


def test_changes_of_another_size(published: Path, state: Path, tmp_path: Path) -> None:
    weights = torch.load(state, weights_only=True)
    weights[f"base_model.model.{Q}.lora_A.default.weight"] = torch.zeros(8, 60)
    torch.save(weights, state)
    with pytest.raises(CheckpointError, match=r"is \[64, 60\] there and \[64, 64\] here"):
        merge(str(state), str(published), tmp_path / "merged")


def test_nothing_is_overwritten(published: Path, state: Path) -> None:
    with pytest.raises(OutputError, match="is not empty"):
        merge(str(state), str(published), published)
