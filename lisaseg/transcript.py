"""What was said and drawn in a conversation, as plain data that can be taken back, copied."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8

from lisaseg.config import AskOptions
from lisaseg.errors import InstructionError
from lisaseg.model.answer import Drawn, correct
from lisaseg.model.engine import Engine
from lisaseg.model.lisa import Pictures
from lisaseg.model.processor import ImageSize

Number = int | float
Point = tuple[Number, Number, int]
"""x and y in pixels of the picture, and +1 for inside or -1 for outside."""
Box = tuple[Number, Number, Number, Number]
"""xyxy in pixels of the picture."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Mask:
    """One mask of an answer, as it is now, and what a hand has added to it."""

    drawn: Drawn
    points: tuple[Point, ...] = ()
    box: Box | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Turn:
    """One question and its answer."""

    question: str
    token_ids: tuple[int, ...]
    """The answer as the model said it, without the end mark."""
    raw_text: str
    """The same in words, with `[SEG]`."""
    first: int
    """Index of the oldest turn that was in its prompt; all before it were forgotten."""
    options: AskOptions
    masks: tuple[Mask, ...]
    """One for each `[SEG]`."""
    timings: Mapping[str, float]
    """Seconds by stage."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Refinement:
    """One correction by hand, and the mask as it was before."""

    turn: int
    index: int
    points: tuple[Point, ...]
    box: Box | None
    before: Mask


def checked_hand(
    image: UInt8[np.ndarray, "H W 3"], points: Sequence[Point], box: Sequence[Number] | None
) -> tuple[tuple[Point, ...], Box | None]:
    """Points and box of a correction as plain numbers.

    Raises:
        InstructionError: there are none, or one is not in the picture.
    """
    height, width = image.shape[:2]
    if not len(points) and box is None:
        raise InstructionError("there is nothing to refine with: give points (x, y, +1 or -1) or a box")
    try:
        for _, _, sign in points:
            if sign not in (1, -1):
                raise InstructionError(f"a point's sign is +1 (inside) or -1 (outside), got {sign}")
        checked = tuple((float(x), float(y), int(sign)) for x, y, sign in points)
        corners = None if box is None else tuple(map(float, box))
    except (TypeError, ValueError) as error:
        raise InstructionError(
            f"expected points [(x, y, +1 or -1), ...] and a box (x0, y0, x1, y1) as numbers: {error}"
        ) from error
    for x, y, _ in checked:
        if not (0 <= x < width and 0 <= y < height):
            raise InstructionError(f"the point ({x:g}, {y:g}) is not in the picture, which is {width}x{height}")
    if corners is None:
        return checked, None
    if len(corners) == 4:
        x0, y0, x1, y1 = corners
        if 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height:
            return checked, (x0, y0, x1, y1)
    raise InstructionError(f"the box {corners} is not x0, y0, x1, y1 in the picture, which is {width}x{height}")


def add_by_hand(
    engine: Engine, mask: Mask, picture: Pictures, size: ImageSize, points: Sequence[Point], box: Box | None
) -> Mask:
    """The mask, drawn again with more points, and with a box in the place of an earlier one."""
    points, box = (*mask.points, *points), box or mask.box
    drawn = correct(engine, mask.drawn, picture, size, points, box)
    return Mask(drawn=drawn.kept(), points=points, box=box)


class Transcript:
    """Turns, and the order in which they and corrections by hand came about."""

    def __init__(self, turns: Sequence[Turn] = (), log: Sequence[Refinement | None] = ()):
        self.turns = list(turns)
        self.log = list(log)
        """What was done, in order: a correction, or None for a turn."""

    def copy(self) -> "Transcript":
        """Another one that starts alike."""
        return Transcript(self.turns, self.log)

    def add(self, turn: Turn) -> None:
        """A question was answered."""
        self.turns.append(turn)
        self.log.append(None)

    def refine(self, turn: int, index: int, after: Mask, points: tuple[Point, ...], box: Box | None) -> None:
        """A mask was corrected."""
        before = self.turns[turn].masks[index]
        self._put(turn, index, after)
        self.log.append(Refinement(turn=turn, index=index, points=points, box=box, before=before))

    def undo(self) -> None:
        """Takes the last of all back."""
        done = self.log.pop()
        if done is None:
            self.turns.pop()
        else:
            self._put(done.turn, done.index, done.before)

    def _put(self, turn: int, index: int, mask: Mask) -> None:
        masks = list(self.turns[turn].masks)
        masks[index] = mask
        self.turns[turn] = replace(self.turns[turn], masks=tuple(masks))
