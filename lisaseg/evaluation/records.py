"""What an evaluation has found so far, a line for each question: whoever cuts it off loses the last lines at most."""

import collections
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lisaseg.data.sample import Kind
from lisaseg.errors import DataError, OutputError
from lisaseg.evaluation.metrics import Counts, Instances, Overlap, rule
from lisaseg.files import make_folder, remove, write_atomic

VERSION = 1
"""Of the lines' format."""
Header = Mapping[str, Any]
"""What makes an evaluation the same: the model, the data and how they were put together."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What was predicted to one question, and what it is worth."""

    index: int
    """Place of the picture in its source."""
    picture: str
    question: int
    """Place among the picture's questions."""
    of: int
    """How many questions the picture has."""
    text: str
    kind: Kind
    rle: dict[str, Any]
    """All that was predicted together, as COCO run lengths."""
    counts: Counts
    seconds: float
    """Share of the time that its batch took."""
    instances: Instances | None = None
    """Where several masks are meant to one question of the picture."""

    def to_dict(self, overlap: Overlap) -> dict[str, Any]:
        """A line of the file; the overlap, which follows from the counts, is for people who read it."""
        line = {key: value for key, value in vars(self).items() if key not in ("counts", "instances")}
        line |= {"intersection": overlap.intersection, "union": overlap.union, "iou": overlap.iou}
        line["counts"] = asdict(self.counts)
        return line if self.instances is None else {**line, "instances": asdict(self.instances)}

    @classmethod
    def from_dict(cls, line: Mapping[str, Any]) -> "Record":
        """What `to_dict` wrote."""
        instances = line.get("instances")
        return cls(
            **{key: line[key] for key in ("index", "picture", "question", "of", "text", "kind", "rle")},
            seconds=float(line["seconds"]),
            counts=Counts(**line["counts"]),
            instances=None if instances is None else Instances(**{key: tuple(own) for key, own in instances.items()}),
        )


@dataclass(kw_only=True)
class Found:
    """What files of records hold."""

    header: Header | None = None
    records: dict[tuple[int, int], Record] = field(default_factory=dict)
    """By picture and question."""
    empty: dict[int, str] = field(default_factory=dict)
    """Pictures about which nothing is asked."""
    skipped: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Pictures that could not be used: their names, and why."""

    def finished(self) -> set[int]:
        """Pictures all of whose questions were answered."""
        answered = collections.Counter(index for index, _ in self.records)
        whole = {record.index for record in self.records.values() if answered[record.index] == record.of}
        return whole | set(self.empty)

    def add(self, path: Path) -> None:
        """Takes in the lines of a file; one that was cut off in the middle counts as never written.

        Raises:
            OutputError: it is no file of records.
        """
        try:
            for line in _whole_lines(path.read_bytes()):
                self._take(json.loads(line))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise OutputError(f"cannot go on from {path} ({reason}); remove it, or choose another --out") from error

    def _take(self, line: Mapping[str, Any]) -> None:
        if "header" in line:
            self.header = line["header"]
        elif "skipped" in line:
            self.skipped[line["index"]] = (line["picture"], line["skipped"])
        elif line["of"] == 0:
            self.empty[line["index"]] = line["picture"]
        else:
            record = Record.from_dict(line)
            self.records[record.index, record.question] = record


def _whole_lines(data: bytes) -> Iterable[bytes]:
    return data[: data.rfind(b"\n") + 1].splitlines()


class Journal:
    """The records of one benchmark in a folder; each process writes a file of its own, until `merge`."""

    def __init__(self, folder: Path, slug: str, header: Header, *, rank: int = 0, world: int = 1):
        """Reads what earlier runs left, whatever the number of their processes.

        Raises:
            OutputError: the folder holds another evaluation, or cannot be written to.
        """
        make_folder(folder)
        self._folder, self._slug = folder, slug
        self._header = json.loads(json.dumps({"version": VERSION, **header}))
        self._path = self.whole if world == 1 else folder / f"{slug}.rank{rank}.jsonl"
        self.found = self.read()

    @property
    def whole(self) -> Path:
        """The file that everything is in at the end."""
        return self._folder / f"{self._slug}.jsonl"

    def line(self, record: Record) -> dict[str, Any]:
        """A record as it is written."""
        return record.to_dict(rule_of(self._header)(record.counts))

    def read(self) -> Found:
        """All that was found, by whichever process."""
        found = Found()
        for path in (self.whole, *self._parts()):
            if path.exists():
                found.header = None
                found.add(path)
                self._refuse_other(path, found.header)
        return found

    def start(self) -> None:
        """Makes this process's file ready: with its header, and without a line that was cut off."""
        try:
            data = self._path.read_bytes() if self._path.exists() else b""
            whole = data[: data.rfind(b"\n") + 1]
        except OSError as error:
            raise _unwritable(self._path, error) from error
        if not whole:
            write_atomic(self._path, _line({"header": self._header}))
        elif len(whole) < len(data):
            write_atomic(self._path, whole)

    def write(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Adds lines, on the disk when it returns.

        Raises:
            OutputError: the disk is full, ...
        """
        try:
            with self._path.open("ab") as file:
                file.write(b"".join(map(_line, lines)))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def merge(self) -> None:
        """Puts the lines of all processes into one file, in order; their own files go."""
        found = self.read()
        lines: list[tuple[int, int, Mapping[str, Any]]] = [
            (index, question, self.line(record)) for (index, question), record in found.records.items()
        ]
        lines += [(index, 0, {"index": index, "picture": picture, "of": 0}) for index, picture in found.empty.items()]
        done = found.finished()
        lines += [
            (index, 0, {"index": index, "picture": picture, "skipped": why})
            for index, (picture, why) in found.skipped.items()
            if index not in done
        ]
        ordered = sorted(lines, key=lambda line: line[:2])
        body = [_line({"header": self._header}), *(_line(line) for _, _, line in ordered)]
        write_atomic(self.whole, b"".join(body))
        for path in self._parts():
            remove(path)

    def _parts(self) -> list[Path]:
        return [
            path
            for path in sorted(self._folder.iterdir())
            if path.name.startswith(f"{self._slug}.rank") and path.suffix == ".jsonl"
        ]

    def _refuse_other(self, path: Path, other: Header | None) -> None:
        if other is None:
            if path.read_bytes().count(b"\n") == 0:  # cut off within its first line
                return
            raise OutputError(f"{path} is no evaluation of lisaseg; choose another folder with --out")
        differing = sorted(key for key in {*self._header, *other} if self._header.get(key) != other.get(key))
        if differing:
            told = ", ".join(
                f"{key} was {_short(other.get(key))} and is {_short(self._header.get(key))}" for key in differing[:4]
            )
            raise OutputError(f"{path} holds another evaluation ({told}); choose another folder with --out")


def rule_of(header: Header) -> Callable[[Counts], Overlap]:
    """By which rule an evaluation scores."""
    return rule(header["rule"], header["min_pixels"])


def read_records(path: Path) -> Found:
    """The records of a finished or interrupted evaluation.

    Raises:
        DataError: it is not there, or is no file of records.
    """
    found = Found()
    try:
        found.add(path)
    except OutputError as error:
        raise DataError(f"cannot read {path} as an evaluation; expected what lisaseg evaluate wrote") from error
    if found.header is None:
        raise DataError(f"{path} has no header; expected what lisaseg evaluate wrote")
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _line(value: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(value)}\n".encode()


def _unwritable(path: Path, error: OSError) -> OutputError:
    reason = error.strerror or error
    return OutputError(f"cannot write {path}: {reason}; mend that, and run the same command again")
