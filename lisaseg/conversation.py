"""Many turns over one picture: what was said is remembered, words come as they are said, masks may be corrected."""

import asyncio
from collections.abc import AsyncIterator, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from lisaseg.config import AskOptions, ImageLimits, LoadOptions
from lisaseg.errors import ConversationError
from lisaseg.images.read import digest
from lisaseg.language.wording import Narrator, phrases, spans, strip_seg
from lisaseg.model.answer import Drawn, Question, Said, converse
from lisaseg.model.engine import Engine
from lisaseg.model.memory import telling_out_of_memory
from lisaseg.model.segments import make_segments, sift
from lisaseg.model.stopwatch import Stopwatch
from lisaseg.saved import SavedPicture, read_conversation, write_conversation
from lisaseg.transcript import Box, Mask, Point, Transcript, Turn, add_by_hand, checked_hand
from lisaseg.values import Answer, Done, Event, Segment, SegmentReady, TextDelta

KEPT_WHEN_FULL = 0.75
"""Share of the longest prompt that is left when the oldest turns go: to forget them one by one would mean to read
everything else anew in every turn."""


@runtime_checkable
class HasEngine(Protocol):
    """Whatever holds a loaded model, such as a `Segmenter`."""

    @property
    def engine(self) -> Engine:
        """The loaded model."""
        ...


