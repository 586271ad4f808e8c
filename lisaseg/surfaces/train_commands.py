"""`lisaseg train ...`: training from nothing, and on one's own data."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tyro.extras import SubcommandApp

from lisaseg.config import ClickRecipe, NanoRecipe, RunOptions
from lisaseg.surfaces.commands import DONE, app, require_extra

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


def tell_model(train_model: Callable[[], Path]) -> int:
    """Trains, and says where the model lies, or what to do after an interrupt."""
    try:
        folder = train_model()
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt("the same command goes on from the last checkpoint") from interrupt
    print(f"The model is in {folder}; try it: lisaseg segment IMAGE INSTRUCTION --model {folder}")
    return DONE
