import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from lisaseg.surfaces.cli import main
from lisaseg.surfaces.commands import DONE, FAILED, USAGE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two labelme files; the second picture is missing."""
    (tmp_path / "d").mkdir()
    cv2.imwrite(str(tmp_path / "d" / "a.png"), np.full((60, 80, 3), 90, np.uint8))
    shape = {"label": "gizmo", "points": [[10, 20], [40, 20], [40, 50]], "shape_type": "polygon"}
    for name in "ab":
        (tmp_path / "d" / f"{name}.json").write_text(json.dumps({"imagePath": f"{name}.png", "shapes": [shape]}))
    return tmp_path / "d"


def test_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(folder)]) == FAILED
    shown = capsys.readouterr().out
    assert "1 pictures, 1 dialogues (phrase), 1 masks" in shown
    assert "error: b.json: b.json has no picture" in shown
    (folder / "b.json").unlink()
    assert main(["data", "check", str(folder), "--json"]) == DONE
    assert json.loads(capsys.readouterr().out)["counts"] == {
        "pictures": 1,
        "dialogues (phrase)": 1,
        "masks": 1,
        "masks with pixels that do not count": 0,
    }


def test_strict_checks_fail_at_oddities(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "b.json").unlink()
    (folder / "a.json").write_text(json.dumps({"imagePath": "a.png", "shapes": []}))
    assert main(["data", "check", str(folder)]) == DONE
    assert main(["data", "check", str(folder), "--strict"]) == FAILED
    assert "odd: a.json: it has nothing to ask for" in capsys.readouterr().out


def test_show(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", str(folder), "2", "--out", str(tmp_path / "sheet.jpg")]) == DONE
    assert "left out: b.json" in capsys.readouterr().err
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        assert sheet.format == "JPEG"


def test_convert_and_check_again(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["data", "convert", str(folder), str(out), "--to", "coco"]) == FAILED, "one picture is missing"
    told = capsys.readouterr()
    assert f"1 of 2 pictures are in {out}" in told.out
    assert "left out: b.json" in told.err
    assert main(["data", "check", str(out)]) == DONE
    assert main(["data", "convert", str(folder), str(out), "--to", "coco"]) == FAILED
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["check", "x", "--limit", "0"], ["show", "x", "0"]])
def test_wrong_numbers(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", *words]) == USAGE
    assert "must be at least 1, got 0" in capsys.readouterr().err


def test_no_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(tmp_path / "nowhere")]) == FAILED
    assert "there is no data" in capsys.readouterr().err


def test_a_folder_of_published_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every data set that is there is checked, one after another."""
    folder = tmp_path / "reason_seg" / "ReasonSeg" / "val"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "a.jpg"), np.full((60, 80, 3), 90, np.uint8))
    shape = {"label": "target", "points": [[10, 20], [40, 20], [40, 50]]}
    (folder / "a.json").write_text(json.dumps({"text": ["A?", "B?"], "is_sentence": True, "shapes": [shape]}))
    assert main(["data", "check", str(tmp_path)]) == DONE
    assert "reasonseg/val: 1 pictures, 2 dialogues (sentence), 1 masks" in capsys.readouterr().out
