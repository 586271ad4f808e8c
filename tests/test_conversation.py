"""Conversations on the bundled nano and on the golden checkpoint: they remember, and cache nothing wrong."""

import asyncio
import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lisaseg.config import AskOptions, LoadOptions
from lisaseg.conversation import KEPT_WHEN_FULL, Conversation
from lisaseg.errors import ConversationError, DeviceError, ImageError, InstructionError
from lisaseg.model.answer import answer as answer_uncached
from lisaseg.model.engine import Engine
from lisaseg.model.lisa import Lisa
from lisaseg.model.stopwatch import Stopwatch
from lisaseg.segmenter import Segmenter
from lisaseg.values import Answer, Done, Event, SegmentReady, TextDelta

GOLDEN = Path(__file__).parent / "golden" / "llava_v1"
RECORD = json.loads((GOLDEN / "golden.json").read_text("utf-8"))
SCENE = Path(__file__).parents[1] / "examples" / "scene_1.jpg"
QUESTIONS = ("Segment the cat.", "What is it used for?", "And the dog?", "Segment the bird and the cat.")
GOLDEN_QUESTIONS = (
    "Can you segment the food that tastes spicy and hot?",
    "What is unusual here?",
    "Segment the left one, and the right one too.",
)
SHORT = AskOptions(max_new_tokens=12)


@pytest.fixture(scope="module")
def nano() -> Segmenter:
    return Segmenter.load()


@pytest.fixture(scope="module")
def golden() -> Segmenter:
    return Segmenter.load(GOLDEN / "checkpoint", device="cpu")


@pytest.fixture(params=["nano", "golden"])
def started(request: pytest.FixtureRequest) -> tuple[Conversation, tuple[str, ...]]:
    """A conversation on either model, and what to ask."""
    if request.param == "nano":
        return request.getfixturevalue("nano").start(SCENE), QUESTIONS
    return request.getfixturevalue("golden").start(GOLDEN / "scene0.png", SHORT), GOLDEN_QUESTIONS


@pytest.fixture
def conversation(nano: Segmenter) -> Conversation:
    return nano.start(SCENE)


@pytest.fixture
def read_lengths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of each pass through the language model."""
    lengths: list[int] = []
    read = Lisa.read
    monkeypatch.setattr(
        Lisa, "read", lambda self, x, *args, **kwargs: (lengths.append(x.shape[1]), read(self, x, *args, **kwargs))[1]
    )
    return lengths


def forbid(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Lets the test fail where a part of the network runs."""

    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"one of {names} ran")

    for name in names:
        monkeypatch.setattr(Lisa, name, fail)


def same(one: Answer, other: Answer, tolerance: float = 1e-4) -> None:
    assert one.raw_text == other.raw_text
    assert len(one.segments) == len(other.segments)
    for segment, twin in zip(one.segments, other.segments, strict=True):
        np.testing.assert_allclose(segment.logits, twin.logits, atol=tolerance, rtol=0)
        assert (segment.index, segment.phrase, segment.span) == (twin.index, twin.phrase, twin.span)
        assert segment.predicted_iou == pytest.approx(twin.predicted_iou, abs=tolerance)


