import errno
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from lisaseg.errors import LisaError, MissingExtraError, OutputError
from lisaseg.images.masks import from_rle
from lisaseg.values import Answer, Segment

HEIGHT, WIDTH = 40, 60


def segment(
    box: tuple[int, int, int, int] = (5, 10, 25, 30),
    *,
    index: int = 0,
    phrase: str = "the dog",
    logit: float = 2.0,
    predicted_iou: float = 0.9,
) -> Segment:
    """A box of one logit on a ground of -3."""
    logits = np.full((HEIGHT, WIDTH), -3, np.float32)
    x0, y0, x1, y1 = box
    logits[y0:y1, x0:x1] = logit
    return Segment(index=index, phrase=phrase, logits=logits, predicted_iou=predicted_iou)


def answer(*segments: Segment, source: str = "photos/yard.jpg", **others: Any) -> Answer:
    values: dict[str, Any] = {
        "image": np.full((HEIGHT, WIDTH, 3), 100, np.uint8),
        "source": source,
        "model": "nano",
        "instruction": "Segment the pets.",
        "text": "They are the dog and the cat.",
        "raw_text": "They are the dog [SEG] and the cat [SEG].",
        "segments": segments,
        "timings": {"read": 0.123456, "total": 1.0},
    }
    return Answer(**values | others)


@pytest.fixture
def pets() -> Answer:
    """Two dogs and a cat, each a mask of its own."""
    return answer(
        segment(),
        segment((30, 0, 60, 20), index=1, phrase="the cat", logit=0.5),
        segment((0, 35, 4, 40), index=2),
    )


@pytest.fixture
def nothing() -> Answer:
    return answer(text="There is no dog.", raw_text="There is no dog.")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestSegment:
    def test_the_mask_is_where_logits_are_above_0(self) -> None:
        logits = np.array([[-1, 0], [1e-6, np.inf]], np.float32)
        found = Segment(index=0, phrase="", logits=logits, predicted_iou=1.0)
        assert found.mask.tolist() == [[False, False], [True, True]]
        assert found.area == 2

    def test_area_and_box(self) -> None:
        assert segment().area == 400
        assert segment().bbox == (5, 10, 25, 30)

    def test_the_score_is_the_mean_probability_inside_times_the_predicted_iou(self) -> None:
        found = segment(predicted_iou=0.8)
        found.logits[10, 5] = 5
        inside = 1 / (1 + np.exp(-found.logits[found.logits > 0].astype(float)))
        assert found.score == pytest.approx(inside.mean() * 0.8)
        assert found.score == pytest.approx((399 / (1 + np.exp(-2)) + 1 / (1 + np.exp(-5))) / 400 * 0.8)

    @pytest.mark.parametrize(("predicted", "counted"), [(1.3, 1), (-0.2, 0), (0.5, 0.5)])
    def test_a_predicted_iou_beyond_its_range_counts_as_its_end(self, predicted: float, counted: float) -> None:
        assert segment(logit=50.0, predicted_iou=predicted).score == pytest.approx(counted)

    def test_an_empty_mask(self) -> None:
        empty = segment(logit=-1.0)
        assert (empty.area, empty.bbox, empty.score) == (0, (0, 0, 0, 0), 0.0)
        assert empty.to_dict()["rle"]["size"] == [HEIGHT, WIDTH]

    def test_the_whole_picture(self) -> None:
        whole = segment((0, 0, WIDTH, HEIGHT))
        assert whole.bbox == (0, 0, WIDTH, HEIGHT)
        assert whole.area == HEIGHT * WIDTH


class TestUnion:
    def test_it_is_inside_any_segment(self, pets: Answer) -> None:
        expected = pets.segments[0].mask | pets.segments[1].mask | pets.segments[2].mask
        np.testing.assert_array_equal(pets.union(), expected)
        assert pets.union().sum() == 400 + 600 + 20

    def test_without_segments_nothing_is_inside(self, nothing: Answer) -> None:
        assert nothing.union().shape == (HEIGHT, WIDTH)
        assert not nothing.union().any()


