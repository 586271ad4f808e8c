"""Other views of a sample: mirrored where its words allow it, lighter, darker, more or less colourful."""

import re
from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import UInt8

from lisaseg.data.sample import Masks, Sample

_SIDES = re.compile(r"\b(left|right|clockwise|west|east|read|letters?|words?|text|signs?)\b|\d", re.IGNORECASE)


def augment(sample: Sample, rng: np.random.Generator) -> Sample:
    """One random view; its masks follow, its words stay true: nothing is mirrored that speaks of sides or writing."""
    image = _relight(sample.image, rng)
    mirror = rng.random() < 0.5 and not any(_speaks_of_sides(sample))
    if not mirror:
        return replace(sample, image=image)
    masks = [
        lambda place=place: np.ascontiguousarray(sample.masks[place][:, ::-1]) for place in range(len(sample.masks))
    ]
    return replace(sample, image=np.ascontiguousarray(image[:, ::-1]), masks=Masks(masks))


def _speaks_of_sides(sample: Sample) -> list[bool]:
    return [
        bool(_SIDES.search(f"{exchange.text} {exchange.answer or ''}"))
        for dialogue in sample.dialogues
        for exchange in dialogue
    ]


def _relight(image: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
    """Contrast and brightness of the whole picture, and a slight cast of colour."""
    gain = rng.uniform(0.8, 1.2) * rng.uniform(0.95, 1.05, 3)
    table = np.clip((np.arange(256)[:, None] - 128) * gain + 128 + rng.normal(0, 12), 0, 255).astype(np.uint8)
    return cv2.LUT(image, table[None])
