import pytest

from lisaseg.data.vocabulary import fill, listing, load_vocabulary, speakable, with_article


def test_every_concept_is_known_and_every_word_resolves() -> None:
    vocabulary = load_vocabulary()
    assert len(vocabulary.concepts) == 521
    assert set(vocabulary.knowledge) == set(vocabulary.concepts)
    for group in vocabulary.sets:
        assert group.members | group.maybe <= set(vocabulary.concepts)
    for knowledge in vocabulary.knowledge.values():
        assert len(knowledge.queries["train"]) == 5
        assert len(knowledge.queries["val"]) == len(knowledge.queries["test"]) == 1
        assert all(query.also <= set(vocabulary.concepts) for query in knowledge.queries["train"])


def test_no_held_out_query_is_also_trained() -> None:
    knowledge = load_vocabulary().knowledge.values()
    trained = {query.text for known in knowledge for query in known.queries["train"]}
    held_out = {query.text for known in knowledge for split in ("val", "test") for query in known.queries[split]}
    assert not trained & held_out


def test_a_wider_word_covers_the_narrower() -> None:
    vocabulary = load_vocabulary()
    assert vocabulary.covers("bird", "eagle")
    assert not vocabulary.covers("eagle", "bird")
    assert vocabulary.related("eagle", "bird")
    assert not vocabulary.related("dog", "cat")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("dog", "a dog"), ("apple", "an apple"), ("unicorn", "a unicorn"), ("umbrella", "an umbrella")],
)
def test_articles(name: str, expected: str) -> None:
    assert with_article(name) == expected


def test_fill_mends_the_article() -> None:
    assert fill("A {name} is not a {other}.", name="apple", other="pear") == "An apple is not a pear."
    assert fill("Segment the {name}.", name="apple") == "Segment the apple."


def test_listing() -> None:
    assert listing(["a"]) == "a"
    assert listing(["a", "b", "c"]) == "a, b and c"


def test_plural_only_names_take_no_singular_wording() -> None:
    vocabulary = load_vocabulary()
    templates = ["Show me the {name}.", "Where is the {name}?", "I see a {name}."]
    assert speakable(templates, vocabulary.concepts["scissors"]) == ["Show me the {name}."]
    assert speakable(templates, vocabulary.concepts["dog"]) == templates
