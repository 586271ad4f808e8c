from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from lisaseg.data.reason_seg import ReasonSeg, draw_shapes
from lisaseg.errors import DataError, ImageError


def square(side: int, left: int = 0, top: int = 0) -> list[list[int]]:
    """Corners of a square whose drawn mask has (side + 1)² pixels."""
    return [[left, top], [left + side, top], [left + side, top + side], [left, top + side]]


def folder(root: Path) -> Path:
    return root / "reason_seg" / "ReasonSeg"


def test_small_shapes_are_painted_over_large_ones_whatever_their_order() -> None:
    large, small = {"label": "target", "points": square(9)}, {"label": "ignore", "points": square(3, 2, 2)}
    expected = np.zeros((12, 12), np.uint8)
    expected[:10, :10] = 1
    expected[2:6, 2:6] = 255
    np.testing.assert_array_equal(draw_shapes([large, small], 12, 12), expected)
    np.testing.assert_array_equal(draw_shapes([small, large], 12, 12), expected)


def test_of_equally_large_shapes_the_first_is_on_top() -> None:
    target, ignore = {"label": "target", "points": square(3)}, {"label": "ignore", "points": square(3, 2)}
    assert draw_shapes([target, ignore], 8, 8)[0, 2:5].tolist() == [1, 1, 255]
    assert draw_shapes([ignore, target], 8, 8)[0, 2:5].tolist() == [255, 255, 255]


def test_labels_mean_what_the_original_takes_them_for() -> None:
    def painted(label: str) -> int:
        return int(draw_shapes([{"label": label, "points": square(3)}], 8, 8)[1, 1])

    assert painted("target") == painted("anything") == painted("flags") == 1
    assert painted("Ignore") == painted("to be IGNORED") == 255
    assert painted("flag") == painted("FLAG") == 0


def test_the_area_is_what_is_drawn_within_the_picture() -> None:
    outside = {"label": "ignore", "points": [[-500, -500], [3, -500], [3, 3], [-500, 3]]}
    target = {"label": "target", "points": square(5)}
    mask = draw_shapes([outside, target], 12, 12)
    assert mask[1, 1] == 255, "16 pixels of it are drawn, fewer than the target's 36"
    assert mask[5, 5] == 1


def test_outlines_belong_to_shapes_and_points_are_cut_to_whole_pixels() -> None:
    points = [[1.9, 1.2], [6.7, 2.9], [3.5, 7.8]]
    expected = np.zeros((10, 10), np.uint8)
    corners = np.array([[[1, 1], [6, 2], [3, 7]]], np.int32)
    cv2.polylines(expected, [corners[0]], True, 1, 1)
    cv2.fillPoly(expected, [corners[0]], 1)
    np.testing.assert_array_equal(draw_shapes([{"label": "target", "points": points}], 10, 10), expected)


def test_a_picture_has_a_dialogue_for_each_wording_and_one_mask(root: Path) -> None:
    sample = ReasonSeg("reasonseg/train", folder(root), ["train"])[0]
    exchanges = [dialogue[0] for dialogue in sample.dialogues]
    assert [exchange.text for exchange in exchanges] == ["What barks?", "Who guards?", "A pet?"]
    assert {exchange.kind for exchange in exchanges} == {"sentence"}
    assert {exchange.masks for exchange in exchanges} == {(0,)}
    assert {exchange.explanation for exchange in exchanges} == {"Dogs bark."}
    assert len(sample.masks) == 1
    assert sample.masks[0].sum() == 64


def test_phrases_keep_their_letters_as_the_benchmark_asks_them_so(root: Path) -> None:
    sample = ReasonSeg("reasonseg/train", folder(root), ["train"])[1]
    assert sample.name == "b.jpg"
    ((exchange,),) = sample.dialogues
    assert (exchange.text, exchange.kind, exchange.explanation) == ("The Left Thing", "phrase", None)


def test_masks_have_ignored_pixels_and_may_be_empty(root: Path) -> None:
    assert set(np.unique(ReasonSeg("reasonseg/val", folder(root), ["val"])[0].masks[0])) == {0, 1, 255}
    assert not ReasonSeg("reasonseg/test", folder(root), ["test"])[0].masks[0].any()


def test_splits_are_joined_in_the_order_given(root: Path) -> None:
    source = ReasonSeg("reasonseg/val+train", folder(root), ["val", "train"])
    assert [source.entry(index) for index in range(len(source))] == ["c.jpg", "a.jpg", "b.jpg"]


def test_windows_files_are_read_too(root: Path) -> None:
    path = folder(root) / "val" / "c.json"
    path.write_bytes('{"text": ["What’s “it”?"], "is_sentence": true, "shapes": []}'.encode("cp1252"))
    assert ReasonSeg("reasonseg/val", folder(root), ["val"])[0].dialogues[0][0].text == "What’s “it”?"


def test_what_is_wrong_with_a_file_is_said(root: Path, maker: ModuleType) -> None:
    source, path = ReasonSeg("reasonseg/val", folder(root), ["val"]), folder(root) / "val" / "c.json"
    maker.write_json(path, {"text": ["x"], "is_sentence": True})
    with pytest.raises(DataError, match=r"c\.json .* no 'shapes'"):
        source[0]
    maker.write_json(path, {"text": "x", "is_sentence": True, "shapes": []})
    with pytest.raises(DataError, match="list of wordings"):
        source[0]
    path.write_text("{")
    with pytest.raises(DataError, match=r"c\.json as JSON"):
        source[0]
    path.unlink()
    with pytest.raises(DataError, match=r"no file .*c\.json"):
        source[0]
    with pytest.raises(DataError, match="labelled polygon: a record has no 'points'"):
        draw_shapes([{"label": "target"}], 4, 4)


def test_a_damaged_picture_is_named(root: Path) -> None:
    path = folder(root) / "val" / "c.jpg"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ImageError, match=r"c\.jpg"):
        ReasonSeg("reasonseg/val", folder(root), ["val"])[0]


def test_a_split_without_pictures_is_named(root: Path) -> None:
    with pytest.raises(DataError, match="elsewhere"):
        ReasonSeg("reasonseg/elsewhere", folder(root), ["elsewhere"])
