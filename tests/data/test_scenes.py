from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lisaseg.data.pack import Pack, load_pack
from lisaseg.data.scenes import Scene, SceneOptions, color_name, compose, from_photo
from lisaseg.errors import DataError


@pytest.fixture(scope="module")
def pack(tiny_pack: Path) -> Pack:
    return load_pack(tiny_pack, ["dog", "cat", "cup", "car"], split="train")


def scene(pack: Pack, index: int, **options: Any) -> Scene:
    return compose(pack, SceneOptions(canvas=96, **options), np.random.default_rng([0, index]))


def test_the_same_numbers_give_the_same_scene(pack: Pack) -> None:
    one, same, other = scene(pack, 3), scene(pack, 3), scene(pack, 4)
    assert np.array_equal(one.image, same.image)
    assert [thing.concept for thing in one.things] == [thing.concept for thing in same.things]
    assert one.image.shape != other.image.shape or not np.array_equal(one.image, other.image)


def test_masks_are_apart_and_lie_on_what_they_name(pack: Pack) -> None:
    for index in range(30):
        made = scene(pack, index)
        assert max(made.image.shape) == 96
        assert 1 <= len(made.things) <= 5
        assert np.sum([thing.mask for thing in made.things], axis=0).max() == 1
        for thing in made.things:
            red, green, blue = np.median(made.image[thing.mask], axis=0)
            brightest = {"dog": red, "cat": green, "cup": blue, "car": red}[thing.concept]
            assert brightest == max(red, green, blue), (index, thing.concept)


def test_enough_of_each_thing_stays_visible(pack: Pack) -> None:
    alone = [
        thing.area / thing.mask.size for i in range(40) for thing in scene(pack, i, min_things=1, max_things=1).things
    ]
    crowded = [thing.area / thing.mask.size for i in range(40) for thing in scene(pack, i, min_things=5).things]
    assert min(crowded) > 0.5 * min(alone)


def test_what_a_background_may_show_is_neither_pasted_nor_told_absent(pack: Pack) -> None:
    doubtful = [made for made in (scene(pack, i) for i in range(60)) if not made.knows_absent("car")]
    assert doubtful
    assert not any("car" in made.concepts for made in doubtful)


def test_twins_come_as_often_as_asked(pack: Pack) -> None:
    never = [scene(pack, i, twin_share=0.0, min_things=2, max_things=2) for i in range(40)]
    always = [scene(pack, i, twin_share=1.0, min_things=2, max_things=2) for i in range(40)]
    assert np.mean([len(made.concepts) for made in always]) == 1
    assert np.mean([len(made.concepts) for made in never]) > 1.5


def test_a_photograph_keeps_its_aspect_its_masks_and_its_doubts(tiny_pack: Path) -> None:
    (photo,) = load_pack(tiny_pack, ["dog"], split="train").photos
    made = from_photo(photo, 160)
    assert made.image.shape == (120, 160, 3)
    assert [thing.concept for thing in made.things] == ["dog"]
    assert made.things[0].area == 60 * 60
    assert made.ignore[:, :20].all()
    assert made.ignore.sum() == 120 * 20
    assert made.knows_absent("cat")
    assert not made.knows_absent("cup")
    assert not made.knows_absent("car")


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((220, 20, 20), "red"),
        ((30, 160, 40), "green"),
        ((40, 80, 220), "blue"),
        ((250, 250, 250), "white"),
        ((9, 9, 9), "black"),
    ],
)
def test_plain_colours_have_their_name(rgb: tuple[int, int, int], expected: str) -> None:
    image = np.full((8, 8, 3), rgb, np.uint8)
    assert color_name(image, np.full((8, 8), 255, np.uint8)) == expected


def test_a_motley_thing_has_no_colour() -> None:
    image = np.zeros((9, 9, 3), np.uint8)
    image[:3], image[3:6], image[6:] = (220, 20, 20), (30, 160, 40), (40, 80, 220)
    assert color_name(image, np.full((9, 9), 255, np.uint8)) is None
    assert color_name(image, np.zeros((9, 9), np.uint8)) is None


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ValueError, match="min <= max"):
        SceneOptions(min_things=4, max_things=3)


def test_union_joins_things(pack: Pack) -> None:
    made = scene(pack, 1, min_things=3)
    both = made.union([0, 1])
    assert np.array_equal(both, made.things[0].mask | made.things[1].mask)
    assert cv2.countNonZero(both.astype(np.uint8)) == made.things[0].area + made.things[1].area


def test_a_background_that_may_show_a_tree_is_not_free_of_palm_trees(pack: Pack) -> None:
    wooded = replace(pack, backgrounds=(replace(pack.backgrounds[0], may_contain=frozenset({"tree"})),))
    made = scene(wooded, 0)
    assert not made.knows_absent("palm tree")
    assert made.knows_absent("boat")


def test_a_pack_whose_backgrounds_show_everything_is_refused(pack: Pack) -> None:
    full = replace(pack, backgrounds=(replace(pack.backgrounds[0], may_contain=frozenset(pack.sprites)),))
    with pytest.raises(DataError, match="may already be in its background"):
        scene(full, 0)
