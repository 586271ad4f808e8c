import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from lisaseg.data.dialogues import KINDS, Narrator, Told, write_dialogue
from lisaseg.data.scenes import Scene, Thing
from lisaseg.data.vocabulary import load_vocabulary
from lisaseg.language.prompts import SEG_TOKEN

Box = tuple[str, int, int, int, int]
"""A thing: concept, x0, y0, x1, y1 on a canvas of 100 x 100."""


def scene(*boxes: Box, colors: Sequence[str | None] = (), unknown: frozenset[str] = frozenset()) -> Scene:
    things = []
    for number, (concept, x0, y0, x1, y1) in enumerate(boxes):
        mask = np.zeros((100, 100), bool)
        mask[y0:y1, x0:x1] = True
        things.append(Thing(concept=concept, mask=mask, color=colors[number] if colors else None))
    return Scene(
        image=np.zeros((100, 100, 3), np.uint8),
        things=tuple(things),
        ignore=np.zeros((100, 100), bool),
        knows_absent=lambda concept: concept not in unknown,
        is_composed=True,
    )


def narrator(made: Scene, seed: int = 0, **options: Any) -> Narrator:
    known = options.pop("known", ("dog", "cat", "cup", "car", "eagle", "bird", "scissors"))
    return Narrator(
        scene=made,
        vocabulary=load_vocabulary(),
        known=known,
        strangers=options.pop("strangers", known),
        rng=np.random.default_rng(seed),
        **options,
    )


DOG, CAT, CUP = ("dog", 0, 0, 20, 20), ("cat", 40, 40, 60, 60), ("cup", 80, 0, 100, 20)


def test_naming_joins_all_of_one_name() -> None:
    told = narrator(scene(DOG, CAT, ("dog", 70, 70, 90, 90))).name("dog")
    assert told is not None
    assert told.masks == ((0, 2),)
    assert "dogs" in told.answer
    assert told.answer.count(SEG_TOKEN) == 1


def test_the_wider_word_takes_in_the_narrower() -> None:
    told = narrator(scene(("eagle", 0, 0, 20, 20), ("bird", 50, 50, 70, 70))).name("bird")
    assert told is not None
    assert told.masks == ((0, 1),)


def test_two_things_are_two_masks_in_the_order_of_the_words() -> None:
    told = narrator(scene(DOG, CAT)).two()
    assert told is not None
    first, second = ("dog", "cat") if told.answer.index("dog") < told.answer.index("cat") else ("cat", "dog")
    concepts = {"dog": (0,), "cat": (1,)}
    assert told.masks == (concepts[first], concepts[second])
    assert f"the {first} {SEG_TOKEN} and the {second} {SEG_TOKEN}" in told.answer.lower().replace("[seg]", SEG_TOKEN)


@pytest.mark.parametrize("seed", range(30))
def test_absent_things_are_absent_and_get_no_mask(seed: int) -> None:
    made = scene(DOG, ("eagle", 50, 50, 70, 70), unknown=frozenset({"car"}))
    told = narrator(made, seed).absent()
    if told is None:
        return
    assert told.masks == ()
    assert SEG_TOKEN not in told.answer
    for present in ("dog", "eagle", "bird", " car"):
        assert present not in told.answer


def test_nothing_is_called_absent_where_one_cannot_know() -> None:
    everything = frozenset(load_vocabulary().concepts)
    assert narrator(scene(DOG, unknown=everything)).absent() is None


@pytest.mark.parametrize("seed", range(20))
def test_needs_never_name_their_thing_and_only_train_wordings_are_used(seed: int) -> None:
    told = narrator(scene(DOG, CUP), seed).reason(explain=True)
    assert told is not None
    knowledge = load_vocabulary().knowledge[told.subject or ""]
    assert any(told.question.startswith(query.text) for query in knowledge.queries["train"])
    assert told.masks == ((0,),) if told.subject == "dog" else told.masks == ((1,),)
    assert any(told.answer.endswith(explanation) for explanation in knowledge.explanations)


def test_held_out_wordings_are_used_where_they_are_asked_for() -> None:
    told = narrator(scene(DOG), split="test").reason(explain=False)
    assert told is not None
    assert told.question.startswith(load_vocabulary().knowledge["dog"].queries["test"][0].text)


def test_a_need_is_not_asked_where_another_thing_would_do() -> None:
    queries = load_vocabulary().knowledge["backpack"].queries["train"]
    query = next(query for query in queries if "briefcase" in query.also)
    for seed in range(40):
        made = scene(("backpack", 0, 0, 20, 20), ("briefcase", 50, 50, 70, 70))
        told = narrator(made, seed, known=("backpack",)).reason()
        assert told is None or not told.question.startswith(query.text)


