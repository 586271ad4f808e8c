import numpy as np
import pytest
import torch
from torch import nn

from lisaseg.training.losses import IGNORE_LABEL, answer_loss, bce_loss, dice_loss, predicted_iou_loss


def test_only_labelled_tokens_count_and_each_is_predicted_from_the_state_before() -> None:
    head = nn.Identity()
    states = torch.zeros(1, 4, 3)
    states[0, 1] = torch.tensor([0.0, 0.0, 50.0])  # predicts token 2 at position 2 with certainty
    states[0, 2] = torch.tensor([50.0, 0.0, 0.0])  # would be wrong about position 3, which is not labelled
    right = torch.tensor([[IGNORE_LABEL, IGNORE_LABEL, 2, IGNORE_LABEL]])
    assert answer_loss(head, states, right) == pytest.approx(0, abs=1e-6)
    both = torch.tensor([[IGNORE_LABEL, IGNORE_LABEL, 2, 1]])
    assert answer_loss(head, states, both) == pytest.approx(25, abs=1e-3)


def test_mask_losses_follow_their_definitions() -> None:
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(2, 5, 7)), (rng.random((2, 5, 7)) > 0.5).astype(float)
    p = 1 / (1 + np.exp(-logits))
    bce = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean(axis=(1, 2)).mean()
    overlap = 2 * (p / 1000 * targets).sum(axis=(1, 2)) + 1e-6
    total = (p / 1000).sum(axis=(1, 2)) + (targets / 1000).sum(axis=(1, 2)) + 1e-6
    tensors = torch.tensor(logits), torch.tensor(targets)
    assert bce_loss(tensors[0].float(), tensors[1].float()) == pytest.approx(bce, abs=1e-5)
    assert dice_loss(tensors[0].float(), tensors[1].float()) == pytest.approx((1 - overlap / total).mean(), abs=1e-5)


def test_no_masks_cost_nothing() -> None:
    none = torch.zeros(0, 4, 4)
    assert bce_loss(none, none) == 0
    assert dice_loss(none, none) == 0
    assert predicted_iou_loss(torch.zeros(0), none, none) == 0


def test_predicted_iou_is_compared_with_the_real_one() -> None:
    logits = torch.tensor([[[1.0, 1.0, -1.0, -1.0]]])
    targets = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]])
    assert predicted_iou_loss(torch.tensor([0.5]), logits, targets) == pytest.approx(0)
    assert predicted_iou_loss(torch.tensor([1.0]), logits, targets) == pytest.approx(0.25)
