import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lisaseg.config import NanoReportOptions
from lisaseg.evaluation.nano import Question, Report, best_constant_giou, evaluate_nano, save_report, score
from lisaseg.segmenter import Segmenter
from lisaseg.values import Answer, Segment

WORLD = ("dog", "cat", "cup", "car")
SETS = (
    "new scenes, known sprites",
    "new scenes, unseen sprites",
    "photographs",
    "needs (reasoning), known wordings",
    "absent things",
)


def answer(*masks: np.ndarray) -> Answer:
    """An answer that draws these masks."""
    segments = tuple(
        Segment(index=i, phrase="it", logits=np.where(mask, 1, -1).astype(np.float32), predicted_iou=1.0)
        for i, mask in enumerate(masks)
    )
    return Answer(
        image=np.zeros((4, 4, 3), np.uint8),
        source="image",
        model="test",
        instruction="",
        text="",
        raw_text="",
        segments=segments,
        timings={},
    )


def question(truth: np.ndarray) -> Question:
    return Question(image=np.zeros((4, 4, 3), np.uint8), text="?", truth=truth.astype(np.uint8))


def quarter(row: int, column: int) -> np.ndarray:
    mask = np.zeros((4, 4), bool)
    mask[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = True
    return mask


def test_all_masks_of_an_answer_count_together() -> None:
    both = quarter(0, 0) | quarter(1, 1)
    row = score("x", [question(both)], [answer(quarter(0, 0), quarter(1, 1))])
    assert row.giou == pytest.approx(1, abs=1e-5)
    assert row.refused == 0


def test_a_refusal_is_right_only_where_there_is_nothing() -> None:
    truths = [np.zeros((4, 4)), quarter(0, 0)]
    row = score("x", [question(truth) for truth in truths], [answer(), answer()])
    assert row.giou == pytest.approx(0.5)
    assert row.refused == 1


def test_the_best_constant_mask_beats_every_single_guess() -> None:
    truths = [quarter(0, 0), quarter(0, 0), quarter(1, 1)]
    assert best_constant_giou([truth.astype(np.uint8) for truth in truths]) == pytest.approx(2 / 3, abs=1e-4)


def test_every_set_is_asked_and_the_same_each_time(tiny_model: str, tiny_pack: Path) -> None:
    segmenter = Segmenter.load(tiny_model)
    options = NanoReportOptions(scenes=3, concepts=WORLD, sprites_per_concept=1, batch_size=4, examples=1)
    seen: list[str] = []

    def progress(questions: Sequence[Question], name: str) -> Iterator[Question]:
        seen.append(name)
        return iter(questions)

    one = evaluate_nano(segmenter, tiny_pack, options, progress)
    assert tuple(seen) == SETS
    assert tuple(row.name for row in one.scores) == SETS
    assert all(row.questions > 0 for row in one.scores)
    assert one.scores[2].questions == 1
    assert len(one.examples) == 5
    assert evaluate_nano(segmenter, tiny_pack, options).to_dict() == one.to_dict()


def test_a_report_is_saved_with_its_pictures(tmp_path: Path) -> None:
    row = score("x", [question(quarter(0, 0))], [answer(quarter(0, 0))])
    save_report(Report(model="test", scores=(row,), examples=(answer(quarter(0, 0)),)), tmp_path / "report")
    assert json.loads((tmp_path / "report" / "report.json").read_text())["scores"][0]["name"] == "x"
    with Image.open(tmp_path / "report" / "examples.jpg") as sheet:
        assert sheet.width > 100
