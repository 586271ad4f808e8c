from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lisaseg.config import ClickRecipe, LoadOptions, RunOptions
from lisaseg.errors import CheckpointError
from lisaseg.model.checkpoints import load_model
from lisaseg.segmenter import Segmenter
from lisaseg.training.clicks import (
    ClickLearner,
    Picture,
    _boxes,
    _click,
    _hit_loss,
    _wishes,
    collate_pictures,
    train_clicks,
)


def square(*cells: tuple[int, int, int, int]) -> Tensor:
    """Masks of 16x16, each with a filled box (x0, y0, x1, y1)."""
    masks = torch.zeros(len(cells), 16, 16)
    for mask, (x0, y0, x1, y1) in zip(masks, cells, strict=True):
        mask[y0:y1, x0:x1] = 1
    return masks


def test_a_click_lies_where_the_mask_is_wrong() -> None:
    torch.manual_seed(0)
    wanted, drawn = square((2, 2, 8, 8), (2, 2, 8, 8), (2, 2, 8, 8)), square((2, 2, 8, 8), (2, 2, 14, 8), (0, 0, 0, 0))
    for _ in range(20):
        point, label = _click(drawn - 0.5, wanted)
        columns, rows = ((point + 0.5) / 4).floor().long()[:, 0].unbind(-1)
        assert label[:, 0].tolist() == [1, 0, 1]
        assert wanted[0, rows[0], columns[0]] == 1  # nothing is wrong: somewhere inside
        assert 8 <= columns[1] < 14
        assert 2 <= rows[1] < 8
        assert wanted[2, rows[2], columns[2]] == 1


def test_where_nothing_is_wanted_and_nothing_drawn_there_is_no_click() -> None:
    _, label = _click(square((0, 0, 0, 0)) - 0.5, square((0, 0, 0, 0)))
    assert label.tolist() == [[-1]]


def test_boxes_are_in_pixels_of_the_input() -> None:
    boxes = _boxes(square((2, 3, 8, 5), (0, 0, 16, 16), (0, 0, 0, 0)))
    assert boxes.tolist() == [[8, 12, 32, 20], [0, 0, 64, 64], [0, 0, 64, 64]]


def test_wishes_are_made_of_masks_of_the_same_picture() -> None:
    torch.manual_seed(0)
    one, two, strange = square((0, 0, 4, 4), (8, 8, 12, 12), (4, 4, 6, 6))
    masks, pictures = torch.stack([one, two, strange]), torch.tensor([0, 0, 1])
    seen = set()
    for _ in range(60):
        wish = _wishes(masks, pictures)
        assert torch.equal(wish[2], strange)
        seen.add("one" if torch.equal(wish[0], one) else "two" if torch.equal(wish[0], two) else "both")
        assert wish.flatten(1).any(dim=1).all()
    assert seen == {"one", "two", "both"}


def test_a_hit_counts_at_the_clicked_place_alone() -> None:
    logits = torch.full((2, 16, 16), -9.0)
    logits[0, 3, 5] = 9.0
    points = torch.tensor([[[5 * 4.0, 3 * 4.0]], [[5 * 4.0, 3 * 4.0]]])
    assert _hit_loss(logits, points, torch.tensor([[1], [0]])) < 0.01
    assert _hit_loss(logits, points, torch.tensor([[0], [1]])) > 8
    assert _hit_loss(logits, points, torch.tensor([[-1], [-1]])) == 0


def test_the_segmenter_learns_and_nothing_else(tiny_model: str) -> None:
    torch.manual_seed(0)
    lisa, _ = load_model(tiny_model, LoadOptions(device="cpu"))
    learner = ClickLearner(lisa.train())
    optimizer = torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], lr=2e-3)
    mask = torch.zeros(2, 48, 48)
    mask[0, 4:20, 4:20], mask[1, 28:44, 28:44] = 1, 1
    pictures = [
        Picture(segmenter_CHW=torch.randn(128, 12, 12), prompts_NC=torch.randn(2, 128), masks_Nhw=mask)
        for _ in range(2)
    ]
    batch = collate_pictures(pictures)
    before = {name: value.clone() for name, value in lisa.state_dict().items()}
    first = None
    for _ in range(60):
        losses = learner(**batch)
        first = first or float(losses["loss"].detach())
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
    assert float(losses["loss"].detach()) < 0.6 * first
    changed = {name for name, value in lisa.state_dict().items() if not torch.equal(value, before[name])}
    assert all("mask_decoder" in name or "prompt_encoder" in name for name in changed)
    assert any("mask_embed" in name for name in changed)
    assert any("point_embed" in name for name in changed)
    assert not any("positional_embedding" in name for name in changed)


def test_a_run_ends_with_a_model_that_says_what_it_said(
    tiny_pack: Path, talking_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lisaseg.training.clicks.FIRST_WORLD", ("dog", "cat", "cup", "car"))
    run = RunOptions(out=tmp_path / "run", pack=tiny_pack, start=Path(talking_model), device="cpu", workers=0)
    folder = train_clicks(ClickRecipe(scenes=8, passes=1, batch_size=4), run)
    image = np.full((40, 60, 3), 90, np.uint8)
    said = [Segmenter.load(model).segment(image, "Segment the dog.").raw_text for model in (talking_model, folder)]
    assert said[0] == said[1]


def test_a_model_that_is_not_there_is_told(tiny_pack: Path, tmp_path: Path) -> None:
    run = RunOptions(out=tmp_path / "run", pack=tiny_pack, start=tmp_path / "nowhere", device="cpu")
    with pytest.raises(CheckpointError, match="nowhere"):
        train_clicks(ClickRecipe(scenes=1), run)