@pytest.mark.parametrize("seed", range(40))
def test_relations_point_at_the_right_twin(seed: int) -> None:
    made = scene(("dog", 0, 40, 20, 60), ("dog", 50, 40, 95, 85))
    told = narrator(made, seed).relation()
    assert told is not None
    text = told.question.lower()
    small_left, large_right = ((0,),), ((1,),)
    if any(word in text for word in ("left", "small", "tini", "little", "least")) and "not the right" not in text:
        expected = large_right if text.startswith("not the left") or "not the small" in text else small_left
        assert told.masks == expected, told.question
    elif any(word in text for word in ("right", "larg", "big", "great", "most")):
        assert told.masks == (small_left if "not the big" in text else large_right), told.question


def test_colours_tell_twins_apart() -> None:
    made = scene(("cup", 10, 10, 30, 30), ("cup", 12, 12, 32, 32), colors=("red", "blue"))
    seen = set()
    for seed in range(60):
        told = narrator(made, seed).relation()
        words = re.findall(r"\w+", told.question) if told else []
        if told and "red" in words:
            assert told.masks == ((0,),)
            seen.add("red")
        if told and "blue" in words:
            assert told.masks == ((1,),)
            seen.add("blue")
    assert seen == {"red", "blue"}


def test_the_middle_one_lies_between() -> None:
    made = scene(("dog", 0, 40, 20, 60), ("cup", 75, 40, 95, 60), ("cat", 40, 40, 55, 60))
    found = [told for seed in range(60) if (told := narrator(made, seed).relation()) and "cat" in told.question]
    assert found
    assert all(told.masks == ((2,),) for told in found)


@pytest.mark.parametrize("seed", range(20))
def test_groups_leave_out_nothing_and_nobody_doubtful(seed: int) -> None:
    made = scene(DOG, CUP, CAT)
    told = narrator(made, seed).group()
    assert told is not None
    groups = [g for g in load_vocabulary().sets if told.question in g.queries["train"] or g.name in told.question]
    assert any(
        told.masks == tuple((i,) for i, thing in enumerate(made.things) if thing.concept in group.members)
        for group in groups
    )


def test_counts_are_right() -> None:
    made = scene(DOG, ("dog", 50, 50, 70, 70))
    told = narrator(made).count()
    assert told is not None
    assert "two" in told.answer
    assert told.masks == ()


def test_the_list_of_things_is_whole() -> None:
    told = narrator(scene(DOG, CUP, CAT)).identify()
    assert told == Told(question=told.question if told else "", answer="I see a cat, a cup and a dog.")


@pytest.mark.parametrize("seed", range(60))
def test_every_dialogue_keeps_its_promises(seed: int) -> None:
    made = scene(DOG, CAT, CUP, ("dog", 60, 60, 99, 99))
    told = write_dialogue(narrator(made, seed), turns=4)
    assert len(told) == 4
    for turn in told:
        assert turn.answer.count(SEG_TOKEN) == len(turn.masks)
        assert "{" not in turn.question + turn.answer
        assert turn.answer[0].isupper()
        assert all(0 <= index < len(made.things) for mask in turn.masks for index in mask)


def test_an_empty_scene_can_only_be_refused() -> None:
    told = write_dialogue(narrator(scene()), turns=3)
    assert told
    assert all(turn.masks == () for turn in told)


def test_all_kinds_have_a_writer() -> None:
    assert all(callable(getattr(Narrator, kind)) for kind in KINDS)
    assert sum(KINDS.values()) == pytest.approx(1)


def test_where_kinds_are_named_apart_no_mask_covers_both() -> None:
    made = scene(("bird", 0, 0, 20, 20), ("eagle", 50, 50, 70, 70))
    found = [told for seed in range(40) if (told := narrator(made, seed).group()) and len(told.masks) == 2]
    assert found
    assert all(told.masks == ((0,), (1,)) for told in found)


def test_several_of_a_kind_are_counted_in_the_list() -> None:
    told = narrator(scene(DOG, CAT, ("dog", 50, 50, 70, 70))).identify()
    assert told is not None
    assert told.answer == "I see a cat and two dogs."


def test_one_thing_is_asked_for_as_this() -> None:
    told = narrator(scene(DOG)).identify()
    assert told is not None
    assert told.question in load_vocabulary().templates["by_kind"]["identify_question"]["one"]


def test_what_nobody_ever_shows_is_refused_without_its_name() -> None:
    told = narrator(scene(DOG), strangers=("tractor",)).absent()
    assert told is not None
    assert "tractor" not in told.answer
