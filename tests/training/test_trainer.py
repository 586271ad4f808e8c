"""The losses of the trainer are those of the original, on its own golden batch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from lisaseg.config import LisaRecipe, LoadOptions
from lisaseg.data.sample import Exchange, Masks, Sample
from lisaseg.errors import TrainingError
from lisaseg.images.read import read
from lisaseg.model.checkpoints import load_model
from lisaseg.model.lisa import Lisa
from lisaseg.model.processor import Processor
from lisaseg.training.lessons import collate, tensors
from lisaseg.training.losses import IGNORE_LABEL
from lisaseg.training.trainer import LisaTrainer

GOLDEN = Path(__file__).parents[1] / "golden" / "llava_v1"
PAPER = LisaRecipe(ignored_is_background=True)


def golden_sample() -> Sample:
    """The picture and dialogues of the original's batch; discs are its masks."""
    training = json.loads((GOLDEN / "golden.json").read_text())["training"]
    image = read(GOLDEN / "scene0.png")
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    distance = (y - 0.4 * height) ** 2 + (x - 0.5 * width) ** 2
    discs = [(distance < (radius * min(height, width)) ** 2).astype(np.uint8) for radius in (0.2, 0.3, 0.1)]
    dialogues, used = [], 0
    for prompt in training["prompts"]:
        question, answer = prompt.split("<im_end>\n")[1].removesuffix("</s>").split(" ASSISTANT: ")
        number = answer.count("[SEG]")
        dialogues.append((Exchange(text=question, answer=answer, masks=tuple(range(used, used + number))),))
        used += number
    return Sample(name="golden", image=image, dialogues=tuple(dialogues), masks=Masks([lambda d=d: d for d in discs]))


def trainer(lisa: Lisa, processor: Processor, folder: Path, recipe: LisaRecipe = PAPER, **options: Any) -> LisaTrainer:
    return LisaTrainer(
        recipe=recipe,
        processor=processor,
        forced=lambda sample: sample,
        tell=lambda line: None,
        sheets=folder,
        model=lisa,
        args=TrainingArguments(output_dir=str(folder), use_cpu=True, report_to=[]),
        **options,
    )


@pytest.fixture(scope="module")
def golden() -> tuple[Lisa, Processor]:
    return load_model(str(GOLDEN / "checkpoint"), LoadOptions(device="cpu"))


def batch_of(sample: Sample, processor: Processor) -> dict[str, Any]:
    return collate([tensors(sample, processor, 1000)], processor.tokenizer.pad_id)


def step_loss(learner: LisaTrainer, lisa: Lisa, batches: list[dict[str, Any]]) -> float:
    counts = learner._get_num_items_in_batch(batches, torch.device("cpu"))
    return sum(float(learner.compute_loss(lisa, batch, num_items_in_batch=counts).detach()) for batch in batches)


def test_losses_of_the_original(golden: tuple[Lisa, Processor], tmp_path: Path) -> None:
    lisa, processor = golden
    learner, batch = trainer(lisa, processor, tmp_path), batch_of(golden_sample(), processor)
    batch["labels"] = batch["ids"].masked_fill((batch["attention_mask"] == 0) | (batch["ids"] < 0), IGNORE_LABEL)
    expected = json.loads((GOLDEN / "golden.json").read_text())["training"]["losses"]
    assert step_loss(learner, lisa, [batch]) == pytest.approx(expected["loss"], abs=1e-4)
    assert {name: float(part) for name, part in learner._parts.items()} == pytest.approx(
        {"answer": expected["ce_loss"], "bce": expected["mask_bce_loss"], "dice": expected["mask_dice_loss"]}, abs=1e-4
    )


def test_a_step_of_many_batches_is_as_one_batch(golden: tuple[Lisa, Processor], tmp_path: Path) -> None:
    lisa, processor = golden
    learner, sample = trainer(lisa, processor, tmp_path), golden_sample()
    halves = [
        batch_of(Sample(name=str(k), image=sample.image, dialogues=(dialogue,), masks=sample.masks), processor)
        for k, dialogue in enumerate(sample.dialogues)
    ]
    whole = step_loss(learner, lisa, [batch_of(sample, processor)])
    assert step_loss(learner, lisa, halves) == pytest.approx(whole, abs=1e-5)


def test_pixels_that_nobody_labelled(golden: tuple[Lisa, Processor], tmp_path: Path) -> None:
    """Left out, they change nothing whatever the model draws there; as background they are as 0."""
    lisa, processor = golden
    plain, unsure = batch_of(golden_sample(), processor), batch_of(golden_sample(), processor)
    unsure["masks"] = [masks.clone() for masks in unsure["masks"]]
    unsure["masks"][0][:, :50][unsure["masks"][0][:, :50] == 0] = 255
    as_background = trainer(lisa, processor, tmp_path)
    assert step_loss(as_background, lisa, [unsure]) == pytest.approx(step_loss(as_background, lisa, [plain]), abs=1e-6)
    left_out = trainer(lisa, processor, tmp_path, LisaRecipe())
    assert step_loss(left_out, lisa, [unsure]) != pytest.approx(step_loss(left_out, lisa, [plain]), abs=1e-4)


def test_words_alone(golden: tuple[Lisa, Processor], tmp_path: Path) -> None:
    """No mask costs nothing, and every part still takes part, as processes that learn together need."""
    lisa, processor = golden
    lisa.requires_grad_(True).train()
    silent = Sample(name="words", image=golden_sample().image, dialogues=((Exchange(text="Hello?", answer="Hello."),),))
    learner, batch = trainer(lisa, processor, tmp_path), batch_of(silent, processor)
    counts = learner._get_num_items_in_batch([batch], torch.device("cpu"))
    learner.compute_loss(lisa, batch, num_items_in_batch=counts).backward()
    assert float(learner._parts["bce"]) == float(learner._parts["dice"]) == 0
    gradient = lisa.projection.get_parameter("0.weight").grad
    assert gradient is not None
    assert float(gradient.abs().sum()) == 0
    lisa.zero_grad()
    lisa.requires_grad_(False).eval()


def test_a_loss_that_is_no_number(golden: tuple[Lisa, Processor], tmp_path: Path) -> None:
    lisa, processor = golden
    learner, batch = trainer(lisa, processor, tmp_path), batch_of(golden_sample(), processor)
    batch["vlm_pixels"] = batch["vlm_pixels"] * float("nan")
    with pytest.raises(
        TrainingError, match=r"no number at step 1 \(answer nan.*with golden; the last checkpoint is good"
    ):
        step_loss(learner, lisa, [batch])


def test_what_was_passed_over_is_told_once(golden: tuple[Lisa, Processor], tmp_path: Path) -> None:
    lisa, processor = golden
    told: list[str] = []
    learner, batch = trainer(lisa, processor, tmp_path), batch_of(golden_sample(), processor)
    learner.tell = told.append
    batch["skipped"] = ["bad.jpg: damaged"]
    step_loss(learner, lisa, [batch, batch])
    assert told == ["left out: bad.jpg: damaged"]