class TestDropped:
    @pytest.fixture
    def sifted(self) -> Answer:
        """The first of three does not count."""
        return answer(
            segment((30, 0, 60, 20), index=1), segment((0, 35, 4, 40), index=2), dropped=(segment(logit=0.1),)
        )

    def test_it_is_listed_and_nowhere_else(self, sifted: Answer, tmp_path: Path) -> None:
        assert [entry["index"] for entry in sifted.to_dict()["dropped"]] == [0]
        assert [entry["index"] for entry in sifted.to_dict()["segments"]] == [1, 2]
        assert len(sifted.to_coco()["annotations"]) == 2
        assert sifted.union().sum() == 620
        sifted.save(tmp_path)
        assert names(tmp_path) == ["yard.json", "yard_mask_1.png", "yard_mask_2.png", "yard_overlay.png"]

    def test_masks_of_an_earlier_answer_go_wherever_they_were(
        self, pets: Answer, sifted: Answer, nothing: Answer, tmp_path: Path
    ) -> None:
        pets.save(tmp_path)
        sifted.save(tmp_path)
        assert [name for name in names(tmp_path) if "mask" in name] == ["yard_mask_1.png", "yard_mask_2.png"]
        pets.save(tmp_path)
        nothing.save(tmp_path)
        assert [name for name in names(tmp_path) if "mask" in name] == []

    def test_the_others_keep_their_colours(self, pets: Answer, sifted: Answer) -> None:
        y, x = 10, 45  # inside the second
        np.testing.assert_array_equal(np.array(pets.overlay())[y, x], np.array(sifted.overlay())[y, x])


class TestJson:
    def test_keys_and_their_order_are_those_that_are_documented(self, pets: Answer) -> None:
        record = pets.to_dict()
        lists = ["segments", "dropped", "forgotten"]
        assert list(record) == ["image", "width", "height", "model", "instruction", "text", *lists, "timings"]
        assert list(record["segments"][0]) == ["index", "phrase", "span", "score", "bbox", "area", "rle"]
        assert list(record["segments"][0]["rle"]) == ["size", "counts"]

    def test_it_is_plain_json(self, pets: Answer) -> None:
        record = pets.to_dict()
        assert json.loads(json.dumps(record, allow_nan=False)) == record

    def test_values(self, pets: Answer) -> None:
        record = pets.to_dict()
        assert record["image"] == "photos/yard.jpg"
        assert (record["width"], record["height"]) == (WIDTH, HEIGHT)
        assert (record["model"], record["instruction"]) == ("nano", "Segment the pets.")
        assert record["text"] == "They are the dog and the cat."
        assert record["timings"] == {"read": 0.1235, "total": 1.0}
        cat = record["segments"][1]
        assert (cat["index"], cat["phrase"], cat["bbox"], cat["area"]) == (1, "the cat", [30, 0, 60, 20], 600)
        assert cat["score"] == round(0.9 / (1 + np.exp(-0.5)), 4)
        np.testing.assert_array_equal(from_rle(cat["rle"]), pets.segments[1].mask)

    def test_an_answer_without_masks(self, nothing: Answer) -> None:
        assert nothing.to_dict()["segments"] == []
        assert nothing.to_dict()["text"] == "There is no dog."


class TestCoco:
    def test_pycocotools_loads_it(self, pets: Answer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "coco.json").write_text(json.dumps(pets.to_coco()))
        coco = COCO(str(tmp_path / "coco.json"))
        assert "index created" in capsys.readouterr().out
        assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["the dog", "the cat"]
        assert coco.loadImgs(1)[0] == {"id": 1, "file_name": "photos/yard.jpg", "height": HEIGHT, "width": WIDTH}
        dogs = coco.loadAnns(coco.getAnnIds(catIds=coco.getCatIds(catNms=["the dog"])))
        assert [dog["bbox"] for dog in dogs] == [[5, 10, 20, 20], [0, 35, 4, 5]]
        assert [dog["area"] for dog in dogs] == [400, 20]
        for dog, number in zip(dogs, (0, 2), strict=True):
            decoded = from_rle(coco.annToRLE(dog))
            np.testing.assert_array_equal(decoded, pets.segments[number].mask)

    def test_an_answer_without_masks(self, nothing: Answer) -> None:
        found = nothing.to_coco()
        assert (len(found["images"]), found["annotations"], found["categories"]) == (1, [], [])


