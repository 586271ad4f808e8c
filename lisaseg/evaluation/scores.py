"""From records to rows of a table: gIoU, cIoU, their intervals, and the figures of each family of benchmarks."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lisaseg.errors import DataError
from lisaseg.evaluation.metrics import (
    Interval,
    bootstrap,
    by_lisa,
    by_seg_zero,
    ciou,
    giou,
    grefcoco_figures,
    instance_figures,
    interval,
    referring_figures,
    sums_by_picture,
)
from lisaseg.evaluation.records import Header, Record, read_records, rule_of
from lisaseg.files import is_folder


@dataclass(frozen=True, kw_only=True)
class Score:
    """One row. Shares are 0..1; intervals are of 95 %, by bootstrap over pictures."""

    name: str
    pictures: int
    questions: int
    giou: float
    giou_interval: Interval
    ciou: float
    ciou_interval: Interval
    figures: dict[str, float] = field(default_factory=dict)
    """The family's own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """What was found about one model by one benchmark."""

    benchmark: str
    file: str
    """Name of the records' file."""
    header: Header
    scores: tuple[Score, ...]
    """The whole first, then parts of it."""
    skipped: tuple[str, ...] = ()
    """Pictures that were left out, each with why."""
    records: tuple[Record, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what is no number is null."""
        return {
            "benchmark": self.benchmark,
            "file": self.file,
            **{key: self.header[key] for key in ("model", "protocol", "rule", "family") if key in self.header},
            "scores": [_without_nan(asdict(score)) for score in self.scores],
            "skipped": list(self.skipped),
        }


def score_records(records: Sequence[Record], name: str, header: Header) -> list[Score]:
    """The row of all records, and where there are phrases and sentences, one for each: short and long queries."""
    rows = [score(records, name, header)]
    kinds = {record.kind for record in records}
    if header["family"] in ("reasonseg", "own") and {"phrase", "sentence"} <= kinds:
        for kind, called in (("phrase", "short"), ("sentence", "long")):
            rows.append(score([record for record in records if record.kind == kind], f"{name}, {called}", header))
    return rows


def score(records: Sequence[Record], name: str, header: Header) -> Score:
    """One row."""
    overlaps = [rule_of(header)(record.counts) for record in records]
    pictures = [str(record.index) for record in records]
    drawn = bootstrap(sums_by_picture(pictures, overlaps))
    return Score(
        name=name,
        pictures=len(set(pictures)),
        questions=len(records),
        giou=giou(overlaps),
        giou_interval=interval(drawn[:, 0]),
        ciou=ciou(overlaps),
        ciou_interval=interval(drawn[:, 1]),
        figures=_figures(records, header),
    )


def _figures(records: Sequence[Record], header: Header) -> dict[str, float]:
    counts = [record.counts for record in records]
    figures: dict[str, float] = {}
    if header["family"] == "referring":
        figures |= referring_figures(counts)
    if header["family"] == "grefcoco":
        figures |= grefcoco_figures(counts, header["min_pixels"])
    if header["family"] == "own" and any(one.target == 0 for one in counts):
        figures |= {key: value for key, value in grefcoco_figures(counts).items() if key.endswith("acc")}
    if header["family"] == "reasonseg" or (
        header["family"] == "own" and any(one.marked > one.target for one in counts)
    ):
        other, name = (by_lisa, "lisa") if header["rule"] == "seg-zero" else (by_seg_zero, "seg_zero")
        overlaps = list(map(other, counts))
        figures |= {f"giou_{name}": giou(overlaps), f"ciou_{name}": ciou(overlaps)}
    instances = [record.instances for record in records if record.instances is not None]
    if instances and header["protocol"] != "lisa":
        figures |= instance_figures(instances)
    return figures


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One run by one benchmark, and how far it is from the first run, over the questions that both answered."""

    benchmark: str
    run: str
    score: Score
    giou: float = math.nan
    giou_interval: Interval = (math.nan, math.nan)
    ciou: float = math.nan
    ciou_interval: Interval = (math.nan, math.nan)
    questions: int = 0
    """Those that both answered."""
    note: str = ""
    """What to know before comparing."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**_without_nan(asdict(self)), "score": _without_nan(asdict(self.score))}


def compare(runs: Sequence[Path]) -> list[Difference]:
    """Rows for each benchmark that a run has, runs in order; differences are from the first run that has it.

    Raises:
        DataError: a folder holds no evaluation.
    """
    by_benchmark: dict[str, list[tuple[str, Header, list[Record]]]] = {}
    for run in runs:
        for header, records in load_run(run):
            by_benchmark.setdefault(header["benchmark"], []).append((str(run), header, records))
    rows: list[Difference] = []
    for benchmark, found in by_benchmark.items():
        first = found[0]
        for place, (run, header, records) in enumerate(found):
            own = score(records, benchmark, header)
            if place == 0:
                rows.append(Difference(benchmark=benchmark, run=run, score=own, questions=len(records)))
            else:
                rows.append(_difference(first[1], first[2], header, records, own, run))
    return rows


def load_run(folder: Path) -> list[tuple[Header, list[Record]]]:
    """What `evaluate` wrote into a folder, one benchmark after another.

    Raises:
        DataError: there is none, or it is malformed.
    """
    files = sorted(folder.glob("*.jsonl")) if is_folder(folder) else []
    if not files:
        raise DataError(f"expected a folder that lisaseg evaluate wrote, got {folder}, which has no *.jsonl")
    runs = []
    for file in files:
        found = read_records(file)
        runs.append((found.header or {}, [record for _, record in sorted(found.records.items())]))
    return runs


def _difference(
    first_header: Header, first: Sequence[Record], header: Header, records: Sequence[Record], own: Score, run: str
) -> Difference:
    keyed = {(record.picture, record.question, record.text): record for record in first}
    pairs = [
        (keyed[key], record) for record in records if (key := (record.picture, record.question, record.text)) in keyed
    ]
    pictures = [record.picture for _, record in pairs]
    before = [rule_of(first_header)(one.counts) for one, _ in pairs]
    after = [rule_of(header)(other.counts) for _, other in pairs]
    drawn = bootstrap(sums_by_picture(pictures, after)) - bootstrap(sums_by_picture(pictures, before))
    notes = []
    if len(pairs) < max(len(first), len(records)):
        notes.append(f"{len(pairs)} questions are in both, of {len(first)} and {len(records)}")
    notes += [
        f"{key} is {header[key]}, the first run's {first_header[key]}"
        for key in ("protocol", "rule")
        if first_header[key] != header[key]
    ]
    return Difference(
        benchmark=header["benchmark"],
        run=run,
        score=own,
        giou=giou(after) - giou(before),
        giou_interval=interval(drawn[:, 0]),
        ciou=ciou(after) - ciou(before),
        ciou_interval=interval(drawn[:, 1]),
        questions=len(pairs),
        note="; ".join(notes),
    )


def _without_nan(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _without_nan(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_without_nan(value) for value in values]
    return None if isinstance(values, float) and math.isnan(values) else values


def to_json(values: Any) -> str:
    """One line; what is no number is null."""
    return json.dumps(_without_nan(values))
