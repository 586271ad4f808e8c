from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from lisaseg.data.conversion import WRITERS, Format, convert_data
from lisaseg.data.opening import open_source
from lisaseg.errors import DataError, OutputError


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("to", list(WRITERS))
def test_what_is_written_is_read_back(to: Format, own: ModuleType, tmp_path: Path) -> None:
    """Words, mask and what does not count; the mask's pixels are the same to one in a hundred."""
    unsure = own.shape("ignore", [[60, 5], [70, 5], [70, 25], [60, 25]])
    star = own.shape("gizmo", [[40, 5], [52, 55], [8, 22], [70, 20], [25, 56]])
    source = open_source(str(own.labelme(tmp_path / "d", star, unsure)))
    assert convert_data(source, tmp_path / "out", to) == 1
    again = open_source(str(tmp_path / "out"))
    assert len(again) == 1
    before, after = source[0], again[0]
    assert [dialogue[0].text for dialogue in after.dialogues] == ["gizmo"]
    assert after.dialogues[0][0].kind == "phrase"
    assert after.image.shape == before.image.shape
    assert iou(before.masks[0] == 1, after.masks[0] == 1) > 0.99
    assert iou(before.masks[0] == 255, after.masks[0] == 255) > 0.95


@pytest.mark.parametrize("to", ["jsonl", "reasonseg", "coco", "masks"])
def test_sentences_stay_sentences(to: Format, own: ModuleType, tmp_path: Path) -> None:
    folder = own.labelme(tmp_path / "d", own.shape("target"), text=["What is red?"], is_sentence=True)
    convert_data(open_source(str(folder)), tmp_path / "out", to)
    exchange = open_source(str(tmp_path / "out"))[0].dialogues[0][0]
    assert (exchange.text, exchange.kind) == ("What is red?", "sentence")


def test_a_dialogue_needs_our_own_format(own: ModuleType, tmp_path: Path) -> None:
    messages = [{"role": role, "content": text} for role, text in (("user", "A?"), ("assistant", "[SEG]."))]
    source = open_source(str(own.jsonl(tmp_path / "d", messages=[*messages, messages[0]])))
    told: list[str] = []
    assert convert_data(source, tmp_path / "coco", "coco", tell=told.append) == 0
    assert "which only jsonl can hold" in told[0]
    with pytest.raises(DataError, match="which only jsonl can hold"):
        convert_data(source, tmp_path / "strict", "masks", strict=True)
    convert_data(source, tmp_path / "jsonl", "jsonl")
    assert open_source(str(tmp_path / "jsonl"))[0].dialogues == source[0].dialogues


def test_nothing_is_overwritten(own: ModuleType, tmp_path: Path) -> None:
    folder = own.labelme(tmp_path / "d")
    with pytest.raises(OutputError, match="is not empty"):
        convert_data(open_source(str(folder)), folder, "coco")
