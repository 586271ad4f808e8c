"""A conversation in a folder: one JSON file that a person can read, and the picture. No pickles.

Masks are not stored as logits: each comes back from what the segmenter was told and the clicks that followed.
"""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from lisaseg.config import AskOptions, ImageLimits
from lisaseg.errors import ConversationError, InstructionError
from lisaseg.files import make_folder, write_atomic
from lisaseg.images.read import digest, read
from lisaseg.model.answer import draw_again
from lisaseg.model.engine import Engine
from lisaseg.model.lisa import Pictures
from lisaseg.model.memory import telling_out_of_memory
from lisaseg.model.stopwatch import Stopwatch
from lisaseg.transcript import Mask, Refinement, Transcript, Turn, add_by_hand, checked_hand
from lisaseg.values import Answer

FORMAT = "lisaseg conversation 1"
_RECORD_FILE, _PICTURE_FILE = "conversation.json", "picture.png"
DAMAGED = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, StopIteration, InstructionError)
"""What goes wrong where a record is not as it was written."""
_LIKE = 0.01
"""How far, relatively, a part of the fingerprint of one model may lie apart in several precisions."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedPicture:
    """The picture of a conversation."""

    image: UInt8[np.ndarray, "H W 3"]
    digest: str
    source: str
    """The name that it had."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedConversation:
    """What the folder holds: whole, but not yet brought back to life by a model."""

    path: Path
    picture: SavedPicture
    options: AskOptions
    """How its questions are answered unless one says otherwise."""
    record: Mapping[str, Any]

    @property
    def loaded_as(self) -> str:
        """By what the model was loaded that it was had with."""
        return self.record["loaded_as"]

    def transcript(self, engine: Engine) -> Transcript:
        """Turns and corrections, their masks drawn again.

        Raises:
            ConversationError: it was had with another model, or the record contradicts itself.
            DeviceError: memory ran out.
        """
        try:
            self._refuse_other_model(engine)
            with telling_out_of_memory(engine.lisa.device):
                return _replay(self.record, self.picture, engine)
        except DAMAGED as error:
            raise _damaged(self.path, error) from error

    def _refuse_other_model(self, engine: Engine) -> None:
        pairs = list(zip(self.record["fingerprint"], engine.fingerprint(), strict=False))
        if len(self.record["fingerprint"]) != len(pairs) or not all(map(_is_alike, *zip(*pairs, strict=True))):
            raise ConversationError(
                f"{self.path} was had with another model, {self.record['model']}, than the one given, "
                f"{engine.lisa.config.model_name}; load it with that one"
            )


def write_conversation(
    folder: Path,
    engine: Engine,
    picture: SavedPicture,
    options: AskOptions,
    transcript: Transcript,
    answers: Iterable[Answer],
) -> list[Path]:
    """Writes a conversation and returns the paths; the record comes last and names the picture's digest.

    Raises:
        OutputError: a file cannot be written.
    """
    record = {
        "format": FORMAT,
        "model": engine.lisa.config.model_name,
        "loaded_as": engine.source,
        "fingerprint": engine.fingerprint(),
        "picture": {"file": _PICTURE_FILE, "digest": picture.digest, "source": picture.source},
        "options": asdict(options),
        "turns": [_turn_record(turn, answer) for turn, answer in zip(transcript.turns, answers, strict=True)],
        "log": [_log_record(done) for done in transcript.log],
    }
    buffer = io.BytesIO()
    Image.fromarray(picture.image).save(buffer, "PNG")
    make_folder(folder)
    write_atomic(folder / _PICTURE_FILE, buffer.getvalue())
    write_atomic(folder / _RECORD_FILE, json.dumps(record, indent=1, default=np.generic.item).encode())
    return [folder / _RECORD_FILE, folder / _PICTURE_FILE]


