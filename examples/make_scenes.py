"""Renders the example scenes from those sprites and backgrounds of the training pack that anybody may pass on.

    python examples/make_scenes.py PACK

Writes `scene_<i>.jpg` beside this file and prints what each shows.
"""

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from lisaseg.config import FIRST_WORLD, NanoRecipe
from lisaseg.data.pack import Pack, find_pack, load_pack
from lisaseg.data.scenes import SceneOptions, compose

FREE = ("CC0", "CC-PD", "MIT")
"""Licences that ask for nothing but, at most, a notice."""
SCENES = (149, 21, 9, 4)
"""Scenes that look well, by number; which ones was chosen before any model saw them."""
OPTIONS = SceneOptions(canvas=480, min_things=3, max_things=4, twin_share=0.15)


def main() -> None:
    """Renders them all."""
    folder = find_pack(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    sprites = NanoRecipe.sprites_per_concept
    pack = free_part(load_pack(folder, FIRST_WORLD, split="train", sprites_per_concept=sprites))
    for place, number in enumerate(SCENES):
        scene = compose(pack, OPTIONS, np.random.default_rng([7, number]))
        path = Path(__file__).with_name(f"scene_{place}.jpg")
        cv2.imwrite(str(path), cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])
        print(path.name, ", ".join(scene.concepts))


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