class TestDetections:
    def test_supervision_gets_boxes_masks_scores_and_phrases(self, pets: Answer) -> None:
        pytest.importorskip("supervision")
        found = pets.to_detections()
        assert found.xyxy.tolist() == [[5, 10, 25, 30], [30, 0, 60, 20], [0, 35, 4, 40]]
        np.testing.assert_array_equal(found.mask, np.stack([one.mask for one in pets.segments]))
        assert np.asarray(found.confidence) == pytest.approx([one.score for one in pets.segments])
        assert np.asarray(found.class_id).tolist() == [0, 1, 0]
        assert list(found.data["class_name"]) == ["the dog", "the cat", "the dog"]

    def test_an_answer_without_masks(self, nothing: Answer) -> None:
        pytest.importorskip("supervision")
        assert len(nothing.to_detections()) == 0

    def test_without_supervision_the_extra_is_named(self, pets: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "supervision", None)
        with pytest.raises(MissingExtraError, match=r"pip install 'lisaseg\[detections\]'"):
            pets.to_detections()


class TestOverlay:
    def test_every_segment_is_drawn(self, pets: Answer) -> None:
        found = np.array(pets.overlay())
        assert found.shape == pets.image.shape
        for one in pets.segments:
            assert (found[one.mask] != 100).any(axis=1).all()

    def test_an_answer_without_masks_is_the_picture(self, nothing: Answer) -> None:
        np.testing.assert_array_equal(np.array(nothing.overlay()), nothing.image)


class TestSave:
    def test_by_default_an_overlay_a_png_for_each_mask_and_json(self, pets: Answer, tmp_path: Path) -> None:
        written = pets.save(tmp_path / "new" / "folder")
        expected = ["yard.json", "yard_mask_0.png", "yard_mask_1.png", "yard_mask_2.png", "yard_overlay.png"]
        assert names(tmp_path / "new" / "folder") == expected
        assert sorted(path.name for path in written) == expected
        assert all(path.is_file() for path in written)

    def test_the_masks_are_0_and_255(self, pets: Answer, tmp_path: Path) -> None:
        pets.save(tmp_path)
        for number, one in enumerate(pets.segments):
            with Image.open(tmp_path / f"yard_mask_{number}.png") as picture:
                np.testing.assert_array_equal(np.array(picture), np.where(one.mask, 255, 0))

    def test_the_overlay_is_the_overlay(self, pets: Answer, tmp_path: Path) -> None:
        pets.save(tmp_path)
        with Image.open(tmp_path / "yard_overlay.png") as picture:
            np.testing.assert_array_equal(np.array(picture), np.array(pets.overlay()))

    @pytest.mark.parametrize("formats", [(), ("rle",)])
    def test_without_png_there_are_no_mask_files(self, pets: Answer, tmp_path: Path, formats: tuple[str, ...]) -> None:
        pets.save(str(tmp_path), formats=formats)
        assert names(tmp_path) == ["yard.json", "yard_overlay.png"]
        assert json.loads((tmp_path / "yard.json").read_text("utf-8")) == pets.to_dict()

    def test_polygons_join_the_run_lengths(self, pets: Answer, tmp_path: Path) -> None:
        pets.save(tmp_path, formats=("polygon",))
        entries = json.loads((tmp_path / "yard.json").read_text("utf-8"))["segments"]
        (polygon,) = entries[0].pop("polygons")
        assert sorted(zip(polygon[::2], polygon[1::2], strict=True)) == [(5, 10), (5, 29), (24, 10), (24, 29)]
        assert list(entries[0]) == ["index", "phrase", "span", "score", "bbox", "area", "rle"]

    def test_all_formats_together(self, pets: Answer, tmp_path: Path) -> None:
        assert len(pets.save(tmp_path, formats=["png", "rle", "polygon"])) == 5
        assert "polygons" in json.loads((tmp_path / "yard.json").read_text("utf-8"))["segments"][2]

    def test_an_answer_without_masks(self, nothing: Answer, tmp_path: Path) -> None:
        nothing.save(tmp_path, formats=("png", "polygon"))
        assert names(tmp_path) == ["yard.json", "yard_overlay.png"]

    @pytest.mark.parametrize(
        ("source", "stem"),
        [("a/b/kitchen.v2.jpg", "kitchen.v2"), ("image", "image"), ("", "image"), ("猫.png", "猫")],
    )
    def test_files_are_named_after_the_source(self, source: str, stem: str, tmp_path: Path) -> None:
        answer(source=source).save(tmp_path)
        assert names(tmp_path) == sorted([f"{stem}.json", f"{stem}_overlay.png"])

    def test_or_as_the_caller_likes(self, pets: Answer, tmp_path: Path) -> None:
        pets.save(tmp_path, formats=(), stem="other")
        assert names(tmp_path) == ["other.json", "other_overlay.png"]

    def test_json_keeps_letters_and_escapes_what_is_no_text(self, tmp_path: Path) -> None:
        odd = os.fsdecode(b"\xff.jpg")
        answer(source=odd, instruction="Где кот? 猫").save(tmp_path, stem="odd")
        text = (tmp_path / "odd.json").read_text("utf-8")
        assert "Где кот? 猫" in text
        assert json.loads(text)["image"] == odd

    def test_an_unknown_format_is_refused_before_anything_is_written(self, pets: Answer, tmp_path: Path) -> None:
        with pytest.raises(LisaError, match="unknown mask format 'svg': expected some of png, rle, polygon"):
            pets.save(tmp_path / "out", formats=("png", "svg"))
        assert names(tmp_path) == []

    def test_saving_again_replaces(self, pets: Answer, nothing: Answer, tmp_path: Path) -> None:
        pets.save(tmp_path)
        nothing.save(tmp_path)
        assert json.loads((tmp_path / "yard.json").read_text("utf-8"))["segments"] == []


