"""Dialogues about a scene: what one may ask of it, and the true answer in words and masks.

Each writer below makes one turn and returns None where the scene does not allow it. A mask is the set of things it
covers, so that "the dogs" is one mask and "the dog and the cup" are two.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations

import numpy as np

from lisaseg.data.scenes import Scene, Thing, pick
from lisaseg.data.vocabulary import Vocabulary, fill, listing, speakable, with_article
from lisaseg.language.prompts import SEG_TOKEN

Mask = tuple[int, ...]
"""Indices of the things that one mask covers."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """One turn: the words, the masks of its `[SEG]`s in order, and what "it" means afterwards."""

    question: str
    answer: str
    masks: tuple[Mask, ...] = ()
    subject: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Narrator:
    """Writes turns about one scene.

    `known` are the concepts that may be shown, `strangers` those that may be asked for in vain, `split` says which
    queries are used.
    """

    scene: Scene
    vocabulary: Vocabulary
    known: Sequence[str]
    strangers: Sequence[str]
    rng: np.random.Generator
    split: str = "train"
    named: set[str] = field(default_factory=set)
    """What has been asked for by name so far."""

    def name(self, concept: str | None = None) -> Told | None:
        """Asks for a thing by its name; all things of that name are one mask."""
        concept = concept or self._some_present()
        if concept is None:
            return None
        self.named.add(concept)
        found = self._things_of(concept)
        return self._answer(self._request(concept, len(found)), concept, (found,))

    def two(self) -> Told | None:
        """Asks for two named things: two masks."""
        names = self._distinct_present()
        if len(names) < 2:
            return None
        first, second = (names[i] for i in self.rng.permutation(len(names))[:2])
        question = fill(self._template("two_request"), name=self._called(first), other=self._called(second))
        return self._answer_each(question, [first, second])

    def group(self) -> Told | None:
        """Asks for a set ("animals"): one mask for each concept of it that is present."""
        present = set(self.scene.concepts)
        fitting = [
            group
            for group in self.vocabulary.sets
            if present & group.members
            and not present & group.maybe
            and all(map(self.scene.knows_absent, group.members | group.maybe))
        ]
        if not fitting or not self.scene.is_composed:
            return None
        group = pick(fitting, self.rng)
        members = [name for name in self.scene.concepts if name in group.members]
        queries = group.queries[self.split]
        asks_by_name = self.split == "train" and self.rng.random() < 0.5
        question = fill(self._template("set_request"), set=group.name) if asks_by_name else pick(queries, self.rng)
        return self._answer_each(question, members)

    def reason(self, *, explain: bool | None = None) -> Told | None:
        """Asks for a thing without naming it; the answer names it and may say why."""
        choices = [
            (concept, query)
            for concept in self._distinct_present()
            for query in self.vocabulary.knowledge[concept].queries[self.split]
            if self._lacks_all(query.also)
        ]
        if not choices:
            return None
        concept, query = pick(choices, self.rng)
        explain = self.rng.random() < 0.5 if explain is None else explain
        question = query.text
        if explain:
            question = f"{question} {self._template('explain_suffix')}"
        elif self.rng.random() < 0.3:
            question = f"{question} {self._template('mask_suffix')}"
        return self._answer(question, concept, (self._things_of(concept),), explain=explain)

    def relation(self) -> Told | None:
        """Asks for one of several alike things by place, size or colour, or for what lies at some place."""
        options = [*self._relations_between_twins(), *self._relations_by_color(), *self._between(), *self._positions()]
        if not options or not self.scene.is_composed:
            return None
        question, index = pick(options, self.rng)
        return self._answer(question, self.scene.things[index].concept, ((index,),))

    def absent(self) -> Told | None:
        """Asks for what is not there, by name or by need."""
        present = self.scene.concepts
        missing = [
            name
            for name in self.strangers
            if self.scene.knows_absent(name) and not any(self.vocabulary.related(name, other) for other in present)
        ]
        if not missing:
            return None
        concept = pick(missing, self.rng)
        if self.rng.random() < 0.7:
            question = self._request(concept, 1)
            if concept not in self.known:  # a name that is never shown cannot be learned well enough to be repeated
                return Told(question=question, answer=self._template("answer_absent_query"))
            answers = speakable(self.vocabulary.templates["answer_absent"], self.vocabulary.concepts[concept])
            return Told(question=question, answer=fill(pick(answers, self.rng), name=concept))
        queries = [
            query.text
            for query in self.vocabulary.knowledge[concept].queries[self.split]
            if self._lacks_all(query.also)
        ]
        if not queries:
            return None
        return Told(question=pick(queries, self.rng), answer=self._template("answer_absent_query"))

    def count(self) -> Told | None:
        """How many there are."""
        concept = self._some_present()
        if concept is None or not self.scene.is_composed:
            return None
        number = len(self._things_of(concept))
        record = self.vocabulary.concepts[concept]
        if record.is_plural_only:
            return None
        question = fill(self._template("count_question"), plural=record.plural)
        if number == 1:
            return Told(question=question, answer=fill(self._template("count_answer_one"), name=concept))
        answer = fill(self._template("count_answer"), number=_number(number), plural=record.plural)
        return Told(question=question, answer=answer)

    def identify(self) -> Told | None:
        """What is in the picture, in words alone."""
        if not self.scene.concepts or not self.scene.is_composed:
            return None
        kind = "one" if len(self.scene.things) == 1 else "all"
        question = pick(self.vocabulary.templates["by_kind"]["identify_question"][kind], self.rng)
        named = [self._counted(name) for name in sorted(self.scene.concepts)]
        return Told(question=question, answer=f"I see {listing(named)}.")

    def follow_up(self, subject: str) -> Told:
        """A question about the thing just shown, answered in words."""
        knowledge = self.vocabulary.knowledge[subject]
        kinds = {
            "what_is_it": f"It is {with_article(subject)}.",
            "used_for": f"It is used for {knowledge.used_for}.",
            "made_of": f"It is made of {listing(list(knowledge.made_of))}.",
            "found_in": f"It is found in {listing(list(knowledge.found_in))}.",
        }
        kind = pick(tuple(kinds), self.rng)
        question = pick(self.vocabulary.templates["by_kind"]["follow_up_question"][kind], self.rng)
        return Told(question=question, answer=kinds[kind])

    def next_thing(self, subject: str) -> Told | None:
        """After one thing, another: "And the cup?"."""
        others = [name for name in self._distinct_present() if name != subject]
        if not others:
            return None
        concept = pick(others, self.rng)
        templates = [text for text in self.vocabulary.templates["follow_up_other"] if "{name}" in text]
        question = fill(pick(templates, self.rng), name=self._called(concept))
        return self._answer(question, concept, (self._things_of(concept),))

    def _distinct_present(self) -> list[str]:
        """Known concepts present whose name means no other thing of the scene."""
        present = self.scene.concepts
        return [
            name
            for name in present
            if name in self.known
            and not any(other != name and self.vocabulary.related(name, other) for other in present)
        ]

    def _lacks_all(self, concepts: Iterable[str]) -> bool:
        """Whether none of the concepts is, or may be, in the scene."""
        return all(name not in self.scene.concepts and self.scene.knows_absent(name) for name in concepts)

    def _twins(self) -> list[tuple[str, Mask]]:
        """The concepts that are there exactly twice, with their two things."""
        found = [(concept, self._things_of(concept)) for concept in self._distinct_present()]
        return [(concept, things) for concept, things in found if len(things) == 2]

    def _some_present(self) -> str | None:
        """One of the known concepts present, those not yet asked for by name first."""
        names = [name for name in self.scene.concepts if name in self.known]
        fresh = [name for name in names if name not in self.named]
        return pick(fresh or names, self.rng) if names else None

    def _things_of(self, concept: str) -> Mask:
        return tuple(
            index for index, thing in enumerate(self.scene.things) if self.vocabulary.covers(concept, thing.concept)
        )

    def _counted(self, concept: str) -> str:
        """`a dog`, `two dogs`, `scissors`."""
        number = sum(thing.concept == concept for thing in self.scene.things)
        record = self.vocabulary.concepts[concept]
        if record.is_plural_only:
            return concept
        return with_article(concept) if number == 1 else f"{_number(number)} {record.plural}"

    def _template(self, kind: str) -> str:
        return pick(self.vocabulary.templates[kind], self.rng)

    def _called(self, concept: str) -> str:
        """Its name, at times a synonym."""
        synonyms = self.vocabulary.concepts[concept].synonyms
        return pick(synonyms, self.rng) if synonyms and self.rng.random() < 0.1 else concept

    def _request(self, concept: str, number: int) -> str:
        record = self.vocabulary.concepts[concept]
        if number > 1 and not record.is_plural_only:
            return fill(self._template("plural_request"), plural=record.plural)
        templates = speakable(self.vocabulary.templates["name_request"], record)
        return fill(pick(templates, self.rng), name=self._called(concept))

    def _answer(self, question: str, concept: str, masks: tuple[Mask, ...], *, explain: bool = False) -> Told:
        """An answer that names the thing right before its `[SEG]`, so that words and mask belong together."""
        record = self.vocabulary.concepts[concept]
        plural = len(masks[0]) > 1 and not record.is_plural_only
        shown = f"the {record.plural if plural else concept} {SEG_TOKEN}"
        openings = _MANY if plural else _ONE
        answer = _sentence(pick(openings, self.rng).format(shown))
        if explain:
            answer = f"{answer} {pick(self.vocabulary.knowledge[concept].explanations, self.rng)}"
        return Told(question=question, answer=answer, masks=masks, subject=concept)

    def _answer_each(self, question: str, concepts: Sequence[str]) -> Told:
        """One mask for each concept, of exactly that: the penguin is not among the birds where both are named."""
        masks = tuple(tuple(i for i, t in enumerate(self.scene.things) if t.concept == name) for name in concepts)
        if len(concepts) == 1:
            return self._answer(question, concepts[0], masks)
        names = [
            self.vocabulary.concepts[name].plural if len(mask) > 1 else name
            for name, mask in zip(concepts, masks, strict=True)
        ]
        shown = listing([f"the {name} {SEG_TOKEN}" for name in names])
        opening = pick(_MANY, self.rng)
        return Told(question=question, answer=_sentence(opening.format(shown)), masks=masks)

    def _relations_between_twins(self) -> list[tuple[str, int]]:
        """(question, thing) for each concept that is there twice."""
        return [
            (self._relation_request(kind, name=concept), index)
            for concept, twins in self._twins()
            for kind, index in _compare(self.scene.things, twins)
        ]

    def _relations_by_color(self) -> list[tuple[str, int]]:
        """(question, thing) for twins whose colours nobody would confuse."""
        found = []
        for concept, twins in self._twins():
            colors = [self.scene.things[index].color for index in twins]
            if frozenset(colors) in _CLEARLY_APART:
                found += [
                    (self._relation_request("color", name=concept, color=str(color)), index)
                    for index, color in zip(twins, colors, strict=True)
                ]
        return found

    def _between(self) -> list[tuple[str, int]]:
        """The middle one of three single things that lie well apart from left to right."""
        things = self.scene.things
        order = sorted(range(len(things)), key=lambda i: things[i].center[0])
        singles = len(set(self.scene.concepts)) == len(things)
        if len(things) != 3 or not singles or len(self._distinct_present()) != 3:
            return []
        left, middle, right = order
        gaps = [things[b].center[0] - things[a].center[0] for a, b in ((left, middle), (middle, right))]
        if min(gaps) < 0.15:
            return []
        request = self._relation_request(
            "between", name=things[middle].concept, other=things[left].concept, third=things[right].concept
        )
        return [(request, middle)]

    def _positions(self) -> list[tuple[str, int]]:
        """The thing in a corner, where no other is in the same quarter."""
        quarters: dict[str, list[int]] = {}
        for index, thing in enumerate(self.scene.things):
            x, y = thing.center
            clear = min(abs(x - 0.5), abs(y - 0.5)) > 0.12
            corner = f"{'top' if y < 0.5 else 'bottom'}_{'left' if x < 0.5 else 'right'}"
            quarters.setdefault(corner, []).append(index if clear else -1)
        wordings = self.vocabulary.templates["by_kind"]["position"]
        return [
            (pick(wordings[corner], self.rng), found[0])
            for corner, found in quarters.items()
            if len(found) == 1 and found[0] >= 0
        ]

    def _relation_request(self, kind: str, **words: str) -> str:
        return fill(pick(self.vocabulary.templates["relation_request"][kind], self.rng), **words)


_MANY = ("They are {}.", "Sure, {}.", "Here they are: {}.", "{}.")
_ONE = ("It is {}.", "Sure, it is {}.", "Sure, {}.", "{}.", "Here it is: {}.", "I found {}.")


_HUES = ("red", "yellow", "green", "blue", "purple")
_CLEARLY_APART = {frozenset(pair) for pair in combinations(_HUES, 2)} - {frozenset(("blue", "purple"))}
"""Colours that a change of light does not turn into one another."""


def _number(count: int) -> str:
    return ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")[count]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _compare(things: Sequence[Thing], twins: Mask) -> list[tuple[str, int]]:
    """(relation, thing) for every relation in which the two clearly differ."""
    first, second = twins
    (x, y), (other_x, other_y) = things[first].center, things[second].center
    found = []
    if abs(x - other_x) > 0.15:
        left, right = (first, second) if x < other_x else (second, first)
        found += [("left", left), ("leftmost", left), ("right", right), ("rightmost", right)]
    if abs(y - other_y) > 0.15:
        found += [("top", first if y < other_y else second), ("bottom", second if y < other_y else first)]
    areas = things[first].area, things[second].area
    if max(areas) > 1.6 * min(areas):
        large, small = (first, second) if areas[0] > areas[1] else (second, first)
        found += [("largest", large), ("smallest", small)]
    return found


KINDS: Mapping[str, float] = {
    "name": 0.36,
    "reason": 0.20,
    "absent": 0.18,
    "relation": 0.09,
    "two": 0.06,
    "group": 0.05,
    "identify": 0.04,
    "count": 0.02,
}
"""Shares of the kinds of first turns."""


def write_dialogue(narrator: Narrator, turns: int, kinds: Mapping[str, float] = KINDS) -> list[Told]:
    """A dialogue of at most so many turns; a kind that the scene does not allow is replaced by naming."""
    told: list[Told] = []
    names, shares = tuple(kinds), np.array(tuple(kinds.values()))
    for _ in range(turns):
        subject = told[-1].subject if told else None
        follows: list[Callable[[], Told | None]] = []
        if subject is not None and narrator.rng.random() < 0.25:
            follows = [partial(narrator.follow_up, subject), partial(narrator.next_thing, subject)]
        kind = names[narrator.rng.choice(len(names), p=shares / shares.sum())]
        writer = pick(follows, narrator.rng) if follows else getattr(narrator, kind)
        turn = writer() or narrator.name() or narrator.absent()
        if turn is not None:
            told.append(turn)
    return told