class Conversation:
    """Questions and answers about one picture.

    It holds words, small masks and the picture; what the network has read lies in the model's cache, within its
    budget, and is read anew where it had to go.
    """

    def __init__(
        self,
        engine: Engine,
        image: UInt8[np.ndarray, "H W 3"],
        *,
        source: str = "image",
        options: AskOptions | None = None,
        transcript: Transcript | None = None,
    ):
        """Starts one over an upright RGB picture; most callers use `Segmenter.start`."""
        self.image = image.view()
        self.image.flags.writeable = False  # every answer shows it
        self.source = source
        self.options = options or AskOptions()
        self._engine = engine
        self._transcript = transcript or Transcript()
        self._digest = digest(image)
        self._size = engine.processor.size(image)
        self._places: WeakKeyDictionary[Segment, tuple[int, int]] = WeakKeyDictionary()
        """For each segment that was given, its turn and its place there."""
        self._version = 0
        """Counts what was done."""
        self._is_closed = False

    @property
    def turns(self) -> tuple[Turn, ...]:
        """What was asked and answered so far."""
        return tuple(self._transcript.turns)

    def ask(self, text: str, options: AskOptions | None = None) -> Answer:
        """Answers one more question; everything before it is remembered.

        Raises:
            ConversationError: the conversation is closed.
            DeviceError: memory ran out.
            InstructionError: the question is empty or too long.
        """
        return ask_together([(self, text)], options or self.options)[0]

    def stream(self, text: str, options: AskOptions | None = None) -> Generator[Event]:
        """The same word by word: `TextDelta`s, a `SegmentReady` as soon as each mask is drawn, and last `Done`.

        Whoever stops listening, or calls `close()` on the iterator, cancels the answer: the conversation is then as it
        was before the question. Raises what `ask` raises.
        """
        for _, event in _answers([(self, text)], options or self.options):
            yield self._committed(event)

    async def astream(self, text: str, options: AskOptions | None = None) -> AsyncIterator[Event]:
        """The same for asyncio; each step runs in a thread, and cancelling the task cancels the answer."""
        events = _answers([(self, text)], options or self.options)
        loop = asyncio.get_running_loop()
        while True:
            step = loop.run_in_executor(None, _next, events)
            try:
                item = await asyncio.shield(step)
            except asyncio.CancelledError:  # nothing stops a step, but it is the last one, and nobody hears its outcome
                step.add_done_callback(lambda done: done.cancelled() or done.exception())
                raise
            if item is None:
                return
            yield self._committed(item[1])

    def refine(self, segment: Segment, points: Sequence[Point] = (), box: Box | None = None) -> Segment:
        """Corrects a mask by hand; the language model is not asked.

        Args:
            segment: one that this conversation gave, in any answer or from `refine`.
            points: (x, y, sign) in pixels of the picture: +1 says that the place is inside, -1 that it is outside. They
                add to those of earlier corrections of the same segment.
            box: xyxy in pixels of the picture, around the thing; it replaces an earlier one.

        Returns:
            The segment as it is now; `answers()` has it too.

        Raises:
            ConversationError: the conversation is closed, or the segment is not of it or was taken back.
            InstructionError: a point or the box is not in the picture, or there is neither.
        """
        self._refuse_closed()
        turn, index = self._place_of(segment)
        points, box = checked_hand(self.image, points, box)
        watch = Stopwatch(device=self._engine.lisa.device)
        with telling_out_of_memory(watch.device):
            picture = self._engine.see({self._digest: self.image}, watch)[self._digest]
            after = add_by_hand(self._engine, self.turns[turn].masks[index], picture, self._size, points, box)
            logits = self._restored([after.drawn])[0]
        self._transcript.refine(turn, index, after, points, box)
        self._version += 1
        refined = replace(segment, logits=logits, predicted_iou=after.drawn.predicted_iou)
        self._places[refined] = turn, index
        return refined

    def answers(self) -> list[Answer]:
        """All answers, with their masks as they are now."""
        return [self.answer(number) for number in range(len(self.turns))]

    def answer(self, number: int) -> Answer:
        """One answer, from 0 or, below it, from the end, with its masks as they are now.

        Raises:
            IndexError: there are fewer turns.
        """
        turn = self._transcript.turns[number]
        drawn = [mask.drawn for mask in turn.masks]
        ious = [mask.predicted_iou for mask in drawn]
        segments = make_segments(self._restored(drawn), ious, turn.raw_text, turn.question)
        answer = self._worded(turn, *sift(segments, turn.options))
        self._hand_out(answer, number % len(self.turns))
        return answer

    def undo(self) -> None:
        """Takes back what was done last: a question with its answer, or a correction.

        Raises:
            ConversationError: there is nothing, or the conversation is closed.
        """
        self._refuse_closed()
        if not self._transcript.log:
            raise ConversationError("there is nothing to undo: nothing was asked yet")
        self._transcript.undo()
        self._version += 1
        for segment, (turn, _) in tuple(self._places.items()):
            if turn >= len(self.turns):
                del self._places[segment]

    def fork(self) -> "Conversation":
        """Another conversation that starts with the same turns and goes its own way.

        Raises:
            ConversationError: the conversation is closed.
        """
        self._refuse_closed()
        twin = Conversation(
            self._engine, self.image, source=self.source, options=self.options, transcript=self._transcript.copy()
        )
        twin._places.update(self._places)
        return twin

    def save(self, folder: str | Path) -> list[Path]:
        """Writes `conversation.json` and `picture.png` to a folder, made where it is missing; returns their paths.

        Raises:
            ConversationError: the conversation is closed.
            OutputError: a file cannot be written; each is whole or not there.
        """
        self._refuse_closed()
        picture = SavedPicture(image=self.image, digest=self._digest, source=self.source)
        answers = map(self.answer, range(len(self.turns)))  # one at a time: masks at the picture's size are large
        return write_conversation(Path(folder), self._engine, picture, self.options, self._transcript, answers)

    @classmethod
    def load(
        cls, folder: str | Path, model: "Engine | HasEngine | None" = None, limits: ImageLimits | None = None
    ) -> "Conversation":
        """Takes up a conversation that `save` wrote, with a `Segmenter`, or by default with the model it was had with.

        Raises:
            CheckpointError: that model cannot be found or read.
            ConversationError: the files are damaged, or of another model than the one given.
            ImageError: the picture is missing or unreadable.
        """
        saved = read_conversation(Path(folder), limits or ImageLimits())
        if model is None:
            model = Engine.load(saved.loaded_as, LoadOptions())
        engine = model if isinstance(model, Engine) else model.engine
        transcript = saved.transcript(engine)
        picture = saved.picture
        return cls(engine, picture.image, source=picture.source, options=saved.options, transcript=transcript)

    def close(self) -> None:
        """Ends it; nothing can be asked any more."""
        self._is_closed = True

    def __enter__(self) -> "Conversation":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise ConversationError("this conversation is closed; start another one")

    def _prompt(self, text: str) -> tuple[list[int], int]:
        """Token ids of all turns that fit and the new question, and the index of the first of them."""
        turns, limit = self._transcript.turns, self._engine.processor.config.max_prompt_tokens
        first = turns[-1].first if turns else 0
        ids = self._rendered(first, text)
        if len(ids) > limit:
            while first < len(turns) and len(ids) > KEPT_WHEN_FULL * limit:
                first += 1
                ids = self._rendered(first, text)
        return ids, first

    def _rendered(self, first: int, text: str) -> list[int]:
        """Answers are rendered by the tokens that were said: another spelling of them would have to be read anew."""
        processor, turns = self._engine.processor, self._transcript.turns[first:]
        questions = [*(turn.question for turn in turns), text]
        ids = processor.encode([(questions[0], None)])
        for turn, question in zip(turns, questions[1:], strict=True):
            ids += [*turn.token_ids, processor.tokenizer.eos_id, *processor.encode_further(question)]
        return ids

    def _committed(self, item: "_Item") -> Event:
        """What a listener gets; a finished answer becomes part of the conversation."""
        if not isinstance(item, _Finished):
            return item
        self._refuse_stale(item)
        self._transcript.add(item.turn)
        self._version += 1
        self._hand_out(item.answer, len(self.turns) - 1)
        return Done(answer=item.answer)

    def _refuse_stale(self, item: "_Finished") -> None:
        if self._is_closed or item.version != self._version:
            raise ConversationError("the conversation went on or was closed while this answer was given; ask again")

    def _hand_out(self, answer: Answer, turn: int) -> None:
        """From now on the answer's segments can be refined."""
        self._places.update((segment, (turn, segment.index)) for segment in (*answer.segments, *answer.dropped))

    def _restored(self, drawn: Sequence[Drawn]) -> list[Float32[np.ndarray, "H W"]]:
        """Mask logits at the picture's size."""
        if not drawn:
            return []
        logits = self._engine.processor.restore(torch.stack([mask.logits_hw for mask in drawn]), self._size)
        return list(logits.cpu().numpy())

    def _worded(self, turn: Turn, segments: tuple[Segment, ...], dropped: tuple[Segment, ...]) -> Answer:
        return Answer(
            image=self.image,
            source=self.source,
            model=self._engine.lisa.config.model_name,
            instruction=turn.question,
            text=strip_seg(turn.raw_text),
            raw_text=turn.raw_text,
            segments=segments,
            dropped=dropped,
            forgotten=turn.first,
            timings=turn.timings,
        )

    def _place_of(self, segment: Segment) -> tuple[int, int]:
        if segment not in self._places:
            raise ConversationError(
                "this segment is of another conversation, or of an answer that was taken back; "
                "refine one that this conversation gave"
            )
        return self._places[segment]


