"""Evaluations as people run them: cut off and taken up, over several processes, with bad pictures among good ones."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lisaseg.data.opening import open_source
from lisaseg.errors import DataError, OutputError
from lisaseg.evaluation.benchmarks import open_benchmark
from lisaseg.evaluation.evaluate import evaluate
from lisaseg.evaluation.options import EvaluateOptions
from lisaseg.evaluation.scores import Evaluation
from lisaseg.segmenter import Segmenter


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six pictures of ReasonSeg with two wordings each, three sentences and three phrases, one with ignored pixels."""
    folder = tmp_path / "data" / "reason_seg" / "ReasonSeg" / "val"
    folder.mkdir(parents=True)
    for number in range(6):
        image = np.full((60, 80, 3), 90, np.uint8)
        x = 5 * number
        image[20:50, x : x + 30] = (40, 40, 220)
        cv2.imwrite(str(folder / f"{number}.jpg"), image)
        shapes = [{"label": "target", "points": [[x, 20], [x + 30, 20], [x + 30, 50], [x, 50]]}]
        if number == 0:
            shapes.append({"label": "ignore", "points": [[60, 0], [79, 0], [79, 59], [60, 59]]})
        record = {"text": ["the red box", "another wording"], "is_sentence": number % 2 == 0, "shapes": shapes}
        (folder / f"{number}.json").write_text(json.dumps(record))
    return tmp_path / "data"


@pytest.fixture(scope="module")
def segmenter(talking_model: str) -> Segmenter:
    return Segmenter.load(talking_model, device="cpu")


def measure(segmenter: Segmenter, root: Path, out: Path, **options: Any) -> Evaluation:
    benchmark, source = open_benchmark("reasonseg/val", root)
    values: dict[str, Any] = {"batch_size": 2, **options}
    return evaluate(segmenter, benchmark, source, EvaluateOptions(**values), out)


def test_lisa_asks_the_first_wording_once_for_each_picture(segmenter: Segmenter, root: Path, tmp_path: Path) -> None:
    found = measure(segmenter, root, tmp_path / "out")
    assert [record.text for record in found.records] == ["the red box"] * 6
    assert {score.name: score.questions for score in found.scores} == {
        "reasonseg/val": 6,
        "reasonseg/val, short": 3,
        "reasonseg/val, long": 3,
    }


def test_gIoU_and_cIoU_are_those_of_the_published_code(segmenter: Segmenter, root: Path, tmp_path: Path) -> None:
    """Recomputed from the recorded masks, line by line as the original's validation does."""
    from lisaseg.images.masks import from_rle

    found = measure(segmenter, root, tmp_path / "out")
    source = open_source("reasonseg/val", root)
    ious, intersections, unions = [], 0, 0
    for record in found.records:
        truth, mask = source[record.index].masks[0], from_rle(record.rle)
        counted = truth != 255
        intersection = int((mask & (truth == 1) & counted).sum())
        union = int(((mask | (truth == 1)) & counted).sum())
        ious.append(1.0 if union == 0 else intersection / (union + 1e-5))
        intersections, unions = intersections + intersection, unions + union
    assert found.scores[0].giou == pytest.approx(sum(ious) / len(ious), abs=1e-5)
    assert found.scores[0].ciou == pytest.approx(intersections / unions, abs=1e-6)


