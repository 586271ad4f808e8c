"""How good nano is: new scenes of things it knows, sprites and photographs it never saw, needs, and absent things.

The model answers freely; all masks it draws to one question are taken together.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from lisaseg.config import EvaluateOptions
from lisaseg.data.dialogues import Narrator, Told
from lisaseg.data.pack import Pack, load_pack
from lisaseg.data.scenes import Scene, SceneOptions, compose, from_photo
from lisaseg.data.vocabulary import load_vocabulary
from lisaseg.evaluation.metrics import IGNORE, ciou, giou, overlap
from lisaseg.segmenter import Segmenter
from lisaseg.values import Answer

SCENE_SEED = 20_261_123
"""Seed of the evaluation's scenes; training counts its scenes from another."""
BASELINE_SIDE = 96
"""Masks of all shapes are compared at this square size to find the best constant one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """One question, the pixels that answer it (0, 1, 255 = ignore), and whether there is anything to find."""

    image: UInt8[np.ndarray, "H W 3"]
    text: str
    truth: UInt8[np.ndarray, "H W"]
    is_absent: bool = False


@dataclass(frozen=True, kw_only=True)
class Score:
    """One row of the table. Shares are 0..1; `constant_giou` is the gIoU of the best single mask for all questions."""

    name: str
    questions: int
    giou: float
    ciou: float
    constant_giou: float
    refused: float
    """Share of questions answered without any mask."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """All rows, and the examples that were asked for."""

    model: str
    scores: tuple[Score, ...]
    examples: tuple[Answer, ...] = field(default=())


def evaluate_nano(segmenter: Segmenter, folder: Path, options: EvaluateOptions, progress: Callable = iter) -> Report:
    """Asks a model about seeded scenes and photographs of the training pack.

    Args:
        segmenter: the model.
        folder: the pack.
        options: how many scenes, and of which concepts.
        progress: wraps the iteration over questions to show how far it is.
    """
    known = tuple(options.concepts)
    train = load_pack(folder, known, split="train", sprites_per_concept=options.sprites_per_concept)
    unseen = load_pack(folder, known, split="val")
    scenes = list(_scenes(train, options.scenes))
    sets = {
        "new scenes, known sprites": _naming(scenes, known),
        "new scenes, unseen sprites": _naming(_scenes(unseen, options.scenes), known),
        "photographs": _naming((from_photo(photo, max(photo.pixels()[1].shape)) for photo in unseen.photos), known),
        "needs (reasoning), known wordings": _reasoning(scenes, known),
        "absent things": _absent(scenes, known),
    }
    asked = {name: list(questions) for name, questions in sets.items()}
    answers = iter(_ask(segmenter, progress([q for questions in asked.values() for q in questions]), options))
    scores, examples = [], []
    for name, questions in asked.items():
        answered = [next(answers) for _ in questions]
        scores.append(score(name, questions, answered))
        examples += answered[: options.examples]
    return Report(model=segmenter.lisa.config.model_name, scores=tuple(scores), examples=tuple(examples))


def score(name: str, questions: Sequence[Question], answers: Sequence[Answer]) -> Score:
    """The row of a set of questions."""
    overlaps = [overlap(_union(answer), question.truth) for question, answer in zip(questions, answers, strict=True)]
    return Score(
        name=name,
        questions=len(questions),
        giou=giou(overlaps),
        ciou=ciou(overlaps),
        constant_giou=best_constant_giou([question.truth for question in questions]),
        refused=float(np.mean([not answer.segments for answer in answers])) if answers else float("nan"),
    )


def best_constant_giou(truths: Sequence[UInt8[np.ndarray, "H W"]]) -> float:
    """gIoU of the best single mask for all: the mean of all masks, cut at the level that scores highest on them."""
    if not truths:
        return float("nan")
    side = (BASELINE_SIDE, BASELINE_SIDE)
    squares = np.stack([cv2.resize(truth, side, interpolation=cv2.INTER_NEAREST) for truth in truths])
    mean = (squares == 1).mean(axis=0)
    levels = np.unique(np.quantile(mean, np.linspace(0, 0.99, 34)))
    return max(giou([overlap(mean >= level, square) for square in squares]) for level in levels)


def _union(answer: Answer) -> Bool[np.ndarray, "H W"]:
    empty = np.zeros(answer.image.shape[:2], bool)
    return (
        np.logical_or.reduce([segment.mask for segment in answer.segments], initial=empty) if answer.segments else empty
    )


def _ask(segmenter: Segmenter, questions: Iterator[Question], options: EvaluateOptions) -> Iterator[Answer]:
    batch: list[Question] = []
    for question in questions:
        batch.append(question)
        if len(batch) == options.batch_size:
            yield from _answered(segmenter, batch)
            batch = []
    if batch:
        yield from _answered(segmenter, batch)


def _answered(segmenter: Segmenter, batch: Sequence[Question]) -> list[Answer]:
    pairs = [(question.image, question.text) for question in batch]
    return segmenter.segment_batch(pairs, batch_size=len(batch), max_new_tokens=64)


def _scenes(pack: Pack, number: int) -> Iterator[Scene]:
    return (compose(pack, SceneOptions(), np.random.default_rng([SCENE_SEED, index])) for index in range(number))


def _narrator(scene: Scene, known: Sequence[str], index: int) -> Narrator:
    rng = np.random.default_rng([SCENE_SEED, 1, index])
    return Narrator(scene=scene, vocabulary=load_vocabulary(), known=known, strangers=known, rng=rng)


def _question(scene: Scene, told: Told) -> Question:
    truth = np.zeros(scene.ignore.shape, np.uint8)
    for mask in told.masks:
        truth[scene.union(mask)] = 1
    truth[scene.ignore] = IGNORE
    return Question(image=scene.image, text=told.question, truth=truth, is_absent=not told.masks)


def _naming(scenes: Iterator[Scene] | Sequence[Scene], known: Sequence[str]) -> Iterator[Question]:
    """Every known concept of every scene, by name."""
    for index, scene in enumerate(scenes):
        narrator = _narrator(scene, known, index)
        for concept in scene.concepts:
            if concept in known and (told := narrator.name(concept)):
                yield _question(scene, told)


def _reasoning(scenes: Sequence[Scene], known: Sequence[str]) -> Iterator[Question]:
    """One need for each scene."""
    for index, scene in enumerate(scenes):
        if told := _narrator(scene, known, index).reason(explain=False):
            yield _question(scene, told)


def _absent(scenes: Sequence[Scene], known: Sequence[str]) -> Iterator[Question]:
    """One thing that is not there for each scene."""
    for index, scene in enumerate(scenes):
        if told := _narrator(scene, known, index).absent():
            yield _question(scene, told)
