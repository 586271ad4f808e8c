"""nano before and after it is fine-tuned on 239 scenes of things that it was never taught.

python benchmarks/finetune_239.py --pack PACK --out RUN [--group instrument] [--steps 300]

The scenes show things of one group of the pack, each with one or two things that nano knows, and ask for them by name.
Measured are gIoU and cIoU of free answers on new scenes, with the cut-outs that were learned from, with others, and on
scenes of things that it knew before. Writes the curve to RUN/curve.svg.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lisaseg.config import FIRST_WORLD, AskOptions, LisaRecipe, NanoRecipe, TrainOptions
from lisaseg.data.dialogues import Narrator
from lisaseg.data.pack import Pack, load_pack
from lisaseg.data.sample import Exchange, Masks, Sample, Source
from lisaseg.data.scenes import Scene, SceneOptions, compose
from lisaseg.data.vocabulary import load_vocabulary
from lisaseg.errors import DataError
from lisaseg.evaluation.metrics import ciou, giou, overlap
from lisaseg.segmenter import Segmenter
from lisaseg.training.finetune import train_lisa

TRAINED = 239
MEASURED = 100


class Scenes(Source):
    """Scenes that show at least one of some things, which they ask for by name."""

    def __init__(self, name: str, pack: Pack, wanted: Sequence[str], number: int, seed: int):
        self.name, self.pack, self.wanted, self.number, self.seed = name, pack, wanted, number, seed
        self.others = [concept for concept in pack.sprites if concept not in wanted]

    def __len__(self) -> int:
        return self.number

    def entry(self, index: int) -> str:
        return f"scene {index}"

    def scene(self, index: int) -> Scene:
        """The same one each time."""
        rng = np.random.default_rng([self.seed, index])
        while True:
            shown = [self.wanted[int(rng.integers(len(self.wanted)))]]
            if self.others:
                shown += [self.others[int(place)] for place in rng.integers(len(self.others), size=2)]
            sprites = {concept: self.pack.sprites[concept] for concept in shown if concept in self.pack.sprites}
            try:
                scene = compose(replace(self.pack, sprites=sprites), SceneOptions(canvas=320, max_things=3), rng)
            except DataError:  # the background may show all of them already: another one
                continue
            if set(scene.concepts) & set(self.wanted):
                return scene

    def __getitem__(self, index: int) -> Sample:
        scene = self.scene(index)
        names = [concept for concept in scene.concepts if concept in self.wanted]
        things = [[place for place, thing in enumerate(scene.things) if thing.concept == name] for name in names]
        return Sample(
            name=self.entry(index),
            image=scene.image,
            dialogues=tuple((Exchange(text=name, kind="phrase", masks=(place,)),) for place, name in enumerate(names)),
            masks=Masks([lambda places=places: scene.union(places).astype(np.uint8) for places in things]),
        )


def measure(segmenter: Segmenter, scenes: Scenes) -> tuple[float, float]:
    """gIoU and cIoU of free answers to requests by name, in all the wordings that nano knows."""
    overlaps = []
    for index in range(len(scenes)):
        scene = scenes.scene(index)
        rng = np.random.default_rng([scenes.seed, index, 1])
        narrator = Narrator(scene=scene, vocabulary=load_vocabulary(), known=scenes.wanted, strangers=(), rng=rng)
        told = narrator.name(next(concept for concept in scene.concepts if concept in scenes.wanted))
        if told is not None:
            answer = segmenter.segment(scene.image, told.question, AskOptions(max_new_tokens=32))
            overlaps.append(overlap(answer.union(), scene.union(told.masks[0]).astype(np.uint8)))
    return giou(overlaps), ciou(overlaps)


def main() -> None:
    """Trains, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--group", default="instrument")
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    group = [concept.name for concept in load_vocabulary().concepts.values() if concept.group == options.group]
    known = load_pack(options.pack, FIRST_WORLD, split="train", sprites_per_concept=NanoRecipe.sprites_per_concept)
    learned, unseen = (load_pack(options.pack, group, split=split) for split in ("train", "val"))
    group = [concept for concept in group if concept in learned.sprites]
    with_known = replace(known, sprites={**known.sprites, **learned.sprites})
    others = replace(known, sprites={**known.sprites, **unseen.sprites})
    sets = {
        "new scenes, cut-outs learned from": Scenes("learned", with_known, group, MEASURED, 1),
        "new scenes, other cut-outs": Scenes("unseen", others, [c for c in group if c in unseen.sprites], MEASURED, 2),
        "things that nano knew before": Scenes("known", known, list(known.sprites), MEASURED, 3),
    }
    before = {name: measure(Segmenter.load("nano"), scenes) for name, scenes in sets.items()}
    recipe = LisaRecipe(
        parts=("projection", "mask_decoder", "embed_tokens", "lm_head", "image_encoder", "vision_tower", "projector"),
        steps=options.steps,
        batch_size=8,
        learning_rate=5e-4,
        warmup=20,
    )
    run = TrainOptions(out=options.out, eval_steps=max(1, options.steps // 10), track=(), workers=1)
    start = time.monotonic()
    held_out = Scenes("held out", with_known, group, 40, 4)
    adapter = train_lisa(
        "finetune", recipe, "nano", [Scenes("train", with_known, group, TRAINED, 0)], run, held_out=held_out
    )
    seconds = time.monotonic() - start
    after = {name: measure(Segmenter.load("nano", adapter=str(adapter)), scenes) for name, scenes in sets.items()}
    print(f"{options.group}: {len(group)} things, {TRAINED} scenes, {options.steps} steps in {seconds:.0f} s")
    print(f"{'':36}{'gIoU before':>12}{'after':>8}{'cIoU before':>14}{'after':>8}")
    for name in sets:
        (giou_before, ciou_before), (giou_after, ciou_after) = before[name], after[name]
        print(f"{name:36}{giou_before:12.3f}{giou_after:8.3f}{ciou_before:14.3f}{ciou_after:8.3f}")
    write_curve(options.out)


def write_curve(out: Path) -> None:
    """gIoU on the held-out scenes by step, as a line."""
    newest = max((out / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    history = json.loads((newest / "trainer_state.json").read_text())["log_history"]
    points = [(line["step"], line["eval_giou"]) for line in history if "eval_giou" in line]
    last = points[-1][0]
    places = [(60 + 400 * step / last, 220 - 200 * value) for step, value in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    marks = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places)
    labels = "".join(
        f'<text x="50" y="{224 - 200 * level:.0f}" text-anchor="end">{level:.1f}</text>'
        f'<path d="M60 {220 - 200 * level:.0f}H460" stroke="#ccc"/>'
        for level in (0, 0.2, 0.4, 0.6, 0.8, 1)
    )
    steps = "".join(
        f'<text x="{x:.0f}" y="240" text-anchor="middle">{s}</text>'
        for (x, _), (s, _) in zip(places, points, strict=True)
    )
    (out / "curve.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="480" height="260" font-family="sans-serif" font-size="11">'
        f'<rect width="480" height="260" fill="white"/>{labels}{steps}'
        f'<polyline points="{line}" fill="none" stroke="#0078f0" stroke-width="2"/><g fill="#0078f0">{marks}</g>'
        '<text x="260" y="256" text-anchor="middle">steps</text><text x="60" y="14">gIoU, held-out scenes</text>'
        "</svg>\n"
    )


if __name__ == "__main__":
    main()
