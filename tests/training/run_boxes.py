"""A run in a process of its own: `run_boxes.py MODEL OUT RECIPE`, for tests that kill it or start several."""

import json
import runpy
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lisaseg.training import finetune
from lisaseg.training.trainer import LisaTrainer


class Slow(TrainerCallback):
    """Leaves time to be killed in."""

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        time.sleep(0.5 if state.global_step >= 2 else 0)


class SlowTrainer(LisaTrainer):
    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.add_callback(Slow())


tests = runpy.run_path(str(Path(__file__).with_name("test_finetune.py")))
model, out, recipe = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
if not recipe:
    vars(finetune)["LisaTrainer"] = SlowTrainer
finetune.train_lisa(
    "finetune",
    replace(tests["RECIPE"], **recipe),
    model,
    [tests["Boxes"](5)],
    tests["run"](out, **({"eval_steps": 3} if recipe else {})),
    held_out=tests["Boxes"](3, seed=1) if recipe else None,
)
