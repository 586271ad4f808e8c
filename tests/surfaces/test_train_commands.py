import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from lisaseg.surfaces.cli import main
from lisaseg.surfaces.commands import DONE, FAILED, USAGE


@pytest.fixture
def reasons(tmp_path: Path) -> Path:
    """A root of published data with six pictures of ReasonSeg."""
    folder = tmp_path / "data" / "reason_seg" / "ReasonSeg" / "train"
    folder.mkdir(parents=True)
    for number in range(6):
        image = np.full((60, 80, 3), 90, np.uint8)
        image[20:50, 10 + 5 * number : 40 + 5 * number] = (40, 40, 220)
        cv2.imwrite(str(folder / f"{number}.jpg"), image)
        corners = [[10 + 5 * number, 20], [40 + 5 * number, 20], [40 + 5 * number, 50], [10 + 5 * number, 50]]
        record = {
            "text": ["the red thing"],
            "is_sentence": False,
            "shapes": [{"label": "target", "points": corners, "shape_type": "polygon"}],
        }
        (folder / f"{number}.json").write_text(json.dumps(record))
    return tmp_path / "data"


def train(model: str, out: Path, root: Path, *more: str) -> int:
    flags = ["--model", model, "--data", "reasonseg/train", "--data-root", str(root), "--out", str(out)]
    small = ["--steps", "2", "--batch-size", "1", "--workers", "0", "--device", "cpu", "--eval-steps", "1"]
    return main(["train", "finetune", *flags, *small, *more])


def test_one_command_and_the_model_can_be_asked(
    tiny_model: str, reasons: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(tiny_model, out, reasons, "--val-share", "0.2") == DONE
    assert f"--model {tiny_model} --adapter {out / 'adapter'}" in capsys.readouterr().out
    assert any((out / "logs").iterdir()), "TensorBoard's log"
    picture = str(reasons / "reason_seg" / "ReasonSeg" / "train" / "0.jpg")
    ask = ["segment", picture, "Find the red thing.", "--model", tiny_model, "--json", "--max-new-tokens", "4"]
    assert main([*ask, "--adapter", str(out / "adapter")]) == DONE
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["instruction"] == "Find the red thing."
    assert main(["merge", str(out / "adapter"), "--base", tiny_model, "--out", str(tmp_path / "merged")]) == DONE
    ask[ask.index(tiny_model)] = str(tmp_path / "merged")
    assert main(ask) == DONE


def test_a_finished_run_is_one_line(
    tiny_model: str, reasons: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tiny_model, tmp_path / "run", reasons, "--val-share", "0") == DONE
    capsys.readouterr()
    assert train(tiny_model, tmp_path / "run", reasons, "--val-share", "0") == FAILED
    told = capsys.readouterr().err.strip().splitlines()
    assert "holds a finished run" in told[-1]


def test_a_dry_run_shows_what_would_be_trained(
    tiny_model: str, reasons: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tiny_model, tmp_path / "run", reasons, "--dry-run") == DONE
    shown = capsys.readouterr().out
    assert "projection" in shown
    assert "parameters stay as they are" in shown
    assert "learns from 5 pictures; 1 pictures are held out" in shown
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--lora-rank", "0"], "--lora-rank must be at least 1"),
        (["--rates", "1", "2"], "--rates must be four numbers"),
        (["--val-share", "1.5"], "--val-share must be"),
        (["--explanatory", "2"], "--explanatory must be between 0 and 1"),
        (["--lora-dropout", "1"], "--lora-dropout must be"),
    ],
)
def test_wrong_flags_are_one_line(
    tiny_model: str, reasons: Path, tmp_path: Path, flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tiny_model, tmp_path / "run", reasons, *flags) == USAGE
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error


def test_nothing_to_learn_from(
    tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LISASEG_DATA", raising=False)
    small = ["--steps", "2", "--device", "cpu"]
    assert main(["train", "lisa-7b", "--model", tiny_model, "--out", str(tmp_path / "run"), *small]) == FAILED
    assert "nothing to learn from: give --data" in capsys.readouterr().err


def test_assemble_needs_its_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["assemble", "nano", str(tmp_path / "out"), "--sam", str(tmp_path / "sam.pth")]) == FAILED
    assert "no LLaVA v1 model" in capsys.readouterr().err
