"""What clicks do to masks: scenes of known things, and a hand that clicks in the middle of the largest mistake.

python benchmarks/clicks.py [MODEL] --pack PACK [--scenes 60]

"mend" asks for a thing and clicks until the mask is that thing; "add" asks for a thing and clicks until the mask is
that thing and another one. Numbers are means of IoU before any click and after one, two and three, and the share of
clicks whose own pixel is then as the hand wished.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from lisaseg import Conversation, Segment, Segmenter
from lisaseg.config import FIRST_WORLD, NanoRecipe
from lisaseg.data.pack import load_pack
from lisaseg.data.scenes import Scene, SceneOptions, compose

CLICKS = 3
SCENE_SEED = 99


def main() -> None:
    """Prints a line for each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="nano")
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=60)
    options = parser.parse_args()
    segmenter = Segmenter.load(options.model)
    pack = load_pack(options.pack, FIRST_WORLD, split="train", sprites_per_concept=NanoRecipe.sprites_per_concept)
    rng = np.random.default_rng(SCENE_SEED)
    overlaps: dict[str, list[list[float]]] = {"mend": [], "add": []}
    obeyed: dict[str, list[bool]] = {"mend": [], "add": []}
    for _ in range(options.scenes):
        scene = compose(pack, SceneOptions(canvas=256), rng)
        conversation = segmenter.start(scene.image)
        answer = conversation.ask(f"Segment the {scene.concepts[0]}.")
        if not answer.segments:
            continue
        for kind, wish in _wishes(scene):
            path, hits = _click(conversation.fork(), answer.segments[0], wish)
            overlaps[kind].append(path)
            obeyed[kind] += hits
    for kind, paths in overlaps.items():
        means = ", ".join(f"{mean:.3f}" for mean in np.mean(paths, axis=0))
        print(f"{kind:<5} {len(paths):3} masks: IoU {means}; clicks obeyed {np.mean(obeyed[kind]):.0%}")


def _wishes(scene: Scene) -> Iterator[tuple[str, np.ndarray]]:
    names = list(dict.fromkeys(scene.concepts))
    masks = [
        scene.union(tuple(place for place, thing in enumerate(scene.things) if thing.concept == name)) for name in names
    ]
    yield "mend", masks[0]
    if len(masks) > 1:
        yield "add", masks[0] | masks[1]


def _click(conversation: Conversation, segment: Segment, wish: np.ndarray) -> tuple[list[float], list[bool]]:
    """IoU before and after each click, and whether each clicked pixel obeyed; no click where nothing is wrong."""
    overlaps, hits = [_iou(segment.mask, wish)], []
    for _ in range(CLICKS):
        wrong = np.pad(segment.mask != wish, 1).astype(np.uint8)
        depth = cv2.distanceTransform(wrong, cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        if depth[y, x] >= 1:
            segment = conversation.refine(segment, [(int(x), int(y), 1 if wish[y, x] else -1)])
            hits.append(bool(segment.mask[y, x] == wish[y, x]))
        overlaps.append(_iou(segment.mask, wish))
    return overlaps, hits


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


if __name__ == "__main__":
    main()
