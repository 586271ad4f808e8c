import pickle
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from lisaseg.data.mixture import Group, Mixture, Stream, paper_mixture, worded
from lisaseg.data.paper import open_paper_source
from lisaseg.data.sample import Dialogue, Exchange, Lesson, Masks, Sample, Source
from lisaseg.errors import DataError
from lisaseg.language.prompts import (
    ABSENT_ANSWER,
    ANSWERS,
    EXPLANATORY_REQUESTS,
    LONG_QUESTIONS,
    SHORT_QUESTIONS,
    VALIDATION_ANSWER,
    validation_question,
)


class Told(Source):
    """So many entries that are nothing but numbers; some cannot be read, some have nothing to ask for."""

    def __init__(self, name: str, size: int, bad: tuple[int, ...] = (), empty: tuple[int, ...] = ()):
        self.name = name
        self._size, self._bad, self._empty = size, bad, empty

    def __len__(self) -> int:
        return self._size

    def entry(self, index: int) -> str:
        return f"number {index}"

    def __getitem__(self, index: int) -> Sample:
        if index in self._bad:
            raise DataError("it is bad")
        dialogues: tuple[Dialogue, ...] = ((Exchange(text="Which?", answer=f"{self.name} {index}"),),)
        return Sample(
            name=self.entry(index),
            image=np.zeros((2, 2, 3), np.uint8),
            dialogues=() if index in self._empty else dialogues,
        )


def sample(*exchanges: Exchange, masks: int = 1) -> Sample:
    """One dialogue for each exchange; mask k is all k."""
    return Sample(
        name="x",
        image=np.zeros((2, 2, 3), np.uint8),
        dialogues=tuple((exchange,) for exchange in exchanges),
        masks=Masks([lambda value=value: np.full((2, 2), value, np.uint8) for value in range(masks)]),
    )


def words(lesson: Lesson) -> list[list[tuple[str, str | None]]]:
    return [[(exchange.text, exchange.answer) for exchange in dialogue] for dialogue in lesson.sample.dialogues]


def many(exchange: Exchange, times: int = 400, **options: Any) -> Counter[tuple[str, str | None, int]]:
    """What an exchange is worded as, over many draws, with the number of masks."""
    said: Counter[tuple[str, str | None, int]] = Counter()
    for seed in range(times):
        made = worded(sample(exchange, masks=2), np.random.default_rng(seed), **options)
        ((one,),) = made.dialogues
        said[one.text, one.answer, len(made.masks)] += 1
    return said


def test_the_words_are_those_of_the_original() -> None:
    assert SHORT_QUESTIONS == (
        "Can you segment the {phrase} in this image?",
        "Please segment the {phrase} in this image.",
        "What is {phrase} in this image? Please respond with segmentation mask.",
        "What is {phrase} in this image? Please output segmentation mask.",
    )
    assert LONG_QUESTIONS == (
        "{sentence} Please respond with segmentation mask.",
        "{sentence} Please output segmentation mask.",
    )
    assert EXPLANATORY_REQUESTS == (
        "Please output segmentation mask and explain why.",
        "Please output segmentation mask and explain the reason.",
        "Please output segmentation mask and give some explanation.",
    )
    assert ANSWERS == (
        "It is [SEG].",
        "Sure, [SEG].",
        "Sure, it is [SEG].",
        "Sure, the segmentation result is [SEG].",
        "[SEG].",
    )
    assert VALIDATION_ANSWER == "[SEG]."
    assert validation_question("What barks?", is_sentence=True) == "What barks? Please output segmentation mask."
    phrase = validation_question("the dog", is_sentence=False)
    assert phrase == "What is the dog in this image? Please output segmentation mask."


