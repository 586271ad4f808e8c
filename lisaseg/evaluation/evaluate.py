"""Measures a model by a benchmark: picture after picture, over any number of processes, and on after an interrupt.

Pictures are taken in blocks of fixed places, so that a run that was cut off, or split among processes, computes the
very same batches.
"""

import datetime
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed

from lisaseg.data.sample import Mask, Sample, Source
from lisaseg.errors import LisaError
from lisaseg.evaluation.benchmarks import Benchmark
from lisaseg.evaluation.metrics import Counts, Instances, Overlap, by_lisa, count
from lisaseg.evaluation.options import EvaluateOptions
from lisaseg.evaluation.protocols import ROWS_PER_PICTURE, Prediction, check_question, predict
from lisaseg.evaluation.questions import Question, questions_of, truths_of
from lisaseg.evaluation.records import Journal, Record
from lisaseg.evaluation.scores import Evaluation, score_records
from lisaseg.images.masks import to_rle
from lisaseg.model.lisa import Lisa
from lisaseg.model.processor import Processor
from lisaseg.segmenter import Segmenter

Item = TypeVar("Item")
_PATIENCE = datetime.timedelta(days=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """A picture that was read, what is asked about it, and what is right."""

    index: int
    sample: Sample
    questions: Sequence[Question]
    truths: Sequence[Mask]


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A picture that cannot be used."""

    index: int
    picture: str
    why: str


@dataclass(kw_only=True)
class Times:
    """Seconds by what they went into. Reading goes on beside the rest: `read` is what was waited for."""

    seconds: dict[str, float] = field(default_factory=dict)

    def timed(self, stage: str, work: Callable[[], Item]) -> Item:
        """Does it, and adds its time to a stage."""
        started = time.perf_counter()
        try:
            return work()
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started


def evaluate(
    segmenter: Segmenter,
    benchmark: Benchmark,
    source: Source,
    options: EvaluateOptions,
    out: Path,
    *,
    tell: Callable[[str], None] = lambda line: None,
    progress: Callable[[Sequence[range], str], Iterable[range]] = lambda blocks, _: blocks,
    times: Times | None = None,
) -> Evaluation:
    """Measures, or goes on where an interrupted run of the same folder stopped.

    Under torchrun the processes share the pictures, and all return the same scores.

    Args:
        segmenter: the model.
        benchmark: by what it is measured.
        source: the benchmark's pictures.
        options: how it is asked.
        out: folder of `<benchmark>.jsonl`, a line for each question.
        tell: shows a line to the person who measures.
        progress: wraps the iteration over blocks of pictures to show how far it is.
        times: to be filled with where the time goes.

    Raises:
        DataError, ImageError, InstructionError: with `strict`, a picture that cannot be used.
        DeviceError: memory ran out.
        OutputError: the folder holds another evaluation, or cannot be written to.
    """
    rank, world = _processes(segmenter.lisa.device)
    header = _header(segmenter, benchmark, source, options)
    journal = Journal(out, benchmark.slug, header, rank=rank, world=world)
    _wait(world)
    journal.start()
    finished, times = journal.found.finished(), times or Times()
    number = min(len(source), options.limit or len(source))
    blocks = blocks_of(number, options.batch_size, rank, world)
    left = [block for block in blocks if not finished.issuperset(block)]
    if len(left) < len(blocks):
        tell(f"{benchmark.name}: going on in {out}, {len(finished)} of {number} pictures were measured before")
    work = _Work(segmenter.lisa, segmenter.processor, benchmark, source, options, finished, tell, times)
    for block, read in zip(progress(left, benchmark.name), _ahead(left, work.read, times), strict=True):
        journal.write([journal.line(one) if isinstance(one, Record) else one for one in work.measure(block, read)])
    _wait(world)
    if rank == 0:
        journal.merge()
    _wait(world)
    found = journal.read()
    records = [record for _, record in sorted(found.records.items()) if record.index < number]
    done = found.finished()
    skipped = {index: told for index, told in sorted(found.skipped.items()) if index < number and index not in done}
    return Evaluation(
        benchmark=benchmark.name,
        file=journal.whole.name,
        header=header,
        scores=tuple(score_records(records, benchmark.name, header)),
        skipped=tuple(f"{name}: {why}" for name, why in skipped.values()),
        records=tuple(records),
    )


def measure_source(
    lisa: Lisa,
    processor: Processor,
    source: Source,
    *,
    first_text_only: bool = False,
    limit: int | None = None,
    batch_size: int = 4,
    rank: int = 0,
    world: int = 1,
) -> list[Overlap]:
    """What this process's share of a source is worth by LISA's protocol, for a training to gather and average.

    Writes nothing, passes over pictures that cannot be used, and leaves the network in the mode that it was in.
    """
    overlaps: list[Overlap] = []
    for block in blocks_of(min(len(source), limit or len(source)), batch_size, rank, world):
        asked = [_read(source, index, processor, first_text_only=first_text_only) for index in block]
        usable = [one for one in asked if isinstance(one, Asked)]
        predictions = predict(
            lisa,
            processor,
            [(one.sample.image, one.questions) for one in usable],
            rows_per_call=ROWS_PER_PICTURE * batch_size,
        )
        for one, own in zip(usable, predictions, strict=True):
            overlaps += [by_lisa(count(mask.union(), truth)) for mask, truth in zip(own, one.truths, strict=True)]
    return overlaps


def blocks_of(number: int, size: int, rank: int = 0, world: int = 1) -> list[range]:
    """The places of pictures that are measured together, of which each process takes every `world`-th."""
    return [range(start, min(start + size, number)) for start in range(0, number, size)][rank::world]


class _Work:
    """Reads and measures blocks of pictures."""

    def __init__(
        self,
        lisa: Lisa,
        processor: Processor,
        benchmark: Benchmark,
        source: Source,
        options: EvaluateOptions,
        finished: set[int],
        tell: Callable[[str], None],
        times: Times,
    ):
        self._lisa, self._processor, self._benchmark, self._source = lisa, processor, benchmark, source
        self._options, self._finished, self._tell, self._times = options, finished, tell, times

    def read(self, block: range) -> list[Asked | Skipped]:
        """The pictures of a block; those that were measured before are read again only where others need them."""
        new = {index: self._read(index) for index in block if index not in self._finished}
        if not any(isinstance(one, Asked) for one in new.values()):
            return list(new.values())
        return [new[index] if index in new else self._read(index) for index in block]

    def _read(self, index: int) -> Asked | Skipped:
        return _read(
            self._source,
            index,
            self._processor,
            first_text_only=self._benchmark.first_text_only,
            strict=self._options.strict,
        )

    def measure(self, block: range, read: Sequence[Asked | Skipped]) -> Iterator[Record | dict[str, Any]]:
        """Records of the pictures that were not measured before, and lines about those that have none."""
        for one in read:
            if isinstance(one, Skipped):
                self._tell(f"left out: {one.picture}: {one.why}")
                yield {"index": one.index, "picture": one.picture, "skipped": one.why}
        usable = [one for one in read if isinstance(one, Asked)]
        started = time.perf_counter()
        predictions = self._times.timed("predict", lambda: self._predict(usable))
        share = (time.perf_counter() - started) / max(1, sum(len(one.questions) for one in usable))
        for one, own in zip(usable, predictions, strict=True):
            if one.index in self._finished:
                continue
            if not one.questions:
                yield {"index": one.index, "picture": one.sample.name, "of": 0}
            counted = [
                self._times.timed("metric", lambda: count(mask.union(), truth))  # noqa: B023  at once
                for mask, truth in zip(own, one.truths, strict=True)
            ]
            yield from self._times.timed("rle", lambda: _records(one, own, counted, share))  # noqa: B023

    def _predict(self, usable: Sequence[Asked]) -> list[list[Prediction]]:
        return predict(
            self._lisa,
            self._processor,
            [(one.sample.image, one.questions) for one in usable],
            protocol=self._options.protocol,
            rows_per_call=ROWS_PER_PICTURE * self._options.batch_size,
            max_new_tokens=self._options.max_new_tokens,
        )


def _read(
    source: Source, index: int, processor: Processor, *, first_text_only: bool, strict: bool = False
) -> Asked | Skipped:
    try:
        sample = source[index]
        questions = questions_of(sample, first_text_only=first_text_only)
        for question in questions:
            check_question(processor, question)
        return Asked(index=index, sample=sample, questions=questions, truths=truths_of(sample, questions))
    except LisaError as error:
        if strict:
            raise
        return Skipped(index=index, picture=source.entry(index), why=str(error))


def _records(
    asked: Asked, predictions: Sequence[Prediction], counted: Sequence[Counts], seconds: float
) -> list[Record]:
    with_instances = any(len(question.masks) > 1 for question in asked.questions)
    return [
        Record(
            index=asked.index,
            picture=asked.sample.name,
            question=question.number,
            of=len(asked.questions),
            text=question.text,
            kind=question.kind,
            rle=to_rle(prediction.union()),
            counts=counts,
            seconds=round(seconds, 6),
            instances=_instances(asked.sample, question, prediction) if with_instances else None,
        )
        for question, prediction, counts in zip(asked.questions, predictions, counted, strict=True)
    ]


def _instances(sample: Sample, question: Question, prediction: Prediction) -> Instances:
    return Instances(
        truth=tuple(to_rle(sample.masks[place] == 1) for place in question.masks),
        predicted=tuple(map(to_rle, prediction.masks_NHW)),
        scores=tuple(prediction.scores_N.tolist()),
    )


def _ahead(items: Sequence[Any], read: Callable[[Any], Item], times: Times) -> Iterator[Item]:
    """What is read for each item, the next one beside the work on the last."""
    with ThreadPoolExecutor(1) as pool:
        following = None
        for place in range(len(items)):
            waiting = following or pool.submit(read, items[place])
            following = pool.submit(read, items[place + 1]) if place + 1 < len(items) else None
            yield times.timed("read", waiting.result)


def _header(segmenter: Segmenter, benchmark: Benchmark, source: Source, options: EvaluateOptions) -> dict[str, Any]:
    """What makes an evaluation the same."""
    lisa = segmenter.lisa
    quantized = getattr(lisa.config, "quantization_config", None)
    return {
        "benchmark": benchmark.name,
        "family": benchmark.family,
        "pictures": len(source),
        "model": lisa.config.model_name,
        "loaded_as": segmenter.engine.source,
        "fingerprint": [[float(f"{value:.4g}") for value in part] for part in segmenter.engine.fingerprint()],
        "dtype": str(lisa.vlm.dtype).removeprefix("torch."),
        "quantized": None if quantized is None else str(getattr(quantized, "quant_method", quantized)),
        "parity": segmenter.engine.parity,
        "protocol": options.protocol,
        "rule": benchmark.rule(options.protocol),
        "min_pixels": options.min_pixels,
        "max_new_tokens": None if options.protocol == "lisa" else options.max_new_tokens,
        "batch_size": options.batch_size,
    }


def _processes(device: torch.device) -> tuple[int, int]:
    """This process's number and how many there are; they meet by torch.distributed, as torchrun has them do."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        distributed.init_process_group("gloo", timeout=_PATIENCE)
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def _wait(world: int) -> None:
    if world > 1:
        distributed.barrier()
