"""Renders the example scenes from those sprites and backgrounds of the training pack that anybody may pass on.

    python examples/make_scenes.py PACK [--number 4]

Writes `scene_<i>.jpg` beside this file and prints a line of credits for each; `examples/README.md` holds them.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from lisaseg.config import FIRST_WORLD
from lisaseg.data.pack import Pack, load_pack
from lisaseg.data.scenes import SceneOptions, compose

FREE = ("CC0", "CC-PD", "MIT")
"""Licences that ask for nothing but, at most, a notice."""
CANVAS = 480
"""Longest side of a scene in pixels."""


def main() -> None:
    """Renders and credits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--number", type=int, default=4)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    pack = free_part(load_pack(options.pack, FIRST_WORLD, split="train", sprites_per_concept=6))
    for number in range(options.number):
        rng = np.random.default_rng([options.seed, number])
        scene = compose(pack, SceneOptions(canvas=CANVAS, min_things=3, max_things=4, twin_share=0.15), rng)
        path = Path(__file__).parent / f"scene_{number}.jpg"
        cv2.imwrite(str(path), scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
        print(json.dumps({"file": path.name, "things": [thing.concept for thing in scene.things]}))


def free_part(pack: Pack) -> Pack:
    """The sprites and backgrounds under a licence of `FREE`."""
    sprites = {name: tuple(s for s in found if s.licence.startswith(FREE)) for name, found in pack.sprites.items()}
    return replace(
        pack,
        sprites={name: found for name, found in sprites.items() if found},
        backgrounds=tuple(b for b in pack.backgrounds if b.licence.startswith(FREE)),
    )


if __name__ == "__main__":
    main()