def test_phrases_are_asked_for_in_every_short_way_and_in_lower_case() -> None:
    said = many(Exchange(text="The {Dog}", kind="phrase", masks=(1,)))
    assert {question for question, _, _ in said} == {
        question.replace("{phrase}", "the {dog}") for question in SHORT_QUESTIONS
    }
    assert {answer for _, answer, _ in said} == set(ANSWERS)
    assert {masks for _, _, masks in said} == {1}


def test_sentences_are_asked_as_they_are() -> None:
    said = many(Exchange(text="What Barks?", kind="sentence", masks=(1,)))
    assert {question for question, _, _ in said} == {
        question.format(sentence="What Barks?") for question in LONG_QUESTIONS
    }


def test_parts_are_called_either_name_half_of_the_time() -> None:
    said = many(Exchange(text="dog head", also=("the head of the dog",), kind="phrase", masks=(1,)))
    share = sum(number for (question, _, _), number in said.items() if "dog head" in question) / said.total()
    assert 0.4 < share < 0.6


def test_explanations_come_as_often_as_in_the_original() -> None:
    exchange = Exchange(text="A Pet", kind="phrase", masks=(1,), explanation="Dogs bark.")
    said = many(exchange, 2000)
    alone = {key: number for key, number in said.items() if key[1] == "Dogs bark."}
    after = {key: number for key, number in said.items() if key[1] != "Dogs bark." and "Dogs bark." in str(key[1])}
    assert list(alone) == [("A Pet", "Dogs bark.", 0)], "the bare text, no template, no mask"
    assert {key[0] for key in after} == {f"A Pet {request}" for request in EXPLANATORY_REQUESTS}
    assert {key[1] for key in after} == {f"{answer} Dogs bark." for answer in ANSWERS}
    assert {key[2] for key in after} == {1}
    assert 0.08 < sum(alone.values()) / 2000 < 0.12
    assert 0.42 < sum(after.values()) / 2000 < 0.48
    assert not any("Dogs bark." in str(answer) for _, answer, _ in many(exchange, explanatory=-1.0))


def test_an_explained_sample_is_so_in_all_its_dialogues() -> None:
    exchange = Exchange(text="A pet", kind="sentence", masks=(1,), explanation="Dogs bark.")
    for seed in range(40):
        made = worded(sample(exchange, exchange, masks=2), np.random.default_rng(seed), explanatory=0.5)
        first, second = (dialogue[0] for dialogue in made.dialogues)
        assert len(first.masks) == len(second.masks)
        assert ("Dogs bark." in str(first.answer)) == ("Dogs bark." in str(second.answer))


def test_an_empty_mask_is_answered_with_seg_or_on_wish_refused() -> None:
    absent = Exchange(text="unicorn", kind="phrase", masks=(0,))
    assert all(masks == 1 and "[SEG]" in str(answer) for _, answer, masks in many(absent))
    assert {(answer, masks) for _, answer, masks in many(absent, refuse_absent=True)} == {(ABSENT_ANSWER, 0)}
    present = replace(absent, masks=(1,))
    assert all("[SEG]" in str(answer) for _, answer, _ in many(present, refuse_absent=True))


def test_up_to_three_dialogues_are_chosen_with_the_masks_they_use() -> None:
    exchanges = [Exchange(text=f"thing {place}", kind="phrase", masks=(place,)) for place in range(6)]
    seen = set()
    for seed in range(60):
        made = worded(sample(*exchanges, masks=6), np.random.default_rng(seed))
        assert len(made.dialogues) == len(made.masks) == 3
        for (exchange,) in made.dialogues:
            (place,) = exchange.masks
            value = int(made.masks[place][0, 0])
            assert f"thing {value}" in exchange.text
            seen.add(value)
        assert len({exchange.text for (exchange,) in made.dialogues}) == 3
    assert seen == set(range(6))
    assert len(worded(sample(*exchanges, masks=6), np.random.default_rng(0), most=5).dialogues) == 5


