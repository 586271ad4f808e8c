"""From samples to questions: what a model is asked about a picture, word for word, and the mask that answers it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lisaseg.data.sample import IGNORE, Exchange, Kind, Mask, Sample
from lisaseg.language.prompts import ABSENT_ANSWER, VALIDATION_ANSWER, validation_question


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question about a picture."""

    number: int
    """Place among the picture's questions."""
    text: str
    """What the data says."""
    kind: Kind
    asked: str
    """What the model is asked."""
    before: tuple[tuple[str, str], ...] = ()
    """Earlier turns of the same dialogue, as the data has them: questions and answers."""
    masks: tuple[int, ...]
    """Places among the sample's masks; none where nothing is meant."""


def questions_of(sample: Sample, *, first_text_only: bool = False) -> list[Question]:
    """All questions that a mask answers, in the order of the data.

    Names and requests are worded as the original's measurement words them; what is "said" is asked as it stands. Talk
    without masks is no question, except where the data answers that the thing is not there.

    Args:
        sample: a picture with dialogues.
        first_text_only: leave out all dialogues but the first, which are the same question in other words.
    """
    questions: list[Question] = []
    for dialogue in sample.dialogues[:1] if first_text_only else sample.dialogues:
        before: list[tuple[str, str]] = []
        for exchange in dialogue:
            asked = _asked(exchange)
            if exchange.masks or exchange.kind != "said" or exchange.answer == ABSENT_ANSWER:
                questions.append(
                    Question(
                        number=len(questions),
                        text=exchange.text,
                        kind=exchange.kind,
                        asked=asked,
                        before=tuple(before),
                        masks=exchange.masks,
                    )
                )
            before.append((asked, exchange.answer or VALIDATION_ANSWER))
    return questions


def _asked(exchange: Exchange) -> str:
    if exchange.kind == "said":
        return exchange.text
    return validation_question(exchange.text.strip(), is_sentence=exchange.kind == "sentence")


def truths_of(sample: Sample, questions: Sequence[Question]) -> list[Mask]:
    """The masks that answer the questions, each drawn once for all questions that share it.

    Raises:
        DataError: a mask cannot be drawn.
    """
    drawn: dict[tuple[int, ...], Mask] = {}
    for question in questions:
        if question.masks not in drawn:
            drawn[question.masks] = together([sample.masks[place] for place in question.masks], sample.image.shape[:2])
    return [drawn[question.masks] for question in questions]


def together(masks: Sequence[Mask], size: tuple[int, int]) -> Mask:
    """The union of several masks: 1 where any is, `IGNORE` where none is and one does not know; zeros for none."""
    if len(masks) == 1:
        return masks[0]
    union = np.zeros(size, np.uint8)
    for mask in masks:
        union[(mask == IGNORE) & (union == 0)] = IGNORE
        union[mask == 1] = 1
    return union
