import cv2
import numpy as np
import pytest

from lisaseg.images.draw import PALETTE, overlay
from lisaseg.images.masks import bbox

GREY = np.full((120, 160, 3), 100, np.uint8)
COLOUR_BLIND = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
"""Linear RGB as such eyes see it: Machado, Oliveira and Fernandes 2009, severity 1."""


def box_mask(x0: int, y0: int, x1: int, y1: int, shape: tuple[int, int] = (120, 160)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def drawn(
    *masks: np.ndarray, image: np.ndarray = GREY, labels: tuple[str, ...] = (), opacity: float = 0.5
) -> np.ndarray:
    picture = overlay(image, masks, labels, opacity)
    assert picture.mode == "RGB"
    return np.array(picture)


def tag_of(mask: np.ndarray, label: str = "cup", image: np.ndarray = GREY) -> tuple[int, int, int, int]:
    """The box of what a label adds, xyxy, x1 and y1 exclusive."""
    return bbox((drawn(mask, image=image) != drawn(mask, image=image, labels=(label,))).any(axis=2))


def beyond(mask: np.ndarray, pixels: int = 3) -> np.ndarray:
    """What is farther from the mask than an outline is wide."""
    return ~cv2.dilate(mask.astype(np.uint8), np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)).astype(bool)


class TestTint:
    @pytest.mark.parametrize("opacity", [0.0, 0.25, 0.5, 1.0])
    def test_inside_is_the_picture_mixed_with_the_colour(self, opacity: float) -> None:
        found = drawn(box_mask(40, 30, 120, 90), opacity=opacity)[60, 80]
        np.testing.assert_allclose(found, 100 * (1 - opacity) + np.array(PALETTE[0]) * opacity, atol=1)

    def test_outside_is_the_picture(self) -> None:
        image = np.random.default_rng(0).integers(0, 256, GREY.shape, dtype=np.uint8)
        mask = box_mask(40, 30, 120, 90)
        far = beyond(mask)
        np.testing.assert_array_equal(drawn(mask, image=image)[far], image[far])

    def test_the_picture_given_stays_as_it_is(self) -> None:
        image = GREY.copy()
        drawn(box_mask(40, 30, 120, 90), image=image, labels=("box",))
        np.testing.assert_array_equal(image, GREY)

    def test_each_mask_has_its_colour_and_they_repeat(self) -> None:
        masks = [box_mask(16 * i, 10, 16 * i + 16, 40) for i in range(len(PALETTE) + 1)]
        found = drawn(*masks, opacity=1.0)
        centers = [tuple(found[25, 16 * i + 8].tolist()) for i in range(len(masks))]
        assert centers == [*PALETTE, PALETTE[0]]

    def test_a_later_mask_lies_on_top(self) -> None:
        found = drawn(box_mask(0, 0, 100, 100), box_mask(40, 40, 160, 120), opacity=1.0)
        assert tuple(found[70, 70].tolist()) == PALETTE[1]

    def test_the_outline_is_there_even_without_a_tint(self) -> None:
        found = drawn(box_mask(40, 30, 120, 90), opacity=0.0)
        assert (found[28:33, 80] != 100).any()
        assert (found[60, 80] == 100).all()

    def test_a_hole_stays_open(self) -> None:
        ring = box_mask(20, 10, 140, 110) & ~box_mask(50, 40, 110, 80)
        assert (drawn(ring)[60, 80] == 100).all()

    @pytest.mark.parametrize("labels", [(), ("nothing",)])
    def test_nothing_to_draw(self, labels: tuple[str, ...]) -> None:
        np.testing.assert_array_equal(drawn(), GREY)
        np.testing.assert_array_equal(drawn(box_mask(0, 0, 0, 0), labels=labels), GREY)

    @pytest.mark.parametrize("opacity", [-0.1, 1.1, float("nan")])
    def test_an_opacity_out_of_range(self, opacity: float) -> None:
        with pytest.raises(ValueError, match="opacity must be between 0 and 1, got"):
            overlay(GREY, [], opacity=opacity)