def test_dialogues_share_a_mask_that_is_drawn_once() -> None:
    drawn = []
    shared = replace(
        sample(*[Exchange(text=text, kind="phrase", masks=(0,)) for text in "ab"]),
        masks=Masks([lambda: drawn.append(1) or np.ones((2, 2), np.uint8)]),
    )
    made = worded(shared, np.random.default_rng(0), refuse_absent=True)
    assert [exchange.masks for (exchange,) in made.dialogues] == [(0,), (0,)]
    assert len(made.masks) == len(drawn) == 1


def test_what_is_said_already_stays_word_for_word() -> None:
    said = Exchange(text="Where?", answer="There: [SEG] and [SEG].", masks=(1, 0), explanation="Why not.")
    made = worded(sample(said, masks=2), np.random.default_rng(0))
    ((exchange,),) = made.dialogues
    assert exchange == said
    assert [int(made.masks[place][0, 0]) for place in exchange.masks] == [1, 0]
    half = Exchange(text="dogs", kind="phrase", answer="[SEG] and [SEG].", masks=(0, 1))
    ((exchange,),) = worded(sample(half, masks=2), np.random.default_rng(0)).dialogues
    assert exchange.answer == half.answer
    assert "dogs" in exchange.text
    assert exchange.text != "dogs"


def test_what_cannot_be_worded_is_said() -> None:
    with pytest.raises(DataError, match="no answer to learn for 'Where"):
        worded(sample(Exchange(text="Where?")), np.random.default_rng(0))
    with pytest.raises(DataError, match="expected one mask for 'dogs', got 2"):
        worded(sample(Exchange(text="dogs", kind="phrase", masks=(0, 1)), masks=2), np.random.default_rng(0))


def groups(*rates: float, size: int = 10) -> tuple[Group, ...]:
    names = ("a", "b", "c", "d")
    return tuple(
        Group(name=name, sources=(Told(f"{name}1", size), Told(f"{name}2", size * 5)), rate=float(rate))
        for name, rate in zip(names, rates, strict=False)
    )


def test_groups_come_by_their_rates_sources_and_entries_evenly() -> None:
    mixture = Mixture(groups(9, 3, 3, 1), seed=1, length=4000)
    told = [str(words(mixture[index])[0][0][1]) for index in range(len(mixture))]
    by_group = Counter(name[0] for name in told)
    for name, share in zip("abcd", (9 / 16, 3 / 16, 3 / 16, 1 / 16), strict=True):
        assert by_group[name] / 4000 == pytest.approx(share, abs=0.03)
    by_source = Counter(name.split()[0] for name in told)
    assert by_source["a1"] / by_group["a"] == pytest.approx(0.5, abs=0.04), "not by size"
    by_entry = Counter(name for name in told if name.startswith("a1"))
    assert len(by_entry) == 10
    assert max(by_entry.values()) < 2 * min(by_entry.values())


def test_a_lesson_depends_on_seed_and_number_alone() -> None:
    first, second, other = (Mixture(groups(1, 1), seed=seed, length=50) for seed in (3, 3, 4))
    told = [words(first[index]) for index in range(50)]
    assert [words(second[index]) for index in reversed(range(50))] == told[::-1]
    assert [words(other[index]) for index in range(50)] != told
    longer = Mixture(groups(1, 1), seed=3, length=500)
    assert [words(longer[index]) for index in range(50)] == told
    with pytest.raises(IndexError, match="50 lessons"):
        first[50]


