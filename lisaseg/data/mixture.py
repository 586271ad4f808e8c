"""Which sample is learned from next, and in which words: the paper's random mixture, or one source again and again.

Lesson number i depends on the seed and i alone: workers, ranks and resumed runs agree without telling each other.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import Int
from torch.utils.data import Dataset

from lisaseg.data.paper import full_name, held_out_pictures, is_in, open_paper_source
from lisaseg.data.sample import Dialogue, Exchange, Lesson, Mask, Masks, Sample, Source
from lisaseg.errors import DataError, ImageError
from lisaseg.language.prompts import (
    ABSENT_ANSWER,
    ANSWERS,
    EXPLANATORY_REQUESTS,
    LONG_QUESTIONS,
    SHORT_QUESTIONS,
)

MOST_ATTEMPTS = 20
"""So many entries in a row may be of no use before it is no accident."""
PAPER_GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "sem_seg": ("ade20k", "cocostuff", "pascal_part", "paco_lvis", "mapillary"),
        "refer_seg": ("refclef", "refcoco", "refcoco+", "refcocog"),
        "vqa": ("llava_instruct_150k",),
        "reason_seg": ("reasonseg/train",),
    }
)
"""What the original trains with; its later checkpoints with `grefcoco` and `reasonseg/train+val` too."""
PAPER_RATES = (9.0, 3.0, 3.0, 1.0)
"""How often the groups come."""

_T = TypeVar("_T")
_Mood = Literal["plain", "explained", "explanation"]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Sources that take turns."""

    name: str
    sources: tuple[Source, ...]
    rate: float
    """How often the group comes, relative to the others."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixture(Dataset[Lesson]):
    """Lessons drawn with replacement: a group by its rate, one of its sources evenly, one of its entries evenly."""

    groups: tuple[Group, ...] = field(kw_only=False)
    seed: int
    length: int
    """Lessons, as many as the whole training takes."""
    most: int = 3
    """Dialogues that are learned of one picture at once."""
    explanatory: float = 0.1
    """How often an explanation is given without a mask, where there is one; -1 never explains."""
    refuse_absent: bool = False
    """Learn to say that a thing is absent, where the original answers with an empty mask."""
    strict: bool = False
    """Stop at an entry that cannot be read, instead of drawing another."""
    missing: tuple[str, ...] = ()
    """Sources that were wanted and are not there."""

    def __post_init__(self) -> None:
        _check(self.seed, self.most)
        if not self.groups or min(self._rates) < 0 or not sum(self._rates):
            raise DataError("a mixture needs groups with rates of at least 0, and one above")
        for group in self.groups:
            if not group.sources or not all(map(len, group.sources)):
                raise DataError(f"there is nothing to learn from in the group {group.name}")

    @property
    def _rates(self) -> list[float]:
        return [group.rate for group in self.groups]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Lesson:
        """Lesson number `index`.

        Raises:
            DataError: many entries in a row cannot be read or, if strict, one.
            IndexError: there are not so many lessons.
        """
        _check_index(index, self.length)
        return _first_good(functools.partial(self._draw, index), self.strict)

    def _draw(self, index: int, attempt: int) -> "_Try":
        rng = np.random.default_rng([self.seed, index, attempt])
        shares = np.array(self._rates) / sum(self._rates)
        group = self.groups[int(rng.choice(len(shares), p=shares))]
        source = _any(rng, group.sources)
        return _Try(
            source=source,
            place=int(rng.integers(len(source))),
            word=functools.partial(
                worded, rng=rng, most=self.most, explanatory=self.explanatory, refuse_absent=self.refuse_absent
            ),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Stream(Dataset[Lesson]):
    """Lessons from one source, every entry once in each epoch."""

    source: Source = field(kw_only=False)
    seed: int
    length: int
    """Lessons, as many as the whole training takes."""
    most: int = 3
    """Dialogues that are learned of one picture at once."""
    explanatory: float = 0.1
    """How often an explanation is given without a mask, where there is one; -1 never explains."""
    refuse_absent: bool = False
    """Learn to say that a thing is absent, instead of answering with an empty mask."""
    shuffle: bool = True
    """In another order each epoch."""
    strict: bool = False
    """Stop at an entry that cannot be read, instead of taking the next."""

    def __post_init__(self) -> None:
        _check(self.seed, self.most)
        if not len(self.source):
            raise DataError(f"there is nothing to learn from in {self.source.name}")

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Lesson:
        """Lesson number `index`.

        Raises:
            DataError: many entries in a row cannot be read or, if strict, one.
            IndexError: there are not so many lessons.
        """
        _check_index(index, self.length)
        return _first_good(functools.partial(self._draw, index), self.strict)

    def _draw(self, index: int, attempt: int) -> "_Try":
        epoch, place = divmod(index + attempt, len(self.source))
        rng = np.random.default_rng([self.seed, index, attempt])
        return _Try(
            source=self.source,
            place=int(_order(self.seed, epoch, len(self.source))[place]) if self.shuffle else place,
            word=functools.partial(
                worded, rng=rng, most=self.most, explanatory=self.explanatory, refuse_absent=self.refuse_absent
            ),
        )


def paper_mixture(
    root: Path,
    *,
    seed: int,
    length: int,
    rates: Sequence[float] = PAPER_RATES,
    groups: Mapping[str, Sequence[str]] = PAPER_GROUPS,
    exclude_val: bool = True,
    most: int = 3,
    explanatory: float = 0.1,
    refuse_absent: bool = False,
    void: bool = False,
    strict: bool = False,
) -> Mixture:
    """The paper's mixture of what lies in a folder; `missing` tells what does not.

    Args:
        root: the folder that the original calls `dataset`.
        seed: decides every lesson.
        length: lessons.
        rates: one for each group; those of groups that are not there go to the others.
        groups: names of sources (see `open_paper_source`) by groups.
        exclude_val: leave out the COCO pictures that the refCOCO family validates and tests with, as the paper says.
        most: dialogues that are learned of one picture at once.
        explanatory: how often an explanation is given without a mask, where there is one; -1 never explains.
        refuse_absent: learn to say that a thing is absent.
        void: ask for Mapillary's void classes too.
        strict: stop at an entry that cannot be read.

    Raises:
        DataError: none of it is there, or what is there is malformed.
    """
    if len(rates) != len(groups):
        raise DataError(f"expected a rate for each of {', '.join(groups)}, got {len(rates)}")
    wanted = {group: [full_name(name) for name in names] for group, names in groups.items()}
    missing = tuple(name for names in wanted.values() for name in names if not is_in(root, name))
    exclude = held_out_pictures(root) if exclude_val else frozenset()
    made = [
        Group(
            name=group,
            rate=float(rate),
            sources=tuple(
                open_paper_source(name, root, exclude=exclude, void=void) for name in names if name not in missing
            ),
        )
        for (group, names), rate in zip(wanted.items(), rates, strict=True)
    ]
    kept = tuple(group for group in made if group.sources)
    if not kept:
        raise DataError(f"{root} has none of the paper's data; expected some of {', '.join(missing)} in their folders")
    return Mixture(
        kept,
        seed=seed,
        length=length,
        most=most,
        explanatory=explanatory,
        refuse_absent=refuse_absent,
        strict=strict,
        missing=missing,
    )


def worded(
    sample: Sample,
    rng: np.random.Generator,
    *,
    most: int = 3,
    explanatory: float = 0.1,
    refuse_absent: bool = False,
) -> Sample:
    """A sample to learn from: some of its dialogues, said word for word, and the masks that these mean.

    Args:
        sample: what a source gave.
        rng: chooses dialogues and words.
        most: dialogues at most, without replacement; all, in their order, where there are no more.
        explanatory: where an explanation is there, the share of samples with a bare request answered by it alone; of
            the others, one half gives it after the mask. -1 never explains.
        refuse_absent: say of an empty mask that there is no such thing.

    Raises:
        DataError: a dialogue has no answer, or a phrase not exactly one mask.
    """
    places = range(len(sample.dialogues))
    chosen = places if len(places) <= most else rng.choice(len(places), most, replace=False).tolist()
    mood = _mood(rng, explanatory)

    @functools.cache
    def mask(place: int) -> Mask:
        return sample.masks[place]

    said = [
        tuple(_said(exchange, rng, mood, mask, refuse_absent) for exchange in sample.dialogues[place])
        for place in chosen
    ]
    used = sorted({place for dialogue in said for exchange in dialogue for place in exchange.masks})
    return replace(
        sample,
        dialogues=tuple(_renumbered(dialogue, used) for dialogue in said),
        masks=Masks([functools.partial(_given, mask(place)) for place in used]),
    )


def _mood(rng: np.random.Generator, explanatory: float) -> _Mood:
    """How what can be explained is asked for; the same for all of a sample, as in the original."""
    alone, after = rng.random(2)
    if explanatory < 0:
        return "plain"
    if alone < explanatory:
        return "explanation"
    return "explained" if after < 0.5 else "plain"


def _said(
    exchange: Exchange,
    rng: np.random.Generator,
    mood: _Mood,
    mask: Callable[[int], Mask],
    refuse_absent: bool,
) -> Exchange:
    """Question and answer, word for word."""
    if exchange.kind == "said" and exchange.answer is None:
        raise DataError(f"there is no answer to learn for {exchange.text[:60]!r}")
    if exchange.kind == "said":
        return exchange
    text = _any(rng, (exchange.text, *exchange.also))
    question = _question(text, exchange.kind, rng)
    if exchange.answer is not None:
        return replace(exchange, text=question, also=(), kind="said")
    if len(exchange.masks) != 1:
        raise DataError(
            f"expected one mask for {text[:60]!r}, got {len(exchange.masks)}; give an answer with a [SEG] for each"
        )
    masks, answer = exchange.masks, _any(rng, ANSWERS)
    if refuse_absent and not (mask(masks[0]) == 1).any():
        masks, answer = (), ABSENT_ANSWER
    elif exchange.explanation and mood == "explanation":
        masks, question, answer = (), text, exchange.explanation
    elif exchange.explanation and mood == "explained":
        question, answer = f"{text} {_any(rng, EXPLANATORY_REQUESTS)}", f"{answer} {exchange.explanation}"
    return Exchange(text=question, answer=answer, masks=masks, explanation=exchange.explanation)


def _question(text: str, kind: str, rng: np.random.Generator) -> str:
    if kind == "sentence":
        return _any(rng, LONG_QUESTIONS).format(sentence=text)
    return _any(rng, SHORT_QUESTIONS).format(phrase=text.lower())


def _renumbered(dialogue: Dialogue, used: Sequence[int]) -> Dialogue:
    return tuple(replace(exchange, masks=tuple(map(used.index, exchange.masks))) for exchange in dialogue)


def _given(mask: Mask) -> Mask:
    return mask


def _any(rng: np.random.Generator, choices: Sequence[_T]) -> _T:
    return choices[int(rng.integers(len(choices)))]


@functools.lru_cache(maxsize=8)
def _order(seed: int, epoch: int, size: int) -> Int[np.ndarray, " N"]:
    """The order of one epoch."""
    order = np.random.default_rng([seed, epoch]).permutation(size)
    order.flags.writeable = False
    return order


@dataclass(frozen=True, kw_only=True)
class _Try:
    """An entry, and what makes a lesson of it."""

    source: Source
    place: int
    word: Callable[[Sample], Sample]


def _first_good(draw: Callable[[int], _Try], strict: bool) -> Lesson:
    """The first entry that can be read; one that shows nothing to ask for is passed over without a word."""
    skipped: list[str] = []
    last = ""
    for attempt in range(MOST_ATTEMPTS):
        made = draw(attempt)
        try:
            sample = made.source[made.place]
            if sample.dialogues:
                return Lesson(sample=made.word(sample), skipped=tuple(skipped))
            last = f"{made.source.name}: nothing is labelled in {made.source.entry(made.place)}"
        except (DataError, ImageError) as error:
            last = f"{made.source.name}: {made.source.entry(made.place)}: {error}"
            if strict:
                raise DataError(last) from error
            skipped.append(last)
    raise DataError(f"none of {MOST_ATTEMPTS} entries in a row can be learned from; the last one: {last}")


def _check(seed: int, most: int) -> None:
    if seed < 0 or most < 1:
        raise DataError(f"expected a seed of at least 0 and 1 dialogue or more at once, got {seed} and {most}")


def _check_index(index: int, length: int) -> None:
    if not 0 <= index < length:
        raise IndexError(f"there are {length} lessons, asked for number {index}")
