"""Trains LISA models: from the parts of the paper, or on from any of them, on published data or one's own."""

import json
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError
from transformers import EarlyStoppingCallback, TrainingArguments

from lisaseg.config import Dtype, LisaRecipe, LoadOptions, TrainOptions
from lisaseg.data.sample import Source
from lisaseg.errors import OutputError
from lisaseg.files import make_folder, write_atomic
from lisaseg.model.adapters import add_adapter
from lisaseg.model.checkpoints import load_model, save_model
from lisaseg.model.devices import DTYPES, choose_device, on_own_device
from lisaseg.model.lisa import Lisa
from lisaseg.model.processor import Processor
from lisaseg.training.learner import last_whole_checkpoint
from lisaseg.training.lessons import Lessons, collate
from lisaseg.training.material import forced, gather
from lisaseg.training.plan import Plan, plan
from lisaseg.training.trainer import LisaTrainer, steps_between_logs

if TYPE_CHECKING:
    from peft import PeftModel

RECORD = "run.json"
"""In the folder of a run: what makes it that run."""
ADAPTER = "adapter"
"""Folder of a finished run that holds what it learned."""


def train_lisa(
    name: str,
    recipe: LisaRecipe,
    model: str,
    data: Sequence[str | Source],
    run: TrainOptions,
    tell: Callable[[str], None] = lambda line: None,
    held_out: Source | None = None,
) -> Path | Plan:
    """Trains, or goes on where an interrupted run of the same folder stopped.

    Args:
        name: the recipe's, for the record.
        recipe: what is learned, and how.
        model: what `Segmenter.load` takes.
        data: names or paths of data, or sources; none means the paper's mixture of what lies in `run.data_root`.
        run: where, and what it leaves.
        tell: shows a line to the person who trains.
        held_out: chooses the best checkpoint, in place of what `run.val` names.

    Returns:
        The adapter's folder; for a dry run, the plan.

    Raises:
        CheckpointError: the model cannot be read.
        DataError: the data cannot be used.
        DeviceError: the device is not to be had.
        MissingExtraError: PEFT, a tracker or bitsandbytes is not installed.
        OutputError: the folder holds another run or a finished one, or cannot be written to.
        TrainingError: the loss is no number.
    """
    record = _record(name, recipe, model, data, run)
    if not run.dry_run:
        _refuse_another_run(run.out, record)
    material = gather(recipe, data, run, tell, held_out)
    precision = _precision(run)
    lisa, processor = load_model(model, _load_options(recipe, run, precision))
    max_tokens = min(recipe.max_tokens, processor.config.max_prompt_tokens)
    torch.manual_seed(recipe.seed)
    learner = add_adapter(lisa, recipe, model)
    if run.dry_run:
        return plan(learner, material.pictures, len(material.held_out or ()))
    make_folder(run.out)
    write_atomic(run.out / RECORD, json.dumps(record, indent=2).encode())
    if run.gradient_checkpointing:
        body: Any = lisa.vlm.model.language_model
        enable = getattr(body, "activation_checkpointing_enable", None) or body.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    trainer = LisaTrainer(
        recipe=recipe,
        processor=processor,
        forced=forced,
        tell=tell,
        sheets=run.out / "samples",
        model=cast(Any, learner),
        args=_arguments(recipe, run, precision, measures=material.held_out is not None),
        train_dataset=Lessons(
            source=material.lessons,
            processor=processor,
            max_tokens=max_tokens,
            augment_seed=recipe.seed if recipe.augment else None,
            strict=run.strict,
        ),
        eval_dataset=cast(Any, material.held_out),
        data_collator=partial(collate, pad_id=processor.tokenizer.pad_id),
        callbacks=[EarlyStoppingCallback(run.patience)] if material.held_out and run.patience else [],
    )
    with _telling_full_disks(run.out):
        trainer.train(resume_from_checkpoint=last_whole_checkpoint(run.out / "checkpoints"))
        return _finish(trainer, lisa, processor, run, precision)


def _precision(run: TrainOptions) -> Dtype:
    """What the network computes in."""
    dtype = choose_device(LoadOptions(device=run.device, dtype=run.precision))[1]
    return cast(Dtype, next(name for name, known in DTYPES.items() if known == dtype))


