"""What a training learns from, and what it chooses its best checkpoint by."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from lisaseg.config import LisaRecipe, TrainOptions
from lisaseg.data.mixture import Stream, paper_mixture
from lisaseg.data.opening import DATA_VARIABLE, data_root, open_source
from lisaseg.data.sample import Exchange, Joined, Masks, Sample, Selected, Source
from lisaseg.errors import DataError, ImageError
from lisaseg.language.prompts import VALIDATION_ANSWER, validation_question
from lisaseg.training.lessons import Worded


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """Lessons for the whole run, and pictures to measure by."""

    lessons: Worded
    held_out: Source | None
    pictures: int | None
    """Pictures to learn from; None for the paper's mixture, which draws from all it has."""


def gather(
    recipe: LisaRecipe,
    data: Sequence[str | Source],
    run: TrainOptions,
    tell: Callable[[str], None],
    held_out: Source | None = None,
) -> Material:
    """Opens what a run learns from.

    Args:
        recipe: how much is learned, and its seed.
        data: names, paths or sources; none means the paper's mixture.
        run: where published data is, and what is held out.
        tell: shows a line to the person who trains.
        held_out: what is measured by, in place of `run.val`.

    Raises:
        DataError: something is not there or has nothing to learn from.
    """
    root = data_root(run.data_root)
    length = recipe.steps * recipe.batch_size * recipe.accumulate * int(os.environ.get("WORLD_SIZE", "1"))
    val = open_source(run.val, root) if run.val else held_out
    chosen = None if val is None else _some(val, recipe, run, tell)
    if not data:
        return Material(lessons=_paper(root, recipe, run, length, tell), held_out=chosen, pictures=None)
    sources = [open_source(one, root) if isinstance(one, str) else one for one in data]
    everything = sources[0] if len(sources) == 1 else Joined(sources)
    if not len(everything):
        raise DataError(f"there is nothing to learn from in {everything.name}")
    order = np.random.default_rng([recipe.seed, 1]).permutation(len(everything)).tolist()
    number = 0 if val is not None else min(round(run.val_share * len(order)), run.val_limit)
    learned = Selected(everything, sorted(order[number:]))
    lessons = Stream(
        learned,
        seed=recipe.seed,
        length=length,
        most=recipe.dialogues,
        explanatory=recipe.explanatory,
        strict=run.strict,
    )
    if number:
        chosen = _usable(everything, sorted(order[:number]), tell)
    return Material(lessons=lessons, held_out=chosen, pictures=len(learned))


def _paper(
    root: Path | None, recipe: LisaRecipe, run: TrainOptions, length: int, tell: Callable[[str], None]
) -> Worded:
    if root is None:
        raise DataError(f"nothing to learn from: give --data, or published data with --data-root or ${DATA_VARIABLE}")
    mixture = paper_mixture(
        root,
        seed=recipe.seed,
        length=length,
        rates=recipe.rates,
        explanatory=recipe.explanatory,
        most=recipe.dialogues,
        strict=run.strict,
    )
    if mixture.missing:
        tell(f"not there, and left out of the mixture: {', '.join(mixture.missing)}")
    return mixture


def _some(val: Source, recipe: LisaRecipe, run: TrainOptions, tell: Callable[[str], None]) -> Source:
    """At most `run.val_limit` pictures, the same ones each time."""
    order = np.random.default_rng([recipe.seed, 2]).permutation(len(val))[: run.val_limit]
    return _usable(val, sorted(order.tolist()), tell)


def _usable(source: Source, places: Sequence[int], tell: Callable[[str], None]) -> Source:
    """Pictures to measure by: those that can be read and have something to find. Reads each once."""
    found = Selected(source, [place for place in places if _is_usable(source, place, tell)])
    if not len(found):
        raise DataError(f"{source.name} has nothing to measure by: no picture with a mask can be read")
    return found


def _is_usable(source: Source, place: int, tell: Callable[[str], None]) -> bool:
    try:
        return bool(forced(source[place]).dialogues)
    except (DataError, ImageError) as error:
        tell(f"left out: {error}")
        return False


def forced(sample: Sample) -> Sample:
    """A sample with the questions of the original's measurement, and the answer that it puts into the model's mouth."""
    dialogues, masks = [], []
    for exchange, *_ in sample.dialogues:
        if exchange.kind != "said" and exchange.masks:
            question = validation_question(exchange.text, is_sentence=exchange.kind == "sentence")
        elif exchange.kind == "said" and len(exchange.masks) == 1:
            question = exchange.text
        else:
            continue
        dialogues.append((Exchange(text=question, answer=VALIDATION_ANSWER, masks=(len(masks),)),))
        masks.append(partial(sample.masks.__getitem__, exchange.masks[0]))
    return replace(sample, dialogues=tuple(dialogues), masks=Masks(masks))
