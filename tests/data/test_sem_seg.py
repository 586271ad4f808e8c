from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from lisaseg.data.paper import open_paper_source
from lisaseg.data.sample import Sample
from lisaseg.data.sem_seg import known_classes, open_mapillary
from lisaseg.errors import DataError


def told(sample: Sample) -> list[str]:
    return [exchange.text for (exchange,) in sample.dialogues]


def test_the_lists_of_classes_are_whole() -> None:
    ade20k, cocostuff = known_classes("ade20k"), known_classes("cocostuff")
    assert (len(ade20k), ade20k[0], ade20k[-1]) == (150, "wall", "flag")
    assert (len(cocostuff), cocostuff[0], cocostuff[-1]) == (182, "person", "wood")
    assert sum("-" in name for name in cocostuff) == 28
    assert all(name and name == name.strip().lower() for name in ade20k + cocostuff)


def test_ade20k_counts_its_classes_from_one(root: Path) -> None:
    source = open_paper_source("ade20k", root)
    assert told(source[0]) == ["wall", "sky"]
    wall, sky = source[0].masks
    assert wall[:, 4:8].all()
    assert wall.sum() == 4 * 12
    assert sky[:, 8:].all()
    assert sky.sum() == 8 * 12
    assert told(source[1]) == [], "0 is nothing"
    assert told(source[2]) == ["flag"], "150 is the last class, 255 nothing"


def test_each_class_is_a_phrase_with_its_mask(root: Path) -> None:
    sample = open_paper_source("ade20k", root)[0]
    assert [(exchange.kind, exchange.masks) for (exchange,) in sample.dialogues] == [("phrase", (0,)), ("phrase", (1,))]
    assert all(mask.dtype == np.uint8 and mask.shape == (12, 16) for mask in sample.masks)


def test_cocostuff_counts_from_zero_and_does_not_ask_for_hyphens(root: Path) -> None:
    source = open_paper_source("cocostuff", root)
    assert known_classes("cocostuff")[95] == "building-other"
    assert told(source[0]) == ["person", "wood"]
    assert source[0].masks[0][:, :4].all()
    assert told(source[1]) == ["person", "dog"]
    assert source[0].name == "000000000001.jpg"


def test_mapillary_joins_classes_of_one_name_and_leaves_void_out(root: Path) -> None:
    sample = open_paper_source("mapillary", root)[0]
    assert told(sample) == ["bird", "sign"]
    assert sample.masks[1][:, 4:12].all()
    assert sample.masks[1].sum() == 8 * 12
    assert told(open_mapillary(root / "mapillary", void=True)[0]) == ["bird", "sign", "unlabeled"]
    assert told(open_paper_source("mapillary", root, void=True)[0]) == ["bird", "sign", "unlabeled"]


def test_maps_with_a_palette_are_read_by_index(root: Path) -> None:
    path = root / "mapillary/training/v2.0/labels/a.png"
    image = Image.fromarray(np.full((12, 16), 1, np.uint8), mode=None)
    image.putpalette([200, 0, 0, 0, 200, 0])
    image.save(path)
    assert told(open_paper_source("mapillary", root)[0]) == ["sign"]


def test_a_map_is_decoded_once_for_all_its_masks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda path: opened.append(path) or original(path))
    sample = open_paper_source("ade20k", root)[0]
    assert len([sample.masks[place].any() for place in (0, 1, 0, 1)]) == 4
    assert len(opened) == 1


def test_folders_called_images_further_up_do_no_harm(tmp_path: Path, maker: ModuleType) -> None:
    root = maker.write_paper_data(tmp_path / "images" / "my images")
    assert told(open_paper_source("ade20k", root)[0]) == ["wall", "sky"]


def test_what_is_wrong_with_a_map_is_said(root: Path, maker: ModuleType) -> None:
    path = root / "ade20k/annotations/training/ADE_train_1.png"
    source = open_paper_source("ade20k", root)
    Image.new("RGB", (16, 12)).save(path)
    with pytest.raises(DataError, match=r"ADE_train_1\.png .*one byte for each pixel, got a picture of mode RGB"):
        source[0]
    Image.new("L", (8, 12)).save(path)
    with pytest.raises(DataError, match="16x12 pixels, but its annotations are for 8x12"):
        source[0]
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"cannot read the map .*ADE_train_1\.png"):
        source[0]
    path.unlink()
    with pytest.raises(DataError, match="no map"):
        source[0]


def test_another_list_of_labels_is_refused(root: Path, maker: ModuleType) -> None:
    maker.write_json(root / "mapillary/config_v2.0.json", {"labels": [{"name": "x"}]})
    with pytest.raises(DataError, match="list of labels: a record has no 'readable'"):
        open_paper_source("mapillary", root)
