import pytest
from hypothesis import given
from hypothesis import strategies as st

from lisaseg.data.vocabulary import load_vocabulary
from lisaseg.language.wording import Narrator, phrases, spans, strip_seg

TEMPLATES = load_vocabulary().templates
ASKED = "Segment the pet."
WHY = "It barks, and it is loud."


def answers(kind: str, **words: str) -> list[str]:
    """Every template of a kind, filled in."""
    return [text.format(explanation=WHY, **words) for text in TEMPLATES[kind]]


class TestPhrases:
    @pytest.mark.parametrize("text", [text for text in TEMPLATES["answer_one"] if "{name}" in text])
    def test_an_answer_that_names_the_thing(self, text: str) -> None:
        assert phrases(text.format(name="dog"), ASKED) == ["the dog"]

    @pytest.mark.parametrize("text", [text for text in TEMPLATES["answer_one"] if "{name}" not in text])
    def test_an_answer_that_names_nothing_is_about_what_was_asked(self, text: str) -> None:
        assert phrases(text, ASKED) == [ASKED]

    @pytest.mark.parametrize("text", answers("answer_explain"))
    def test_an_explanation_is_no_name(self, text: str) -> None:
        assert phrases(text, ASKED) == [ASKED]

    @pytest.mark.parametrize("text", [text for text in TEMPLATES["answer_many"] if text != "{seg_list}."])
    def test_each_of_many_has_its_name(self, text: str) -> None:
        listed = "the dog [SEG], a cat [SEG] and the cups [SEG]"
        assert phrases(text.format(seg_list=listed), ASKED) == ["the dog", "a cat", "the cups"]

    @pytest.mark.parametrize("text", answers("answer_many", seg_list="[SEG], [SEG] and [SEG]"))
    def test_many_without_names(self, text: str) -> None:
        assert phrases(text, ASKED) == [ASKED] * 3

    @pytest.mark.parametrize("text", answers("answer_absent", name="dog") + TEMPLATES["answer_absent_query"][:])
    def test_a_refusal_has_no_masks(self, text: str) -> None:
        assert phrases(text, ASKED) == []
        assert strip_seg(text) == text

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("The dog [SEG] and the cat [SEG].", ["the dog", "the cat"]),
            ("Sure, the dog [SEG], and the cup [SEG].", ["the dog", "the cup"]),
            ("Both the dog [SEG] and the cat [SEG].", ["the dog", "the cat"]),
            ("Both dogs [SEG].", ["Both dogs"]),
            ("In the picture, it is a dog [SEG]", ["a dog"]),
            ("What you need: the knife [SEG].", ["the knife"]),
            ("Here's the orange [SEG].", ["the orange"]),
            ("I see the dog's bowl here: [SEG]!", ["the dog's bowl"]),
            ("It cuts bread. Therefore it is the knife [SEG].", ["the knife"]),
            ("It cuts bread. [SEG]", [ASKED]),
            ("That is the thing that cuts [SEG].", ["the thing that cuts"]),
            ("It is the\n dog [SEG].", ["the dog"]),
            ("The segmentation mask for the dog is [SEG].", ["the dog"]),
            ("The things for cutting [SEG].", ["the things for cutting"]),
            ("The left one is [SEG], the right one is [SEG].", ["the left one", "the right one"]),
            ("Das ist der Hund [SEG].", ["Das ist der Hund"]),
            ("[SEG][SEG]", [ASKED, ASKED]),
            ("", []),
        ],
    )
    def test_other_wordings(self, text: str, expected: list[str]) -> None:
        assert phrases(text, ASKED) == expected

    @given(st.lists(st.sampled_from(["[SEG]", "the dog", "and", ",", ".", ":", "it is", "\n", "猫"]), max_size=12))
    def test_there_is_one_for_each_mark_and_none_is_empty(self, words: list[str]) -> None:
        found = phrases(" ".join(words), ASKED)
        assert len(found) == words.count("[SEG]")
        assert all(phrase.strip() for phrase in found)


class TestSpans:
    @pytest.mark.parametrize(
        ("raw", "expected"),
        [
            ("Sure, it is the dog [SEG].", ["the dog"]),
            ("They are a dog [SEG], a cat [SEG] and a cup [SEG].", ["a dog", "a cat", "a cup"]),
            ("The dog [SEG] and the dog [SEG].", ["The dog", "the dog"]),
            ("It is the\n dog [SEG].", ["the dog"]),
            ("What you need: the knife [SEG].", ["the knife"]),
            ("The catalogue is old. It is the cat [SEG].", ["the cat"]),
            ("[SEG] and the cat [SEG], [SEG] and [SEG]. And the cat [SEG].", [None, "the cat", None, None, "the cat"]),
            ("It is [SEG].", [None]),
            ("", []),
        ],
    )
    def test_they_are_where_the_phrases_stand(self, raw: str, expected: list[str | None]) -> None:
        text = strip_seg(raw)
        assert [span and text[slice(*span)] for span in spans(raw)] == expected

    def test_things_of_one_name_stand_at_their_own_places(self) -> None:
        assert spans("The dog [SEG] and the dog [SEG].") == [(0, 7), (12, 19)]

    @given(st.lists(st.sampled_from(["[SEG]", "the dog", "and", ",", ".", ":", "it is", "\n", "猫"]), max_size=12))
    def test_a_span_is_its_phrase_and_none_is_the_fallback(self, words: list[str]) -> None:
        raw = " ".join(words)
        text = strip_seg(raw)
        for phrase, span in zip(phrases(raw, ASKED), spans(raw), strict=True):
            assert phrase == ASKED if span is None else text[slice(*span)].lower() == phrase.lower()


