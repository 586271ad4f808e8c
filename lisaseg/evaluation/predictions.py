"""What other systems predicted, measured like what a model of ours draws: lines of JSON, or a folder of masks."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from pycocotools import mask as coco

from lisaseg.data.sample import Sample, Source
from lisaseg.errors import DataError, LisaError
from lisaseg.evaluation.benchmarks import Benchmark
from lisaseg.evaluation.metrics import Instances, RuleName, count
from lisaseg.evaluation.questions import Question, questions_of, truths_of
from lisaseg.evaluation.records import Record
from lisaseg.evaluation.scores import Evaluation, score_records
from lisaseg.files import is_file, is_folder
from lisaseg.images.masks import from_rle, to_rle
from lisaseg.images.read import read

Found = tuple[Bool[np.ndarray, "H W"], float]
"""A predicted mask and its score."""
_TOLD = 5
"""So many names are told of what is missing or left over."""


def score_predictions(
    path: Path,
    benchmark: Benchmark,
    source: Source,
    *,
    rule: RuleName | None = None,
    min_pixels: int = 1,
    tell: Callable[[str], None] = lambda line: None,
    progress: Callable[[Sequence[int], str], Iterable[int]] = lambda places, _: places,
) -> Evaluation:
    """Measures predictions against a benchmark. A question without a prediction counts as answered with nothing.

    Args:
        path: lines of JSON with `picture`, `rle`, `text` or `question` (its number among the picture's), and perhaps
            `score`; or a folder of masks: `<stem>.png`, with several questions `<stem>_<number>.png`.
        benchmark: by what they are measured.
        source: the benchmark's pictures.
        rule: by whose rule, if not by the benchmark's own.
        min_pixels: for gRefCOCO's rule.
        tell: shows a line about what is missing or left over.
        progress: wraps the iteration over the pictures.

    Raises:
        DataError: the predictions cannot be read, or are of another size than their picture.
    """
    predictions = _open(path)
    header = {
        "benchmark": benchmark.name,
        "family": benchmark.family,
        "model": str(path),
        "protocol": "given",
        "rule": rule or benchmark.rule("lisa"),
        "min_pixels": min_pixels,
    }
    records: list[Record] = []
    missing: list[str] = []
    skipped: list[str] = []
    for index in progress(range(len(source)), benchmark.name):
        try:
            sample = source[index]
            questions = questions_of(sample, first_text_only=benchmark.first_text_only)
            truths = truths_of(sample, questions)
        except LisaError as error:
            skipped.append(f"{source.entry(index)}: {error}")
            continue
        for question, truth in zip(questions, truths, strict=True):
            found = predictions.find(sample, question, len(questions))
            if not found:
                missing.append(f"{sample.name} ({question.text})")
            records.append(_record(index, sample, question, len(questions), found, truth))
    _tell_names(tell, skipped, "pictures left out")
    _tell_names(tell, missing, f"of {len(records)} questions have no prediction and count as answered with nothing")
    _tell_names(tell, predictions.left(), "predictions are of no picture or question of the benchmark")
    return Evaluation(
        benchmark=benchmark.name,
        file=path.name,
        header=header,
        scores=tuple(score_records(records, benchmark.name, header)),
        skipped=tuple(skipped),
        records=tuple(records),
    )


def _record(
    index: int, sample: Sample, question: Question, number: int, found: Sequence[Found], truth: np.ndarray
) -> Record:
    size = sample.image.shape[:2]
    union = np.logical_or.reduce([np.zeros(size, bool), *(mask for mask, _ in found)])
    instances = None
    if len(question.masks) > 1:
        instances = Instances(
            truth=tuple(to_rle(sample.masks[place] == 1) for place in question.masks),
            predicted=tuple(to_rle(mask) for mask, _ in found),
            scores=tuple(score for _, score in found),
        )
    return Record(
        index=index,
        picture=sample.name,
        question=question.number,
        of=number,
        text=question.text,
        kind=question.kind,
        rle=to_rle(union),
        counts=count(union, truth),
        seconds=0.0,
        instances=instances,
    )


class _Lines:
    """Predictions as lines of JSON."""

    def __init__(self, path: Path):
        self._path = path
        self._lines: dict[str, list[Mapping[str, Any]]] = {}
        self._used: set[int] = set()
        try:
            texts = path.read_text("utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {path}: {error}; expected lines of JSON") from error
        for number, text in enumerate(texts, 1):
            line = _parse(text, f"{path}, line {number}")
            if line is not None:
                self._lines.setdefault(Path(line["picture"]).stem, []).append(line)

    def find(self, sample: Sample, question: Question, number: int) -> list[Found]:
        """All masks that were predicted to a question."""
        found = []
        for line in self._lines.get(Path(sample.name).stem, ()):
            if not _is_of(line["picture"], sample.name):
                continue
            place = line.get("question", line.get("index"))
            if place == question.number if place is not None else _same(line["text"], question.text):
                self._used.add(id(line))
                found.append((self._mask(line, sample), float(line.get("score", 1.0))))
        return found

    def left(self) -> list[str]:
        """Predictions that nobody asked for."""
        return [
            f"{line['picture']} ({line.get('text', line.get('question', line.get('index')))})"
            for lines in self._lines.values()
            for line in lines
            if id(line) not in self._used
        ]

    def _mask(self, line: Mapping[str, Any], sample: Sample) -> Bool[np.ndarray, "H W"]:
        size = list(sample.image.shape[:2])
        try:
            if list(line["rle"]["size"]) != size:
                raise ValueError(f"its size is {line['rle']['size']}, the picture's {size} (height, width)")
            if isinstance(line["rle"]["counts"], list):
                packed = coco.frPyObjects(line["rle"], *size)
                return from_rle({"size": size, "counts": packed["counts"].decode("ascii")})
            return from_rle(line["rle"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{self._path}: the mask of {sample.name} is no COCO run lengths of the picture: {error}"
            ) from error


def _parse(text: str, where: str) -> Mapping[str, Any] | None:
    """A prediction; None for empty lines, and for what else `lisaseg evaluate` writes."""
    if not text.strip():
        return None
    try:
        line = json.loads(text)
        if "header" in line or "skipped" in line or line.get("of") == 0:
            return None
        if not (isinstance(line["picture"], str) and {"text", "question", "index"} & set(line) and line["rle"]):
            raise ValueError("picture, rle, and text or question must be there")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        told = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(
            f"cannot read {where}: {told}; expected lines such as "
            '{"picture": "a.jpg", "text": "the dog", "rle": {"size": [480, 640], "counts": "..."}}'
        ) from error
    return line


class _Folder:
    """Predictions as masks, one PNG each; what is not 0 is inside."""

    def __init__(self, path: Path):
        files = [file for file in sorted(path.rglob("*")) if file.suffix.lower() == ".png"]
        if not files:
            raise DataError(f"expected masks in {path}, got no *.png")
        self._root = path
        self._files = {str(file.relative_to(path).with_suffix("")): file for file in files}
        self._used: set[str] = set()

    def find(self, sample: Sample, question: Question, number: int) -> list[Found]:
        """The mask of a question, from a file called like the picture."""
        inside = Path(sample.name).with_suffix("")
        for stem in dict.fromkeys((str(inside), inside.name)):
            for name in (f"{stem}_{question.number}", *((stem,) if number == 1 else ())):
                if name in self._files:
                    self._used.add(name)
                    return [(self._mask(self._files[name], sample), 1.0)]
        return []

    def left(self) -> list[str]:
        """Masks that nobody asked for."""
        return [str(file.relative_to(self._root)) for name, file in self._files.items() if name not in self._used]

    def _mask(self, file: Path, sample: Sample) -> Bool[np.ndarray, "H W"]:
        mask = np.logical_or.reduce(read(file) > 0, axis=2)
        if mask.shape != sample.image.shape[:2]:
            raise DataError(f"{file} is {mask.shape} (height, width), its picture {sample.image.shape[:2]}")
        return mask


def _open(path: Path) -> _Lines | _Folder:
    if is_folder(path):
        return _Folder(path)
    if is_file(path):
        return _Lines(path)
    raise DataError(f"there are no predictions at {path}; expected lines of JSON, or a folder of masks")


def _is_of(told: str, name: str) -> bool:
    """Whether a prediction names a picture: by its whole name, or its file's alone, with or without the suffix."""
    return told in (name, Path(name).name, Path(name).stem) or Path(told).name == Path(name).name


def _same(told: str, text: str) -> bool:
    return " ".join(told.split()).casefold() == " ".join(text.split()).casefold()


def _tell_names(tell: Callable[[str], None], names: Sequence[str], what: str) -> None:
    if names:
        more = ", ..." if len(names) > _TOLD else ""
        tell(f"{len(names)} {what}: {', '.join(names[:_TOLD])}{more}")