def take_first(batch: list[Any]) -> Any:
    return batch[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_agree(root: Path, workers: int) -> None:
    mixture = paper_mixture(root, seed=5, length=24)
    loaded = list(DataLoader(mixture, batch_size=1, num_workers=workers, collate_fn=take_first))
    for index, lesson in enumerate(loaded):
        expected = mixture[index]
        assert lesson.sample.name == expected.sample.name
        assert lesson.sample.dialogues == expected.sample.dialogues
        np.testing.assert_array_equal(lesson.sample.image, expected.sample.image)
        assert len(lesson.sample.masks) == len(expected.sample.masks)
        for mask, same in zip(lesson.sample.masks, expected.sample.masks, strict=True):
            np.testing.assert_array_equal(mask, same)


def test_mixtures_and_lessons_can_be_sent_to_other_processes(root: Path) -> None:
    mixture = paper_mixture(root, seed=5, length=8)
    copy = pickle.loads(pickle.dumps(mixture))
    for index in range(8):
        sent = pickle.loads(pickle.dumps(copy[index])).sample
        assert sent.dialogues == mixture[index].sample.dialogues
        assert [mask.sum() for mask in sent.masks] == [mask.sum() for mask in mixture[index].sample.masks]


def test_bad_entries_are_passed_over_and_named() -> None:
    mixture = Mixture((Group(name="a", sources=(Told("t", 4, bad=(0, 1)),), rate=1.0),), seed=0, length=60)
    lessons = [mixture[index] for index in range(60)]
    assert {words(lesson)[0][0][1] for lesson in lessons} == {"t 2", "t 3"}
    told = {line for lesson in lessons for line in lesson.skipped}
    assert told == {"t: number 0: it is bad", "t: number 1: it is bad"}
    assert [mixture[index].skipped for index in range(60)] == [lesson.skipped for lesson in lessons]
    with pytest.raises(DataError, match=r"t: number [01]: it is bad"):
        [replace(mixture, strict=True)[index] for index in range(60)]


def test_nothing_but_bad_entries_is_no_accident() -> None:
    bad = Told("t", 3, bad=(0, 1, 2))
    for lessons in (
        Mixture((Group(name="a", sources=(bad,), rate=1.0),), seed=0, length=1),
        Stream(bad, seed=0, length=1),
    ):
        with pytest.raises(DataError, match=r"none of 20 entries in a row .* it is bad"):
            lessons[0]
    with pytest.raises(DataError, match="nothing is labelled in number 0"):
        Stream(Told("t", 1, empty=(0,)), seed=0, length=1)[0]


def test_entries_without_anything_to_ask_for_are_passed_over_in_silence() -> None:
    stream = Stream(Told("t", 3, empty=(1,)), seed=0, length=30, strict=True)
    assert {words(stream[index])[0][0][1] for index in range(30)} == {"t 0", "t 2"}
    assert all(stream[index].skipped == () for index in range(30))


def test_a_stream_shows_every_entry_once_in_each_epoch() -> None:
    stream = Stream(Told("t", 7), seed=2, length=21)
    told = [words(stream[index])[0][0][1] for index in range(21)]
    epochs = [told[start : start + 7] for start in (0, 7, 14)]
    assert all(set(epoch) == {f"t {number}" for number in range(7)} for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    again = Stream(Told("t", 7), seed=2, length=21)
    assert [words(again[index])[0][0][1] for index in reversed(range(21))] == told[::-1]
    ordered = Stream(Told("t", 7), seed=2, length=14, shuffle=False)
    assert [words(ordered[index])[0][0][1] for index in range(14)] == [f"t {number}" for number in range(7)] * 2


def test_a_stream_takes_the_next_entry_for_a_bad_one() -> None:
    stream = Stream(Told("t", 4, bad=(1, 2)), seed=0, length=4, shuffle=False)
    assert words(stream[1])[0][0][1] == "t 3"
    assert stream[1].skipped == ("t: number 1: it is bad", "t: number 2: it is bad")
    assert stream[0].skipped == ()
    with pytest.raises(DataError, match="number 1"):
        replace(stream, strict=True)[1]


def test_a_damaged_picture_is_passed_over_and_named(root: Path) -> None:
    path = root / "reason_seg/ReasonSeg/train/a.jpg"
    path.write_bytes(path.read_bytes()[:150])
    stream = Stream(open_paper_source("reasonseg", root), seed=0, length=2, shuffle=False)
    assert stream[0].sample.name == "b.jpg"
    (told,) = stream[0].skipped
    assert told.startswith("reasonseg/train: a.jpg: ")
    assert "damaged" in told


def test_a_shape_that_cannot_be_drawn_is_passed_over_and_named(root: Path, maker: ModuleType) -> None:
    maker.write_reasoning(root / "reason_seg/ReasonSeg/train", "a", ["What?"], {"label": "target", "points": [[1]]})
    stream = Stream(open_paper_source("reasonseg", root), seed=0, length=2, shuffle=False, explanatory=-1.0)
    assert stream[0].sample.name == "b.jpg"
    assert "a.jpg: expected a polygon" in stream[0].skipped[0]


def test_the_papers_mixture_takes_what_is_there(root: Path) -> None:
    mixture = paper_mixture(root, seed=0, length=300)
    assert mixture.missing == ()
    assert [(group.name, group.rate, len(group.sources)) for group in mixture.groups] == [
        ("sem_seg", 9, 5),
        ("refer_seg", 3, 4),
        ("vqa", 3, 1),
        ("reason_seg", 1, 1),
    ]
    for index in range(len(mixture)):
        lesson = mixture[index]
        assert lesson.skipped == ()
        said = sum(str(turn.answer).count("[SEG]") for dialogue in lesson.sample.dialogues for turn in dialogue)
        used = [place for dialogue in lesson.sample.dialogues for turn in dialogue for place in turn.masks]
        assert said == len(used)
        assert 1 <= len(lesson.sample.dialogues) <= 3
        assert set(used) == set(range(len(lesson.sample.masks)))
        assert all(turn.kind == "said" for dialogue in lesson.sample.dialogues for turn in dialogue)


def test_the_papers_mixture_tells_what_is_missing(root: Path) -> None:
    for folder in ("ade20k", "llava_dataset", "refer_seg/refcoco"):
        shutil.rmtree(root / folder)
    mixture = paper_mixture(root, seed=0, length=10)
    assert mixture.missing == ("ade20k", "refcoco/unc/train", "llava_instruct_150k")
    assert [group.name for group in mixture.groups] == ["sem_seg", "refer_seg", "reason_seg"]
    with pytest.raises(DataError, match="none of the paper's data"):
        paper_mixture(root / "nowhere", seed=0, length=10)


def test_the_papers_mixture_leaves_out_what_is_measured_by(root: Path) -> None:
    sizes = [
        [
            len(source)
            for group in paper_mixture(root, seed=0, length=1, exclude_val=way).groups
            for source in group.sources
        ]
        for way in (True, False)
    ]
    assert sizes == [[3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2], [3, 2, 1, 2, 1, 1, 2, 1, 1, 2, 2]]


def test_groups_and_rates_may_be_others(root: Path) -> None:
    chosen = {"refer_seg": ["grefcoco"], "reason_seg": ["reasonseg/train+val"]}
    mixture = paper_mixture(root, seed=0, length=40, groups=chosen, rates=(0.0, 1.0))
    assert {mixture[index].sample.name for index in range(40)} == {"a.jpg", "b.jpg", "c.jpg"}
    with pytest.raises(DataError, match="a rate for each of refer_seg, reason_seg, got 4"):
        paper_mixture(root, seed=0, length=1, groups=chosen)


def test_mixtures_of_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="rates"):
        Mixture(groups(0, 0), seed=0, length=1)
    with pytest.raises(DataError, match="rates"):
        Mixture((), seed=0, length=1)
    with pytest.raises(DataError, match="nothing to learn from in the group a"):
        Mixture((Group(name="a", sources=(Told("t", 0),), rate=1.0),), seed=0, length=1)
    with pytest.raises(DataError, match="nothing to learn from in t"):
        Stream(Told("t", 0), seed=0, length=1)
    with pytest.raises(DataError, match="seed of at least 0"):
        Stream(Told("t", 1), seed=-1, length=1)
