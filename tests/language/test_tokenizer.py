import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from lisaseg.errors import CheckpointError
from lisaseg.language.prompts import TEMPLATES, render
from lisaseg.language.tokenizer import IMAGE_ID, Tokenizer

GOLDEN = Path(__file__).parents[1] / "golden"
GOLDEN_FOLDER = GOLDEN / "llava_v1" / "checkpoint"
CASES = json.loads((GOLDEN / "llava_v1" / "golden.json").read_text("utf-8"))["cases"][:5]
"""What the original code made of a tiny checkpoint's prompts; the other five are the same about another picture."""
for case in CASES:
    case["new_ids"] = case["output_ids"][len(case["prompt_ids"]) :]
TOKENIZER = Tokenizer.load(GOLDEN_FOLDER)
ADDED = {"[SEG]": 1024, "<im_start>": 1025, "<im_end>": 1026}

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case["question"][:20])


def pieces(text: str) -> list[int]:
    """Ids of a text that holds no special token, without `<s>`."""
    return TOKENIZER.encode(text)[1:]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("tokenizer.model", "added_tokens.json"):
        shutil.copy(GOLDEN_FOLDER / name, tmp_path)
    return tmp_path


class TestGolden:
    @every_case
    def test_a_prompt_has_the_ids_of_the_original(self, case: dict[str, Any]) -> None:
        prompt = render(TEMPLATES["llava_v1"], [(case["question"], None)])
        assert TOKENIZER.encode_with_image(prompt) == case["prompt_ids"]

    @every_case
    def test_an_answer_reads_as_the_original_does_but_for_its_spacing(self, case: dict[str, Any]) -> None:
        original = " ".join(case["new_text"].removesuffix("</s>").split()).replace("[SEG] .", "[SEG].")
        assert TOKENIZER.decode(case["new_ids"]) == original

    @every_case
    def test_an_answer_learned_from_has_the_ids_that_are_generated(self, case: dict[str, Any]) -> None:
        turns = [(case["question"], TOKENIZER.decode(case["new_ids"]))]
        ids = TOKENIZER.encode_with_image(render(TEMPLATES["llava_v1"], turns))
        assert ids == case["prompt_ids"] + case["new_ids"]


LLAMA = os.environ.get("LISASEG_LLAMA_TOKENIZER")
"""A LLaMA `tokenizer.model`: not ours to ship."""


@pytest.mark.skipif(LLAMA is None, reason="LISASEG_LLAMA_TOKENIZER names no LLaMA tokenizer.model")
def test_all_rows_of_the_original_with_the_vocabulary_of_llama() -> None:
    added = {"<im_end>": 32002, "<im_patch>": 32000, "<im_start>": 32001, "[SEG]": 32003}
    tokenizer = Tokenizer(Path(str(LLAMA)).read_bytes(), added)
    rows = json.loads((GOLDEN / "tokenizer_rows.json").read_text("utf-8"))
    assert len(rows) == 88
    for text, ids, _, ids_with_image, _ in rows:
        assert tokenizer.encode(text) == ids
        assert tokenizer.encode_with_image(text) == ids_with_image


class TestRules:
    def test_one_start_mark_and_no_end_mark(self) -> None:
        assert TOKENIZER.encode("") == [1]
        assert TOKENIZER.encode("It is")[0] == 1
        assert TOKENIZER.encode("It is")[-1] != 2

    @pytest.mark.parametrize("space", ["", " ", "  ", "\n", "\t", "\u00a0", "\n \n", "\u2003"])
    @pytest.mark.parametrize("token", sorted(ADDED))
    def test_white_space_beside_an_added_token_vanishes(self, token: str, space: str) -> None:
        expected = [1, *pieces("It is"), ADDED[token], *pieces("the dog")]
        assert TOKENIZER.encode(f"It is{space}{token}{space}the dog") == expected

    def test_white_space_between_added_tokens_vanishes(self) -> None:
        assert TOKENIZER.encode(" [SEG] \n [SEG] ") == [1, 1024, 1024]

    @pytest.mark.parametrize(("token", "number"), [("<s>", 1), ("</s>", 2), ("<unk>", 0)])
    def test_white_space_beside_a_core_token_stays(self, token: str, number: int) -> None:
        found = TOKENIZER.encode(f"It is {token}  the dog")
        assert found == [1, *pieces("It is "), number, *pieces("  the dog")]
        assert found != [1, *pieces("It is"), number, *pieces("the dog")]

    def test_white_space_between_a_core_and_an_added_token_vanishes_whole(self) -> None:
        assert TOKENIZER.encode("</s> \n [SEG]") == [1, 2, 1024]

    def test_every_piece_starts_with_its_own_word_mark(self) -> None:
        """So the stop after `[SEG]` is two pieces here, a word mark and a stop: another id than in `dog.`."""
        after_seg = TOKENIZER.encode("[SEG].")[2:]
        assert after_seg == pieces(".")
        assert pieces("dog.") != pieces("dog") + after_seg

    @pytest.mark.parametrize("text", ["[seg]", "[SEG", "SEG]", "< im_start>", "im_end>"])
    def test_what_only_looks_like_a_token_is_text(self, text: str) -> None:
        assert not set(TOKENIZER.encode(text)) & set(ADDED.values())

    @given(st.text(st.sampled_from("abSEG .\n\u00a0[]<>/s猫é🐈"), max_size=40))
    def test_any_text_has_ids_of_the_vocabulary(self, text: str) -> None:
        ids = TOKENIZER.encode(text)
        assert ids[0] == 1
        assert all(0 <= number < len(TOKENIZER) for number in ids)


