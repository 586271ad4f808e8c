import shutil
from pathlib import Path

import pytest

from lisaseg.data.index_files import coco_id
from lisaseg.data.paper import (
    PAPER_SOURCES,
    full_name,
    held_out_pictures,
    is_in,
    open_paper_source,
    sources_in,
)
from lisaseg.errors import DataError

ALWAYS_THERE = ("ade20k", "cocostuff", "mapillary", "paco_lvis", "pascal_part", "llava_instruct_150k")


def test_everything_in_a_whole_folder_is_found_and_opens(root: Path) -> None:
    assert sources_in(root) == list(PAPER_SOURCES)
    for name in (
        *ALWAYS_THERE,
        "refclef",
        "refcoco+",
        "refcocog/umd/test",
        "grefcoco/unc/testB",
        "reasonseg/train+val",
    ):
        source = open_paper_source(name, root)
        assert source.name == full_name(name)
        for index in range(len(source)):
            sample = source[index]
            assert sample.name == source.entry(index)
            assert all(mask.shape == sample.image.shape[:2] for mask in sample.masks)
        with pytest.raises(IndexError):
            source[len(source)]


def test_a_name_alone_is_the_training_split() -> None:
    assert full_name("refcocog") == "refcocog/umd/train"
    assert full_name("reasonseg") == "reasonseg/train"
    assert full_name("refcocog/google/val") == "refcocog/google/val"


@pytest.mark.parametrize(
    "name",
    [
        "coco",
        "refcoco/unc",
        "refcoco/unc/dev",
        "refcoco/../val",
        "reasonseg/all",
        "reasonseg/train/val",
        "ade20k/x",
        "",
    ],
)
def test_unknown_names_are_told_the_known_ones(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data set called .*known ones: ade20k, cocostuff"):
        open_paper_source(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "lost", "origin"),
    [
        ("ade20k", "ade20k/annotations/training", "ADEChallengeData2016"),
        ("cocostuff", "coco/train2017", "images.cocodataset.org"),
        ("mapillary", "mapillary/config_v2.0.json", "mapillary.com"),
        ("paco_lvis", "vlpart/paco/annotations/paco_lvis_v1_train.json", "facebookresearch/paco"),
        ("pascal_part", "vlpart/pascal_part/VOCdevkit/VOC2010/JPEGImages", "VLPart"),
        ("refcoco/unc/val", "refer_seg/refcoco/instances.json", "lichengunc/refer"),
        ("refcoco/unc/val", "refer_seg/images/mscoco/images/train2014", "train2014.zip"),
        ("grefcoco/unc/val", "refer_seg/grefcoco/grefs(unc).json", "henghuiding/gRefCOCO"),
        ("llava_instruct_150k", "llava_dataset/llava_instruct_150k.json", "LLaVA-Instruct-150K"),
        ("reasonseg/test", "reason_seg/ReasonSeg/test", "JIA-Lab-research/LISA"),
    ],
)
def test_what_is_missing_is_named_with_where_to_get_it(root: Path, name: str, lost: str, origin: str) -> None:
    path = root / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DataError) as caught:
        open_paper_source(name, root)
    assert str(path) in str(caught.value)
    assert origin in str(caught.value)
    assert not is_in(root, name)
    assert name not in sources_in(root)


def test_an_empty_folder_has_nothing(tmp_path: Path) -> None:
    assert sources_in(tmp_path) == []


def test_referring_data_is_found_in_the_root_itself(root: Path) -> None:
    texts = [exchange.text for (exchange,) in open_paper_source("refcoco/unc/val", root)[0].dialogues]
    for path in (root / "refer_seg").iterdir():
        path.rename(root / path.name)
    (root / "refer_seg").rmdir()
    (root / "reason_seg" / "ReasonSeg").rename(root / "ReasonSeg")
    assert [exchange.text for (exchange,) in open_paper_source("refcoco/unc/val", root)[0].dialogues] == texts
    assert len(open_paper_source("reasonseg/train", root)) == 2
    assert sources_in(root) == list(PAPER_SOURCES)


def test_pictures_of_validation_and_test_are_left_out_of_training(root: Path) -> None:
    held_out = held_out_pictures(root)
    assert held_out == {1, 2, 3}, "1 is in refcoco's training split, and in refcoco+'s validation split"
    for name in ("cocostuff", "paco_lvis", "refcoco", "llava_instruct_150k"):
        everything, kept = open_paper_source(name, root), open_paper_source(name, root, exclude=held_out)
        assert (len(everything), len(kept)) == (2, 1)
        assert kept.entry(0) == everything.entry(1)
        assert kept[0].name == kept.entry(0)


def test_pictures_that_are_not_of_coco_are_kept(root: Path) -> None:
    for name in ("ade20k", "pascal_part", "refclef", "reasonseg"):
        assert len(open_paper_source(name, root, exclude={1, 25})) == len(open_paper_source(name, root))


def test_numbers_of_coco_pictures_are_in_their_names() -> None:
    assert coco_id("train2017/000000000009.jpg") == coco_id("COCO_train2014_000000000009.jpg") == 9
    assert coco_id("2008_000001.jpg") is None
    assert coco_id("x.jpg") is None
