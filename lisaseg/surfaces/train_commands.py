"""`lisaseg train ...`: training from nothing, and on one's own data."""

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from tyro.extras import SubcommandApp

from lisaseg.config import RECIPES, ClickRecipe, LisaRecipe, NanoRecipe, RunOptions, TrainOptions
from lisaseg.surfaces import terminal
from lisaseg.surfaces.commands import DONE, app, require_extra

if TYPE_CHECKING:
    from lisaseg.training.plan import Plan

train = SubcommandApp()
app.command(train, name="train", help="Train a model.")


@train.command(name="nano")
@dataclass(frozen=True, kw_only=True)
class TrainNanoCommand:
    """Train nano from nothing. After an interrupt, the same command goes on from the last checkpoint."""

    run: RunOptions
    recipe: NanoRecipe = field(default_factory=NanoRecipe)

    def execute(self) -> int:
        """Trains, and says where the model lies."""
        require_extra("train", ("tensorboard",))
        from lisaseg.training.nano import train_nano

        return tell_model(lambda: train_nano(self.recipe, self.run))


@train.command(name="clicks")
@dataclass(frozen=True, kw_only=True)
class TrainClicksCommand:
    """Teach a small model's segmenter to follow clicks; its words stay as they are. After an interrupt, the same
    command goes on from the last checkpoint."""

    run: RunOptions
    recipe: ClickRecipe = field(default_factory=ClickRecipe)

    def execute(self) -> int:
        """Trains, and says where the model lies."""
        require_extra("train", ("tensorboard",))
        from lisaseg.training.clicks import train_clicks

        return tell_model(lambda: train_clicks(self.recipe, self.run))


@dataclass(frozen=True, kw_only=True)
class TrainLisaCommand:
    """What all recipes for LISA models share."""

    run: TrainOptions
    model: str
    """The model that learns: `nano`, `lisa-7b`, a folder, or a hub id."""
    data: tuple[str, ...] = ()
    """What it learns from: folders or files of one's own, or published data by name, such as reasonseg/train; by
    default the paper's mixture of what lies in --data-root."""
    recipe: LisaRecipe = field(default_factory=LisaRecipe)
    name: ClassVar[str]

    def execute(self) -> int:
        """Trains, or says what would be trained."""
        require_extra("train", ("peft", *self.run.track))
        from lisaseg.model.checkpoints import quieten_libraries
        from lisaseg.training.finetune import train_lisa
        from lisaseg.training.plan import Plan

        quieten_libraries(keep_downloads=sys.stderr.isatty(), keep_loading=sys.stderr.isatty())
        with _going_on_later():
            done = train_lisa(self.name, self.recipe, self.model, self.data, self.run, terminal.note)
        if isinstance(done, Plan):
            _show_plan(done)
        elif os.environ.get("RANK", "0") == "0":
            try_it = f"lisaseg segment IMAGE INSTRUCTION --model {self.model} --adapter {done}"
            print(f"What was learned is in {done}; try it: {try_it}")
        return DONE


@train.command(name="finetune")
@dataclass(frozen=True, kw_only=True)
class FinetuneCommand(TrainLisaCommand):
    """Train a LISA model further on one's own data; its projection and mask decoder start from what they know. After an
    interrupt, the same command goes on from the last checkpoint."""

    recipe: LisaRecipe = RECIPES["finetune"]
    name = "finetune"


@train.command(name="qlora")
@dataclass(frozen=True, kw_only=True)
class QloraCommand(TrainLisaCommand):
    """The same with the language model kept in 4 bits, in a third of the memory."""

    recipe: LisaRecipe = RECIPES["qlora"]
    name = "qlora"


@train.command(name="lisa-7b")
@dataclass(frozen=True, kw_only=True)
class Lisa7bCommand(TrainLisaCommand):
    """Train LISA-7B as in the paper, on its mixture of published data; `lisaseg assemble` makes the model to start
    from."""

    recipe: LisaRecipe = RECIPES["lisa-7b"]
    name = "lisa-7b"


@train.command(name="lisa-13b")
@dataclass(frozen=True, kw_only=True)
class Lisa13bCommand(TrainLisaCommand):
    """Train LISA-13B as in the paper, on its mixture of published data; `lisaseg assemble` makes the model to start
    from."""

    recipe: LisaRecipe = RECIPES["lisa-13b"]
    name = "lisa-13b"


def _show_plan(plan: "Plan") -> None:
    """What is trained and what it takes."""
    for part, count in plan.trained.items():
        terminal.OUT.print(f"  {part:<16}{count:>14,} parameters are trained")
    terminal.OUT.print(f"  {'the rest':<16}{plan.frozen:>14,} parameters stay as they are")
    pictures = "the paper's mixture" if plan.pictures is None else f"{plan.pictures:,} pictures"
    terminal.OUT.print(f"  learns from {pictures}; {plan.held_out:,} pictures are held out to choose the best by")
    total = plan.weight_bytes + plan.training_bytes
    terminal.OUT.print(
        f"  memory on {plan.device}: weights {plan.weight_bytes / 1e9:.2f} GB, gradients and optimiser "
        f"{plan.training_bytes / 1e9:.2f} GB, together {total / 1e9:.2f} GB and what the batch takes"
    )


@contextmanager
def _going_on_later() -> Generator[None, None, None]:
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt("the same command goes on from the last checkpoint") from interrupt


def tell_model(train_model: Callable[[], Path]) -> int:
    """Trains, and says where the model lies, or what to do after an interrupt."""
    with _going_on_later():
        folder = train_model()
    print(f"The model is in {folder}; try it: lisaseg segment IMAGE INSTRUCTION --model {folder}")
    return DONE
