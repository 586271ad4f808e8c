"""Trains LISA models: from the parts of the paper, or on from any of them, on published data or one's own."""

import json
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import EarlyStoppingCallback, TrainingArguments

from lisaseg.config import Dtype, LisaRecipe, LoadOptions, TrainOptions
from lisaseg.data.mixture import Stream, paper_mixture
from lisaseg.data.opening import open_source
from lisaseg.data.sample import Exchange, Joined, Masks, Sample, Selected, Source
from lisaseg.errors import DataError, ImageError, OutputError
from lisaseg.files import make_folder, write_atomic
from lisaseg.language.prompts import VALIDATION_ANSWER, validation_question
from lisaseg.model.adapters import add_adapter
from lisaseg.model.checkpoints import load_model, save_model
from lisaseg.model.devices import DTYPES, choose_device
from lisaseg.model.lisa import Lisa
from lisaseg.model.processor import Processor
from lisaseg.training.learner import last_whole_checkpoint
from lisaseg.training.lessons import Lessons, Worded, collate
from lisaseg.training.plan import Plan, plan
from lisaseg.training.trainer import LisaTrainer, steps_between_logs

if TYPE_CHECKING:
    from peft import PeftModel

ADAPTER = "adapter"
"""Folder of a finished run that holds what it learned."""


