import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from lisaseg.errors import CheckpointError
from lisaseg.model.summary import summarize


def test_a_published_checkpoint_in_figures(published: Path) -> None:
    summary = summarize(str(published))
    assert summary.template == "llava_v1"
    assert summary.tokens == {"[SEG]": 1024, "<im_start>": 1025, "<im_end>": 1026}
    assert summary.language_model == {"layers": 2, "width": 64, "heads": 4}
    assert summary.vision_tower["picture_tokens"] == 256
    assert summary.segmenter["image_side"] == 1024
    weights = torch.load(published / "pytorch_model.bin", weights_only=True)
    tower = torch.load(published / "clip" / "pytorch_model.bin", weights_only=True)
    assert summary.stored is not None
    left_out = [name for name in weights if "inv_freq" in name]
    assert summary.stored["float32"] == sum(
        tensor.numel() for name, tensor in [*weights.items(), *tower.items()] if name not in left_out
    ) - sum(tensor.numel() for name, tensor in tower.items() if "position_ids" in name)
    assert summary.bytes_on_disk == (published / "pytorch_model.bin").stat().st_size
    totals = [summary.memory[name].total for name in ("fp32", "bf16 or fp16", "8bit", "4bit")]
    assert totals == sorted(totals, reverse=True)
    json.dumps(summary.to_dict())


def test_weights_that_do_not_fit_are_told(published: Path) -> None:
    weights = torch.load(published / "pytorch_model.bin", weights_only=True)
    del weights["lm_head.weight"]
    torch.save(weights, published / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="missing keys"):
        summarize(str(published))


def test_parts_add_up(tiny_model: str) -> None:
    summary = summarize(tiny_model)
    assert summary.stored is not None
    tied = 2 * 64  # SAM's positions stand in the file twice
    assert sum(summary.parameters.values()) == sum(summary.stored.values()) - tied


def test_a_hub_model_needs_no_weights(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "hub" / "models--xinlai--LISA-7B-v1"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("0" * 40)
    folder = Path(shutil.copytree(published, home / "snapshots" / ("0" * 40)))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    whole = summarize("lisa-7b")
    assert whole.stored is not None
    assert whole.name == "LISA-7B-v1"
    (folder / "pytorch_model.bin").unlink()
    settings_alone = summarize("lisa-7b")
    assert settings_alone.stored is None
    assert settings_alone.parameters == whole.parameters
    assert settings_alone.memory == whole.memory
