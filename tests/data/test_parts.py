from pathlib import Path
from types import ModuleType

import pytest

from lisaseg.data.paper import open_paper_source
from lisaseg.data.parts import part_wordings
from lisaseg.errors import DataError


def test_names_are_cut_and_worded_in_two_ways() -> None:
    assert part_wordings("dog_(animal):head_(front)") == ("dog head", ("the head of the dog",))
    assert part_wordings("mug") == ("mug", ())
    with pytest.raises(ValueError, match="a:b:c"):
        part_wordings("a:b:c")


def test_each_annotation_is_asked_for_on_its_own(root: Path) -> None:
    source = open_paper_source("paco_lvis", root)
    assert [source.entry(index) for index in range(len(source))] == [
        "train2017/000000000001.jpg",
        "train2017/000000000004.jpg",
    ]
    sample = source[0]
    told = [(exchange.text, exchange.also, exchange.masks) for (exchange,) in sample.dialogues]
    head = ("the head of the dog",)
    assert told == [("dog head", head, (0,)), ("mug", (), (1,)), ("dog head", head, (2,))]
    assert sample.masks[0][:, :8].all()
    assert sample.masks[2][:, 4:12].all()
    assert sample.masks[2].sum() == 8 * 12


def test_pascal_part_has_its_own_pictures(root: Path) -> None:
    sample = open_paper_source("pascal_part", root)[0]
    assert sample.name == "2008_000001.jpg"
    assert sample.dialogues[0][0].also == ("the ear of the cat",)


def test_a_malformed_file_is_named(root: Path, maker: ModuleType) -> None:
    path = root / "vlpart/pascal_part/train.json"
    maker.write_json(path, {"images": [], "annotations": []})
    with pytest.raises(DataError, match=r"train\.json .*no 'categories'"):
        open_paper_source("pascal_part", root)
    maker.write_json(path, [1])
    with pytest.raises(DataError, match=r"train\.json is not a file of annotated parts"):
        open_paper_source("pascal_part", root)
    maker.write_json(path, {"images": [], "annotations": [], "categories": []})
    with pytest.raises(DataError, match="no pictures"):
        open_paper_source("pascal_part", root)
