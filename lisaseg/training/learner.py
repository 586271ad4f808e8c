"""What every training shares: a network with its losses, and `transformers.Trainer` as lisaseg uses it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from lisaseg.config import LoadOptions, RunOptions
from lisaseg.model.devices import choose_device
from lisaseg.model.lisa import Lisa


class LisaLearner(nn.Module):
    """Lisa with its losses: `forward` gives `loss`, which is minimised, and others for the log."""

    # SAM holds its positions under two names, and a safetensors file holds each tensor once.
    _keys_to_ignore_on_save = ("lisa.segmenter.prompt_encoder.shared_embedding.positional_embedding",)

    def __init__(self, lisa: Lisa):
        super().__init__()
        self.lisa = lisa
        self.register_state_dict_post_hook(_drop_tied)

    def tie_weights(self) -> None:
        """The trainer asks for this where a checkpoint holds one of two names: they are one tensor already."""


def weighed(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """The losses for the log, and their weighed sum as `loss`."""
    total = sum(
        (weights[name] * loss for name, loss in losses.items()), start=next(iter(losses.values())).new_zeros(())
    )
    return {"loss": total, **{name: value.detach() for name, value in losses.items()}}


class LossTrainer(Trainer):
    """Minimises a learner's own loss, and logs each part of it by name."""

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The learner's own loss; its parts go to the log with the next line."""
        outputs = model(**inputs)
        self._parts = {name: value for name, value in outputs.items() if name != "loss"}
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds the parts of the last loss."""
        parts = {name: float(value) for name, value in self._parts.items()} if "loss" in logs else {}
        super().log({**logs, **parts}, *args, **kwargs)


def arguments(run: RunOptions, **recipe: Any) -> TrainingArguments:
    """Settings of a run: AdamW, a warm-up and then a cosine, checkpoints and TensorBoard's logs in its folder."""
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(run.out / "logs")
    settings = TrainingArguments(
        output_dir=str(run.out / "checkpoints"),
        lr_scheduler_type="cosine",
        warmup_steps=200,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        bf16=run.bf16,
        use_cpu=choose_device(LoadOptions(device=run.device))[0].type == "cpu",
        dataloader_num_workers=run.workers,
        dataloader_prefetch_factor=4 if run.workers else None,
        remove_unused_columns=False,
        logging_steps=25,
        save_steps=run.save_steps,
        save_total_limit=2,
        report_to=["tensorboard"],
        **recipe,
    )
    settings._n_gpu = min(settings.n_gpu, 1)  # rows point at pictures of their batch, which DataParallel would split
    return settings


def train(trainer: Trainer, run: RunOptions) -> None:
    """Trains, or goes on where an interrupted run of the same folder stopped."""
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(run.out / "checkpoints"))


def last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end: the trainer's state comes last."""
    numbered = {
        int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*") if path.name[11:].isdigit()
    }
    whole = [path for _, path in sorted(numbered.items()) if _is_whole(path)]
    return str(whole[-1]) if whole else None


def _is_whole(checkpoint: Path) -> bool:
    try:
        return "global_step" in json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False


def _drop_tied(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: object) -> None:
    for name in LisaLearner._keys_to_ignore_on_save:
        state.pop(prefix + name, None)