def ask_together(asks: Sequence[tuple[Conversation, str]], options: AskOptions | None) -> list[Answer]:
    """Answers a question in each of several conversations of one model, as a batch; all of them or none.

    Without options, those of the conversations, which must then be the same.

    Raises:
        ConversationError: one is closed, is there twice, or is of another model.
        DeviceError: memory ran out.
        InstructionError: a question is empty or too long.
    """
    if options is None:
        options = asks[0][0].options
        if any(conversation.options != options for conversation, _ in asks):
            raise ConversationError("these conversations have different options; say which are to be used")
    finished = [(row, item) for row, item in _answers(asks, options) if isinstance(item, _Finished)]
    for row, item in finished:
        asks[row][0]._refuse_stale(item)
    for row, item in finished:
        asks[row][0]._committed(item)
    return [item.answer for _, item in finished]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Finished:
    """An answer that is not yet part of its conversation, and what had been done there when it was asked for."""

    answer: Answer
    turn: Turn
    version: int


_Item = TextDelta | SegmentReady | _Finished


def _answers(asks: Sequence[tuple[Conversation, str]], options: AskOptions) -> Generator[tuple[int, _Item]]:
    """What comes of each row, word by word, and at the end all that is finished, in order."""
    conversations = [conversation for conversation, _ in asks]
    engine = conversations[0]._engine
    if len(set(conversations)) < len(asks) or any(one._engine is not engine for one in conversations):
        raise ConversationError("questions that are asked together are each of another conversation and of one model")
    watch = Stopwatch(device=engine.lisa.device)
    with telling_out_of_memory(watch.device):
        with watch.stage("prepare"):
            writers = [_Writer(conversation, text, options) for conversation, text in asks]
        pictures = engine.see({one._digest: one.image for one in conversations}, watch)
        questions = [
            Question(ids=writer.ids, digest=one._digest, picture=pictures[one._digest])
            for one, writer in zip(conversations, writers, strict=True)
        ]
        for said in converse(engine, questions, options, watch):
            for event in writers[said.row].write(said, watch):
                yield said.row, event
        for row, writer in enumerate(writers):
            yield from ((row, item) for item in writer.finish(watch.share(len(asks))))


def _next(items: Iterator[tuple[int, _Item]]) -> tuple[int, _Item] | None:
    return next(items, None)


class _Writer:
    """One answer while it is being given."""

    def __init__(self, conversation: Conversation, text: str, options: AskOptions):
        conversation._refuse_closed()
        self.ids, self._first = conversation._prompt(text)
        self._conversation, self._text, self._options = conversation, text, options
        self._version = conversation._version
        self._narrator = Narrator()
        self._token_ids: list[int] = []
        self._raw_text = ""
        self._drawn: list[Drawn] = []
        self._segments: list[Segment] = []

    def write(self, said: Said, watch: Stopwatch) -> Iterator[TextDelta | SegmentReady]:
        """Takes one more token; yields the words and the segment that it makes certain."""
        self._token_ids.append(said.token)
        self._raw_text = self._conversation._engine.processor.tokenizer.decode(self._token_ids)
        if words := self._narrator.tell(self._raw_text):
            yield TextDelta(text=words)
        if said.drawn is None:
            return
        self._drawn.append(said.drawn)
        with watch.stage("restore"):
            segment = Segment(
                index=len(self._segments),
                phrase=phrases(self._raw_text, self._text)[-1],
                span=spans(self._raw_text)[-1],
                logits=self._conversation._restored([said.drawn])[0],
                predicted_iou=said.drawn.predicted_iou,
            )
        self._segments.append(segment)
        if segment in sift([segment], self._options)[0]:
            yield SegmentReady(segment=segment)

    def finish(self, timings: Mapping[str, float]) -> Iterator[TextDelta | _Finished]:
        """The last words, and the answer."""
        if words := self._narrator.finish(self._raw_text):
            yield TextDelta(text=words)
        turn = Turn(
            question=self._text,
            token_ids=tuple(self._token_ids),
            raw_text=self._raw_text,
            first=self._first,
            options=self._options,
            masks=tuple(Mask(drawn=drawn.kept()) for drawn in self._drawn),
            timings=timings,
        )
        answer = self._conversation._worded(turn, *sift(self._segments, self._options))
        yield _Finished(answer=answer, turn=turn, version=self._version)