class TestTags:
    def test_a_tag_stands_on_its_mask_in_its_colour_and_hides_nothing_of_it(self) -> None:
        mask = box_mask(60, 40, 150, 110)
        x0, y0, x1, y1 = tag_of(mask)
        assert y1 == 40
        assert 60 <= x0 < x1 <= 150
        tagged = drawn(mask, labels=("cup",))
        assert (tagged[y0:y1, x0:x1] == PALETTE[0]).all(axis=2).mean() > 0.3

    @pytest.mark.parametrize(
        ("box", "edge"),
        [((0, 110, 10, 120), (0, 110)), ((150, 0, 160, 10), (160, 10)), ((150, 110, 160, 120), (160, 110))],
        ids=["lower left", "upper right", "lower right"],
    )
    def test_a_tag_at_the_edge_stays_in_the_picture(
        self, box: tuple[int, int, int, int], edge: tuple[int, int]
    ) -> None:
        x0, y0, x1, y1 = tag_of(box_mask(*box))
        assert edge[0] in (x0, x1)
        assert edge[1] in (y0, y1)

    def test_the_tag_of_a_thing_that_fills_the_picture_is_inside(self) -> None:
        x0, y0, x1, _ = tag_of(np.ones((120, 160), bool))
        assert y0 == 0
        assert (x0 + x1) / 2 == pytest.approx(80, abs=1)

    def test_tags_do_not_hide_each_other(self) -> None:
        mask = box_mask(30, 40, 130, 100)
        one, two = tag_of(mask), tag_of(mask, "lid")
        both = drawn(mask, mask, labels=("cup", "lid")) != drawn(mask, mask)
        rows = np.flatnonzero(both.any(axis=(1, 2)))
        assert (one[3], rows.min()) == (40, one[1])
        assert rows.max() + 1 == 100 + two[3] - two[1]

    def test_a_missing_or_empty_label_draws_no_tag(self) -> None:
        masks = box_mask(10, 10, 70, 60), box_mask(80, 10, 150, 60)
        np.testing.assert_array_equal(drawn(*masks, labels=("", " \n ")), drawn(*masks))
        one = drawn(*masks, labels=("left",))
        np.testing.assert_array_equal(one[:, 80:], drawn(*masks)[:, 80:])

    def test_a_long_label_is_cut(self) -> None:
        wide, mask = np.full((200, 900, 3), 100, np.uint8), box_mask(100, 20, 800, 180, (200, 900))
        start = "the thing that one would take to"
        assert len(start) == 32
        cut = drawn(mask, image=wide, labels=(f"{start} cut bread with",))
        np.testing.assert_array_equal(cut, drawn(mask, image=wide, labels=(f"{start[:31].rstrip()}…",)))

    def test_a_label_of_several_lines_is_drawn_in_one(self) -> None:
        mask = box_mask(10, 10, 150, 110)
        np.testing.assert_array_equal(drawn(mask, labels=("the\n cup\t",)), drawn(mask, labels=("the cup",)))

    @pytest.mark.parametrize(
        "label", ["猫", "قطة", "кошка", "🐈‍⬛", "\u0301", "a\0b", "x" * 10_000, "W" * 32, "…", "\udcff"]
    )
    def test_any_label_can_be_drawn(self, label: str) -> None:
        assert drawn(box_mask(10, 10, 150, 110), labels=(label,)).shape == GREY.shape

    def test_a_tag_that_does_not_fit_is_left_out(self) -> None:
        image, mask = np.zeros((8, 8, 3), np.uint8), box_mask(2, 2, 6, 6, (8, 8))
        np.testing.assert_array_equal(drawn(mask, image=image, labels=("cup",)), drawn(mask, image=image))


class TestSizes:
    @pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 3)])
    def test_tiny_pictures(self, shape: tuple[int, int]) -> None:
        image = np.zeros((*shape, 3), np.uint8)
        assert drawn(np.ones(shape, bool), image=image, labels=("cup",)).shape == image.shape

    @pytest.mark.parametrize("shape", [(200, 20_000), (20_000, 200)])
    def test_a_strip_has_thin_outlines_and_small_tags(self, shape: tuple[int, int]) -> None:
        image, mask = np.zeros((*shape, 3), np.uint8), box_mask(60, 60, 140, 140, shape)
        assert (drawn(mask, image=image)[beyond(mask, 4)] == 0).all()
        x0, y0, x1, y1 = tag_of(mask, image=image)
        assert 50 <= x0 < x1 <= 150
        assert 55 <= y1 <= 60  # its lowest rows lie on the outline, which has its colour
        assert 12 < y1 - y0 < 60

    def test_a_huge_picture_has_a_readable_tag(self) -> None:
        image, mask = np.zeros((1500, 2000, 3), np.uint8), box_mask(500, 500, 1500, 1000, (1500, 2000))
        x0, y0, x1, y1 = tag_of(mask, image=image)
        assert 40 < y1 - y0 < 150
        assert 80 < x1 - x0 < 300


@pytest.mark.parametrize("eyes", COLOUR_BLIND)
def test_colours_stay_apart(eyes: str) -> None:
    """At least as far as any two of Okabe and Ito's own colours: CIE76 distance 16."""
    linear = (np.array(PALETTE, np.float32) / 255) ** 2.2 @ np.array(COLOUR_BLIND[eyes], np.float32).T
    lab = cv2.cvtColor((linear.clip(0, 1) ** (1 / 2.2))[None], cv2.COLOR_RGB2LAB)[0]
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=2) + 1000 * np.eye(len(PALETTE))
    assert distances.min() > 16