def test_a_picture_is_encoded_once_whatever_is_asked_of_it(
    segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.full((60, 80, 3), 90, np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    shapes = [{"label": f"thing {k}", "points": [[k, 0], [k + 9, 0], [k + 9, 9]]} for k in range(7)]
    (tmp_path / "a.json").write_text(json.dumps({"imagePath": "a.png", "shapes": shapes}))
    looked: list[int] = []
    look = segmenter.lisa.look
    monkeypatch.setattr(segmenter.lisa, "look", lambda pixels: looked.append(len(pixels)) or look(pixels))
    benchmark, source = open_benchmark(str(tmp_path), None)
    for protocol in ("lisa", "generate"):
        looked.clear()
        found = evaluate(
            segmenter, benchmark, source, EvaluateOptions(protocol=protocol, batch_size=1), tmp_path / f"out_{protocol}"
        )
        assert found.scores[0].questions == 7
        assert looked == [1], protocol


def test_what_was_cut_off_is_taken_up(
    segmenter: Segmenter, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measure(segmenter, root, tmp_path / "whole")
    file = tmp_path / "cut" / whole.file
    file.parent.mkdir()
    lines = (tmp_path / "whole" / whole.file).read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:4]) + lines[4][:40])  # header, three pictures, and half of the next
    looked: list[int] = []
    look = segmenter.lisa.look
    monkeypatch.setattr(segmenter.lisa, "look", lambda pixels: looked.append(len(pixels)) or look(pixels))
    again = measure(segmenter, root, tmp_path / "cut")
    assert sum(looked) == 4, "the block of the half-written picture, and the last one"
    assert [score.giou for score in again.scores] == [score.giou for score in whole.scores]
    assert [record.rle for record in again.records] == [record.rle for record in whole.records]
    looked.clear()
    measure(segmenter, root, tmp_path / "cut")
    assert looked == []


def test_another_evaluation_is_left_alone(segmenter: Segmenter, root: Path, tmp_path: Path) -> None:
    measure(segmenter, root, tmp_path / "out")
    with pytest.raises(OutputError, match="protocol"):
        measure(segmenter, root, tmp_path / "out", protocol="generate", max_new_tokens=4)


def test_pictures_that_cannot_be_read_are_named(segmenter: Segmenter, root: Path, tmp_path: Path) -> None:
    picture = root / "reason_seg" / "ReasonSeg" / "val" / "3.jpg"
    picture.write_bytes(picture.read_bytes()[:200])
    found = measure(segmenter, root, tmp_path / "out")
    assert found.scores[0].questions == 5
    assert len(found.skipped) == 1
    assert found.skipped[0].startswith("3.jpg")
    with pytest.raises(Exception, match="damaged"):
        measure(segmenter, root, tmp_path / "strict", strict=True)


def test_seg_zero_scores_what_the_model_draws_freely(segmenter: Segmenter, root: Path, tmp_path: Path) -> None:
    """The same masks, but ignored pixels are part of the target."""
    free = measure(segmenter, root, tmp_path / "free", protocol="generate", max_new_tokens=16)
    other = measure(segmenter, root, tmp_path / "other", protocol="seg-zero", max_new_tokens=16)
    assert [record.rle for record in free.records] == [record.rle for record in other.records]
    marked = other.records[0].counts
    assert marked.marked > marked.target
    assert other.scores[0].ciou != free.scores[0].ciou


def test_two_processes_find_what_one_finds(talking_model: str, root: Path, tmp_path: Path) -> None:
    """No picture is counted twice, and none is lost, though five do not divide by two."""
    (root / "reason_seg" / "ReasonSeg" / "val" / "5.jpg").unlink()
    command = ["lisaseg", "evaluate", talking_model, "--benchmark", "reasonseg/val", "--data-root", str(root)]
    reports = []
    for name, launcher in (("one", []), ("two", ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"])):
        out = tmp_path / name
        run = [sys.executable, "-m", *launcher, *command, "--out", str(out), "--batch-size", "1", "--device", "cpu"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
        subprocess.run(run, env=environment, check=True, timeout=200, capture_output=True)
        reports.append(json.loads((out / "report.json").read_text()))
    one, two = (report["evaluations"][0]["scores"] for report in reports)
    assert one[0]["questions"] == two[0]["questions"] == 5
    assert one[0]["giou"] == pytest.approx(two[0]["giou"], abs=1e-9)


def test_what_is_no_benchmark(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no data nowhere"):
        open_benchmark("nowhere", tmp_path)
    with pytest.raises(DataError, match="has several splits; name one, such as"):
        open_benchmark("refcoco", tmp_path)