class TestMemory:
    """What was said is in the prompt, and what was computed is not computed again."""

    def test_earlier_turns_are_in_the_prompt_by_the_template(
        self, started: tuple[Conversation, tuple[str, ...]]
    ) -> None:
        conversation, questions = started
        processor = conversation._engine.processor
        told: list[tuple[str, str | None]] = []
        for question in questions:
            prompt, first = conversation._prompt(question)
            assert first == 0
            spelled_again = processor.encode([*told, (question, None)])
            assert processor.tokenizer.decode(prompt) == processor.tokenizer.decode(spelled_again)
            if conversation._engine.source == "nano":  # says what its tokenizer would spell the same way
                assert prompt == spelled_again
            told.append((question, conversation.ask(question).raw_text))

    def test_an_answer_depends_on_what_was_said_before(self, conversation: Conversation, nano: Segmenter) -> None:
        conversation.ask("Segment the cat.")
        assert (
            conversation.ask("What is it used for?").text == "It is used for keeping people company and catching mice."
        )
        assert nano.start(SCENE).ask("What is it used for?").text != conversation.answers()[1].text

    def test_every_turn_equals_recomputing_from_the_start(self, started: tuple[Conversation, tuple[str, ...]]) -> None:
        conversation, questions = started
        engine = conversation._engine
        fresh = Conversation(engine, conversation.image, options=conversation.options)
        for question in questions:
            kept = conversation.ask(question)
            engine.cache.clear()
            same(kept, fresh.ask(question))

    def test_and_equals_the_whole_dialogue_without_any_cache(
        self, started: tuple[Conversation, tuple[str, ...]]
    ) -> None:
        conversation, questions = started
        engine = conversation._engine
        for question in questions:
            prompt, _ = conversation._prompt(question)
            kept = conversation.ask(question)
            inputs = engine.processor([conversation.image], [(0, [(question, None)])])
            whole = type(inputs)(
                token_ids_BL=torch.tensor([prompt]),
                attention_mask_BL=torch.ones(1, len(prompt), dtype=torch.long),
                picture_of_row_B=inputs.picture_of_row_B,
                pixels=inputs.pixels,
            )
            watch = Stopwatch(device=engine.lisa.device)
            (reply,) = answer_uncached(engine.lisa, engine.processor.tokenizer, whole, conversation.options, watch)
            assert tuple(reply.token_ids) == conversation.turns[-1].token_ids
            logits = engine.processor.restore(reply.logits_Nhw, inputs.pixels.sizes[0])
            for segment, expected in zip(kept.segments, logits.numpy(), strict=True):
                np.testing.assert_allclose(segment.logits, expected, atol=1e-4, rtol=0)

    def test_only_new_tokens_are_read(
        self, nano: Segmenter, conversation: Conversation, read_lengths: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        nano.cache_clear()
        conversation.ask(QUESTIONS[0])
        assert read_lengths[0] > nano.lisa.config.num_image_tokens
        forbid(monkeypatch, "see", "look")
        for question in QUESTIONS[1:]:
            before = len(conversation._prompt(question)[0])
            said = len(conversation.turns[-1].token_ids)
            read_lengths.clear()
            conversation.ask(question)
            new = nano.processor.encode_further(question)
            assert read_lengths[0] == len(new) + 1  # the end mark of the answer before
            assert set(read_lengths[1:]) == {1}
            assert before > said + len(new)

    def test_what_was_read_after_an_answer_was_cut_short_is_right(self, conversation: Conversation) -> None:
        conversation.ask(QUESTIONS[0], AskOptions(max_new_tokens=3))
        kept = conversation.ask(QUESTIONS[2])
        conversation.undo()
        conversation._engine.cache.clear()
        same(kept, conversation.ask(QUESTIONS[2]))

    def test_earlier_masks_are_not_drawn_again(self, golden: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
        conversation = golden.start(GOLDEN / "scene0.png", SHORT)
        assert len(conversation.ask(GOLDEN_QUESTIONS[2]).segments) == 2
        drawn: list[int] = []
        draw = Lisa.draw_prompts
        monkeypatch.setattr(
            Lisa, "draw_prompts", lambda self, x, *args: (drawn.append(len(x)), draw(self, x, *args))[1]
        )
        assert len(conversation.ask(GOLDEN_QUESTIONS[0]).segments) == sum(drawn)

    @pytest.mark.parametrize("case", RECORD["cases"], ids=lambda case: case["key"])
    def test_first_turns_are_what_the_original_answered(self, golden: Segmenter, case: dict[str, Any]) -> None:
        conversation = golden.start(GOLDEN / case["image"])
        found = conversation.ask(case["question"])
        said = case["output_ids"][len(case["prompt_ids"]) :]
        assert [*conversation.turns[0].token_ids, golden.processor.tokenizer.eos_id] == said
        assert [segment.area for segment in found.segments] == pytest.approx(case["mask_area"], abs=2)


class TestFull:
    """A prompt that is full."""

    LONGEST = 130

    @pytest.fixture
    def tight(self, tmp_path: Path) -> Conversation:
        segmenter = Segmenter.load()
        segmenter.processor.config.max_prompt_tokens = self.LONGEST
        return segmenter.start(SCENE)

    def test_the_oldest_turns_go_whole_and_the_answer_says_so(self, tight: Conversation) -> None:
        answers = [tight.ask(QUESTIONS[number % 4]) for number in range(12)]
        forgotten = [answer.forgotten for answer in answers]
        assert forgotten[0] == 0
        assert forgotten[-1] > 2
        assert forgotten == sorted(forgotten)
        assert answers[-1].to_dict()["forgotten"] == forgotten[-1]
        processor = tight._engine.processor
        prompt, first = tight._prompt("Segment the cat.")
        told = [(turn.question, turn.raw_text) for turn in tight.turns[first:]]
        assert prompt == processor.encode([*told, ("Segment the cat.", None)])
        assert len(prompt) <= 130

    def test_so_many_go_that_the_next_turns_need_not_read_all_again(
        self, tight: Conversation, read_lengths: list[int]
    ) -> None:
        from_the_picture_on = 0
        for number in range(12):
            prompt, first = tight._prompt(QUESTIONS[0])
            if first > (tight.turns[-1].first if tight.turns else 0):
                assert len(prompt) <= KEPT_WHEN_FULL * 130
                from_the_picture_on += 1
            read_lengths.clear()
            tight.ask(QUESTIONS[0])
            assert max(read_lengths) < tight._engine.processor.config.num_image_tokens or number == 0
        assert 1 <= from_the_picture_on <= 5  # of 12; one by one it would be 9

    def test_it_equals_recomputing_from_the_start(self, tight: Conversation) -> None:
        for number in range(10):
            kept = tight.ask(QUESTIONS[number % 4])
            tight.undo()
            tight._engine.cache.clear()
            again = tight.ask(QUESTIONS[number % 4])
            same(kept, again)
            assert kept.forgotten == again.forgotten
        assert again.forgotten > 0

    def test_a_question_that_fits_alone_is_answered_alone(self, tight: Conversation) -> None:
        tight.ask(QUESTIONS[0])
        long = "Segment the cat" + " and the cat" * 14 + "."
        assert KEPT_WHEN_FULL * 130 < len(tight._engine.processor.encode([(long, None)])) <= 130
        assert tight.ask(long, SHORT).forgotten == 1
        with pytest.raises(InstructionError, match="too long"):
            tight.ask(long * 2)
        assert len(tight.turns) == 2


class TestStream:
    """Answers word by word."""

    def test_words_and_masks_come_as_they_are_made(self, started: tuple[Conversation, tuple[str, ...]]) -> None:
        conversation, questions = started
        for question in questions:
            events = list(conversation.stream(question))
            *others, done = events
            assert isinstance(done, Done)
            assert "".join(event.text for event in others if isinstance(event, TextDelta)) == done.answer.text
            ready = [event.segment for event in others if isinstance(event, SegmentReady)]
            assert ready == list(done.answer.segments)
            assert done.answer.timings["total"] > 0

    def test_a_mask_comes_while_the_words_go_on(self, conversation: Conversation) -> None:
        names = [type(event).__name__ for event in conversation.stream("Segment the bird and the cat.")]
        masks = [place for place, name in enumerate(names) if name == "SegmentReady"]
        assert len(masks) == 2
        assert "TextDelta" in names[: masks[0]]
        assert "TextDelta" in names[masks[0] : masks[1]]

    def test_each_segment_is_tied_to_its_words(self, conversation: Conversation) -> None:
        answer = conversation.ask("Segment the bird and the cat.")
        for segment in answer.segments:
            assert segment.span
            assert answer.text[slice(*segment.span)].lower() == segment.phrase.lower()
        assert len({segment.span for segment in answer.segments}) == 2

    def test_it_may_be_given_up_at_any_moment(self, conversation: Conversation) -> None:
        whole = len(list(conversation.fork().stream(QUESTIONS[0])))
        for stop in range(whole):
            events = conversation.stream(QUESTIONS[0])
            for _ in range(stop):
                next(events)
            events.close()
            assert conversation.turns == ()
        with pytest.raises(ConversationError, match="nothing to undo"):
            conversation.undo()
        assert conversation.ask(QUESTIONS[0]).raw_text == conversation.fork().answer(0).raw_text

    def test_segments_of_an_answer_that_was_given_up_are_nobodys(self, conversation: Conversation) -> None:
        events = conversation.stream(QUESTIONS[0])
        ready = next(event for event in events if isinstance(event, SegmentReady))
        events.close()
        with pytest.raises(ConversationError, match="taken back"):
            conversation.refine(ready.segment, [(1, 1, 1)])

    @pytest.mark.parametrize("part", ["read", "draw_prompts", "look"])
    def test_a_failure_leaves_the_conversation_as_it_was(
        self, conversation: Conversation, monkeypatch: pytest.MonkeyPatch, part: str
    ) -> None:
        expected = conversation.fork().ask(QUESTIONS[0])
        conversation._engine.cache.clear()
        with monkeypatch.context() as broken:
            broken.setattr(Lisa, part, out_of_memory)
            with pytest.raises(DeviceError, match="out of memory"):
                conversation.ask(QUESTIONS[0])
        assert conversation.turns == ()
        same(conversation.ask(QUESTIONS[0]), expected)

    def test_two_answers_at_once_are_told_apart(self, conversation: Conversation) -> None:
        events = conversation.stream(QUESTIONS[0])
        next(events)
        conversation.ask(QUESTIONS[2])
        with pytest.raises(ConversationError, match="went on"):
            list(events)
        assert [turn.question for turn in conversation.turns] == [QUESTIONS[2]]


def out_of_memory(*args: object, **kwargs: object) -> None:
    raise torch.OutOfMemoryError


class TestAsync:
    """The same for asyncio."""

    def test_events_are_those_of_the_ordinary_stream(self, conversation: Conversation) -> None:
        async def collect() -> list[Event]:
            return [event async for event in conversation.fork().astream(QUESTIONS[0])]

        expected = list(conversation.fork().stream(QUESTIONS[0]))
        found = asyncio.run(collect())
        assert [type(event) for event in found] == [type(event) for event in expected]
        assert isinstance(found[-1], Done)
        assert isinstance(expected[-1], Done)
        same(found[-1].answer, expected[-1].answer)

    def test_cancelling_the_task_cancels_the_answer(self, conversation: Conversation) -> None:
        async def stop_after(number: int) -> None:
            heard = asyncio.Event()

            async def listen() -> None:
                count = 0
                async for _ in conversation.astream(QUESTIONS[0]):
                    count += 1
                    if count > number:
                        heard.set()
                        await asyncio.sleep(0)

            task = asyncio.create_task(listen())
            if number:
                await heard.wait()
            else:
                await asyncio.sleep(0)  # in the middle of its first step
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        for number in range(4):
            asyncio.run(stop_after(number))
            assert conversation.turns == ()
        assert len(conversation.ask(QUESTIONS[0]).segments) == 1

    def test_an_answer_that_takes_too_long_leaves_nothing_behind(self, conversation: Conversation) -> None:
        problems: list[dict[str, Any]] = []

        async def ask() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda loop, problem: problems.append(problem))
            async with asyncio.timeout(0.01):
                async for _ in conversation.astream(QUESTIONS[0]):
                    pass

        for _ in range(3):
            conversation._engine.cache.clear()
            with pytest.raises(TimeoutError):
                asyncio.run(ask())
        gc.collect()
        assert problems == []
        assert conversation.turns == ()

    def test_the_loop_is_free_meanwhile(self, conversation: Conversation) -> None:
        async def race() -> int:
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    ticks += 1
                    await asyncio.sleep(0)

            ticking = asyncio.create_task(tick())
            async for _ in conversation.astream(QUESTIONS[0]):
                pass
            ticking.cancel()
            return ticks

        assert asyncio.run(race()) > 20

    def test_mistakes_arrive(self, conversation: Conversation) -> None:
        async def ask() -> None:
            async for _ in conversation.astream(" "):
                pass

        with pytest.raises(InstructionError, match="empty"):
            asyncio.run(ask())


class TestTogether:
    """Several conversations in one batch."""

    def test_a_batch_answers_as_each_would_alone(self, nano: Segmenter) -> None:
        """Their pasts are of unequal length, and so are the new questions; one has none, one starts anew."""
        examples = sorted((SCENE.parent).glob("scene_*.jpg"))
        conversations = [nano.start(examples[number]) for number in (0, 1, 1, 2)]
        conversations[0].ask(QUESTIONS[0])
        conversations[1].ask(QUESTIONS[2])
        conversations[1].ask("What is it?")
        asks = [
            (conversation, question)
            for conversation, question in zip(conversations, (*QUESTIONS[1:], "Find the dog."), strict=True)
        ]
        alone = [conversation.fork().ask(question) for conversation, question in asks]
        together = nano.ask_batch(asks)
        for one, other in zip(alone, together, strict=True):
            same(one, other)
        assert [len(conversation.turns) for conversation in conversations] == [2, 3, 1, 1]
        following = [conversation.fork().ask("Segment the cat.") for conversation in conversations]
        nano.cache_clear()  # what the batch has read is as good as what each would have read
        for one, conversation in zip(following, conversations, strict=True):
            same(one, conversation.ask("Segment the cat."))

    def test_all_are_answered_or_none(self, nano: Segmenter) -> None:
        conversations = [nano.start(SCENE) for _ in range(2)]
        with pytest.raises(InstructionError, match="empty"):
            nano.ask_batch(list(zip(conversations, ("Segment the cat.", " "), strict=True)))
        assert [conversation.turns for conversation in conversations] == [(), ()]

    def test_a_conversation_is_there_once(self, nano: Segmenter, conversation: Conversation) -> None:
        with pytest.raises(ConversationError, match="each of another conversation"):
            nano.ask_batch([(conversation, "a"), (conversation, "b")])
        other = Segmenter.load().start(SCENE)
        with pytest.raises(ConversationError, match="of one model"):
            nano.ask_batch([(conversation, "a"), (other, "b")])
        with pytest.raises(ValueError, match="batch_size"):
            nano.ask_batch([(conversation, "a")], batch_size=0)


class TestOptions:
    """Sampling, and segments that do not count."""

    def test_drawing_is_decided_by_the_seed(self, conversation: Conversation) -> None:
        def sample(seed: int) -> str:
            options = AskOptions(temperature=3.0, seed=seed, max_new_tokens=12)
            return conversation.fork().ask(QUESTIONS[0], options).raw_text

        assert sample(1) == sample(1)
        assert len({sample(seed) for seed in range(6)}) > 3

    @pytest.mark.parametrize("temperature", [0.0, 1e-40, 1e-4])
    def test_what_is_cold_is_greedy(self, conversation: Conversation, temperature: float) -> None:
        cold = conversation.fork().ask(QUESTIONS[0], AskOptions(temperature=temperature, seed=8))
        assert cold.raw_text == conversation.ask(QUESTIONS[0]).raw_text

    def test_conversations_answer_by_their_own_options(self, nano: Segmenter) -> None:
        one, other = (nano.start(SCENE, AskOptions(min_area=area)) for area in (10**7, 10**7))
        answers = nano.ask_batch([(one, QUESTIONS[0]), (other, QUESTIONS[0])])
        assert [len(answer.dropped) for answer in answers] == [1, 1]
        different = [(one, QUESTIONS[0]), (nano.start(SCENE), QUESTIONS[0])]
        with pytest.raises(ConversationError, match="different options"):
            nano.ask_batch(different)
        assert [len(answer.dropped) for answer in nano.ask_batch(different, options=AskOptions())] == [0, 0]

    def test_what_is_likeliest_alone_is_what_is_drawn_from_little(self, conversation: Conversation) -> None:
        greedy = conversation.fork().ask(QUESTIONS[0])
        drawn = conversation.fork().ask(QUESTIONS[0], AskOptions(temperature=5.0, top_p=1e-6, seed=3))
        assert greedy.raw_text == drawn.raw_text

    def test_a_row_is_drawn_without_its_neighbours(self, nano: Segmenter) -> None:
        options = AskOptions(temperature=2.0, seed=5, max_new_tokens=10)
        asks = [(nano.start(SCENE), question) for question in QUESTIONS]
        together = nano.ask_batch(asks, options=options)
        alone = [nano.start(SCENE).ask(question, options) for question in QUESTIONS]
        assert [answer.raw_text for answer in together] == [answer.raw_text for answer in alone]

    def test_segments_that_do_not_count_are_listed(self, conversation: Conversation) -> None:
        (whole,) = conversation.fork().ask(QUESTIONS[0]).segments
        for options in (AskOptions(min_score=1.0), AskOptions(min_area=whole.area + 1)):
            events = list(conversation.fork().stream(QUESTIONS[0], options))
            assert not any(isinstance(event, SegmentReady) for event in events)
            assert isinstance(events[-1], Done)
            answer = events[-1].answer
            assert answer.segments == ()
            (dropped,) = answer.dropped
            assert dropped.area == whole.area
            assert answer.to_dict()["dropped"][0]["phrase"] == whole.phrase
        kept = AskOptions(min_score=whole.score, min_area=whole.area)
        assert conversation.ask(QUESTIONS[0], kept).dropped == ()

    def test_one_that_does_not_count_may_be_corrected_until_it_does(self, conversation: Conversation) -> None:
        area = conversation.fork().ask(QUESTIONS[0]).segments[0].area
        answer = conversation.ask(QUESTIONS[0], AskOptions(min_area=area + 1))
        conversation.refine(answer.dropped[0], box=(0, 0, 480, 480))
        assert len(conversation.answer(0).segments) == (conversation.answer(0).union().sum() > area)


class TestRefine:
    """Masks corrected by hand."""

    def test_no_more_than_the_mask_decoder_runs(
        self, conversation: Conversation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (segment,) = conversation.ask(QUESTIONS[0]).segments
        forbid(monkeypatch, "read", "see", "look")
        assert conversation.refine(segment, [(10, 10, 1)]).area != segment.area

    def test_a_click_inside_adds_and_one_outside_removes(self, conversation: Conversation) -> None:
        (segment,) = conversation.ask(QUESTIONS[0]).segments
        outside, inside = farthest(~segment.mask), farthest(segment.mask)
        more = conversation.fork().refine(segment, [(*outside, 1)])
        assert more.mask[outside[::-1]]
        less = conversation.refine(segment, [(*inside, -1)])
        assert not less.mask[inside[::-1]]
        assert less.area < segment.area

    def test_clicks_add_up(self, conversation: Conversation) -> None:
        (segment,) = conversation.ask(QUESTIONS[0]).segments
        one = conversation.refine(segment, [(20, 30, 1)])
        two = conversation.refine(one, [(300, 200, -1)])
        mask = conversation.turns[0].masks[0]
        assert mask.points == ((20, 30, 1), (300, 200, -1))
        conversation.undo()
        again = conversation.refine(segment, [(300, 200, -1)])  # an older name of the same mask
        np.testing.assert_array_equal(again.logits, two.logits)
        assert (again.index, again.phrase, again.span) == (segment.index, segment.phrase, segment.span)

    def test_answers_show_masks_as_they_are_now(self, conversation: Conversation) -> None:
        (segment,) = conversation.ask(QUESTIONS[0]).segments
        refined = conversation.refine(segment, [(20, 30, 1)], box=(0, 0, 300, 460))
        np.testing.assert_array_equal(conversation.answer(0).segments[0].logits, refined.logits)
        conversation.undo()
        np.testing.assert_array_equal(conversation.answer(0).segments[0].logits, segment.logits)
        assert conversation.turns[0].masks[0].box is None

    def test_words_and_cache_are_as_before(self, conversation: Conversation) -> None:
        twin = conversation.fork()
        (segment,) = conversation.ask(QUESTIONS[0]).segments
        conversation.refine(segment, [(20, 30, 1)])
        twin.ask(QUESTIONS[0])
        same(conversation.ask(QUESTIONS[2]), twin.ask(QUESTIONS[2]))

    @pytest.mark.parametrize(
        ("points", "box", "message"),
        [
            ([], None, "nothing to refine with"),
            ([(480, 0, 1)], None, r"\(480, 0\) is not in the picture, which is 480x480"),
            ([(0, -1, 1)], None, "is not in the picture"),
            ([(float("nan"), 1, 1)], None, "is not in the picture"),
            ([(1, 1, 0)], None, r"\+1 \(inside\) or -1 \(outside\), got 0"),
            ([], (10, 10, 10, 20), "is not x0, y0, x1, y1 in the picture"),
            ([], (10, 10, 500, 20), "is not x0, y0, x1, y1 in the picture"),
        ],
    )
    def test_what_is_not_in_the_picture_is_refused(
        self, conversation: Conversation, points: list, box: tuple | None, message: str
    ) -> None:
        (segment,) = conversation.ask(QUESTIONS[0]).segments
        with pytest.raises(InstructionError, match=message):
            conversation.refine(segment, points, box)
        conversation.undo()
        assert conversation.turns == ()

    def test_segments_of_others_are_refused(self, conversation: Conversation, nano: Segmenter) -> None:
        (strange,) = nano.start(SCENE.with_name("scene_2.jpg")).ask("Find the sheep.").segments
        (taken_back,) = conversation.ask(QUESTIONS[0]).segments
        conversation.undo()
        conversation.ask(QUESTIONS[0])
        for segment in (strange, taken_back, nano.segment(SCENE, QUESTIONS[0]).segments[0]):
            with pytest.raises(ConversationError, match="of another conversation"):
                conversation.refine(segment, [(1, 1, 1)])

    def test_the_golden_model_refines_too(self, golden: Segmenter) -> None:
        conversation = golden.start(GOLDEN / "scene0.png")
        (segment,) = conversation.ask(GOLDEN_QUESTIONS[0]).segments
        refined = conversation.refine(segment, [(30, 40, 1)], box=(10, 10, 200, 200))
        assert refined.logits.shape == segment.logits.shape
        assert not np.array_equal(refined.logits, segment.logits)


def farthest(inside: np.ndarray) -> tuple[int, int]:
    """(x, y) of the pixel that is deepest inside."""
    import cv2

    depth = cv2.distanceTransform(np.pad(inside, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return int(x), int(y)


class TestForkUndoClose:
    """Ways through a conversation."""

    def test_a_fork_goes_its_own_way(self, conversation: Conversation) -> None:
        (segment,) = conversation.ask(QUESTIONS[0]).segments
        twin = conversation.fork()
        twin.ask(QUESTIONS[1])
        twin.refine(segment, [(5, 5, 1)])
        assert len(conversation.turns) == 1
        assert conversation.turns[0].masks[0].points == ()
        assert len(twin.turns) == 2

    def test_undo_takes_back_one_thing_at_a_time(self, conversation: Conversation) -> None:
        (segment,) = conversation.ask(QUESTIONS[0]).segments
        conversation.refine(segment, [(5, 5, 1)])
        conversation.ask(QUESTIONS[1])
        conversation.undo()
        assert [len(turn.masks[0].points) for turn in conversation.turns] == [1]
        conversation.undo()
        assert [len(turn.masks[0].points) for turn in conversation.turns] == [0]
        conversation.undo()
        assert conversation.turns == ()

    def test_a_question_after_undo_is_answered_as_if_nothing_had_been(self, conversation: Conversation) -> None:
        fresh = conversation.fork().ask("Segment the dog.")
        conversation.ask(QUESTIONS[0])
        conversation.ask(QUESTIONS[1])
        conversation.undo()
        conversation.undo()
        same(conversation.ask("Segment the dog."), fresh)

    def test_nothing_can_be_done_after_the_end(self, conversation: Conversation, tmp_path: Path) -> None:
        (segment,) = conversation.ask(QUESTIONS[0]).segments
        with conversation:
            pass
        doings: list[Callable[[], object]] = [
            lambda: conversation.ask("And the dog?"),
            lambda: list(conversation.stream("And the dog?")),
            lambda: conversation.refine(segment, [(1, 1, 1)]),
            conversation.undo,
            conversation.fork,
            lambda: conversation.save(tmp_path),
        ]
        for do in doings:
            with pytest.raises(ConversationError, match="closed; start another"):
                do()
        assert len(conversation.answers()) == 1

    def test_a_picture_is_nobodys_to_change(self, nano: Segmenter) -> None:
        image = np.zeros((30, 40, 3), np.uint8)
        conversation = nano.start(image)
        with pytest.raises(ValueError, match="read-only"):
            conversation.image[0] = 1
        with pytest.raises(ImageError, match="does not exist"):
            nano.start("nowhere.jpg")


class TestSaved:
    """Conversations in folders."""

    @pytest.fixture
    def saved(self, conversation: Conversation, tmp_path: Path) -> Path:
        (segment,) = conversation.ask(QUESTIONS[0]).segments
        refined = conversation.refine(segment, [(20, 30, 1)])
        conversation.ask(QUESTIONS[1], AskOptions(temperature=0.5, seed=4))
        conversation.refine(refined, [(40, 300, -1)], box=(10, 10, 300, 470))
        conversation.ask("Segment the bird and the cat.")
        conversation.save(tmp_path / "talk")
        return tmp_path / "talk"

    def test_it_goes_on_where_it_ended(self, nano: Segmenter, conversation: Conversation, saved: Path) -> None:
        nano.cache_clear()
        resumed = nano.resume(saved)
        assert resumed.source == str(SCENE)
        for one, other in zip(conversation.answers(), resumed.answers(), strict=True):
            same(one, other, tolerance=1e-5)
        same(conversation.ask("And the dog?"), resumed.ask("And the dog?"))
        for _ in range(5):
            conversation.undo()
            resumed.undo()
            assert [turn.masks[0].points for turn in resumed.turns if turn.masks] == [
                turn.masks[0].points for turn in conversation.turns if turn.masks
            ]
            for one, other in zip(conversation.answers(), resumed.answers(), strict=True):
                same(one, other, tolerance=1e-5)

    def test_saving_it_again_writes_the_same(self, nano: Segmenter, saved: Path, tmp_path: Path) -> None:
        nano.resume(saved).save(tmp_path / "again")
        for name in ("conversation.json", "picture.png"):
            assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes()

    def test_people_can_read_it(self, saved: Path) -> None:
        record = json.loads((saved / "conversation.json").read_text("utf-8"))
        first = record["turns"][0]
        assert first["question"] == QUESTIONS[0]
        assert "the cat" in first["text"]
        assert first["segments"][0]["phrase"] == "the cat"
        assert sorted(path.name for path in saved.iterdir()) == ["conversation.json", "picture.png"]

    def test_it_brings_its_model_along(self, saved: Path) -> None:
        assert Conversation.load(saved).ask("Segment the dog.", SHORT).model == "nano"

    def test_or_is_given_one(self, nano: Segmenter, saved: Path) -> None:
        assert Conversation.load(saved, nano)._engine is Conversation.load(saved, nano.engine)._engine is nano.engine

    def test_another_model_is_refused(self, golden: Segmenter, saved: Path, talking_model: str) -> None:
        for other in (golden, Segmenter.load(talking_model)):
            with pytest.raises(ConversationError, match="had with another model, nano, than the one given"):
                other.resume(saved)

    @pytest.mark.parametrize("part", ["projection.2.bias", "segmenter.mask_decoder.mask_tokens.weight"])
    def test_another_training_of_the_same_model_is_refused(self, saved: Path, part: str) -> None:
        other = Segmenter.load()
        with torch.no_grad():
            other.lisa.get_parameter(part).mul_(1.05)
        with pytest.raises(ConversationError, match="had with another model"):
            other.resume(saved)

    def test_memory_that_runs_out_is_told(self, nano: Segmenter, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        nano.cache_clear()
        monkeypatch.setattr(Lisa, "look", out_of_memory)
        with pytest.raises(DeviceError, match="out of memory"):
            nano.resume(saved)

    def test_its_options_are_kept(self, nano: Segmenter, tmp_path: Path) -> None:
        options = AskOptions(seed=int(np.int64(3)), temperature=0.5, min_area=7)
        nano.start(SCENE, options).save(tmp_path)
        assert nano.resume(tmp_path).options == options

    def test_its_model_is_found_from_elsewhere(
        self, talking_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(Path(talking_model).parent)
        Segmenter.load(Path(talking_model).name).start(SCENE).save(tmp_path / "talk")
        monkeypatch.chdir(tmp_path)
        assert Conversation.load("talk").turns == ()

    def test_another_precision_of_the_same_model_is_fine(self, saved: Path) -> None:
        assert len(Segmenter.load(dtype="bf16").resume(saved).turns) == 3

    @pytest.mark.parametrize("keep", [0, 1, 100, -2])
    def test_a_file_that_was_cut_off_is_told(self, nano: Segmenter, saved: Path, keep: int) -> None:
        path = saved / "conversation.json"
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(ConversationError, match="is no saved conversation, or was damaged"):
            nano.resume(saved)

    DAMAGES: tuple[Callable[[dict[str, Any]], object], ...] = (
        lambda record: record.pop("format"),
        lambda record: record.update(format="lisaseg conversation 99"),
        lambda record: record.pop("picture"),
        lambda record: record.update(picture=3),
        lambda record: record.update(fingerprint=[["no"]]),
        lambda record: record.update(fingerprint=[]),
        lambda record: record.update(options={"seed": -1}),
        lambda record: record["picture"].update(source="a\0b"),
        lambda record: record.update(loaded_as=None),
        lambda record: record.pop("turns"),
        lambda record: record.update(turns=[3]),
        lambda record: record["turns"].append(record["turns"][0]),
        lambda record: record["turns"].pop(),
        lambda record: record["turns"][0].update(token_ids=[10**9]),
        lambda record: record["turns"][0].update(token_ids=["a"]),
        lambda record: record["turns"][0].update(prompts=[]),
        lambda record: record["turns"][0].update(prompts=[[0.0]]),
        lambda record: record["turns"][0]["prompts"][0].__setitem__(0, float("nan")),
        lambda record: record["turns"][0].update(first=7),
        lambda record: record["turns"][0].update(question=""),
        lambda record: record["turns"][0].update(options={"volume": 11}),
        lambda record: record["turns"][0]["options"].update(top_p=7),
        lambda record: record.pop("log"),
        lambda record: record["log"].append({"turn": 9, "index": 0, "points": [[1, 1, 1]], "box": None}),
        lambda record: record["log"][1].update(points=[[9999, 1, 1]]),
        lambda record: record["log"][1].update(points=[[1, 1]]),
        lambda record: record["log"][1].update(box=[1]),
    )

    @pytest.mark.parametrize("damage", DAMAGES, ids=range(len(DAMAGES)))
    def test_what_was_changed_is_told(
        self, nano: Segmenter, saved: Path, damage: Callable[[dict[str, Any]], object]
    ) -> None:
        path = saved / "conversation.json"
        record = json.loads(path.read_text("utf-8"))
        damage(record)
        path.write_text(json.dumps(record))
        with pytest.raises(ConversationError, match=r"conversation\.json is no saved conversation, or was damaged"):
            nano.resume(saved)

    def test_a_folder_without_one_is_told(self, nano: Segmenter, saved: Path, tmp_path: Path) -> None:
        with pytest.raises(ConversationError, match="there is no saved conversation in"):
            nano.resume(tmp_path / "nowhere")
        (saved / "picture.png").write_bytes((saved / "picture.png").read_bytes()[:900])
        with pytest.raises(ImageError):
            nano.resume(saved)
        (saved / "picture.png").unlink()
        with pytest.raises(ImageError, match="does not exist"):
            nano.resume(saved)

    def test_another_picture_is_told(self, nano: Segmenter, saved: Path) -> None:
        nano.start(SCENE.with_name("scene_2.jpg")).save(saved / "other")
        (saved / "picture.png").write_bytes((saved / "other" / "picture.png").read_bytes())
        with pytest.raises(ConversationError, match="is not the picture that"):
            nano.resume(saved)


class TestBudget:
    """What is remembered stays within its bytes."""

    def test_idle_conversations_share_a_budget(self) -> None:
        nano = Segmenter.load(cache_mb=4)
        rng = np.random.default_rng(0)
        conversations = [nano.start(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)) for _ in range(12)]
        for conversation in conversations:
            conversation.ask("Segment the dog.", SHORT)
        info = nano.cache_info()
        assert info.budget_bytes == 4_000_000
        assert 2_000_000 < info.bytes <= 4_000_000
        assert info.evictions > 0
        assert info.pictures + info.contexts < 24
        expected = Segmenter.load().start(conversations[0].image)
        expected.ask("Segment the dog.", SHORT)
        same(conversations[0].ask("And the cat?", SHORT), expected.ask("And the cat?", SHORT))

    def test_a_budget_below_nothing_is_refused(self) -> None:
        with pytest.raises(ValueError, match="cache_mb must be at least 0, got -1"):
            Segmenter.load(cache_mb=-1)

    def test_a_conversation_that_outgrows_it_keeps_its_beginning(self, read_lengths: list[int]) -> None:
        nano = Segmenter.load(cache_mb=1)
        conversation = nano.start(SCENE)
        for _ in range(5):  # 6 kB a token: four turns are too many
            conversation.ask(QUESTIONS[0])
        assert nano.cache_info().contexts == 1
        read_lengths.clear()
        conversation.ask(QUESTIONS[0])
        assert 1 < max(read_lengths) < len(conversation._prompt(QUESTIONS[0])[0]) - nano.lisa.config.num_image_tokens

    def test_what_a_batch_leaves_is_no_more_than_is_counted(self) -> None:
        nano = Segmenter.load()
        conversations = [nano.start(SCENE), nano.start(SCENE.with_name("scene_2.jpg"))]
        nano.ask_batch([(conversations[0], QUESTIONS[0]), (conversations[1], "Find the small brown sheep there.")])
        pasts = [nano.engine.cache.past(one._digest, one._prompt("And the cat?")[0]) for one in conversations]
        for past in pasts:
            assert past is not None
            held = sum(part.untyped_storage().nbytes() for layer in past.layers for part in layer)
            assert held <= 1.1 * past.nbytes + 6144 * 4  # a cut looks at a little more than it shows

    def test_a_budget_of_nothing_remembers_nothing(self) -> None:
        nano = Segmenter.load(cache_mb=0)
        conversation = nano.start(SCENE)
        conversation.ask(QUESTIONS[0])
        assert conversation.ask(QUESTIONS[1]).text.startswith("It is used for")
        assert nano.cache_info().bytes == 0

    def test_a_second_conversation_about_the_same_picture_is_spared_its_encoding(
        self, nano: Segmenter, monkeypatch: pytest.MonkeyPatch, read_lengths: list[int]
    ) -> None:
        nano.cache_clear()
        nano.start(SCENE).ask(QUESTIONS[0])
        forbid(monkeypatch, "see", "look")
        read_lengths.clear()
        before = nano.cache_info()
        nano.start(SCENE.read_bytes()).ask("Find the bird.")
        assert max(read_lengths) < nano.lisa.config.num_image_tokens
        assert nano.cache_info().hits == before.hits + 2


def test_an_engine_may_be_loaded_by_itself() -> None:
    engine = Engine.load("nano", LoadOptions(device="cpu"))
    image = np.zeros((20, 30, 3), np.uint8)
    assert Conversation(engine, image, options=SHORT).ask("Segment the dog.").source == "image"


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    """Sums depend on how many threads share them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
