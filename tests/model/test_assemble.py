import json
from pathlib import Path

import pytest
import torch

from lisaseg.config import LoadOptions
from lisaseg.errors import CheckpointError
from lisaseg.model.assemble import assemble
from lisaseg.model.checkpoints import load_model
from lisaseg.model.weights import open_weights

LISA_PARTS = ("model.visual_model.", "model.text_hidden_fcs.")


@pytest.fixture
def parts(published: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The published model taken apart: LLaVA as before LISA, and SAM as Meta publishes it."""
    weights = open_weights(published)
    sam = {name.removeprefix(LISA_PARTS[0]): t.clone() for name, t in weights.items() if name.startswith(LISA_PARTS[0])}
    torch.save({**sam, "pixel_mean": torch.zeros(3)}, tmp_path / "sam.pth")
    llava = {name: tensor.clone() for name, tensor in weights.items() if not name.startswith(LISA_PARTS)}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        llava[name] = llava[name][:1024].clone()
    torch.save(llava, published / "pytorch_model.bin")
    (published / "added_tokens.json").unlink()
    record = json.loads((published / "config.json").read_text())
    (published / "config.json").write_text(json.dumps({**record, "vocab_size": 1024}))
    return published, tmp_path / "sam.pth"


def test_the_parts_are_there_unchanged_and_only_the_new_is_new(
    parts: tuple[Path, Path], tmp_path: Path, golden_checkpoint: Path
) -> None:
    assemble(str(parts[0]), parts[1], tmp_path / "lisa")
    made, processor = load_model(str(tmp_path / "lisa"), LoadOptions(device="cpu"))
    original, _ = load_model(str(golden_checkpoint), LoadOptions(device="cpu"))
    assert processor.tokenizer.added == {"[SEG]": 1024, "<im_start>": 1025, "<im_end>": 1026}
    one, other = original.state_dict(), made.state_dict()
    changed = {name for name in one if not torch.equal(one[name], other[name])}
    words = {"vlm.model.language_model.embed_tokens.weight", "vlm.lm_head.weight"}
    assert changed == words | {f"projection.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
    for name in words:
        assert torch.equal(one[name][:1024], other[name][:1024])
        assert float(other[name][1024:].std()) == pytest.approx(0.02, rel=0.3)


def test_the_seed_decides(parts: tuple[Path, Path], tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assemble(str(parts[0]), parts[1], tmp_path / name, seed=seed)
    a, b, c = (open_weights(tmp_path / name)["projection.0.weight"] for name in "abc")
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_what_is_a_lisa_already(golden_checkpoint: Path, parts: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a LISA already"):
        assemble(str(golden_checkpoint), parts[1], tmp_path / "lisa")


def test_what_is_no_llava(parts: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no LLaVA v1 model"):
        assemble("nano", parts[1], tmp_path / "lisa")


def test_no_sam(parts: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no file"):
        assemble(str(parts[0]), tmp_path / "missing.pth", tmp_path / "lisa")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="holds no SAM"):
        assemble(str(parts[0]), tmp_path / "other.pth", tmp_path / "lisa")
