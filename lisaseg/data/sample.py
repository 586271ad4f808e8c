"""What is learned from and measured by: a picture, what is said about it, and the masks it means."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, overload

import numpy as np
from jaxtyping import UInt8
from torch.utils.data import Dataset

IGNORE = 255
"""Mask value of pixels that do not count."""
Kind = Literal["phrase", "sentence", "said"]
"""What a text is: a bare name ("the left dog"), a whole request ("What cuts bread?"), both for templates to word; or
what is said, word for word."""
Mask = UInt8[np.ndarray, "H W"]
"""0 outside, 1 inside, `IGNORE` where nobody knows."""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One question and its answer, or what they are to be worded from."""

    text: str
    also: tuple[str, ...] = ()
    """Other words for the same; a lesson takes any, a measurement `text`."""
    kind: Kind = "said"
    answer: str | None = None
    """Word for word, with a `[SEG]` for each mask; None where templates word it."""
    masks: tuple[int, ...] = ()
    """Places among the sample's masks, one for each `[SEG]` of the answer; a worded answer has exactly one."""
    explanation: str | None = None
    """Why the answer is what it is, where somebody wrote it down."""


Dialogue = tuple[Exchange, ...]
"""What is said about one picture, in order."""


class Masks(Sequence):  # not Sequence[np.ndarray]: tests check annotations, and would draw masks to look at them
    """Masks that are drawn when they are asked for: a picture may have dozens, and a lesson takes three."""

    def __init__(self, makers: Sequence[Callable[[], Mask]] = ()):
        """Takes a function without arguments for each mask."""
        self._makers = tuple(makers)

    def __len__(self) -> int:
        return len(self._makers)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> "Masks": ...
    def __getitem__(self, index: int | slice) -> "np.ndarray | Masks":
        return Masks(self._makers[index]) if isinstance(index, slice) else self._makers[index]()


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One picture and all that a source says about it."""

    name: str
    """The entry's file or id within its source."""
    image: UInt8[np.ndarray, "H W 3"]
    """Upright RGB."""
    dialogues: tuple[Dialogue, ...]
    masks: Masks = field(default_factory=Masks)
    """Each as large as the picture."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
    """A sample to learn from, its dialogues worded, and what had to be passed over to find it."""

    sample: Sample
    skipped: tuple[str, ...] = ()
    """Each with its name and why."""


class Source(Dataset[Sample], ABC):
    """Samples by index, always the same ones. What is random about training is elsewhere (`mixture`)."""

    name: str
    """What messages call it, such as `reasonseg/val`."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Reads one entry.

        Raises:
            DataError: the entry contradicts itself.
            ImageError: its picture cannot be read.
        """

    @abstractmethod
    def entry(self, index: int) -> str:
        """The name of an entry, told without reading it."""


class Joined(Source):
    """Several sources, one after another."""

    def __init__(self, sources: Sequence[Source]):
        """Takes them in order."""
        self._sources = tuple(sources)
        self.name = " + ".join(source.name for source in sources)

    def __len__(self) -> int:
        return sum(map(len, self._sources))

    def __getitem__(self, index: int) -> Sample:
        source, place = self._find(index)
        return source[place]

    def entry(self, index: int) -> str:
        """The name of an entry, told without reading it."""
        source, place = self._find(index)
        return source.entry(place)

    def _find(self, index: int) -> tuple[Source, int]:
        for source in self._sources:
            if index < len(source):
                return source, index
            index -= len(source)
        raise IndexError(f"{self.name} has {len(self)} entries")


class Selected(Source):
    """Some entries of a source."""

    def __init__(self, source: Source, places: Sequence[int]):
        """Takes their places in it."""
        self._source, self._places = source, tuple(places)
        self.name = source.name

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        return self._source[self._places[index]]

    def entry(self, index: int) -> str:
        """The name of an entry, told without reading it."""
        return self._source.entry(self._places[index])
