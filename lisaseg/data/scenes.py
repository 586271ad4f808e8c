"""Scenes made on the fly: sprites pasted on backgrounds with exact masks after occlusion, and photographs as they are.

A scene is a function of (pack, options, seed, index) alone: the same numbers give the same pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from lisaseg.data.pack import Background, Pack, Photo, Sprite
from lisaseg.data.vocabulary import load_vocabulary
from lisaseg.errors import DataError

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class SceneOptions:
    """How scenes are composed."""

    canvas: int = 192
    """Longest side in pixels."""
    min_things: int = 2
    max_things: int = 5
    """Things in one scene; fewer where they would hide each other."""
    min_scale: float = 0.32
    max_scale: float = 0.7
    """Longest side of a thing, as a share of the picture's shorter side."""
    min_visible: float = 0.55
    """Share of each thing that later ones must leave uncovered."""
    twin_share: float = 0.3
    """How often a thing is followed by another of its concept."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_things <= self.max_things:
            raise ValueError(f"things per scene must be 1 <= min <= max, got {self.min_things}..{self.max_things}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Thing:
    """One object (or, in some photographs, all of one class) and the pixels of it that show."""

    concept: str
    mask: Bool[np.ndarray, "H W"]
    color: str | None = None
    """Its colour, where one clearly dominates."""

    @property
    def area(self) -> int:
        """Visible pixels."""
        return int(self.mask.sum())

    @property
    def center(self) -> tuple[float, float]:
        """x, y of the visible pixels' mean, as shares of width and height."""
        rows, columns = np.nonzero(self.mask)
        return float(columns.mean() / self.mask.shape[1]), float(rows.mean() / self.mask.shape[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A picture, what is in it, and what can be said to be absent."""

    image: UInt8[np.ndarray, "H W 3"]
    things: tuple[Thing, ...]
    ignore: Bool[np.ndarray, "H W"]
    """Pixels that are not labelled."""
    knows_absent: Callable[[str], bool]
    """Whether a concept without a thing here is surely absent."""
    is_composed: bool

    @property
    def concepts(self) -> tuple[str, ...]:
        """Distinct concepts, in the order of the things."""
        return tuple(dict.fromkeys(thing.concept for thing in self.things))

    def union(self, indices: Sequence[int]) -> Bool[np.ndarray, "H W"]:
        """One mask of several things."""
        return np.any([self.things[index].mask for index in indices], axis=0)


def compose(pack: Pack, options: SceneOptions, rng: np.random.Generator) -> Scene:
    """Pastes a few sprites of the pack on one of its backgrounds."""
    background = pick(pack.backgrounds, rng)
    height, width = _canvas_size(options.canvas, rng)
    canvas = _crop(background.rgb, (height, width), rng).astype(np.float32)
    names = [name for name in pack.sprites if not _may_show(background, name)]
    if not names:
        raise DataError(f"every sprite of the pack may already be in its background {background.path.name}")
    things: list[Thing] = []
    full_areas: list[int] = []
    wanted = int(rng.integers(options.min_things, options.max_things + 1))
    for _ in range(4 * wanted):
        if len(things) == wanted:
            break
        twin = things and rng.random() < options.twin_share
        name = things[-1].concept if twin else pick(names, rng)
        sprite = pick(pack.sprites[name], rng)
        rgb, alpha = _vary(sprite, options, min(height, width), rng)
        corner = _place(alpha.shape, (height, width), rng)
        placed = _put(alpha, corner, (height, width))
        masks = [thing.mask & ~(placed > 127) for thing in things]
        hidden = any(mask.sum() < options.min_visible * area for mask, area in zip(masks, full_areas, strict=True))
        if hidden or not (placed > 127).any():
            continue
        canvas = _paste(canvas, _put(rgb, corner, (height, width)), placed, rng)
        things = [Thing(concept=t.concept, mask=m, color=t.color) for t, m in zip(things, masks, strict=True)]
        things.append(Thing(concept=name, mask=placed > 127, color=color_name(rgb, alpha)))
        full_areas.append(things[-1].area)
    return Scene(
        image=_finish(canvas, rng),
        things=tuple(things),
        ignore=np.zeros((height, width), bool),
        knows_absent=lambda concept: not _may_show(background, concept),
        is_composed=True,
    )


def _may_show(background: Background, concept: str) -> bool:
    """Whether the background may show the concept, one of its kinds, or something it is a kind of."""
    return any(load_vocabulary().related(concept, shown) for shown in background.may_contain)


def from_photo(photo: Photo, canvas: int | None = None) -> Scene:
    """A photograph at its own aspect ratio, its longest side brought to `canvas` pixels, or left as it is."""
    image, index = photo.pixels()
    scale = canvas / max(index.shape) if canvas else 1
    size = (max(1, round(index.shape[1] * scale)), max(1, round(index.shape[0] * scale)))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    index = cv2.resize(index, size, interpolation=cv2.INTER_NEAREST)
    things = [Thing(concept=name, mask=index == number) for number, name in photo.segments]
    return Scene(
        image=image,
        things=tuple(thing for thing in things if thing.area > 0),
        ignore=index == 255,
        knows_absent=lambda concept: concept in photo.exhaustive,
        is_composed=False,
    )


def pick(items: Sequence[Item], rng: np.random.Generator) -> Item:
    """One of the items, uniformly."""
    return items[int(rng.integers(len(items)))]


_HUES = (("red", 8), ("orange", 19), ("yellow", 33), ("green", 85), ("blue", 130), ("purple", 150), ("pink", 172))


def color_name(rgb: UInt8[np.ndarray, "H W 3"], alpha: UInt8[np.ndarray, "H W"]) -> str | None:
    """The colour of at least 60 % of the object's pixels, or None."""
    hue, saturation, value = np.moveaxis(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV), 2, 0)
    inside = alpha > 127
    hue, saturation, value = hue[inside], saturation[inside], value[inside]
    names = np.full(hue.shape, "red", dtype="<U6")
    for name, limit in reversed(_HUES):
        names[hue <= limit] = name
    names[(hue <= 25) & (value < 150)] = "brown"
    names[(saturation < 50) & (value >= 190)] = "white"
    names[(saturation < 50) & (value < 190)] = "gray"
    names[value < 55] = "black"
    if not len(names):
        return None
    found, counts = np.unique(names, return_counts=True)
    return str(found[counts.argmax()]) if counts.max() >= 0.6 * len(names) else None


def _canvas_size(longest: int, rng: np.random.Generator) -> tuple[int, int]:
    """Square, 4:3 or 3:2, either way up; `longest` on the longer side."""
    shorter = round(longest * pick((1.0, 0.75, 0.75, 0.67), rng))
    return (longest, shorter) if rng.random() < 0.3 else (shorter, longest)


def _crop(image: UInt8[np.ndarray, "H W 3"], size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A random window of the wanted aspect ratio, at least 60 % of the most that fits, scaled to `size`."""
    height, width = image.shape[:2]
    scale = min(height / size[0], width / size[1]) * rng.uniform(0.6, 1)
    window = max(1, int(size[0] * scale)), max(1, int(size[1] * scale))
    top, left = int(rng.integers(height - window[0] + 1)), int(rng.integers(width - window[1] + 1))
    cut = image[top : top + window[0], left : left + window[1]]
    if rng.random() < 0.5:
        cut = np.ascontiguousarray(cut[:, ::-1])
    return cv2.resize(cut, (size[1], size[0]), interpolation=cv2.INTER_AREA)


def _vary(
    sprite: Sprite, options: SceneOptions, shorter_side: int, rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """A sprite at a random scale, tilt, flip and colouring."""
    rgba = sprite.rgba
    side = shorter_side * rng.uniform(options.min_scale, options.max_scale)
    scale = side / max(rgba.shape[:2])
    height, width = rgba.shape[0] * scale, rgba.shape[1] * scale
    angle = float(np.clip(rng.normal(0, 7), -20, 20))
    cosine, sine = abs(np.cos(np.radians(angle))), abs(np.sin(np.radians(angle)))
    box = max(2, round(width * cosine + height * sine)), max(2, round(width * sine + height * cosine))
    turn = cv2.getRotationMatrix2D((rgba.shape[1] / 2, rgba.shape[0] / 2), angle, scale)
    turn[:, 2] += np.array(box) / 2 - np.array([rgba.shape[1] / 2, rgba.shape[0] / 2])
    premultiplied = rgba.astype(np.float32)
    premultiplied[..., :3] *= premultiplied[..., 3:] / 255
    turned = cv2.warpAffine(premultiplied, turn, box, flags=cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        turned = turned[:, ::-1]
    alpha = turned[..., 3:]
    rgb = turned[..., :3] / np.maximum(alpha / 255, 1e-3)
    rgb = (rgb - 128) * rng.uniform(0.8, 1.2) + 128 + rng.normal(0, 12)
    rgb = rgb * rng.uniform(0.93, 1.07, 3)
    return np.clip(rgb, 0, 255).astype(np.uint8), alpha[..., 0].astype(np.uint8)


def _place(size: tuple[int, int], canvas: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """A random top and left for a thing of that size; up to 15 % of it may lie over the border."""
    low_top, low_left = -int(0.15 * size[0]), -int(0.15 * size[1])
    top = int(rng.integers(low_top, max(low_top + 1, canvas[0] - int(0.85 * size[0]))))
    left = int(rng.integers(low_left, max(low_left + 1, canvas[1] - int(0.85 * size[1]))))
    return top, left


def _put(patch: np.ndarray, corner: tuple[int, int], canvas: tuple[int, int]) -> np.ndarray:
    """The patch on an empty canvas, what lies over the border cut off."""
    top, left = corner
    placed = np.zeros((*canvas, *patch.shape[2:]), patch.dtype)
    source = patch[max(0, -top) : canvas[0] - top, max(0, -left) : canvas[1] - left]
    start = max(0, top), max(0, left)
    placed[start[0] : start[0] + source.shape[0], start[1] : start[1] + source.shape[1]] = source
    return placed


def _paste(
    canvas: Float32[np.ndarray, "H W 3"],
    rgb: UInt8[np.ndarray, "H W 3"],
    alpha: UInt8[np.ndarray, "H W"],
    rng: np.random.Generator,
) -> Float32[np.ndarray, "H W 3"]:
    """The canvas with a thing blended in, half of the time over a soft shadow."""
    if rng.random() < 0.5:
        shift = np.array([[1, 0, rng.uniform(-6, 6)], [0, 1, rng.uniform(1, 7)]])
        shadow = cv2.GaussianBlur(cv2.warpAffine(alpha, shift, alpha.shape[::-1]), (0, 0), rng.uniform(2, 5))
        canvas = canvas * (1 - np.float32(rng.uniform(0.15, 0.5)) * shadow[..., None] / np.float32(255))
    weight = (alpha / np.float32(255))[..., None]
    return canvas * (1 - weight) + rgb * weight


def _finish(canvas: Float32[np.ndarray, "H W 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
    """Lighting, a little blur and noise over the whole picture, as cameras make them."""
    canvas = canvas * np.float32(rng.uniform(0.8, 1.15))
    if rng.random() < 0.25:
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.4, 0.9))
    if rng.random() < 0.4:
        canvas = canvas + rng.normal(0, rng.uniform(2, 8), canvas.shape).astype(np.float32)
    return np.clip(canvas, 0, 255).astype(np.uint8)