class TestPicture:
    def test_the_picture_is_one_id_and_has_no_start_mark_of_its_own(self) -> None:
        found = TOKENIZER.encode_with_image("It is <im_start><image><im_end>\nthe dog")
        assert found == [1, *pieces("It is"), 1025, IMAGE_ID, 1026, *pieces("the dog")]

    def test_white_space_beside_the_bare_marker_stays(self) -> None:
        found = TOKENIZER.encode_with_image("It is <image> the dog")
        assert found == [1, *pieces("It is "), IMAGE_ID, *pieces(" the dog")]

    def test_a_text_without_a_picture(self) -> None:
        assert TOKENIZER.encode_with_image("It is") == TOKENIZER.encode("It is")


class TestDecoding:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("It is the dog [SEG].</s>", "It is the dog [SEG]."),
            ("They are [SEG], [SEG] and [SEG].", "They are [SEG], [SEG] and [SEG]."),
            ("[SEG]", "[SEG]"),
            ("a dog[SEG]and a cat", "a dog [SEG] and a cat"),
            ("<s>Nothing is unusual.</s>", "Nothing is unusual."),
            ("", ""),
        ],
    )
    def test_seg_is_kept_and_marks_are_left_out(self, text: str, expected: str) -> None:
        assert TOKENIZER.decode(TOKENIZER.encode(text)) == expected

    def test_the_picture_and_padding_are_left_out(self) -> None:
        assert TOKENIZER.decode([0, 0, 1, IMAGE_ID, *pieces("the dog"), 2, 0]) == "the dog"

    @given(st.lists(st.integers(0, len(TOKENIZER) - 1) | st.just(IMAGE_ID), max_size=20))
    def test_any_answer_can_be_read(self, ids: list[int]) -> None:
        assert TOKENIZER.decode(ids).count("[SEG]") >= ids.count(1024)


class TestFiles:
    def test_numbers_of_the_model(self) -> None:
        assert (TOKENIZER.bos_id, TOKENIZER.eos_id, TOKENIZER.pad_id, TOKENIZER.seg_id) == (1, 2, 0, 1024)
        assert len(TOKENIZER) == 1027

    def test_saved_and_loaded_it_is_the_same(self, tmp_path: Path) -> None:
        TOKENIZER.save(tmp_path)
        again = Tokenizer.load(tmp_path)
        assert again.added == ADDED
        assert (tmp_path / "tokenizer.model").read_bytes() == (GOLDEN_FOLDER / "tokenizer.model").read_bytes()
        assert again.encode("It is [SEG].") == TOKENIZER.encode("It is [SEG].")

    @pytest.mark.parametrize("name", ["tokenizer.model", "added_tokens.json"])
    def test_a_missing_file_is_named(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        with pytest.raises(CheckpointError, match=f"no readable tokenizer in .*{name}"):
            Tokenizer.load(folder)

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"no JSON"])
    def test_added_tokens_that_are_no_json(self, folder: Path, content: bytes) -> None:
        (folder / "added_tokens.json").write_bytes(content)
        with pytest.raises(CheckpointError, match="no readable tokenizer in"):
            Tokenizer.load(folder)

    @pytest.mark.parametrize("content", [["[SEG]"], "text", 3, None, {"[SEG]": "1024"}])
    def test_added_tokens_that_are_no_table(self, folder: Path, content: object) -> None:
        (folder / "added_tokens.json").write_text(json.dumps(content))
        with pytest.raises(
            CheckpointError, match=r"added_tokens\.json is no table of tokens and ids; get a whole copy"
        ):
            Tokenizer.load(folder)

    @pytest.mark.parametrize("token", sorted(ADDED))
    def test_a_tokenizer_without_a_token_of_lisa(self, folder: Path, token: str) -> None:
        others = {text: number for text, number in ADDED.items() if text != token}
        (folder / "added_tokens.json").write_text(json.dumps(others))
        with pytest.raises(CheckpointError, match=r"so this is no LISA model; added_tokens\.json names") as caught:
            Tokenizer.load(folder)
        assert f"has no {token} token" in str(caught.value)

    def test_no_added_tokens_at_all(self, folder: Path) -> None:
        (folder / "added_tokens.json").write_text("{}")
        with pytest.raises(CheckpointError, match="names no tokens"):
            Tokenizer.load(folder)

    @pytest.mark.parametrize("content", [b"", b"garbage", b"garbage" * 1000])
    def test_a_model_that_is_none(self, folder: Path, content: bytes) -> None:
        (folder / "tokenizer.model").write_bytes(content)
        with pytest.raises(
            CheckpointError, match=r"tokenizer\.model is no SentencePiece model; get a whole copy of it"
        ):
            Tokenizer.load(folder)

    def test_a_model_cut_short(self, folder: Path) -> None:
        data = (folder / "tokenizer.model").read_bytes()
        (folder / "tokenizer.model").write_bytes(data[:5000])
        with pytest.raises(CheckpointError, match=r"tokenizer\.model is no SentencePiece model"):
            Tokenizer.load(folder)

    def test_a_model_of_another_family(self, folder: Path) -> None:
        """T5's, for one, has no `<s>`."""
        written = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a dog and a cat and a cup"] * 5),
            model_writer=written,
            vocab_size=14,
            bos_id=-1,
            minloglevel=2,
        )
        (folder / "tokenizer.model").write_bytes(written.getvalue())
        with pytest.raises(CheckpointError, match="lacks <s>, </s> or <unk>, so this is no LISA model"):
            Tokenizer.load(folder)
