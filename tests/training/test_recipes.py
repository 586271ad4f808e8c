from typing import Any

import pytest

from lisaseg.config import FIRST_WORLD, NanoRecipe
from lisaseg.data.vocabulary import load_vocabulary
from lisaseg.language.tokenizer import Tokenizer
from lisaseg.segmenter import Segmenter
from lisaseg.training.recipes import nano_config


@pytest.fixture(scope="module")
def tokenizer(tiny_model: str) -> Tokenizer:
    return Segmenter.load(tiny_model).processor.tokenizer


def test_every_name_of_the_world_is_a_concept_and_one_token(tokenizer: Tokenizer) -> None:
    for name in FIRST_WORLD:
        assert name in load_vocabulary().concepts
        assert len(tokenizer.encode(name)) == 2, name


def test_any_text_can_be_told(tokenizer: Tokenizer) -> None:
    for text in ("Wo ist der Hund? Größe!", "猫はどこ", "🐕"):
        ids = tokenizer.encode(text)
        assert tokenizer.pad_id not in ids
        assert tokenizer.decode(ids) == text


def test_nano_is_small_and_its_parts_fit() -> None:
    config = nano_config(4000)
    assert config.num_image_tokens == 49
    assert config.segmenter_side == 192
    assert config.prompt_width == 128


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"scenes": 10, "look_scenes": 11}, "--look-scenes"),
        ({"photo_share": 1.5}, "--photo-share"),
        ({"batch_size": 0}, "--batch-size"),
    ],
)
def test_impossible_recipes_name_their_flag(options: dict[str, Any], flag: str) -> None:
    with pytest.raises(ValueError, match=flag):
        NanoRecipe(**options)
