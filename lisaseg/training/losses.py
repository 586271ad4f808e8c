"""What LISA learns from: cross entropy over the answers, and binary cross entropy plus dice over the masks."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

IGNORE_LABEL = -100
"""Label of a token that is read and not learned."""


def answer_loss(
    lm_head: nn.Module, states_BLD: Float[Tensor, "B L D"], labels_BL: Int[Tensor, "B L"]
) -> Float[Tensor, ""]:
    """Mean cross entropy of the labelled tokens, each predicted from the state before it.

    Only those states go through the head: most positions of a prompt are read and not learned.
    """
    learned = (labels_BL[:, 1:] != IGNORE_LABEL).nonzero(as_tuple=True)
    return cross_entropy(lm_head(states_BLD[:, :-1][learned]).float(), labels_BL[:, 1:][learned])


def bce_loss(logits_NHW: Float[Tensor, "N H W"], targets_NHW: Float[Tensor, "N H W"]) -> Float[Tensor, ""]:
    """Mean binary cross entropy of pixels, averaged over masks; 0 for none."""
    return bce_of_masks(logits_NHW, targets_NHW).sum() / (len(logits_NHW) + 1e-8)


def dice_loss(logits_NHW: Float[Tensor, "N H W"], targets_NHW: Float[Tensor, "N H W"]) -> Float[Tensor, ""]:
    """One minus the dice coefficient, averaged over masks; 0 for none."""
    return dice_of_masks(logits_NHW, targets_NHW).sum() / (len(logits_NHW) + 1e-8)


def bce_of_masks(
    logits_NHW: Float[Tensor, "N H W"],
    targets_NHW: Float[Tensor, "N H W"],
    counted_NHW: Float[Tensor, "N H W"] | None = None,
) -> Float[Tensor, " N"]:
    """Mean binary cross entropy of each mask's pixels, or of those that count (1; others 0)."""
    per_pixel = binary_cross_entropy_with_logits(logits_NHW.float(), targets_NHW, reduction="none").flatten(1)
    if counted_NHW is None:
        return per_pixel.mean(dim=1)
    counted = counted_NHW.flatten(1)
    return (per_pixel * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)


def dice_of_masks(
    logits_NHW: Float[Tensor, "N H W"],
    targets_NHW: Float[Tensor, "N H W"],
    counted_NHW: Float[Tensor, "N H W"] | None = None,
    scale: float = 1000,
    epsilon: float = 1e-6,
) -> Float[Tensor, " N"]:
    """One minus the dice coefficient of each mask. Sums are scaled as in the original."""
    probabilities = logits_NHW.float().sigmoid()
    if counted_NHW is not None:
        probabilities = probabilities * counted_NHW
    probabilities, targets = probabilities.flatten(1), targets_NHW.flatten(1)
    overlap = 2 * (probabilities / scale * targets).sum(dim=1)
    total = (probabilities / scale).sum(dim=1) + (targets / scale).sum(dim=1)
    return 1 - (overlap + epsilon) / (total + epsilon)


def predicted_iou_loss(
    predicted_N: Float[Tensor, " N"], logits_NHW: Float[Tensor, "N H W"], targets_NHW: Float[Tensor, "N H W"]
) -> Float[Tensor, ""]:
    """Squared error of SAM's predicted IoU against the IoU of its mask; the original leaves this head as it was."""
    with torch.no_grad():
        masks, targets = (logits_NHW > 0).flatten(1), (targets_NHW > 0.5).flatten(1)
        iou = (masks & targets).sum(dim=1) / (masks | targets).sum(dim=1).clamp(min=1)
    return (predicted_N.float() - iou).square().sum() / (len(iou) + 1e-8)
