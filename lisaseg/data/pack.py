"""The training pack: cut-out sprites, backgrounds and labelled photographs, as its README describes them."""

import functools
import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from lisaseg.errors import DataError

PACK_VARIABLE = "LISASEG_NANO_PACK"
"""Environment variable that names the pack's folder."""


def find_pack(folder: Path | None) -> Path:
    """The folder given, or the one the environment names.

    Raises:
        DataError: none is given, or it holds no pack.
    """
    chosen = folder or (Path(os.environ[PACK_VARIABLE]) if os.environ.get(PACK_VARIABLE) else None)
    if chosen is None:
        raise DataError(f"training needs the picture pack: give its folder with --pack or in ${PACK_VARIABLE}")
    if not (chosen / "sprites.jsonl").is_file():
        raise DataError(f"{chosen} holds no training pack: expected sprites.jsonl, backgrounds.jsonl and photos.jsonl")
    return chosen


@dataclass(frozen=True, kw_only=True, eq=False)
class Sprite:
    """A cut-out of one thing. Its pixels are RGBA; the object is where alpha > 127."""

    concept: str
    path: Path
    style: str
    licence: str

    @functools.cached_property
    def rgba(self) -> UInt8[np.ndarray, "H W 4"]:
        """Decoded once, RGBA order."""
        pixels = _read(self.path, cv2.IMREAD_UNCHANGED)
        return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA)


@dataclass(frozen=True, kw_only=True, eq=False)
class Background:
    """A picture to paste on, and the concepts it may show already."""

    path: Path
    licence: str
    may_contain: frozenset[str]

    @functools.cached_property
    def rgb(self) -> UInt8[np.ndarray, "H W 3"]:
        """Decoded once, RGB order."""
        return cv2.cvtColor(_read(self.path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


@dataclass(frozen=True, kw_only=True, eq=False)
class Photo:
    """A labelled photograph: an index mask (0 background, k = segment k, 255 ignore) and what each index is."""

    path: Path
    mask_path: Path
    segments: tuple[tuple[int, str], ...]
    exhaustive: frozenset[str]
    """Concepts labelled wherever they appear, so that their absence can be told."""

    def pixels(self) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]:
        """RGB and the index mask."""
        rgb = cv2.cvtColor(_read(self.path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        return rgb, _read(self.mask_path, cv2.IMREAD_UNCHANGED)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pack:
    """What one split of the pack holds of some concepts."""

    sprites: Mapping[str, tuple[Sprite, ...]] = field(default_factory=dict)
    backgrounds: tuple[Background, ...] = ()
    photos: tuple[Photo, ...] = ()

    def require(self, concepts: Collection[str]) -> None:
        """Raises DataError where a concept has no sprite."""
        lacking = sorted(set(concepts) - set(self.sprites))
        if lacking:
            raise DataError(f"the pack has no training sprite of: {', '.join(lacking)}")


def load_pack(folder: Path, concepts: Collection[str], *, split: str, sprites_per_concept: int | None = None) -> Pack:
    """One split of the pack, narrowed to some concepts.

    Args:
        folder: the pack.
        concepts: names to keep; photographs without any of them are left out.
        split: `train`, `val` or `test`.
        sprites_per_concept: keep at most so many of each, styles in turn, in the order of the file.

    Raises:
        DataError: a list is missing or malformed.
    """
    labelsets = _json(folder / "labelsets.json")
    found: dict[str, list[Sprite]] = {name: [] for name in concepts}
    for record in _records(folder / "sprites.jsonl", split):
        if record["concept"] in found:
            found[record["concept"]].append(
                Sprite(
                    concept=record["concept"],
                    path=folder / record["file"],
                    style=record["style"],
                    licence=record["licence"],
                )
            )
    photos = (_photo(folder, record, labelsets) for record in _records(folder / "photos.jsonl", split))
    return Pack(
        sprites={name: tuple(_styles_in_turn(items)[:sprites_per_concept]) for name, items in found.items() if items},
        backgrounds=tuple(
            Background(
                path=folder / record["file"],
                licence=record["licence"],
                may_contain=frozenset(record["may_contain"]),
            )
            for record in _records(folder / "backgrounds.jsonl", split)
        ),
        photos=tuple(photo for photo in photos if any(name in found for _, name in photo.segments)),
    )


def _styles_in_turn(sprites: list[Sprite]) -> list[Sprite]:
    """Photo, render, drawing, photo, ...: a short selection still shows every style."""
    rank: dict[str, int] = {}
    keyed = []
    for sprite in sprites:
        rank[sprite.style] = rank.get(sprite.style, 0) + 1
        keyed.append((rank[sprite.style], ["photo", "render", "drawing"].index(sprite.style), sprite))
    return [sprite for _, _, sprite in sorted(keyed, key=lambda item: item[:2])]


def _photo(folder: Path, record: Mapping[str, Any], labelsets: Mapping[str, Any]) -> Photo:
    return Photo(
        path=folder / record["file"],
        mask_path=folder / record["mask"],
        segments=tuple((segment["index"], segment["concept"]) for segment in record["segments"]),
        exhaustive=frozenset(labelsets[record["labelset"]]["exhaustive"]) - frozenset(record["ignored"]),
    )


def _records(path: Path, split: str) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text("utf-8").splitlines()
        yield from (record for record in map(json.loads, lines) if record["split"] == split)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"cannot read the pack's list {path}: {error}") from error


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the pack's list {path}: {error}") from error


def _read(path: Path, flags: int) -> np.ndarray:
    pixels = cv2.imread(str(path), flags)
    if pixels is None:
        raise DataError(f"cannot read the picture {path} of the pack")
    return pixels
