from pathlib import Path
from types import ModuleType

import pytest

from lisaseg.data.paper import open_paper_source
from lisaseg.errors import DataError


def write(root: Path, maker: ModuleType, *speakers: str) -> None:
    turns = [{"from": speaker, "value": f"{number}"} for number, speaker in enumerate(speakers)]
    record = {"id": "odd", "image": "000000000001.jpg", "conversations": turns}
    maker.write_json(root / "llava_dataset" / "llava_instruct_150k.json", [record])


def test_a_dialogue_is_told_whole_without_the_picture_marker(root: Path) -> None:
    source = open_paper_source("llava_instruct_150k", root)
    assert (len(source), source.entry(1)) == (2, "4")
    sample = source[0]
    (dialogue,) = sample.dialogues
    assert [(turn.text, turn.answer) for turn in dialogue] == [("What is it?", "A dog."), ("Sure?", "Yes.")]
    assert {(turn.kind, turn.masks) for turn in dialogue} == {("said", ())}
    assert len(sample.masks) == 0
    assert sample.image.shape == (12, 16, 3)


def test_an_answer_to_nothing_at_the_start_is_passed_over(root: Path, maker: ModuleType) -> None:
    write(root, maker, "gpt", "human", "gpt")
    (dialogue,) = open_paper_source("llava_instruct_150k", root)[0].dialogues
    assert [(turn.text, turn.answer) for turn in dialogue] == [("1", "2")]


@pytest.mark.parametrize(
    "speakers", [("human", "human"), ("human",), (), ("human", "gpt", "gpt", "human"), ("human", "system")]
)
def test_turns_that_do_not_alternate_are_refused(root: Path, maker: ModuleType, speakers: tuple[str, ...]) -> None:
    write(root, maker, *speakers)
    with pytest.raises(DataError, match="record odd do not alternate human, gpt"):
        open_paper_source("llava_instruct_150k", root)[0]


def test_a_record_without_turns_is_refused(root: Path, maker: ModuleType) -> None:
    maker.write_json(root / "llava_dataset/llava_instruct_150k.json", [{"image": "000000000001.jpg"}])
    with pytest.raises(DataError, match="no 'conversations'"):
        open_paper_source("llava_instruct_150k", root)[0]
