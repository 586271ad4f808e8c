"""How good nano is: new scenes of things it knows, sprites and photographs it never saw, needs, and absent things.

The model answers freely; all masks it draws to one question are taken together.
"""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from lisaseg.config import AskOptions, NanoReportOptions
from lisaseg.data.dialogues import Narrator, Told
from lisaseg.data.pack import Pack, load_pack
from lisaseg.data.sample import IGNORE
from lisaseg.data.scenes import Scene, SceneOptions, compose, from_photo
from lisaseg.data.vocabulary import load_vocabulary
from lisaseg.evaluation.metrics import ciou, giou, overlap
from lisaseg.files import make_folder, write_atomic
from lisaseg.images.sheet import contact_sheet
from lisaseg.segmenter import Segmenter
from lisaseg.values import Answer

SCENE_SEED = 20_261_123
"""Seed of the evaluation's scenes; training counts its scenes from another."""
BASELINE_SIDE = 96
"""Masks of all shapes are compared at this square size to find the best constant one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """One question and the pixels that answer it: 0, 1, and 255 for those that do not count."""

    image: UInt8[np.ndarray, "H W 3"]
    text: str
    truth: UInt8[np.ndarray, "H W"]


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
    """All rows, and the first answers of each set."""

    model: str
    scores: tuple[Score, ...]
    examples: tuple[Answer, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"model": self.model, "scores": [asdict(score) for score in self.scores]}


def save_report(report: Report, folder: Path) -> None:
    """Writes `report.json`, and `examples.jpg` where there are examples.

    Raises:
        OutputError: a file cannot be written.
    """
    make_folder(folder)
    write_atomic(folder / "report.json", json.dumps(report.to_dict(), indent=2).encode())
    if report.examples:
        captions = [(answer.overlay(), f"{answer.instruction} - {answer.text}") for answer in report.examples]
        buffer = io.BytesIO()
        contact_sheet(captions).save(buffer, "JPEG", quality=90)
        write_atomic(folder / "examples.jpg", buffer.getvalue())


def evaluate_nano(
    segmenter: Segmenter,
    folder: Path,
    options: NanoReportOptions,
    progress: Callable[[Sequence[Question], str], Iterator[Question]] = lambda questions, _: iter(questions),
) -> Report:
    """Asks a model about seeded scenes and photographs of the training pack.

    Args:
        segmenter: the model.
        folder: the pack.
        options: how many scenes, and of which concepts.
        progress: wraps the iteration over questions to show how far it is.
    """
    known = tuple(options.concepts)
    train = load_pack(folder, known, split="train", sprites_per_concept=options.sprites_per_concept)
    train.require(known)
    unseen = load_pack(folder, known, split="val")
    scenes = list(_scenes(train, options.scenes))
    sets = {
        "new scenes, known sprites": _naming(scenes, known),
        "new scenes, unseen sprites": _naming(_scenes(unseen, options.scenes), known),
        "photographs": _naming(map(from_photo, unseen.photos), known),
        "needs (reasoning), known wordings": _reasoning(scenes, known),
        "absent things": _absent(scenes, known),
    }
    scores, examples = [], []
    for name, made in sets.items():
        questions = list(made)
        answers = list(_ask(segmenter, progress(questions, name), options.batch_size))
        scores.append(score(name, questions, answers))
        examples += answers[: options.examples]
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


def best_constant_giou(truths: Sequence[UInt8[np.ndarray, "_ _"]]) -> float:
    """gIoU of the best single mask for all: the mean of all masks, cut at the level that scores highest on them."""
    if not truths:
        return float("nan")
    side = (BASELINE_SIDE, BASELINE_SIDE)
    squares = np.stack([cv2.resize(truth, side, interpolation=cv2.INTER_NEAREST) for truth in truths])
    mean = (squares == 1).mean(axis=0)
    levels = [*np.unique(np.quantile(mean, np.linspace(0, 0.99, 34))), 2.0]  # the last one leaves nothing
    return max(giou([overlap(mean >= level, square) for square in squares]) for level in levels)


def _union(answer: Answer) -> Bool[np.ndarray, "H W"]:
    """All that was drawn; nothing where nothing was."""
    empty = np.zeros(answer.image.shape[:2], bool)
    return np.logical_or.reduce([empty, *(segment.mask for segment in answer.segments)])


def _ask(segmenter: Segmenter, questions: Iterator[Question], batch_size: int) -> Iterator[Answer]:
    while batch := list(islice(questions, batch_size)):
        pairs = [(question.image, question.text) for question in batch]
        yield from segmenter.segment_batch(pairs, batch_size=batch_size, options=AskOptions(max_new_tokens=64))


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
    return Question(image=scene.image, text=told.question, truth=truth)


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
