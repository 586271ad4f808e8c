"""How fast lessons are made ready for SAM at 1024 pixels, against reading and resizing the pictures alone.

python benchmarks/data_loading.py [--pictures 40] [--rounds 3]

Pictures are JPEGs of 640x480 with three masks as polygons each, as in COCO. One process, one thread. "plain" decodes
with Pillow and resizes to both encoders' sizes; "lesson" does all that training does: decoding, another view, both
resizes, CLIP's normalisation, drawing the masks, wording and tokens.
"""

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from PIL import Image

from lisaseg.data.mixture import Stream
from lisaseg.data.sample import Exchange, Masks, Sample, Source
from lisaseg.data.shapes import coco_mask
from lisaseg.images.read import read
from lisaseg.model.checkpoints import open_checkpoint
from lisaseg.training.lessons import Lessons

SIDE = 1024
CHECKPOINT = Path(__file__).parents[1] / "tests" / "golden" / "llava_v1" / "checkpoint"
"""A tiny model with the published sizes of pictures."""


class Pictures(Source):
    """JPEGs of a folder, with polygons."""

    name = "pictures"

    def __init__(self, paths: list[Path]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def entry(self, index: int) -> str:
        return self.paths[index].name

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        angles = np.linspace(0, 2 * np.pi, 30)
        rings = [
            (rng.uniform(100, 400, 2) + 80 * np.stack([np.cos(angles), np.sin(angles)], 1)).ravel().tolist()
            for _ in range(3)
        ]
        return Sample(
            name=self.entry(index),
            image=read(self.paths[index]),
            dialogues=tuple((Exchange(text=f"thing {k}", kind="phrase", masks=(k,)),) for k in range(3)),
            masks=Masks([lambda ring=ring: coco_mask([ring], 480, 640) for ring in rings]),
        )


def main() -> None:
    """Prints both and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with TemporaryDirectory() as folder:
        paths = [_write(Path(folder), number) for number in range(options.pictures)]
        processor = open_checkpoint(str(CHECKPOINT)).processor
        stream = Stream(Pictures(paths), seed=0, length=len(paths))
        lessons = Lessons(source=stream, processor=processor, max_tokens=512, augment_seed=0)
        plain, lesson = [], []
        for _ in range(options.rounds):  # in turns, so that a busy machine is busy for both
            plain.append(_seconds(lambda k: _plain(paths[k]), len(paths)))
            lesson.append(_seconds(lessons.__getitem__, len(paths)))
    best_plain, best_lesson = min(plain), min(lesson)
    print(f"plain decoding and resizing {1e3 * best_plain:6.1f} ms, {1 / best_plain:5.0f} pictures/s on one core")
    print(f"lesson                      {1e3 * best_lesson:6.1f} ms, {1 / best_lesson:5.0f} samples/s on one core")
    print(f"ratio                       {best_lesson / best_plain:6.2f}")


def _plain(path: Path) -> None:
    image = Image.open(path).convert("RGB")
    np.asarray(image.resize((SIDE, SIDE * image.height // image.width), Image.Resampling.BILINEAR))
    np.asarray(image.resize((224 * image.width // image.height, 224), Image.Resampling.BICUBIC))


def _seconds(work: Callable[[int], object], number: int) -> float:
    start = time.perf_counter()
    for index in range(number):
        work(index)
    return (time.perf_counter() - start) / number


def _write(folder: Path, number: int) -> Path:
    """A picture with detail at all scales, as photographs have."""
    rng = np.random.default_rng(number)
    layers = [
        cv2.resize(
            rng.normal(0, 60 / level, (3 * 2**level, 4 * 2**level, 3)), (640, 480), interpolation=cv2.INTER_CUBIC
        )
        for level in range(1, 8)
    ]
    pixels = np.clip(128 + sum(layers), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    path = folder / f"{number}.jpg"
    path.write_bytes(buffer.getvalue())
    return path


if __name__ == "__main__":
    main()
