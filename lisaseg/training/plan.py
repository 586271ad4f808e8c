"""What a training would change, and how much memory that takes, told before it starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lisaseg.model.adapters import MODULES

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run would train, and what that takes."""

    trained: dict[str, int]
    """Parameters by part."""
    frozen: int
    """Parameters that stay as they are."""
    weight_bytes: int
    training_bytes: int
    """Gradients and the optimiser's two moments."""
    pictures: int | None
    """Pictures to learn from; None for the paper's mixture, which draws for ever."""
    held_out: int
    """Pictures to choose the best checkpoint by."""
    device: str


def plan(learner: "PeftModel", pictures: int | None, held_out: int) -> Plan:
    """Counts what `add_adapter` left to train."""
    trained: dict[str, int] = {}
    for name, parameter in learner.named_parameters():
        if parameter.requires_grad:
            part = "lora" if ".lora_" in name else next(part for part, keys in MODULES.items() if _is_of(name, keys))
            trained[part] = trained.get(part, 0) + parameter.numel()
    parameters = list(learner.parameters())
    return Plan(
        trained=trained,
        frozen=sum(parameter.numel() for parameter in parameters if not parameter.requires_grad),
        weight_bytes=sum(parameter.nbytes for parameter in parameters),
        training_bytes=sum(3 * parameter.nbytes for parameter in parameters if parameter.requires_grad),
        pictures=pictures,
        held_out=held_out,
        device=str(learner.device),
    )


def _is_of(name: str, modules: Sequence[str]) -> bool:
    return any(f"{module}.modules_to_save" in name for module in modules)
