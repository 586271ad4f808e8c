"""What every test runs under: checked shapes, no network, and examples that do not depend on the clock."""

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

import lisaseg.model.configuration  # noqa: F401  before the hook: transformers writes this class's __init__ itself

if TYPE_CHECKING:
    from lisaseg.model.lisa import Lisa
    from lisaseg.model.processor import Processor

# Before the rest of lisaseg is imported: every annotation in it, shapes included, is checked at run time.
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


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a model with nano's tokenizer and picture sizes, few layers and random weights: it babbles."""
    return _save(*_small_nano(), tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def talking_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of such a model that has learned one dialogue: it answers "It is the dog [SEG]." and draws RED_BOX."""
    from lisaseg.training.lessons import labelled
    from lisaseg.training.nano import NanoLearner

    lisa, processor = _small_nano()
    pixels = processor.pixels([red_box()])
    ids, labels = (torch.tensor([row]) for row in labelled(processor, [("Segment the dog.", "It is the dog [SEG].")]))
    batch = {
        "ids": ids,
        "labels": labels,
        "attention_mask": torch.ones_like(ids),
        "picture_of_row": torch.tensor([0]),
        "vlm_pixels": pixels.vlm,
        "segmenter_pixels": pixels.segmenter,
        "masks": _in_mask_grid(RED_BOX, processor.segmenter_side),
        "concepts_segmenter": torch.zeros(1, 2, 12, 12),
        "concepts_vlm": torch.zeros(1, 2, 7, 7),
    }
    learner = NanoLearner(lisa, processor.tokenizer.seg_id, 1)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-3)
    for _ in range(40):
        optimizer.zero_grad()
        learner(**batch)["loss"].backward()
        optimizer.step()
    return _save(lisa, processor, tmp_path_factory.mktemp("talking") / "model")


GOLDEN_CHECKPOINT = Path(__file__).parent / "golden" / "llava_v1" / "checkpoint"
"""A tiny checkpoint in the published layout."""


@pytest.fixture
def golden_checkpoint() -> Path:
    """That checkpoint itself, not to be changed."""
    return GOLDEN_CHECKPOINT


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    return Path(shutil.copytree(GOLDEN_CHECKPOINT, tmp_path / "published"))


RED_BOX = (40, 30, 110, 90)
"""Where the red box lies in `red_box`, xyxy in pixels."""


def red_box() -> np.ndarray:
    """HWC RGB, 160x120: a red box on black."""
    image = np.zeros((120, 160, 3), np.uint8)
    x0, y0, x1, y1 = RED_BOX
    image[y0:y1, x0:x1] = (200, 60, 40)
    return image


def _small_nano() -> "tuple[Lisa, Processor]":
    from lisaseg.data.vocabulary import load_vocabulary
    from lisaseg.model.processor import Processor
    from lisaseg.training.nano import build
    from lisaseg.training.recipes import nano_config, nano_images, train_tokenizer

    torch.manual_seed(0)
    tokenizer = train_tokenizer(load_vocabulary())
    config: Any = nano_config(len(tokenizer))
    for part in (config.vlm_config.text_config, config.vlm_config.vision_config):
        part.num_hidden_layers = 1
    config.segmenter_config.vision_config.num_hidden_layers = 1
    config.segmenter_config.vision_config.global_attn_indexes = [0]
    return build(config), Processor(config, tokenizer, nano_images())


def _in_mask_grid(box: tuple[int, int, int, int], side: int) -> torch.Tensor:
    """The box of a 160 pixels wide picture, at the mask decoder's resolution (1 h w)."""
    x0, y0, x1, y1 = (round(edge * side / 160 / 4) for edge in box)
    mask = torch.zeros(1, side // 4, side // 4)
    mask[:, y0:y1, x0:x1] = 1
    return mask


def _save(lisa: "Lisa", processor: "Processor", folder: Path) -> str:
    from lisaseg.model.checkpoints import save_model

    save_model(lisa, processor, folder)
    return str(folder)