def train_lisa(
    name: str,
    recipe: LisaRecipe,
    model: str,
    data: Sequence[str],
    run: TrainOptions,
    tell: Callable[[str], None] = lambda line: None,
) -> Path | Plan:
    """Trains, or goes on where an interrupted run of the same folder stopped.

    Args:
        name: the recipe's, for the record.
        recipe: what is learned, and how.
        model: what `Segmenter.load` takes.
        data: names or paths of data; none means the paper's mixture of what lies in `run.data_root`.
        run: where, and what it leaves.
        tell: shows a line to the person who trains.

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
    root = run.data_root or (Path(os.environ["LISASEG_DATA"]) if os.environ.get("LISASEG_DATA") else None)
    record = _record(name, recipe, model, data, run)
    if not run.dry_run:
        _claim(run.out, record)
    precision = _precision(run)
    lisa, processor = load_model(model, _load_options(recipe, run, precision))
    max_tokens = min(recipe.max_tokens, processor.config.max_prompt_tokens)
    lessons, held_out = _data(recipe, data, root, run, tell)
    torch.manual_seed(recipe.seed)
    learner = add_adapter(lisa, recipe, model)
    if run.dry_run:
        pictures = len(lessons.source) if isinstance(lessons, Stream) else None
        return plan(learner, pictures, len(held_out) if held_out else 0)
    if run.gradient_checkpointing:
        lisa.vlm.model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
    trainer = LisaTrainer(
        recipe=recipe,
        processor=processor,
        forced=forced,
        tell=tell,
        sheets=run.out / "samples",
        model=cast(Any, learner),
        args=_arguments(recipe, run, precision, measures=bool(held_out)),
        train_dataset=Lessons(
            source=lessons,
            processor=processor,
            max_tokens=max_tokens,
            augment_seed=recipe.seed if recipe.augment else None,
            strict=run.strict,
        ),
        eval_dataset=cast(Any, held_out) if held_out else None,
        data_collator=partial(collate, pad_id=processor.tokenizer.pad_id),
        callbacks=[EarlyStoppingCallback(run.patience)] if held_out and run.patience else [],
    )
    with _telling_full_disks(run.out):
        trainer.train(resume_from_checkpoint=last_whole_checkpoint(run.out / "checkpoints"))
        return _finish(trainer, lisa, processor, run, precision)


def forced(sample: Sample) -> Sample:
    """A sample with the question of the measurement for the first wording of each thing, and the answer it expects."""
    dialogues, masks = [], []
    for dialogue in sample.dialogues:
        exchange = dialogue[0]
        if exchange.kind == "said" or not exchange.masks:
            continue
        question = validation_question(exchange.text, is_sentence=exchange.kind == "sentence")
        dialogues.append((Exchange(text=question, answer=VALIDATION_ANSWER, masks=(len(masks),)),))
        masks.append(partial(sample.masks.__getitem__, exchange.masks[0]))
    return replace(sample, dialogues=tuple(dialogues), masks=Masks(masks))


def held_out_of(source: Source, places: Sequence[int], tell: Callable[[str], None]) -> Selected:
    """Pictures to measure by: those that can be read and have something to find. Reads each once."""
    return Selected(source, [place for place in places if _is_usable(source, place, tell)])


def _is_usable(source: Source, place: int, tell: Callable[[str], None]) -> bool:
    try:
        return bool(forced(source[place]).dialogues)
    except (DataError, ImageError) as error:
        tell(f"left out: {error}")
        return False


def _data(
    recipe: LisaRecipe, data: Sequence[str], root: Path | None, run: TrainOptions, tell: Callable[[str], None]
) -> tuple[Worded, Selected | None]:
    """Lessons for the whole run, and what is measured by."""
    length = recipe.steps * recipe.batch_size * recipe.accumulate * int(os.environ.get("WORLD_SIZE", "1"))
    val = open_source(run.val, root) if run.val else None
    if not data:
        if root is None:
            raise DataError(
                "this recipe learns from published data: give its folder with --data-root or in $LISASEG_DATA"
            )
        lessons: Worded = paper_mixture(
            root,
            seed=recipe.seed,
            length=length,
            rates=recipe.rates,
            explanatory=recipe.explanatory,
            most=recipe.dialogues,
        )
        return lessons, _held_out(val, recipe, run, tell)
    sources = [open_source(name, root) for name in data]
    everything = sources[0] if len(sources) == 1 else Joined(sources)
    order = np.random.default_rng([recipe.seed, 1]).permutation(len(everything)).tolist()
    number = min(round(run.val_share * len(order)), run.val_limit) if val is None else 0
    kept = Selected(everything, sorted(order[number:]))
    if not len(kept):
        raise DataError(f"there is nothing to learn from in {', '.join(data)}")
    lessons = Stream(
        kept, seed=recipe.seed, length=length, most=recipe.dialogues, explanatory=recipe.explanatory, strict=run.strict
    )
    if val is None and number:
        return lessons, held_out_of(everything, sorted(order[:number]), tell)
    return lessons, _held_out(val, recipe, run, tell)


def _held_out(
    val: Source | None, recipe: LisaRecipe, run: TrainOptions, tell: Callable[[str], None]
) -> Selected | None:
    if val is None:
        return None
    order = np.random.default_rng([recipe.seed, 2]).permutation(len(val))[: run.val_limit]
    held_out = held_out_of(val, sorted(order.tolist()), tell)
    if not len(held_out):
        raise DataError(f"{run.val} has nothing to measure by: no picture with a mask can be read")
    return held_out


def _precision(run: TrainOptions) -> Dtype:
    """What the network computes in."""
    dtype = choose_device(LoadOptions(device=run.device, dtype=run.precision))[1]
    return next(name for name, known in DTYPES.items() if known == dtype)


def _load_options(recipe: LisaRecipe, run: TrainOptions, precision: Dtype) -> LoadOptions:
    """Each process that learns loads on its own GPU; networks that are split later are loaded beside it."""
    device = choose_device(LoadOptions(device=run.device))[0].type
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" or run.deepspeed is not None:
        device = "cpu"
    return LoadOptions(
        device=device,
        dtype="fp32" if device == "cpu" and precision == "fp16" else precision,
        quantize="4bit" if recipe.base_in_4bit else None,
    )


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


def _record(name: str, recipe: LisaRecipe, model: str, data: Sequence[str], run: TrainOptions) -> dict[str, Any]:
    """What makes a run the same run."""
    chosen = {key: getattr(run, key) for key in ("val", "val_share", "val_limit", "eval_steps")}
    root = str(run.data_root) if run.data_root else None
    return {"recipe": name, "model": model, "data": list(data), "data_root": root, **chosen, **asdict(recipe)}


def _claim(out: Path, record: dict[str, Any]) -> None:
    """Makes the folder this run's, or goes on with the same run."""
    file, record = out / "run.json", json.loads(json.dumps(record))
    if (out / ADAPTER / "adapter_config.json").exists():
        raise OutputError(f"{out} holds a finished run; choose another folder with --out")
    if file.exists():
        try:
            other = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise OutputError(f"cannot read {file}: {error}; choose another folder with --out") from error
        differing = sorted(key for key in {*record, *other} if record.get(key) != other.get(key))
        if differing:
            told = ", ".join(f"{key} was {other.get(key)!r} and is {record.get(key)!r}" for key in differing[:4])
            raise OutputError(f"{out} holds another run ({told}); choose another folder with --out")
        return
    if out.exists() and any(out.iterdir()):
        raise OutputError(f"{out} is not empty and holds no run; choose another folder with --out")
    make_folder(out)
    write_atomic(file, json.dumps(record, indent=2).encode())


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