class TestSaveFails:
    def test_a_file_in_the_place_of_the_folder(self, pets: Answer, tmp_path: Path) -> None:
        (tmp_path / "out").touch()
        with pytest.raises(OutputError, match=r"cannot make the folder .*out: File exists; choose another folder"):
            pets.save(tmp_path / "out")
        with pytest.raises(OutputError, match="cannot make the folder"):
            pets.save(tmp_path / "out" / "below")
        assert (tmp_path / "out").read_bytes() == b""

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_that_may_not_be_written(self, pets: Answer, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(OutputError, match="Permission denied; choose another folder"):
            pets.save(tmp_path)

    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_a_full_disk_leaves_nothing_half_written(
        self, pets: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        self.fail_at_the_third(monkeypatch, call, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        with pytest.raises(OutputError, match=r"cannot write .*yard_mask_1\.png: No space left on device; free some"):
            pets.save(tmp_path)
        self.check_whole(pets, tmp_path)

    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_an_interrupt_leaves_nothing_half_written(
        self, pets: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        self.fail_at_the_third(monkeypatch, call, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            pets.save(tmp_path)
        self.check_whole(pets, tmp_path)

    @staticmethod
    def fail_at_the_third(monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException) -> None:
        """Lets two files through."""
        usual, calls = getattr(os, call), iter(range(100))

        def fail_or_do(*arguments: Any) -> Any:
            if next(calls) == 2:
                raise error
            return usual(*arguments)

        monkeypatch.setattr(os, call, fail_or_do)

    @staticmethod
    def check_whole(pets: Answer, folder: Path) -> None:
        """Two files are there, both whole, and no third."""
        assert names(folder) == ["yard_mask_0.png", "yard_overlay.png"]
        mask = Image.open(io.BytesIO((folder / "yard_mask_0.png").read_bytes()))
        np.testing.assert_array_equal(np.array(mask), np.where(pets.segments[0].mask, 255, 0))


def test_masks_of_an_earlier_answer_do_not_stay(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"dog_mask_{number}.png").write_bytes(b"old")
    answer(segment(), segment(index=1)).save(tmp_path, stem="dog")
    assert sorted(path.name for path in tmp_path.glob("dog_mask_*")) == ["dog_mask_0.png", "dog_mask_1.png"]
