"""The words nano learns from: what things are called, what people ask for when they mean them, and how one answers.

The four JSON files beside this module were written for lisaseg.
"""

import functools
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Concept:
    """A thing with a name. `is_a` lists wider concepts: an eagle is a bird."""

    name: str
    plural: str
    synonyms: tuple[str, ...]
    group: str
    is_a: tuple[str, ...]

    @property
    def is_plural_only(self) -> bool:
        """Scissors, skis: no "a", and "are" for "is"."""
        return self.plural.startswith("pairs of ")


@dataclass(frozen=True, kw_only=True)
class Query:
    """An implicit request that never names its thing; `also` are other acceptable answers."""

    text: str
    also: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class ThingSet:
    """Things that belong together; `maybe` are borderline and must not be in a scene where the set is asked for."""

    name: str
    members: frozenset[str]
    maybe: frozenset[str]
    queries: Mapping[str, Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """What is known of a concept: its queries by split, explanations, and what it is for, made of and found in."""

    queries: Mapping[str, tuple[Query, ...]]
    explanations: tuple[str, ...]
    used_for: str
    made_of: tuple[str, ...]
    found_in: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """All four files, indexed by name."""

    concepts: Mapping[str, Concept]
    knowledge: Mapping[str, Knowledge]
    sets: tuple[ThingSet, ...]
    templates: Mapping[str, Any]

    def covers(self, wide: str, narrow: str) -> bool:
        """True where every `narrow` is a `wide`: the same thing, or one of its kinds."""
        return wide == narrow or wide in self.concepts[narrow].is_a

    def related(self, one: str, other: str) -> bool:
        """True where one of the two covers the other."""
        return self.covers(one, other) or self.covers(other, one)


@functools.cache
def load_vocabulary() -> Vocabulary:
    """Reads the packaged words once."""
    concepts, queries, sets, templates = (_read(name) for name in ("concepts", "queries", "sets", "templates"))
    return Vocabulary(
        concepts={record["name"]: _concept(record) for record in concepts},
        knowledge={name: _knowledge(record) for name, record in queries.items()},
        sets=tuple(_thing_set(record) for record in sets),
        templates=templates,
    )


def with_article(name: str) -> str:
    """`dog` -> `a dog`, `apple` -> `an apple`, `hourglass` -> `an hourglass`."""
    vowel = name[0] in "aeiou" and not name.startswith(("uni", "ute", "eu"))
    return f"{'an' if vowel or name.startswith('hour') else 'a'} {name}"


def fill(template: str, **words: str) -> str:
    """A template with its placeholders filled, "a {name}" turned into "an" where it must be."""
    text = re.sub(
        r"\b([Aa]) \{(\w+)\}",
        lambda match: ("A" if match[1] == "A" else "a") + with_article(words[match[2]])[1:],
        template,
    )
    return text.format(**words)


def listing(items: Sequence[str]) -> str:
    """`a, b and c`."""
    *rest, last = items
    return f"{', '.join(rest)} and {last}" if rest else last


def speakable(templates: Collection[str], concept: Concept) -> list[str]:
    """The templates that stay grammatical with this concept: plural-only names take no "a" and no "is"."""
    if not concept.is_plural_only:
        return list(templates)
    return [text for text in templates if not re.search(r"\b[Aa] \{|\bis\b|\bdoes\b|\bit\b|\bIt\b", text)]


def _read(name: str) -> Any:
    return json.loads(files("lisaseg.data").joinpath("words", f"{name}.json").read_text("utf-8"))


def _concept(record: Mapping[str, Any]) -> Concept:
    return Concept(
        name=record["name"],
        plural=record["plural"],
        synonyms=tuple(record["synonyms"]),
        group=record["group"],
        is_a=tuple(record["is_a"]),
    )


def _thing_set(record: Mapping[str, Any]) -> ThingSet:
    return ThingSet(
        name=record["answer_name"],
        members=frozenset(record["members"]),
        maybe=frozenset(record["maybe"]),
        queries=record["queries"],
    )


def _knowledge(record: Mapping[str, Any]) -> Knowledge:
    attributes = record["attributes"]
    return Knowledge(
        queries={
            split: tuple(Query(text=query["query"], also=frozenset(query["also"])) for query in queries)
            for split, queries in record["queries"].items()
        },
        explanations=tuple(record["explanations"]),
        used_for=attributes["used_for"],
        made_of=tuple(attributes["made_of"]),
        found_in=tuple(attributes["found_in"]),
    )