def _load_options(recipe: LisaRecipe, run: TrainOptions, precision: Dtype) -> LoadOptions:
    """Each process that learns loads on its own GPU; a network that FSDP will split is loaded beside it, in fp32:
    what is split together must be of one dtype, and what learns is fp32."""
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        return LoadOptions(device="cpu", dtype="fp32")
    options = LoadOptions(device=run.device, dtype=precision, quantize="4bit" if recipe.base_in_4bit else None)
    return on_own_device(options)


def _arguments(recipe: LisaRecipe, run: TrainOptions, precision: Dtype, *, measures: bool) -> TrainingArguments:
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(run.out / "logs")
    is_cpu = choose_device(LoadOptions(device=run.device))[0].type == "cpu"
    settings = TrainingArguments(
        output_dir=str(run.out / "checkpoints"),
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.accumulate,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=min(recipe.warmup, recipe.steps // 10),
        adam_beta1=0.9,
        adam_beta2=0.95,
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=recipe.seed,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=is_cpu,
        ddp_backend="gloo" if is_cpu and "LOCAL_RANK" in os.environ else None,
        ddp_find_unused_parameters=False,
        deepspeed=str(run.deepspeed) if run.deepspeed else None,
        dataloader_num_workers=run.workers,
        dataloader_prefetch_factor=4 if run.workers else None,
        dataloader_persistent_workers=bool(run.workers),
        remove_unused_columns=False,
        logging_steps=steps_between_logs(recipe.steps),
        logging_nan_inf_filter=False,
        eval_strategy="steps" if measures else "no",
        eval_steps=run.eval_steps,
        save_steps=run.eval_steps,
        save_total_limit=2,
        load_best_model_at_end=measures,
        metric_for_best_model="giou" if measures else None,
        greater_is_better=True if measures else None,
        report_to=list(run.track),
        push_to_hub=False,
    )
    settings._n_gpu = min(settings.n_gpu, 1)  # rows point at pictures of their batch, which DataParallel would split
    return settings


def _record(
    name: str, recipe: LisaRecipe, model: str, data: Sequence[str | Source], run: TrainOptions
) -> dict[str, Any]:
    """What makes a run the same run."""
    return {
        "recipe": name,
        "model": model,
        "data": [one if isinstance(one, str) else one.name for one in data],
        "data_root": str(run.data_root) if run.data_root else None,
        **{key: getattr(run, key) for key in ("val", "val_share", "val_limit", "eval_steps")},
        **asdict(recipe),
    }


def _refuse_another_run(out: Path, record: dict[str, Any]) -> None:
    """Raises OutputError where a folder holds anything but the beginning of the same run."""
    if (out / ADAPTER / "adapter_config.json").exists():
        raise OutputError(f"{out} holds a finished run; choose another folder with --out")
    file = out / RECORD
    if not file.exists():
        if out.exists() and any(out.iterdir()):
            raise OutputError(f"{out} is not empty and holds no run; choose another folder with --out")
        return
    try:
        other = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot read {file}: {error}; choose another folder with --out") from error
    same = json.loads(json.dumps(record))
    differing = sorted(key for key in {*same, *other} if same.get(key) != other.get(key))
    if differing:
        told = ", ".join(f"{key} was {other.get(key)!r} and is {same.get(key)!r}" for key in differing[:4])
        raise OutputError(f"{out} holds another run ({told}); choose another folder with --out")


def _finish(trainer: LisaTrainer, lisa: Lisa, processor: Processor, run: TrainOptions, precision: Dtype) -> Path:
    """Writes the adapter, and what else was asked for; the folder's name tells that the run is finished."""
    folder = run.out / ADAPTER
    trainer.save_model(str(folder))
    if trainer.is_world_process_zero():
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle with paths of this machine
        if run.push_to_hub:
            cast("PeftModel", trainer.accelerator.unwrap_model(trainer.model)).push_to_hub(run.push_to_hub)
        if run.merged:
            cast("PeftModel", trainer.accelerator.unwrap_model(trainer.model)).merge_and_unload()
            save_model(lisa, processor, run.out / "model", DTYPES[precision])
    return folder


@contextmanager
def _telling_full_disks(out: Path) -> Generator[None]:
    try:
        yield
    except SafetensorError as error:
        raise OutputError(f"cannot write to {out}: {error}; free some space, and run the same command again") from error
    except OSError as error:
        if error.errno is None:
            raise
        reason = error.strerror or error
        raise OutputError(f"cannot write to {out}: {reason}; mend that, and run the same command again") from error
