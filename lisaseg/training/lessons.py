"""Samples as the network learns them: token ids with their labels, pixels, and masks at the picture's own size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lisaseg.data.sample import Dialogue, Lesson, Sample
from lisaseg.errors import DataError, InstructionError
from lisaseg.language.prompts import SEG_TOKEN
from lisaseg.model.processor import ImageSize, Processor
from lisaseg.training.augment import augment
from lisaseg.training.losses import IGNORE_LABEL

MOST_ATTEMPTS = 20
"""So many lessons in a row may be of no use before it is no accident."""
_STRIDE = 7919
_VIEWS = 99
"""Keeps the chance that shows a view apart from the chance that chose its words."""


@runtime_checkable
class Worded(Protocol):
    """Where lessons come from: a stream or mixture of samples whose dialogues are worded."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Lesson: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Lessons(Dataset):
    """Lesson number i as tensors. Deterministic in i."""

    source: Worded
    processor: Processor
    max_tokens: int
    """Longest dialogue, its picture included."""
    augment_seed: int | None = None
    """Shows other views of the pictures, decided by this seed."""
    strict: bool = False
    """Stops at what cannot be used, instead of taking another lesson and telling."""

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        skipped: list[str] = []
        for attempt in range(MOST_ATTEMPTS):
            lesson = self.source[(index + attempt * _STRIDE) % len(self)]
            skipped += lesson.skipped
            sample = lesson.sample
            if self.augment_seed is not None:
                sample = augment(sample, np.random.default_rng([self.augment_seed, index, _VIEWS]))
            try:
                return {**tensors(sample, self.processor, self.max_tokens), "skipped": skipped}
            except (DataError, InstructionError) as error:
                if self.strict:
                    raise DataError(f"{sample.name}: {error}") from error
                skipped.append(f"{sample.name}: {error}")
        raise DataError(f"none of {MOST_ATTEMPTS} lessons in a row can be used; the last one: {skipped[-1]}")


def tensors(sample: Sample, processor: Processor, max_tokens: int) -> dict[str, Any]:
    """One sample, its dialogues cut to so many tokens.

    Raises:
        DataError: a dialogue is longer, and to cut it would cut a `[SEG]`.
    """
    rows, places = [], []
    for dialogue in sample.dialogues:
        kept, ids, labels = _fitting(dialogue, processor, max_tokens, sample.name)
        rows.append((ids, labels))
        places += [place for exchange in kept for place in exchange.masks]
    masks = [torch.from_numpy(np.ascontiguousarray(sample.masks[place])) for place in places]
    said = sum(ids.count(processor.tokenizer.seg_id) for ids, _ in rows)
    if said != len(masks):
        raise DataError(f"{sample.name} says {said} {SEG_TOKEN} and has {len(masks)} masks for them")
    return {
        "name": sample.name,
        "rows": rows,
        "vlm_pixels": processor.vlm_pixels([sample.image]),
        "square": processor.square(sample.image),
        "size": processor.size(sample.image),
        "masks": torch.stack(masks) if masks else torch.zeros((0, *sample.image.shape[:2]), dtype=torch.uint8),
    }


def _fitting(
    dialogue: Dialogue, processor: Processor, max_tokens: int, name: str
) -> tuple[Dialogue, list[int], list[int]]:
    """As many whole exchanges as fit, with their ids and labels; a lone one may be cut where no `[SEG]` is lost."""
    for number in range(len(dialogue), 0, -1):
        kept = dialogue[:number]
        try:
            ids, labels = labelled(processor, [(exchange.text, exchange.answer or "") for exchange in kept])
        except InstructionError:  # a question that no prompt has room for
            if number == 1:
                raise
            continue
        if len(ids) <= max_tokens:
            return kept, ids, labels
    if processor.tokenizer.seg_id in ids[max_tokens:]:
        raise DataError(
            f"{name} is too long: with the picture it takes {len(ids)} tokens up to its {SEG_TOKEN}, and lessons have "
            f"{max_tokens} (--max-tokens)"
        )
    return kept, ids[:max_tokens], labels[:max_tokens]


def labelled(processor: Processor, turns: Sequence[tuple[str, str]]) -> tuple[list[int], list[int]]:
    """Token ids of a dialogue and their labels: the answers with their end marks are learned, the rest is not."""
    ids = processor.encode(turns)
    labels = [IGNORE_LABEL] * len(ids)
    for number, (question, _) in enumerate(turns):
        start = len(processor.encode([*turns[:number], (question, None)]))
        end = len(ids) if number + 1 == len(turns) else len(processor.encode(turns[: number + 1]))
        labels[start:end] = ids[start:end]
    return ids, labels


def collate(lessons: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, Any]:
    """One batch; rows are padded on the right, masks stay as large as their pictures."""
    rows = [row for lesson in lessons for row in lesson["rows"]]
    length = max((len(ids) for ids, _ in rows), default=1)
    padded = partial(_padded, length=length)
    return {
        "ids": padded([ids for ids, _ in rows], filler=pad_id),
        "labels": padded([labels for _, labels in rows], filler=IGNORE_LABEL),
        "attention_mask": padded([[1] * len(ids) for ids, _ in rows], filler=0),
        "picture_of_row": torch.tensor([place for place, lesson in enumerate(lessons) for _ in lesson["rows"]]),
        "vlm_pixels": torch.cat([lesson["vlm_pixels"] for lesson in lessons]),
        "squares": torch.stack([lesson["square"] for lesson in lessons]),
        "sizes": [_plain(lesson["size"]) for lesson in lessons],
        "masks": [lesson["masks"] for lesson in lessons],
        "names": [lesson["name"] for lesson in lessons],
        "skipped": [told for lesson in lessons for told in lesson.get("skipped", ())],
    }


def _plain(size: ImageSize) -> list[list[int]]:
    """As lists, which every library that moves batches leaves alone."""
    return [list(size.original), list(size.resized)]


def _padded(rows: Sequence[Sequence[int]], *, length: int, filler: int) -> Tensor:
    return torch.tensor([[*row, *[filler] * (length - len(row))] for row in rows]).reshape(len(rows), length)
