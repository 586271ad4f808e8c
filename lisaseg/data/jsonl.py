"""lisaseg's own lines of JSON: a picture, messages, and a mask in run lengths for each `[SEG]`.

Lines as `lisaseg segment --json` prints them are read too, so that answers can be corrected and learned from.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lisaseg.data.index_files import expecting
from lisaseg.data.sample import IGNORE, Exchange, Mask, Masks, Sample, Source
from lisaseg.data.shapes import coco_mask
from lisaseg.errors import DataError
from lisaseg.images.masks import to_rle
from lisaseg.images.read import read
from lisaseg.language.prompts import SEG_TOKEN


class JsonLines(Source):
    """The lines of a file, in order; pictures are found from its folder.

    A line has `image`, and `dialogues`: lists of messages (`role`, `content`). A question may have a `kind` (phrase,
    sentence or said) and an `explanation`, and an answer, where there is one, says `[SEG]` for each of its `masks`,
    which are places in the line's own `masks`. A mask has `rle`, and perhaps `ignore`, run lengths of what does not
    count. A line may have `messages`, one dialogue, in place of `dialogues`; its masks are then taken in order.
    """

    def __init__(self, file: Path):
        """Counts the lines.

        Raises:
            DataError: it cannot be read, or has none.
        """
        self.name, self._file = file.name, file
        try:
            self._lines = [line for line in file.read_text("utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {file}: {error}; expected lines of JSON in UTF-8") from error
        if not self._lines:
            raise DataError(f"{file} has no lines")

    def __len__(self) -> int:
        return len(self._lines)

    def entry(self, index: int) -> str:
        """The line's number, from 1."""
        return f"line {index + 1}"

    def __getitem__(self, index: int) -> Sample:
        where = f"line {index + 1} of {self._file}"
        try:
            record = json.loads(self._lines[index])
        except ValueError as error:
            raise DataError(f"{where} is no JSON: {error}") from error
        with expecting(where, "a line of lisaseg"):
            image = read(self._file.parent / str(record["image"]))
            dialogues, masks = _answered(record) if "segments" in record else _told(record)
            sized = [partial(_mask, mask, image.shape[0], image.shape[1]) for mask in masks]
            lost = [place for dialogue in dialogues for one in dialogue for place in one.masks if place >= len(masks)]
        if lost:
            raise DataError(f"{where} speaks of mask {lost[0]} and has {len(masks)}")
        return Sample(name=str(record["image"]), image=image, dialogues=tuple(dialogues), masks=Masks(sized))


def to_record(sample: Sample, image: str) -> dict[str, Any]:
    """A line of a sample whose picture is stored at that path; `JsonLines` reads it back."""
    masks = []
    for place in range(len(sample.masks)):
        mask = sample.masks[place]
        ignore = {"ignore": to_rle(mask == IGNORE)} if (mask == IGNORE).any() else {}
        masks.append({"rle": to_rle(mask == 1), **ignore})
    height, width = sample.image.shape[:2]
    dialogues = [[message for one in dialogue for message in _messages(one)] for dialogue in sample.dialogues]
    return {"image": image, "width": width, "height": height, "dialogues": dialogues, "masks": masks}


def _messages(exchange: Exchange) -> list[dict[str, Any]]:
    question: dict[str, Any] = {"role": "user", "content": exchange.text, "kind": exchange.kind}
    if exchange.also:
        question["also"] = list(exchange.also)
    if exchange.explanation is not None:
        question["explanation"] = exchange.explanation
    if exchange.answer is None:
        return [{**question, "masks": list(exchange.masks)}]
    return [question, {"role": "assistant", "content": exchange.answer, "masks": list(exchange.masks)}]


def _told(record: Mapping[str, Any]) -> tuple[list[tuple[Exchange, ...]], list[Mapping[str, Any]]]:
    masks = [mask if "rle" in mask else {"rle": mask} for mask in record.get("masks", [])]
    if "dialogues" in record:
        return [_dialogue(messages) for messages in record["dialogues"]], masks
    messages, used = [dict(message) for message in record["messages"]], 0
    for message in messages:
        number = str(message["content"]).count(SEG_TOKEN) if message["role"] == "assistant" else 0
        message.setdefault("masks", list(range(used, used + number)))
        used += number
    return [_dialogue(messages)], masks


def _dialogue(messages: Sequence[Mapping[str, Any]]) -> tuple[Exchange, ...]:
    exchanges: list[Exchange] = []
    place = 0
    while place < len(messages):
        question = messages[place]
        if question["role"] != "user":
            raise ValueError(f"expected a message of the user, got one of {question['role']!r}")
        has_answer = place + 1 < len(messages) and messages[place + 1]["role"] == "assistant"
        answer = messages[place + 1] if has_answer else None
        exchanges.append(
            Exchange(
                text=str(question["content"]),
                kind=_kind(question.get("kind", "said")),
                answer=None if answer is None else str(answer["content"]),
                masks=tuple(int(mask) for mask in (answer or question).get("masks", ())),
                explanation=question.get("explanation"),
                also=tuple(question.get("also", ())),
            )
        )
        place += 2 if has_answer else 1
    return tuple(exchanges)


def _kind(kind: str) -> Any:
    if kind not in ("phrase", "sentence", "said"):
        raise ValueError(f"expected the kind phrase, sentence or said, got {kind!r}")
    return kind


def _answered(record: Mapping[str, Any]) -> tuple[list[tuple[Exchange, ...]], list[Mapping[str, Any]]]:
    """What was asked and answered, the `[SEG]` of each segment behind its words."""
    text, segments = str(record["text"]), list(record["segments"])
    for segment in sorted(segments, key=lambda one: (one["span"] or [0, len(text)])[1], reverse=True):
        end = segment["span"][1] if segment["span"] else len(text)
        text = f"{text[:end]} {SEG_TOKEN}{text[end:]}"
    order = sorted(range(len(segments)), key=lambda place: (segments[place]["span"] or [0, len(text)])[1])
    exchange = Exchange(text=str(record["instruction"]), answer=text.strip(), masks=tuple(order))
    return [(exchange,)], [{"rle": segment["rle"]} for segment in segments]


def _mask(record: Mapping[str, Any], height: int, width: int) -> Mask:
    mask = coco_mask(record["rle"], height, width).astype(np.uint8)
    if record.get("ignore"):
        mask[(coco_mask(record["ignore"], height, width) == 1) & (mask == 0)] = IGNORE
    return mask
