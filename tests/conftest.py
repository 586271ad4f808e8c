"""What every test runs under: checked shapes, no network, and examples that do not depend on the clock."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# Before lisaseg is imported: every annotation in it, shapes included, is checked at run time.
install_import_hook("lisaseg", "beartype.beartype")

# Before huggingface_hub is imported, here or in a process that a test starts: no test may reach a hub.
os.environ["HF_HUB_OFFLINE"] = "1"

# A slow machine is no failure, and the same commit gives the same result.
settings.register_profile("lisaseg", deadline=None, derandomize=True)
settings.load_profile("lisaseg")

PACK_CONCEPTS = ("dog", "cat", "cup", "car")
"""What the small pack shows."""


@pytest.fixture(scope="session")
def tiny_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training pack in the real layout: coloured shapes for four concepts, plain backgrounds, two photographs."""
    folder = tmp_path_factory.mktemp("pack")
    for name in ("sprites", "backgrounds", "photos"):
        (folder / name).mkdir()
    sprites, backgrounds = [], []
    photos = [_photo(folder, split) for split in ("train", "val")]
    for number, concept in enumerate(PACK_CONCEPTS):
        for split in ("train", "val"):
            file = f"sprites/{concept}_{split}.webp"
            cv2.imwrite(str(folder / file), _shape(number), [cv2.IMWRITE_WEBP_QUALITY, 101])
            sprites.append({"file": file, "concept": concept, "style": "render", "licence": "CC0-1.0", "split": split})
    for split, may_contain in (("train", []), ("train", ["car"]), ("val", [])):
        file = f"backgrounds/{len(backgrounds)}.png"
        cv2.imwrite(str(folder / file), np.full((120, 160, 3), 200, np.uint8))
        backgrounds.append({"file": file, "licence": "CC0-1.0", "split": split, "may_contain": may_contain})
    for name, records in (("sprites", sprites), ("backgrounds", backgrounds), ("photos", photos)):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    (folder / "labelsets.json").write_text(json.dumps({"two": {"exhaustive": ["dog", "cat", "cup"]}}))
    return folder


def _shape(number: int) -> np.ndarray:
    """BGRA: a filled disc, square, triangle or bar, each in its own colour, on nothing."""
    canvas = np.zeros((64, 64, 4), np.uint8)
    color = [(40, 40, 230, 255), (40, 200, 40, 255), (230, 60, 40, 255), (30, 220, 240, 255)][number]
    if number == 0:
        cv2.circle(canvas, (32, 32), 28, color, -1)
    elif number == 1:
        cv2.rectangle(canvas, (6, 6), (58, 58), color, -1)
    elif number == 2:
        cv2.fillPoly(canvas, [np.array([[32, 4], [60, 60], [4, 60]], np.int32)], color)
    else:
        cv2.rectangle(canvas, (2, 22), (62, 42), color, -1)
    return canvas


def _photo(folder: Path, split: str) -> dict[str, object]:
    """A red square (dog) on grey, with a frame of ignored pixels on its left; the cup is somewhere in the ignored."""
    image, mask = np.full((60, 80, 3), 128, np.uint8), np.zeros((60, 80), np.uint8)
    image[20:50, 30:60] = (40, 40, 230)
    mask[20:50, 30:60] = 1
    mask[:, :10] = 255
    cv2.imwrite(str(folder / f"photos/{split}.jpg"), image)
    cv2.imwrite(str(folder / f"photos/{split}.png"), mask)
    return {
        "file": f"photos/{split}.jpg",
        "mask": f"photos/{split}.png",
        "split": split,
        "labelset": "two",
        "segments": [{"index": 1, "concept": "dog", "kind": "instance"}],
        "ignored": ["cup"],
    }