def read_conversation(folder: Path, limits: ImageLimits) -> SavedConversation:
    """Reads what `write_conversation` wrote.

    Raises:
        ConversationError: it is not there, or damaged.
        ImageError: the picture is missing or unreadable.
    """
    path = folder / _RECORD_FILE
    try:
        record = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConversationError(
            f"there is no saved conversation in {folder}: {_RECORD_FILE}: {error.strerror}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    try:
        if record["format"] != FORMAT:
            raise ValueError(f"its format is {record['format']!r}, expected {FORMAT!r}")
        known = {**record["picture"]}
        image_path, expected, source = folder / Path(known["file"]).name, known["digest"], str(known["source"])
        if "\0" in source:
            raise ValueError("its picture's name is no name")
        options = AskOptions(**record["options"])
        str(record["model"]), Path(record["loaded_as"])
    except DAMAGED as error:
        raise _damaged(path, error) from error
    image = read(image_path, limits)
    if digest(image) != expected:
        raise ConversationError(
            f"{image_path} is not the picture that {path} speaks of; get a whole copy of the folder"
        )
    return SavedConversation(
        path=path,
        picture=SavedPicture(image=image, digest=expected, source=source),
        options=options,
        record=record,
    )


def _turn_record(turn: Turn, answer: Answer) -> dict[str, Any]:
    """A turn: what brings it back, and for readers its words and its masks as they are now."""
    return {
        "question": turn.question,
        "text": answer.text,
        "token_ids": list(turn.token_ids),
        "first": turn.first,
        "options": asdict(turn.options),
        "prompts": [mask.drawn.prompt_C.tolist() for mask in turn.masks],
        "segments": [segment.to_dict() for segment in answer.segments],
        "dropped": [segment.to_dict() for segment in answer.dropped],
    }


def _log_record(done: Refinement | None) -> dict[str, Any] | None:
    """A correction, or None for a turn."""
    if done is None:
        return None
    return {"turn": done.turn, "index": done.index, "points": done.points, "box": done.box}


def _replay(record: Mapping[str, Any], picture: SavedPicture, engine: Engine) -> Transcript:
    """Does again what the log says, without asking the language model."""
    size = engine.processor.size(picture.image)
    seen = engine.see({picture.digest: picture.image}, Stopwatch(device=engine.lisa.device))[picture.digest]
    transcript, turns = Transcript(), iter(record["turns"])
    for done in record["log"]:
        if done is None:
            transcript.add(_turn(next(turns), engine, seen, len(transcript.turns)))
            continue
        points, box = checked_hand(picture.image, [tuple(point) for point in done["points"]], done["box"])
        mask = transcript.turns[done["turn"]].masks[done["index"]]
        after = add_by_hand(engine, mask, seen, size, points, box)
        transcript.refine(done["turn"], done["index"], after, points, box)
    if next(turns, None) is not None:
        raise ValueError("there are more turns than the log has")
    return transcript


def _turn(record: Mapping[str, Any], engine: Engine, seen: Pictures, number: int) -> Turn:
    tokenizer = engine.processor.tokenizer
    token_ids = tuple(record["token_ids"])
    if not all(type(token) is int and 0 <= token < len(tokenizer) for token in token_ids):
        raise ValueError("its token ids are not those of this model")
    prompts = torch.from_numpy(np.array(record["prompts"], np.float32).reshape(-1, engine.lisa.config.prompt_width))
    if len(prompts) != token_ids.count(tokenizer.seg_id) or not prompts.isfinite().all():
        raise ValueError("its prompts do not fit its words")
    if type(record["first"]) is not int or not 0 <= record["first"] <= number:
        raise ValueError(f"the oldest turn that turn {number} knows is {record['first']!r}")
    if not isinstance(record["question"], str) or not record["question"].strip():
        raise ValueError(f"turn {number} has no question")
    return Turn(
        question=record["question"],
        token_ids=token_ids,
        raw_text=tokenizer.decode(token_ids),
        first=record["first"],
        options=AskOptions(**record["options"]),
        masks=tuple(Mask(drawn=drawn.kept()) for drawn in draw_again(engine, list(prompts), seen)),
        timings={},
    )


def _is_alike(saved: Sequence[float], own: Sequence[float]) -> bool:
    """Whether these are the same numbers, but for what another precision makes of them."""
    one, other = np.array(saved, np.float64), np.array(own, np.float64)
    return one.shape == other.shape and bool(np.linalg.norm(one - other) <= _LIKE * np.linalg.norm(other))


def _damaged(path: Path, error: Exception) -> ConversationError:
    reason = f"{error} is missing" if isinstance(error, KeyError) else str(error) or type(error).__name__
    return ConversationError(f"{path} is no saved conversation, or was damaged: {reason}; get a whole copy of it")
