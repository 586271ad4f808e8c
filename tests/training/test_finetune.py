"""Runs as people have them: interrupted, killed, with bad data, over several processes; and proof that they learn."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lisaseg.config import RECIPES, LisaRecipe, LoadOptions, TrainOptions
from lisaseg.data.sample import Exchange, Masks, Sample, Source
from lisaseg.errors import DataError, ImageError, OutputError, TrainingError
from lisaseg.model.checkpoints import load_model
from lisaseg.segmenter import Segmenter
from lisaseg.training.finetune import train_lisa
from lisaseg.training.learner import last_whole_checkpoint
from lisaseg.training.plan import Plan

RECIPE = LisaRecipe(steps=4, batch_size=2, learning_rate=1e-3, lora_dropout=0.1)


class Boxes(Source):
    """A red box somewhere on grey, over boxes of other colours; it is called a gizmo."""

    name = "boxes"

    def __init__(self, number: int, seed: int = 0, broken: Sequence[int] = ()):
        self.number, self.seed, self.broken = number, seed, broken

    def __len__(self) -> int:
        return self.number

    def entry(self, index: int) -> str:
        return f"box {index}"

    def __getitem__(self, index: int) -> Sample:
        if index in self.broken:
            raise ImageError(f"{self.entry(index)} is damaged")
        rng = np.random.default_rng([self.seed, index])
        image = np.full((96, 128, 3), 128, np.uint8)
        mask = np.zeros((96, 128), np.uint8)
        for color, inside in (((30, 60, 220), 0), ((240, 200, 40), 0), ((220, 30, 40), 1)):
            x, y, side = int(rng.integers(88)), int(rng.integers(60)), int(rng.integers(24, 40))
            image[y : y + side, x : x + side] = color
            mask[y : y + side, x : x + side] = inside
        return Sample(
            name=self.entry(index),
            image=image,
            dialogues=((Exchange(text="gizmo", kind="phrase", masks=(0,)),),),
            masks=Masks([lambda: mask]),
        )


def run(out: Path, **options: Any) -> TrainOptions:
    values: dict[str, Any] = {"val_share": 0.0, "eval_steps": 2, "workers": 0, "track": (), "device": "cpu", **options}
    return TrainOptions(out=out, **values)


def losses(out: Path) -> list[float]:
    """The loss of every step, from the newest checkpoint."""
    state = json.loads((Path(str(last_whole_checkpoint(out / "checkpoints"))) / "trainer_state.json").read_text())
    return [line["loss"] for line in state["log_history"] if "loss" in line]


def test_a_run_leaves_an_adapter_that_a_segmenter_takes(tiny_model: str, tmp_path: Path) -> None:
    folder = train_lisa("finetune", RECIPE, tiny_model, [Boxes(4)], run(tmp_path / "run"))
    assert folder == tmp_path / "run" / "adapter"
    assert {path.name for path in Path(str(folder)).iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert not (Path(str(folder)) / "training_args.bin").exists()
    before, _ = load_model(tiny_model, LoadOptions(device="cpu"))
    after, _ = load_model(tiny_model, LoadOptions(device="cpu", adapter=str(folder)))
    moved = [name for name, tensor in before.state_dict().items() if not tensor.equal(after.state_dict()[name])]
    assert any("mask_decoder" in name for name in moved)
    assert any("q_proj" in name for name in moved)
    assert not any("vision" in name for name in moved)


def test_the_merged_model_stands_alone(tiny_model: str, tmp_path: Path) -> None:
    folder = train_lisa("finetune", RECIPE, tiny_model, [Boxes(4)], run(tmp_path / "run", merged=True))
    alone, _ = load_model(str(tmp_path / "run" / "model"), LoadOptions(device="cpu"))
    laid_over, _ = load_model(tiny_model, LoadOptions(device="cpu", adapter=str(folder)))
    for name, tensor in alone.state_dict().items():
        assert tensor.sub(laid_over.state_dict()[name]).abs().max() < 1e-6, name


def test_a_killed_run_goes_on_as_if_nothing_had_been(tiny_model: str, tmp_path: Path) -> None:
    """SIGKILL in the middle, a checkpoint cut short, and the same command again: the same losses, the same weights."""
    train_lisa("finetune", RECIPE, tiny_model, [Boxes(5)], run(tmp_path / "whole"))
    process = start_run(tiny_model, tmp_path / "killed")
    end = time.monotonic() + 120
    while not (tmp_path / "killed" / "checkpoints" / "checkpoint-2" / "trainer_state.json").exists():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "adapter").exists()
    (tmp_path / "killed" / "checkpoints" / "checkpoint-3").mkdir(exist_ok=True)  # as one that was being written
    train_lisa("finetune", RECIPE, tiny_model, [Boxes(5)], run(tmp_path / "killed"))
    assert losses(tmp_path / "killed") == pytest.approx(losses(tmp_path / "whole"), abs=1e-5)
    assert len(losses(tmp_path / "whole")) == 4
    whole, killed = (
        load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("whole", "killed")
    )
    for name, tensor in whole.items():
        torch.testing.assert_close(tensor, killed[name], atol=1e-5, rtol=1e-4, msg=name)


def start_run(model: str, out: Path, *launcher: str, **recipe: Any) -> subprocess.Popen:
    """The same run in a process of its own, which waits after its second step."""
    script = Path(__file__).with_name("run_boxes.py")
    command = [sys.executable, *launcher, str(script), model, str(out), json.dumps(recipe)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(script.parents[2])}
    return subprocess.Popen(command, env=environment)


def test_two_processes_learn_what_one_learns(tiny_model: str, tmp_path: Path) -> None:
    """Two that take one picture each a step, against one that takes two: the same losses, the same measure."""
    one, two = tmp_path / "one", tmp_path / "two"
    recipe = {"steps": 3, "lora_dropout": 0.0}
    assert start_run(tiny_model, one, batch_size=2, **recipe).wait(200) == 0
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    assert start_run(tiny_model, two, *launcher, batch_size=1, **recipe).wait(200) == 0
    assert losses(two) == pytest.approx(losses(one), abs=2e-4)
    measured = [history(folder, "eval_giou") for folder in (one, two)]
    assert measured[1] == pytest.approx(measured[0], abs=1e-3)
    assert len(measured[0]) == 1


def history(out: Path, key: str) -> list[float]:
    state = json.loads((Path(str(last_whole_checkpoint(out / "checkpoints"))) / "trainer_state.json").read_text())
    return [line[key] for line in state["log_history"] if key in line]


def test_eight_pictures_of_an_unknown_thing_are_enough(tmp_path: Path) -> None:
    """nano has never heard of a gizmo; after a minute with eight it finds others that it has not seen."""
    held_out = Boxes(12, seed=1)
    recipe = LisaRecipe(steps=30, batch_size=4, learning_rate=1e-3, warmup=3)
    options = run(tmp_path / "run", eval_steps=10)
    folder = train_lisa("finetune", recipe, "nano", [Boxes(8)], options, held_out=held_out)
    before, after = (mean_iou(Segmenter.load("nano", device="cpu", adapter=a), held_out) for a in (None, str(folder)))
    assert after >= before + 0.2
    assert history(tmp_path / "run", "eval_giou")[-1] > 0.3
    assert sorted(path.name for path in (tmp_path / "run" / "samples").iterdir()) == [
        "step_000010.jpg",
        "step_000020.jpg",
        "step_000030.jpg",
    ]


def mean_iou(segmenter: Segmenter, source: Source) -> float:
    """Free answers, all their masks together."""
    samples = [source[index] for index in range(len(source))]
    answers = segmenter.segment_batch([(sample.image, "Please segment the gizmo in this image.") for sample in samples])
    pairs = [(answer.union(), sample.masks[0] == 1) for answer, sample in zip(answers, samples, strict=True)]
    return float(np.mean([(mask & truth).sum() / max(1, (mask | truth).sum()) for mask, truth in pairs]))


def test_pictures_that_cannot_be_read_are_told_and_passed_over(tiny_model: str, tmp_path: Path) -> None:
    told: list[str] = []
    train_lisa("finetune", RECIPE, tiny_model, [Boxes(4, broken=[1])], run(tmp_path / "run"), told.append)
    assert len(told) == 1
    assert "box 1 is damaged" in told[0]
    with pytest.raises(DataError, match="box 1 is damaged"):
        train_lisa("finetune", RECIPE, tiny_model, [Boxes(4, broken=[1])], run(tmp_path / "strict", strict=True))


def test_a_finished_run_and_another_run_are_left_alone(tiny_model: str, tmp_path: Path) -> None:
    options, boxes = run(tmp_path / "run"), [Boxes(4)]
    train_lisa("finetune", RECIPE, tiny_model, boxes, options)
    with pytest.raises(OutputError, match="holds a finished run"):
        train_lisa("finetune", RECIPE, tiny_model, boxes, options)
    (tmp_path / "run" / "adapter" / "adapter_config.json").unlink()
    with pytest.raises(OutputError, match=r"holds another run \(steps was 4 and is 9"):
        train_lisa("finetune", replace(RECIPE, steps=9), tiny_model, boxes, options)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty and holds no run"):
        train_lisa("finetune", RECIPE, tiny_model, boxes, run(tmp_path / "full"))


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(tiny_model: str, tmp_path: Path) -> None:
    plan = train_lisa("finetune", RECIPE, tiny_model, [Boxes(20)], run(tmp_path / "run", dry_run=True, val_share=0.2))
    assert isinstance(plan, Plan)
    assert set(plan.trained) == {"lora", "projection", "mask_decoder"}
    lisa, _ = load_model(tiny_model, LoadOptions(device="cpu"))
    assert plan.trained["projection"] == sum(p.numel() for p in lisa.projection.parameters())
    assert (plan.pictures, plan.held_out) == (16, 4)
    assert plan.training_bytes == 12 * sum(plan.trained.values())
    assert not (tmp_path / "run").exists()


def test_early_stop(tiny_model: str, tmp_path: Path) -> None:
    recipe = replace(RECIPE, steps=50, learning_rate=0.0)
    options = run(tmp_path / "run", eval_steps=1, patience=2)
    train_lisa("finetune", recipe, tiny_model, [Boxes(4)], options, held_out=Boxes(2, seed=1))
    assert len(history(tmp_path / "run", "eval_giou")) == 3


def test_a_loss_that_is_no_number_keeps_the_last_checkpoint(tiny_model: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no number at step \d+ .*box \d"):
        train_lisa(
            "finetune", replace(RECIPE, learning_rate=1e30, steps=40), tiny_model, [Boxes(4)], run(tmp_path / "run")
        )
    assert not (tmp_path / "run" / "adapter").exists()


def test_nothing_to_learn_from_or_to_measure_by(tiny_model: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to learn from"):
        train_lisa("finetune", RECIPE, tiny_model, [], run(tmp_path / "a"))
    with pytest.raises(DataError, match="nothing to learn from in boxes"):
        train_lisa("finetune", RECIPE, tiny_model, [Boxes(0)], run(tmp_path / "b"))
    with pytest.raises(DataError, match="nothing to measure by"):
        train_lisa("finetune", RECIPE, tiny_model, [Boxes(4)], run(tmp_path / "c"), held_out=Boxes(1, broken=[0]))


def test_the_language_model_may_be_kept_in_4_bits(tiny_model: str, tmp_path: Path) -> None:
    """What is learned beside it fits the quantised model and the whole one."""
    recipe = replace(RECIPES["qlora"], steps=3, batch_size=1, learning_rate=1e-3)
    folder = train_lisa("qlora", recipe, tiny_model, [Boxes(4)], run(tmp_path / "run"))
    for options in (LoadOptions(device="cpu"), LoadOptions(device="cpu", quantize="4bit")):
        lisa, _ = load_model(tiny_model, replace(options, adapter=str(folder)))
        plain, _ = load_model(tiny_model, options)
        state = torch.ones(1, lisa.config.text.hidden_size)
        assert not torch.equal(lisa.prompts(state), plain.prompts(state))
