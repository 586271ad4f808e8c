import collections
import os
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from lisaseg.data.paper import open_paper_source
from lisaseg.data.refer_seg import is_of_split, load_plain_pickle
from lisaseg.errors import DataError


class Evil:
    """Runs a command when it is read by an open unpickler."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


def python2(value: Any) -> bytes:
    """A value as Python 2 pickled it: texts as bytes, whole numbers as text."""
    if isinstance(value, dict):
        return b"}" + b"".join(python2(key) + python2(item) + b"s" for key, item in value.items())
    if isinstance(value, list):
        return b"]" + b"".join(python2(item) + b"a" for item in value)
    if isinstance(value, str):
        data = value.encode("latin-1")
        return b"U" + bytes([len(data)]) + data
    return b"I%d\n" % value


def test_a_picture_has_a_dialogue_for_each_sentence_and_a_mask_for_each_reference(root: Path) -> None:
    source = open_paper_source("refcoco/unc/train", root)
    assert [source.entry(index) for index in range(len(source))] == [
        "COCO_train2014_000000000001.jpg",
        "COCO_train2014_000000000004.jpg",
    ]
    sample = source[0]
    told = [(exchange.text, exchange.kind, exchange.masks) for (exchange,) in sample.dialogues]
    assert told == [("the left dog", "phrase", (0,)), ("dog", "phrase", (0,)), ("it", "phrase", (1,))]
    assert len(sample.masks) == 2


def test_overlapping_polygons_stay_a_mask_of_ones(root: Path) -> None:
    mask = open_paper_source("refcoco/unc/train", root)[0].masks[0]
    expected = np.zeros((12, 16), np.uint8)
    expected[:, :12] = 1
    np.testing.assert_array_equal(mask, expected)


def test_what_means_nothing_has_an_empty_mask_and_several_things_have_one(root: Path) -> None:
    sample = open_paper_source("grefcoco/unc/train", root)[0]
    assert [exchange.text for (exchange,) in sample.dialogues] == ["the unicorn", "everything"]
    assert [exchange.masks for (exchange,) in sample.dialogues] == [(0,), (1,)]
    assert not sample.masks[0].any()
    assert sample.masks[1].sum() == 12 * 12


def test_run_lengths_in_lists_are_read(root: Path) -> None:
    sample = open_paper_source("refclef/unc/train", root)[0]
    assert sample.name == "00/images/25.jpg"
    assert sample.masks[0].sum() == 12
    assert sample.masks[0][:, 0].all()


def test_splits_are_told_as_the_original_tells_them(root: Path) -> None:
    assert is_of_split("testAB", "testA")
    assert is_of_split("testAB", "testB")
    assert not is_of_split("testAB", "testC")
    assert is_of_split("testA", "test")
    assert not is_of_split("train", "testA")
    assert is_of_split("val", "val")
    assert not is_of_split("val2", "val")
    assert open_paper_source("refclef/unc/testB", root)[0].dialogues[0][0].text == "blue"
    with pytest.raises(DataError, match="no references of the split 'testC'"):
        open_paper_source("refclef/unc/testC", root)


def test_json_is_taken_before_a_pickle(root: Path, maker: ModuleType) -> None:
    maker.write_refs(root / "refer_seg/refcoco/refs(unc).json", [maker.ref(4, 41, "val", "from JSON")])
    assert open_paper_source("refcoco/unc/val", root)[0].dialogues[0][0].text == "from json"


def test_a_pickle_of_python_2_is_read(root: Path, maker: ModuleType) -> None:
    refs = [maker.ref(4, 41, "val", "café")]
    (root / "refer_seg/refcoco/refs(unc).p").write_bytes(b"\x80\x02" + python2(refs) + b".")
    assert open_paper_source("refcoco/unc/val", root)[0].dialogues[0][0].text == "café"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_of_every_protocol_is_read(tmp_path: Path, protocol: int) -> None:
    value = [{"a": (1, 2.5, True, None, "ü", b"\xff"), "b": collections.OrderedDict(x={1, 2}), "big": 2**70}]
    path = tmp_path / "plain.p"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    assert load_plain_pickle(path) == value


def test_numbers_of_numpy_become_plain(tmp_path: Path) -> None:
    path = tmp_path / "numbers.p"
    path.write_bytes(pickle.dumps([np.int64(-7), np.float32(0.5), np.dtype(">i4").type(3), np.bool_(True)], protocol=2))
    read = load_plain_pickle(path)
    assert read == [-7, 0.5, 3, True]
    assert [type(number) for number in read] == [int, float, int, bool]
    path.write_bytes(pickle.dumps(np.datetime64(5, "s"), protocol=2))
    with pytest.raises(DataError, match="NumPy"):
        load_plain_pickle(path)


def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    path, trace = tmp_path / "evil.p", tmp_path / "trace"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps([Evil(f"touch {trace}")], protocol=protocol))
        with pytest.raises(DataError, match=r"(posix|nt)\.system.*not opened"):
            load_plain_pickle(path)
    for asked in (b"cbuiltins\neval\n", b"c__builtin__\ngetattr\n", b"cnumpy\nload\n", b"cfunctools\npartial\n"):
        path.write_bytes(asked + b"(S'1'\ntR.")
        with pytest.raises(DataError, match="no plain data"):
            load_plain_pickle(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "data", [b"", b"\x80\x02", b"nonsense", b"\x80\x02]q\x00(K\x01", b"(I1\nP1\n.", b"\x80\x02}]Ns."]
)
def test_a_damaged_pickle_is_no_traceback(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "damaged.p"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"damaged\.p"):
        load_plain_pickle(path)


def test_what_does_not_fit_together_is_said(root: Path, maker: ModuleType) -> None:
    refs = root / "refer_seg/refcoco/refs(unc).p"
    maker.write_refs(refs, [maker.ref(4, 77, "val", "it")])
    with pytest.raises(DataError, match="no annotation 77"):
        open_paper_source("refcoco/unc/val", root)[0]
    maker.write_refs(refs, [maker.ref(99, 41, "val", "it")])
    with pytest.raises(DataError, match="do not know picture 99"):
        open_paper_source("refcoco/unc/val", root)[0]
    refs.write_bytes(pickle.dumps({"refs": 1}))
    with pytest.raises(DataError, match="not a list of references: it holds a dict"):
        open_paper_source("refcoco/unc/val", root)
    refs.write_bytes(pickle.dumps([{"split": "val"}]))
    with pytest.raises(DataError, match="no 'image_id'"):
        open_paper_source("refcoco/unc/val", root)


def test_a_picture_of_another_size_is_refused(root: Path, maker: ModuleType) -> None:
    path = root / "refer_seg/refcoco/instances.json"
    maker.write_instances(path, [maker.image_record(2, maker.coco_name(2)) | {"width": 99}], {21: [maker.LEFT]})
    with pytest.raises(DataError, match="16x12 pixels, but its annotations are for 99x12"):
        open_paper_source("refcoco/unc/val", root)[0]


def test_a_pickle_cannot_ask_for_memory_that_it_does_not_fill(tmp_path: Path) -> None:
    path = tmp_path / "greedy.p"
    path.write_bytes(b"\x80\x02]r\xff\xff\xff\x7f.")
    assert load_plain_pickle(path) == []
    path.write_bytes(b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\x00\x00x.")
    with pytest.raises(DataError, match=r"greedy\.p"):
        load_plain_pickle(path)
