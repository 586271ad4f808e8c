"""What a training step costs beside forward, backward and the optimiser: waiting for lessons, logging, bookkeeping.

python benchmarks/train_step.py [--model nano] [--steps 30] [--workers 1]

Lessons are pictures of 640x480 with one mask, made ready by a process of their own.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from transformers import TrainerCallback

from lisaseg.config import LisaRecipe, TrainOptions
from lisaseg.data.sample import Exchange, Masks, Sample, Source
from lisaseg.training import finetune
from lisaseg.training.trainer import LisaTrainer

WARM_UP = 5


class Discs(Source):
    """A disc on noise."""

    name = "discs"

    def __len__(self) -> int:
        return 200

    def entry(self, index: int) -> str:
        return f"disc {index}"

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        image = rng.integers(0, 255, (480, 640, 3), dtype=np.uint8)
        mask = cv2.circle(np.zeros((480, 640), np.uint8), (int(rng.integers(640)), int(rng.integers(480))), 90, 1, -1)
        image[mask == 1] = (200, 30, 30)
        dialogue = (Exchange(text="disc", kind="phrase", masks=(0,)),)
        return Sample(name=self.entry(index), image=image, dialogues=(dialogue,), masks=Masks([lambda: mask]))


class Clock(TrainerCallback):
    """Adds up what the optimiser takes, and all steps after the first ones."""

    def __init__(self) -> None:
        self.work = self.start = self.end = self.last = 0.0

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.last = time.perf_counter()

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.work += time.perf_counter() - self.last

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.end = time.perf_counter()
        if state.global_step == WARM_UP:
            self.start, self.work = self.end, 0.0


CLOCK = Clock()


class TimedTrainer(LisaTrainer):
    """Adds up forward and backward, too."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_callback(CLOCK)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        loss = super().training_step(*args, **kwargs)
        CLOCK.work += time.perf_counter() - start
        return loss


def main() -> None:
    """Prints the time of a step and the share that is no work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    vars(finetune)["LisaTrainer"] = TimedTrainer
    recipe = LisaRecipe(steps=WARM_UP + options.steps, batch_size=8)
    with TemporaryDirectory() as folder:
        run = TrainOptions(out=Path(folder) / "run", val_share=0.0, eval_steps=1000, workers=options.workers, track=())
        finetune.train_lisa("finetune", recipe, options.model, [Discs()], run)
    wall = CLOCK.end - CLOCK.start
    print(
        f"step {1e3 * wall / options.steps:.0f} ms, beside forward, backward and optimiser {1 - CLOCK.work / wall:.1%}"
    )


if __name__ == "__main__":
    main()
