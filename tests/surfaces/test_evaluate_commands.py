import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from lisaseg.surfaces.cli import main
from lisaseg.surfaces.commands import DONE, FAILED, USAGE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three labelme pictures; one of the labels is not harmless in a page."""
    (tmp_path / "d").mkdir()
    for number, label in enumerate(("gizmo", "<script>alert(1)</script>", "widget")):
        cv2.imwrite(str(tmp_path / "d" / f"{number}.png"), np.full((60, 80, 3), 90, np.uint8))
        shape = {"label": label, "points": [[10, 20], [40, 20], [40, 50], [10, 50]]}
        (tmp_path / "d" / f"{number}.json").write_text(json.dumps({"imagePath": f"{number}.png", "shapes": [shape]}))
    return tmp_path / "d"


def evaluate(model: str, folder: Path, out: Path, *more: str) -> int:
    return main(["evaluate", model, "--benchmark", str(folder), "--out", str(out), "--device", "cpu", *more])


def test_evaluate_writes_a_report_that_needs_nothing_else(
    tiny_model: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(tiny_model, folder, tmp_path / "run") == DONE
    shown = capsys.readouterr().out
    assert "gIoU" in shown
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["evaluations"][0]["scores"][0]["questions"] == 3
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert page.count("data:image/jpeg;base64,") >= 3
    assert not re.search(r"(src|href)=.https?://", page)


def test_two_runs_are_compared(
    tiny_model: str, talking_model: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, model in (("a", tiny_model), ("b", talking_model)):
        assert evaluate(model, folder, tmp_path / name) == DONE
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == DONE
    first, second = json.loads(capsys.readouterr().out)
    assert second["giou"] == pytest.approx(second["score"]["giou"] - first["score"]["giou"], abs=1e-6)
    assert second["giou_interval"][0] <= second["giou"] <= second["giou_interval"][1]
    assert main(["compare", str(tmp_path / "a")]) == USAGE


def test_masks_of_another_system_are_scored(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[20:51, 10:41] = 255
    (tmp_path / "pred").mkdir()
    for number in range(2):
        cv2.imwrite(str(tmp_path / "pred" / f"{number}.png"), mask)
    assert main(["score", str(tmp_path / "pred"), str(folder), "--json"]) == DONE
    told = capsys.readouterr()
    (found,) = json.loads(told.out)["evaluations"]
    assert found["scores"][0]["giou"] == pytest.approx(2 / 3, abs=1e-4)
    assert "2." in told.err, "what has no prediction is told, and counts as empty"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--protocol", "free"], "protocol"),
        (["--limit", "0"], "--limit must be at least 1"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
    ],
)
def test_wrong_flags(
    tiny_model: str, folder: Path, tmp_path: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(tiny_model, folder, tmp_path / "run", *words) == USAGE
    assert told in capsys.readouterr().err


def test_no_benchmark_and_another_run_are_one_line(
    tiny_model: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(tiny_model, tmp_path / "nowhere", tmp_path / "run") == FAILED
    assert "there is no data" in capsys.readouterr().err
    assert evaluate(tiny_model, folder, tmp_path / "run") == DONE
    assert evaluate(tiny_model, folder, tmp_path / "run", "--protocol", "generate") == FAILED
    error = capsys.readouterr().err
    assert "protocol" in error
    assert "Traceback" not in error