class TestNarrator:
    WORDS = (
        "[SEG]",
        "[SEG]",
        "[SEG]",
        "the dog",
        "and",
        "or",
        ",",
        ".",
        ":",
        "!",
        "it is",
        "Sure",
        "(",
        ")",
        "cat",
        "[",
    )

    def told(self, steps: list[str]) -> list[str]:
        """What is told at each step, and at the end."""
        narrator = Narrator()
        return [*map(narrator.tell, steps), narrator.finish(steps[-1] if steps else "")]

    @given(st.lists(st.tuples(st.sampled_from(WORDS), st.booleans()), max_size=14))
    def test_what_is_told_is_the_text_and_nothing_is_taken_back(self, words: list[tuple[str, bool]]) -> None:
        """Words come joined as the tokenizer joins them, or as parts of words."""
        steps, raw = [], ""
        for word, is_apart in words:
            raw += (" " if raw and (word == "[SEG]" or (is_apart and word not in ",.:!)")) else "") + word
            steps.append(raw)
        assert "".join(self.told(steps)) == strip_seg(raw)

    @given(st.lists(st.sampled_from(WORDS), max_size=14))
    def test_segments_are_named_at_once_as_they_are_at_the_end(self, words: list[str]) -> None:
        steps = [" ".join(words[: end + 1]) for end in range(len(words))]
        marks = [step for step, word in zip(steps, words, strict=True) if word == "[SEG]"]
        whole = steps[-1] if steps else ""
        assert [spans(step)[-1] for step in marks] == spans(whole)
        assert [phrases(step, ASKED)[-1] for step in marks] == phrases(whole, ASKED)

    def test_words_come_as_soon_as_they_are_certain(self) -> None:
        steps = [
            "It",
            "It is",
            "It is the",
            "It is the d",
            "It is the dog",
            "It is the dog [SEG]",
            "It is the dog [SEG].",
        ]
        assert self.told(steps) == ["It", " is", " the", " d", "og", "", ".", ""]

    def test_what_may_yet_go_is_held_back(self) -> None:
        assert self.told(["Here it is:", "Here it is: [SEG]", "Here it is: [SEG]."]) == ["Here it is", "", ".", ""]
        assert self.told(["A dog", "A dog, [SEG]", "A dog, [SEG] a cat"]) == ["A dog", "", ", a cat", ""]
        assert self.told(["A dog [SEG] and", "A dog [SEG] and [SEG]."]) == ["A dog", ".", ""]

    def test_half_a_character_is_held_back(self) -> None:
        assert self.told(["a \ufffd", "a \ufffd\ufffd", "a 猫"]) == ["a", "", " 猫", ""]


class TestWords:
    @pytest.mark.parametrize(
        ("raw", "expected"),
        [
            ("Sure, it is the dog [SEG].", "Sure, it is the dog."),
            ("They are a dog [SEG], a cat [SEG] and a cup [SEG].", "They are a dog, a cat and a cup."),
            ("The dog [SEG] and the cat [SEG].", "The dog and the cat."),
            ("It is [SEG].", "It is."),
            ("Sure, [SEG].", "Sure."),
            ("Here it is: [SEG].", "Here it is."),
            ("Here it is: [SEG]", "Here it is"),
            ("They are [SEG], [SEG] and [SEG].", "They are."),
            ("[SEG]. It barks.", "It barks."),
            ("It barks. [SEG].", "It barks."),
            ("It barks. [SEG]. It is loud.", "It barks. It is loud."),
            ("Well... [SEG] (the left one).", "Well... (the left one)."),
            ("It is [SEG] because it barks.", "It is because it barks."),
            ("  It is   the dog\n[SEG] .", "It is the dog."),
            ("It is a dog.", "It is a dog."),
        ],
    )
    def test_the_marks_are_gone_and_the_sentence_is_whole(self, raw: str, expected: str) -> None:
        assert strip_seg(raw) == expected

    @pytest.mark.parametrize("raw", ["", " ", "[SEG]", "[SEG].", "[SEG], [SEG] and [SEG].", "[SEG] [SEG]", "..."])
    def test_nothing_is_left_of_marks_alone(self, raw: str) -> None:
        assert strip_seg(raw) == ""

    @pytest.mark.parametrize("raw", answers("answer_one", name="dog") + answers("answer_explain"))
    def test_every_answer_we_teach_reads_well(self, raw: str) -> None:
        text = strip_seg(raw)
        assert text == "" or text[0].isupper()
        assert not any(odd in text for odd in ("[", "  ", " .", " ,", ",.", ":.", ".."))

    @given(st.lists(st.sampled_from(["[SEG]", "the dog", "and", ",", ".", ":", "it is", "\n", "猫"]), max_size=12))
    def test_no_mark_and_no_odd_space_is_left(self, words: list[str]) -> None:
        text = strip_seg(" ".join(words))
        assert "[SEG]" not in text
        assert text == " ".join(text.split())
        assert text.count("the dog") == words.count("the dog") or text == ""


@pytest.mark.parametrize("between", [" ", "", ", ", " and ", "  ,  and  "])
@pytest.mark.parametrize("end", ["", ".", " dog", " dog."])
def test_a_model_that_says_nothing_but_marks_is_read_at_once(between: str, end: str) -> None:
    """A list of marks that ends in no clause once took longer than the universe will last."""
    text = between.join(["[SEG]"] * 500) + end
    assert strip_seg(text).strip(" .") == end.strip(" .")
    assert len(phrases(text, "the dog")) == 500
