"""`transformers.Trainer` for LISA: its losses over all processes together, its measure of a good checkpoint."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import SequentialSampler
from transformers import Trainer

from lisaseg.config import LisaRecipe
from lisaseg.data.sample import IGNORE, Sample
from lisaseg.errors import TrainingError
from lisaseg.evaluation.metrics import Overlap, ciou, giou, overlap
from lisaseg.images.draw import overlay
from lisaseg.images.sheet import contact_sheet
from lisaseg.model.processor import ImageSize, Processor, normalize_squares
from lisaseg.training.lessons import collate, tensors
from lisaseg.training.losses import IGNORE_LABEL, bce_of_masks, dice_of_masks

SHOWN = 8
"""Pictures of the validation set that are drawn each time."""


class LisaTrainer(Trainer):
    """Takes lessons in order, so that any number of processes, interrupted or not, learn the same."""

    def __init__(
        self,
        *,
        recipe: LisaRecipe,
        processor: Processor,
        forced: Callable[[Sample], Sample],
        tell: Callable[[str], None],
        sheets: Path,
        **kwargs: Any,
    ):
        """Beside what `Trainer` takes.

        Args:
            recipe: weights of the losses.
            processor: of the model.
            forced: a sample of the validation set with the questions and answers of the measurement.
            tell: shows a line to the person who trains.
            sheets: folder for pictures of the validation set.
            kwargs: `Trainer`'s own.
        """
        super().__init__(**kwargs)
        self.recipe, self.lisa_processor, self.forced, self.tell, self.sheets = recipe, processor, forced, tell, sheets
        self.model_accepts_loss_kwargs = True  # losses are divided by what all batches of a step hold together
        self._told: set[str] = set()
        self._parts: dict[str, Tensor] = {}
        self._parts_steps = 0

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(cast(Any, self.train_dataset))

    def _get_num_items_in_batch(self, batch_samples: Sequence[Mapping[str, Any]], device: torch.device) -> Tensor:
        """Learned tokens and masks of a whole step, over all its batches and processes."""
        counts = torch.zeros(2, dtype=torch.long, device=device)
        for batch in batch_samples:
            counts[0] += (batch["labels"][:, 1:] != IGNORE_LABEL).sum().to(device)
            counts[1] += sum(len(masks) for masks in batch["masks"])
        return cast(Tensor, self.accelerator.reduce(counts)) if self.args.world_size > 1 else counts

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """This batch's share of the step's loss.

        Raises:
            TrainingError: it is no number.
        """
        for told in inputs["skipped"]:
            self._tell_once(told)
        outputs = model(**network_inputs(inputs, self.lisa_processor.tokenizer.seg_id))
        tokens, masks = (int(count) for count in cast(Tensor, num_items_in_batch))
        parts = self._losses(outputs, inputs, max(tokens, 1), max(masks, 1))
        loss = torch.stack(list(parts.values())).sum()
        if not loss.isfinite():
            self._stop_at(inputs["names"], parts)
        for name, part in parts.items():
            self._parts[name] = self._parts.get(name, 0) + part.detach()
        loss = loss * self.args.world_size  # processes' gradients are averaged, and these are shares
        return (loss, outputs) if return_outputs else loss

    def _losses(
        self, outputs: Mapping[str, Tensor], inputs: Mapping[str, Any], tokens: int, masks: int
    ) -> dict[str, Tensor]:
        labels = inputs["labels"][:, 1:]
        learned = labels[labels != IGNORE_LABEL]
        answer = cross_entropy(outputs["token_logits"].float(), learned, reduction="sum") / tokens
        # Whatever the batch holds, every part takes part: processes that learn together wait for all gradients.
        nothing = outputs["mask_logits"].float().sum() * 0 + outputs["predicted_iou"].float().sum() * 0
        bce, dice = [nothing], [nothing]
        for logits, truth in self._at_their_size(outputs["mask_logits"], inputs):
            target = (truth == 1).float()
            counted = None if self.recipe.ignored_is_background else (truth != IGNORE).float()
            bce.append(bce_of_masks(logits, target, counted).sum() / masks)
            dice.append(dice_of_masks(logits, target, counted).sum() / masks)
        return {
            "answer": self.recipe.answer_weight * answer,
            "bce": self.recipe.bce_weight * torch.stack(bce).sum(),
            "dice": self.recipe.dice_weight * torch.stack(dice).sum(),
        }

    def _at_their_size(self, logits_Nhw: Tensor, inputs: Mapping[str, Any]) -> Iterator[tuple[Tensor, Tensor]]:
        """For each picture with masks, their logits and truths at its own size."""
        numbers = [len(truth) for truth in inputs["masks"]]
        for logits, truth, size in zip(logits_Nhw.split(numbers), inputs["masks"], inputs["sizes"], strict=True):
            if len(truth):
                yield self.lisa_processor.restore(logits, _size(size)), truth

    def _stop_at(self, names: Sequence[str], parts: Mapping[str, Tensor]) -> None:
        broken = ", ".join(f"{name} {float(part.detach()):g}" for name, part in parts.items())
        raise TrainingError(
            f"the loss is no number at step {self.state.global_step + 1} ({broken}), with {', '.join(names)}; "
            "the last checkpoint is good: mend or remove these pictures, or lower --learning-rate, and run it again"
        )

    def _tell_once(self, told: str) -> None:
        if told not in self._told:
            self._told.add(told)
            self.tell(f"left out: {told}")

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds the parts of the loss, each the mean since the last line."""
        if "loss" in logs and self._parts:
            steps = max(1, self.state.global_step - self._parts_steps)
            sums = torch.stack([part.float() for part in self._parts.values()])
            sums = cast(Tensor, self.accelerator.reduce(sums)) if self.args.world_size > 1 else sums
            logs = {**logs, **dict(zip(self._parts, (sums / steps).tolist(), strict=True))}
            self._parts, self._parts_steps = {}, self.state.global_step
        super().log(logs, *args, **kwargs)

    @torch.inference_mode()
    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """gIoU and cIoU of the validation set, teacher-forced; each picture counts once, whatever the processes."""
        cast(nn.Module, self.model).eval()
        samples, rank, world = cast(Any, self.eval_dataset), self.args.process_index, self.args.world_size
        overlaps: list[Overlap] = []
        shown: list[tuple[Image.Image, str]] = []
        for start in range(0, len(samples), world):
            place = start + rank
            sample = self.forced(samples[min(place, len(samples) - 1)])  # sharded networks need all to come along
            masks = self._predict(sample)
            if place >= len(samples):
                continue
            overlaps += [overlap(mask, sample.masks[k]) for k, mask in enumerate(masks)]
            if len(shown) < SHOWN and rank == 0:
                shown.append((overlay(sample.image, masks), sample.dialogues[0][0].text))
        found = _gathered(overlaps, world)
        self._show(shown)
        metrics = {f"{metric_key_prefix}_giou": giou(found), f"{metric_key_prefix}_ciou": ciou(found)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _predict(self, sample: Sample) -> list[np.ndarray]:
        lesson = tensors(sample, self.lisa_processor, self.lisa_processor.config.max_prompt_tokens)
        batch = self._prepare_inputs(collate([lesson], self.lisa_processor.tokenizer.pad_id))
        network = cast(nn.Module, self.model_wrapped if self.args.world_size > 1 else self.model)
        with self.compute_loss_context_manager():
            outputs = network(**network_inputs(cast(Any, batch), self.lisa_processor.tokenizer.seg_id))
        logits = self.lisa_processor.restore(outputs["mask_logits"], _size(cast(Any, batch)["sizes"][0]))
        return list((logits > 0).cpu().numpy())

    def _show(self, shown: Sequence[tuple[Image.Image, str]]) -> None:
        """A sheet in the run's folder, and the same with TensorBoard."""
        if not shown:
            return
        sheet = contact_sheet(shown)
        self.sheets.mkdir(parents=True, exist_ok=True)
        sheet.save(self.sheets / f"step_{self.state.global_step:06}.jpg", quality=90)
        for callback in self.callback_handler.callbacks:
            writer = getattr(callback, "tb_writer", None)
            if writer is not None:
                writer.add_image("val/samples", np.asarray(sheet), self.state.global_step, dataformats="HWC")


def network_inputs(batch: Mapping[str, Any], seg_id: int) -> dict[str, Any]:
    """What `Lisa.forward` takes of a batch of `collate`."""
    return {
        "ids": batch["ids"],
        "attention_mask": batch["attention_mask"],
        "is_learned": batch["labels"] != IGNORE_LABEL,
        "vlm_pixels": batch["vlm_pixels"],
        "segmenter_pixels": normalize_squares(batch["squares"], [_size(size) for size in batch["sizes"]]),
        "picture_of_row": batch["picture_of_row"],
        "seg_id": seg_id,
    }


def _size(lists: Sequence[Sequence[int]]) -> ImageSize:
    (height, width), (resized_height, resized_width) = lists
    return ImageSize(original=(height, width), resized=(resized_height, resized_width))


def _gathered(overlaps: list[Overlap], world: int) -> list[Overlap]:
    """The overlaps of all processes."""
    if world == 1:
        return overlaps
    shares: list[list[Overlap]] = [[] for _ in range(world)]
    torch.distributed.all_gather_object(shares, overlaps)
    return [one for share in shares for one in share]


def steps_between_logs(steps: int) -> int:
    """About a hundred lines in all, and at least every 25 steps."""
    return max(1, min(25, math.ceil(steps / 100)))
