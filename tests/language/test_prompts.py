import json
from pathlib import Path

import pytest

from lisaseg.errors import CheckpointError
from lisaseg.language.prompts import IMAGE_MARKER, TEMPLATES, get_template, render

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "llava_v1" / "golden.json").read_text("utf-8"))["cases"]
PICTURE = "<im_start><image><im_end>\n"
SYSTEM = {
    "llava_v1": "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the human's questions. ",
    "llava_llama_2": "[INST] <<SYS>>\nYou are a helpful language and vision assistant. You are able to understand the "
    "visual content that the user provides, and assist the user with a variety of tasks using natural language.\n"
    "<</SYS>>\n\n",
    "plain": "",
}
"""What stands before the first question, as the original writes it."""


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["question"][:20])
def test_an_open_question_reads_as_the_original_writes_it(case: dict[str, str]) -> None:
    assert render(TEMPLATES["llava_v1"], [(case["question"], None)]) == case["prompt"]


@pytest.mark.parametrize(
    ("name", "turns", "expected"),
    [
        ("llava_v1", [("Q", None)], f"USER: {PICTURE}Q ASSISTANT:"),
        ("llava_v1", [("Q", "A")], f"USER: {PICTURE}Q ASSISTANT: A</s>"),
        ("llava_v1", [("Q", "A"), ("R", None)], f"USER: {PICTURE}Q ASSISTANT: A</s>USER: R ASSISTANT:"),
        ("llava_v1", [("Q", "A"), ("R", "B")], f"USER: {PICTURE}Q ASSISTANT: A</s>USER: R ASSISTANT: B</s>"),
        ("llava_llama_2", [("Q", None)], f"{PICTURE}Q [/INST]"),
        ("llava_llama_2", [("Q", "A")], f"{PICTURE}Q [/INST] A </s>"),
        ("llava_llama_2", [("Q", "A"), ("R", None)], f"{PICTURE}Q [/INST] A </s><s>[INST] R [/INST]"),
        ("llava_llama_2", [("Q", "A"), ("R", "B")], f"{PICTURE}Q [/INST] A </s><s>[INST] R [/INST] B </s>"),
        ("plain", [("Q", "A"), ("R", None)], f"USER: {PICTURE}Q ASSISTANT: A</s>USER: R ASSISTANT:"),
    ],
)
def test_a_dialogue_in_each_format(name: str, turns: list[tuple[str, str | None]], expected: str) -> None:
    assert render(TEMPLATES[name], turns) == SYSTEM[name] + expected


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_the_picture_stands_in_the_first_question_alone(name: str) -> None:
    text = render(get_template(name), [("one", "two"), ("three", "four"), ("five", None)])
    assert text.count(IMAGE_MARKER) == 1
    assert text.index(IMAGE_MARKER) < text.index("one")


def test_a_question_is_left_as_it_is() -> None:
    assert render(TEMPLATES["plain"], [("  two\n lines ", None)]) == f"USER: {PICTURE}  two\n lines  ASSISTANT:"


def test_an_unknown_template_names_the_known_ones() -> None:
    with pytest.raises(
        CheckpointError, match="unknown conversation template 'vicuna'; known ones: llava_llama_2, llava_v1, plain"
    ):
        get_template("vicuna")
