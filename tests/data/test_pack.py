from pathlib import Path

import numpy as np
import pytest

from lisaseg.data.pack import PACK_VARIABLE, find_pack, load_pack
from lisaseg.errors import DataError


def test_a_split_is_narrowed_to_the_concepts_asked_for(tiny_pack: Path) -> None:
    pack = load_pack(tiny_pack, ["dog", "cup"], split="train")
    assert set(pack.sprites) == {"dog", "cup"}
    assert [len(found) for found in pack.sprites.values()] == [1, 1]
    assert len(pack.backgrounds) == 2
    assert pack.backgrounds[1].may_contain == {"car"}


def test_photographs_without_any_of_the_concepts_are_left_out(tiny_pack: Path) -> None:
    assert len(load_pack(tiny_pack, ["dog"], split="train").photos) == 1
    assert load_pack(tiny_pack, ["cat"], split="train").photos == ()


def test_ignored_concepts_cannot_be_told_absent(tiny_pack: Path) -> None:
    (photo,) = load_pack(tiny_pack, ["dog"], split="val").photos
    assert photo.exhaustive == {"dog", "cat"}


def test_sprites_are_rgba_in_that_order(tiny_pack: Path) -> None:
    (dog,) = load_pack(tiny_pack, ["dog"], split="train").sprites["dog"]
    assert dog.rgba.shape == (64, 64, 4)
    red, green, blue, alpha = dog.rgba[32, 32]
    assert alpha == 255
    assert red > 200 > max(green, blue)


def test_a_selection_takes_the_styles_in_turn(tmp_path: Path, tiny_pack: Path) -> None:
    lines = [
        f'{{"file": "sprites/{name}.webp", "concept": "dog", "style": "{style}", "licence": "x", "split": "train"}}\n'
        for name, style in (("a", "photo"), ("b", "photo"), ("c", "drawing"), ("d", "render"))
    ]
    (tmp_path / "sprites.jsonl").write_text("".join(lines))
    for name in ("backgrounds.jsonl", "photos.jsonl", "labelsets.json"):
        (tmp_path / name).write_bytes((tiny_pack / name).read_bytes())
    chosen = load_pack(tmp_path, ["dog"], split="train", sprites_per_concept=3).sprites["dog"]
    assert [sprite.path.stem for sprite in chosen] == ["a", "d", "c"]


def test_the_pack_is_found_by_flag_before_environment(tiny_pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PACK_VARIABLE, str(tiny_pack))
    assert find_pack(None) == tiny_pack
    monkeypatch.setenv(PACK_VARIABLE, "nowhere")
    assert find_pack(tiny_pack) == tiny_pack


def test_no_pack_says_how_to_name_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PACK_VARIABLE, raising=False)
    with pytest.raises(DataError, match=r"--pack or in \$LISASEG_NANO_PACK"):
        find_pack(None)
    with pytest.raises(DataError, match="holds no training pack"):
        find_pack(tmp_path)


def test_a_malformed_list_is_named(tmp_path: Path, tiny_pack: Path) -> None:
    (tmp_path / "labelsets.json").write_bytes((tiny_pack / "labelsets.json").read_bytes())
    (tmp_path / "sprites.jsonl").write_text('{"concept": "dog"')
    with pytest.raises(DataError, match=r"sprites\.jsonl"):
        load_pack(tmp_path, ["dog"], split="train")


def test_a_missing_picture_is_named(tiny_pack: Path, tmp_path: Path) -> None:
    (dog,) = load_pack(tiny_pack, ["dog"], split="train").sprites["dog"]
    lost = type(dog)(concept="dog", path=tmp_path / "gone.webp", style="photo", licence="x")
    with pytest.raises(DataError, match=r"gone\.webp"):
        np.asarray(lost.rgba)
