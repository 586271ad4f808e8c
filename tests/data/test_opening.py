"""Each format that people bring is told by what is in it, and read as it is meant."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from lisaseg.data.opening import open_source
from lisaseg.data.sample import Sample
from lisaseg.errors import DataError, ImageError


def only(folder: Path) -> Sample:
    source = open_source(str(folder))
    assert len(source) == 1
    assert source.entry(0)
    return source[0]


def asked(sample: Sample) -> list[tuple[str, str]]:
    return [(dialogue[0].text, dialogue[0].kind) for dialogue in sample.dialogues]


@pytest.fixture
def inside(own: ModuleType) -> np.ndarray:
    return own.inside()


class TestLabelme:
    def test_a_label_is_a_phrase_and_the_union_of_its_shapes(
        self, own: ModuleType, tmp_path: Path, inside: np.ndarray
    ) -> None:
        more = own.shape("gizmo", [[60, 5], [70, 5], [70, 9], [60, 9]])
        sample = only(own.labelme(tmp_path / "d", own.shape("gizmo"), own.shape("widget"), more))
        assert asked(sample) == [("gizmo", "phrase"), ("widget", "phrase")]
        assert np.array_equal(sample.masks[1], inside)
        inside[5:10, 60:71] = 1
        assert np.array_equal(sample.masks[0], inside)

    def test_rectangles_and_circles(self, own: ModuleType, tmp_path: Path, inside: np.ndarray) -> None:
        box = own.shape("box", [[10, 20], [39, 49]], "rectangle")
        disc = own.shape("disc", [[40, 30], [40, 40]], "circle")
        sample = only(own.labelme(tmp_path / "d", box, disc))
        assert np.array_equal(sample.masks[0], inside)
        assert int(sample.masks[1].sum()) == pytest.approx(np.pi * 100, rel=0.15)

    def test_ignored_regions_do_not_count_for_any_label(
        self, own: ModuleType, tmp_path: Path, inside: np.ndarray
    ) -> None:
        unsure = own.shape("Ignore me", [[30, 20], [70, 20], [70, 49], [30, 49]])
        sample = only(own.labelme(tmp_path / "d", own.shape("gizmo"), unsure))
        assert asked(sample) == [("gizmo", "phrase")]
        assert sample.masks[0][30, 35] == 1, "what is labelled is certain"
        assert sample.masks[0][30, 60] == 255
        assert int((sample.masks[0] == 1).sum()) == int(inside.sum())

    def test_the_picture_may_be_inside(self, own: ModuleType, tmp_path: Path) -> None:
        folder = own.labelme(tmp_path / "d", imageData=own.encoded_picture())
        (folder / "a.png").unlink()
        assert only(folder).image.shape == (60, 80, 3)

    def test_reasonseg_is_read_as_that(self, own: ModuleType, tmp_path: Path) -> None:
        folder = own.labelme(tmp_path / "d", own.shape("target"), text=["What gizmo?", "Which?"], is_sentence=True)
        sample = only(folder)
        assert asked(sample) == [("What gizmo?", "sentence"), ("Which?", "sentence")]
        assert sample.dialogues[1][0].masks == (0,)

    def test_old_windows_text(self, own: ModuleType, tmp_path: Path) -> None:
        folder = own.labelme(tmp_path / "d")
        text = (folder / "a.json").read_text().replace("gizmo", "café")
        (folder / "a.json").write_bytes(text.encode("cp1252"))
        assert asked(only(folder)) == [("café", "phrase")]

    def test_what_is_wrong_is_told(self, own: ModuleType, tmp_path: Path) -> None:
        folder = own.labelme(tmp_path / "line", own.shape("gizmo", kind="linestrip"))
        with pytest.raises(DataError, match="is a linestrip; expected polygon, rectangle or circle"):
            only(folder).masks[0]
        folder = own.labelme(tmp_path / "lost")
        (folder / "a.png").unlink()
        with pytest.raises(DataError, match=r"a\.json has no picture: expected a\.png beside it"):
            only(folder)
        folder = own.labelme(tmp_path / "no_shapes")
        (folder / "a.json").write_text("{}")
        with pytest.raises(DataError, match="is not a file of labelme"):
            only(folder)
        folder = own.labelme(tmp_path / "cut")
        (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:60])
        with pytest.raises(ImageError, match="damaged or cut short"):
            only(folder)


class TestCoco:
    def test_a_category_is_a_phrase_and_the_union_of_its_annotations(
        self, own: ModuleType, tmp_path: Path, inside: np.ndarray
    ) -> None:
        other = {"segmentation": [[60.0, 5.0, 70.0, 5.0, 70.0, 9.0, 60.0, 9.0]]}
        sample = only(own.coco(tmp_path / "d", {}, other, {"category_id": 2}))
        assert asked(sample) == [("gizmo", "phrase"), ("widget", "phrase")]
        assert np.array_equal(sample.masks[1], inside)
        assert int(sample.masks[0].sum()) == int(inside.sum()) + 40

    def test_an_annotation_may_have_words_of_its_own(self, own: ModuleType, tmp_path: Path) -> None:
        sample = only(own.coco(tmp_path / "d", {"text": "What is red?"}, {"caption": "the left box"}, {}))
        assert asked(sample) == [("gizmo", "phrase"), ("What is red?", "sentence"), ("the left box", "phrase")]

    def test_crowds_do_not_count(self, own: ModuleType, tmp_path: Path, inside: np.ndarray) -> None:
        from lisaseg.images.masks import to_rle

        crowd = np.zeros((60, 80), bool)
        crowd[:, 30:60] = True
        sample = only(own.coco(tmp_path / "d", {}, {"iscrowd": 1, "segmentation": to_rle(crowd)}))
        assert sample.masks[0][30, 35] == 1
        assert sample.masks[0][30, 50] == 255
        assert int((sample.masks[0] == 1).sum()) == int(inside.sum())

    @pytest.mark.parametrize(
        ("annotation", "told"),
        [({"image_id": 9}, "annotation of picture 9"), ({"category_id": 7}, "annotation of category 7")],
    )
    def test_annotations_of_nothing(
        self, own: ModuleType, tmp_path: Path, annotation: dict[str, Any], told: str
    ) -> None:
        with pytest.raises(DataError, match=told):
            only(own.coco(tmp_path / "d", annotation))

    def test_a_picture_of_another_size(self, own: ModuleType, tmp_path: Path) -> None:
        folder = own.coco(tmp_path / "d")
        cv2.imwrite(str(folder / "images" / "a.png"), np.zeros((30, 40, 3), np.uint8))
        with pytest.raises(DataError, match=r"a\.png has 40x30 pixels, but its annotations are for 80x60"):
            only(folder)


class TestMaskFiles:
    def test_black_and_white(self, own: ModuleType, tmp_path: Path, inside: np.ndarray) -> None:
        sample = only(own.masks(tmp_path / "d"))
        assert asked(sample) == [("gizmo", "phrase")]
        assert np.array_equal(sample.masks[0], inside)

    def test_255_does_not_count_beside_other_values(self, own: ModuleType, tmp_path: Path) -> None:
        values = own.inside()
        values[:, 70:] = 255
        assert np.array_equal(only(own.masks(tmp_path / "d", values)).masks[0], values)

    def test_rows_of_one_picture_are_dialogues_and_may_answer(self, own: ModuleType, tmp_path: Path) -> None:
        folder = own.masks(tmp_path / "d")
        (folder / "prompts.csv").unlink()
        rows = [
            {"image": "a.png", "mask": "a_mask.png", "text": "Where is it?", "explanation": "It is red."},
            {"image": "a.png", "mask": "a_mask.png", "text": "Hm", "kind": "said", "answer": "Here [SEG]."},
        ]
        (folder / "prompts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        sample = only(folder)
        assert asked(sample) == [("Where is it?", "sentence"), ("Hm", "said")]
        assert sample.dialogues[0][0].explanation == "It is red."
        assert sample.dialogues[1][0].answer == "Here [SEG]."

    def test_what_is_wrong_is_told(self, own: ModuleType, tmp_path: Path) -> None:
        folder = own.masks(tmp_path / "size", np.zeros((30, 40), np.uint8))
        with pytest.raises(DataError, match="has 40x30 pixels and its picture 80x60"):
            only(folder).masks[0]
        (folder / "a_mask.png").unlink()
        with pytest.raises(DataError, match="there is no mask"):
            only(folder).masks[0]
        (folder / "prompts.csv").write_text("image,text\na.png,gizmo\n")
        with pytest.raises(DataError, match=r"row 1 of .* has no mask; expected image, mask, text"):
            only(folder)


class TestJsonLines:
    def test_messages_with_masks_in_order(self, own: ModuleType, tmp_path: Path, inside: np.ndarray) -> None:
        (exchange,) = only(own.jsonl(tmp_path / "d")).dialogues[0]
        assert (exchange.text, exchange.answer, exchange.masks) == ("Gizmo?", "Here: [SEG].", (0,))
        assert np.array_equal(only(tmp_path / "d").masks[0], inside)

    def test_answers_of_lisaseg_are_data(self, own: ModuleType, tmp_path: Path) -> None:
        """As `lisaseg segment --json` prints them: each [SEG] comes back behind its words."""
        from lisaseg.images.masks import to_rle

        rle = to_rle(own.inside() == 1)
        segments = [{"span": [8, 13], "rle": rle}, {"span": [22, 28], "rle": rle}]
        answer = {"instruction": "Both.", "text": "Here is gizmo and the widget.", "segments": segments}
        (exchange,) = only(own.jsonl(tmp_path / "d", **answer)).dialogues[0]
        assert exchange.answer == "Here is gizmo [SEG] and the widget [SEG]."
        assert exchange.masks == (0, 1)

    @pytest.mark.parametrize(
        ("record", "told"),
        [
            ({"masks": []}, "speaks of mask 0 and has 0"),
            ({"messages": [{"role": "assistant", "content": "Hm."}]}, "expected a message of the user"),
            ({"messages": [{"role": "user", "content": "A", "kind": "odd"}]}, "expected the kind phrase"),
            ({"messages": None}, "line 1 of .* is not a line of lisaseg"),
        ],
    )
    def test_what_is_wrong_is_told(self, own: ModuleType, tmp_path: Path, record: dict[str, Any], told: str) -> None:
        with pytest.raises(DataError, match=told):
            only(own.jsonl(tmp_path / "d", **record))

    def test_a_line_that_is_no_json_is_named(self, own: ModuleType, tmp_path: Path) -> None:
        folder = own.jsonl(tmp_path / "d")
        with (folder / "data.jsonl").open("a") as file:
            file.write("{oops\n")
        with pytest.raises(DataError, match=r"line 2 of .* is no JSON"):
            open_source(str(folder))[1]


def test_what_is_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISASEG_DATA", raising=False)
    with pytest.raises(DataError, match=r"there is no data nowhere: expected a folder or file .* or one of ade20k"):
        open_source("nowhere")
    with pytest.raises(DataError, match="holds no data that is known"):
        open_source(str(tmp_path))
    with pytest.raises(DataError, match="give its folder with --data-root"):
        open_source("reasonseg/val")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="of no format that is known"):
        open_source(str(tmp_path / "notes.txt"))
