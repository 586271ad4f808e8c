import errno
import os
from pathlib import Path

import pytest

from lisaseg.errors import OutputError
from lisaseg.files import make_folder, write_atomic


@pytest.fixture
def a_file(tmp_path: Path) -> Path:
    path = tmp_path / "result.json"
    path.write_bytes(b"before")
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_made_with_its_parents_and_may_be_there(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_folder_cannot_be_made_where_a_file_is(a_file: Path) -> None:
    for path in (a_file, a_file / "below"):
        with pytest.raises(OutputError, match=r"cannot make the folder .*result.json.*; choose another folder"):
            make_folder(path)


def test_a_file_is_written_and_nothing_else(tmp_path: Path) -> None:
    write_atomic(tmp_path / "new.bin", b"\0\xff")
    assert (tmp_path / "new.bin").read_bytes() == b"\0\xff"
    assert names(tmp_path) == ["new.bin"]


def test_a_file_is_replaced(a_file: Path) -> None:
    write_atomic(a_file, b"after")
    assert a_file.read_bytes() == b"after"


def test_a_new_file_has_the_rights_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_atomic(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("place", ["missing/x.json", "result.json/x.json", "x" * 300])
def test_a_place_that_cannot_be_written(a_file: Path, place: str) -> None:
    with pytest.raises(OutputError, match=r"^cannot write .*; choose another folder$"):
        write_atomic(a_file.parent / place, b"after")
    assert names(a_file.parent) == ["result.json"]


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*taken: Is a directory"):
        write_atomic(tmp_path / "taken", b"")
    assert names(tmp_path) == ["taken"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_what_was_there(
    a_file: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OutputError, match=r"cannot write .*result.json: .*; free some space or choose another"):
        write_atomic(a_file, b"after")
    assert a_file.read_bytes() == b"before"
    assert names(a_file.parent) == ["result.json"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_an_interrupt_leaves_no_temporary_file(a_file: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, call, interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(a_file, b"after")
    assert a_file.read_bytes() == b"before"
    assert names(a_file.parent) == ["result.json"]
