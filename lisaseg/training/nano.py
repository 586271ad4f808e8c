"""Trains nano from nothing: scenes made on the fly, `transformers.Trainer`, and two heads that only help to learn.

First the encoders learn to name what every patch shows; then dialogues over the same kind of scenes teach the language
model to say `[SEG]` and the mask decoder to draw.
"""

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import Dataset, SequentialSampler

from lisaseg.config import LoadOptions, NanoRecipe, RunOptions
from lisaseg.data.dialogues import Narrator, Told, write_dialogue
from lisaseg.data.pack import Pack, find_pack, load_pack
from lisaseg.data.scenes import Scene, SceneOptions, compose, from_photo, pick
from lisaseg.data.vocabulary import Vocabulary, load_vocabulary
from lisaseg.files import make_folder
from lisaseg.model.checkpoints import load_model, save_model
from lisaseg.model.configuration import LisaConfig
from lisaseg.model.lisa import Lisa, Pictures, states_before
from lisaseg.model.processor import Processor
from lisaseg.training.learner import LisaLearner, LossTrainer, arguments, train, weighed
from lisaseg.training.lessons import labelled
from lisaseg.training.losses import IGNORE_LABEL, answer_loss, bce_loss, dice_loss, predicted_iou_loss
from lisaseg.training.recipes import nano_config, nano_images, train_tokenizer

WEIGHTS = {"answer": 1.0, "bce": 2.0, "dice": 1.0, "iou": 0.2, "patch_segmenter": 1.0, "patch_vlm": 0.5}
"""Weights of the losses. Answer, BCE and dice are LISA's, but dice counts twice as much as there and masks are compared
on the decoder's own grid with shares of pixels, as nano's are too coarse for the picture's size. The rest is its own.
"""
STRANGER_SHARE = 0.4
"""How often a thing that is asked for in vain is one that nano does not know at all."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneLessons(Dataset):
    """Lesson number i: scene i and a dialogue about it, as the network's inputs. Deterministic in i."""

    recipe: NanoRecipe
    pack: Pack
    processor: Processor
    vocabulary: Vocabulary

    def __len__(self) -> int:
        return self.recipe.scenes

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.recipe.seed, index])
        only_looks = index < self.recipe.look_scenes
        scene = self._scene(rng, allow_photo=not only_looks)
        told = [] if only_looks else self._dialogue(scene, rng)
        ids, labels = labelled(self.processor, [(turn.question, turn.answer) for turn in told]) if told else ([], [])
        pixels = self.processor.pixels([scene.image])
        side = self.processor.segmenter_side
        masks = [scene.union(mask) for turn in told for mask in turn.masks]
        return {
            "ids": ids,
            "labels": labels,
            "vlm_pixels": pixels.vlm,
            "segmenter_pixels": pixels.segmenter,
            "masks": np.array([_square(mask.astype(np.float32), side, side // 4) for mask in masks], np.float32),
            **concept_maps(scene, self.recipe.concepts, self.processor.config),
        }

    def _scene(self, rng: np.random.Generator, *, allow_photo: bool) -> Scene:
        canvas = self.processor.segmenter_side
        if allow_photo and self.pack.photos and rng.random() < self.recipe.photo_share:
            return from_photo(pick(self.pack.photos, rng), canvas)
        return compose(self.pack, SceneOptions(canvas=canvas), rng)

    def _dialogue(self, scene: Scene, rng: np.random.Generator) -> list[Told]:
        strangers = tuple(self.vocabulary.concepts) if rng.random() < STRANGER_SHARE else self.recipe.concepts
        narrator = Narrator(
            scene=scene, vocabulary=self.vocabulary, known=self.recipe.concepts, strangers=strangers, rng=rng
        )
        return write_dialogue(narrator, self.recipe.turns)


def concept_maps(scene: Scene, concepts: Sequence[str], config: LisaConfig) -> dict[str, Any]:
    """For each patch of either encoder, the shares of each concept (0 = none of them), and how much is labelled."""
    side, cells = config.segmenter_side, config.segmenter_cells
    vlm_cells = isqrt(config.num_image_tokens)
    index = np.zeros(scene.ignore.shape, np.int32)
    for thing in scene.things:
        if thing.concept in concepts:
            index[thing.mask] = concepts.index(thing.concept) + 1
    labelled_pixels = ~scene.ignore
    if not scene.is_composed:  # only what is labelled is certain: the rest of a photograph may hold anything
        labelled_pixels &= index > 0
    segmenter = np.zeros((len(concepts) + 1, cells, cells), np.float32)
    vlm = np.zeros((len(concepts) + 1, vlm_cells, vlm_cells), np.float32)
    for number in np.unique(index):
        plane = ((index == number) & labelled_pixels).astype(np.float32)
        segmenter[number] = _square(plane, side, cells)
        vlm[number] = cv2.resize(plane, (vlm_cells, vlm_cells), interpolation=cv2.INTER_AREA)
    return {"concepts_segmenter": segmenter, "concepts_vlm": vlm}


def _square(plane: np.ndarray, side: int, cells: int) -> np.ndarray:
    """A plane padded to the segmenter's square and averaged into cells."""
    padded = np.zeros((side, side), np.float32)
    padded[: plane.shape[0], : plane.shape[1]] = plane
    return cv2.resize(padded, (cells, cells), interpolation=cv2.INTER_AREA)


def collate(lessons: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, Tensor]:
    """One batch; lessons without words add pictures and no rows."""
    rows = [number for number, lesson in enumerate(lessons) if lesson["ids"]]
    length = max((len(lessons[row]["ids"]) for row in rows), default=1)

    def padded(key: str, filler: int) -> Tensor:
        lines = [[*lessons[row][key], *[filler] * (length - len(lessons[row][key]))] for row in rows]
        return torch.tensor(lines, dtype=torch.long).reshape(len(rows), length)

    ids = padded("ids", pad_id)
    lengths = torch.tensor([len(lessons[row]["ids"]) for row in rows], dtype=torch.long)
    masks = [torch.from_numpy(lessons[row]["masks"]) for row in rows if len(lessons[row]["masks"])]
    return {
        "ids": ids,
        "labels": padded("labels", IGNORE_LABEL),
        "attention_mask": (torch.arange(length) < lengths[:, None]).long(),
        "picture_of_row": torch.tensor(rows, dtype=torch.long),
        "masks": torch.cat(masks) if masks else torch.zeros(0, 1, 1),
        **{key: torch.cat([lesson[key] for lesson in lessons]) for key in ("vlm_pixels", "segmenter_pixels")},
        **{
            key: torch.from_numpy(np.stack([lesson[key] for lesson in lessons]))
            for key in ("concepts_segmenter", "concepts_vlm")
        },
    }


class NanoLearner(LisaLearner):
    """Lisa with its losses, and the two heads that name what each patch shows; the heads are not kept."""

    def __init__(self, lisa: Lisa, seg_id: int, num_concepts: int):
        super().__init__(lisa)
        self.seg_id = seg_id
        self.segmenter_head = nn.Linear(lisa.config.prompt_width, num_concepts + 1)
        self.vlm_head = nn.Linear(lisa.config.text.hidden_size, num_concepts + 1)

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """Losses of a batch of `collate`; `loss` is what is minimised, the others are for the log."""
        pictures = self.lisa.encode(batch["vlm_pixels"], batch["segmenter_pixels"])
        segmenter_IPC = pictures.segmenter_ICHW.flatten(2).transpose(1, 2)
        losses = {
            "patch_segmenter": _patch_loss(self.segmenter_head(segmenter_IPC), batch["concepts_segmenter"]),
            "patch_vlm": _patch_loss(self.vlm_head(pictures.vlm_IPD), batch["concepts_vlm"]),
        }
        if len(batch["ids"]):
            losses |= self._dialogue_losses(batch, pictures)
        return weighed(losses, WEIGHTS)

    def _dialogue_losses(self, batch: Mapping[str, Tensor], pictures: Pictures) -> dict[str, Tensor]:
        ids, labels = batch["ids"], batch["labels"]
        embeddings = self.lisa.embed(ids, pictures.vlm_IPD, batch["picture_of_row"])
        states_BLD = self.lisa.read(embeddings, batch["attention_mask"], use_cache=False)
        states_ND, rows_N = states_before(states_BLD, ids, self.seg_id)
        logits, predicted_iou = self.lisa.draw(states_ND, pictures.segmenter_ICHW, batch["picture_of_row"][rows_N])
        masks = batch["masks"]
        return {
            "answer": answer_loss(self.lisa.vlm.lm_head, states_BLD, labels),
            "bce": bce_loss(logits, masks),
            "dice": dice_loss(logits, masks),
            "iou": predicted_iou_loss(predicted_iou, logits, masks),
        }


def _patch_loss(logits_IPK: Float[Tensor, "I P K"], shares_IKhw: Float[Tensor, "I K h w"]) -> Float[Tensor, ""]:
    """Cross entropy against shares of concepts; patches weigh by how much of them is labelled."""
    shares = shares_IKhw.flatten(2).transpose(1, 2)
    loss = -(shares * logits_IPK.float().log_softmax(dim=-1)).sum()
    return loss / shares.sum().clamp(min=1)


class NanoTrainer(LossTrainer):
    """Takes the lessons in order, so that a resumed run sees exactly what is left."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> SequentialSampler:
        return SequentialSampler(cast(Sized, self.train_dataset))


def train_nano(recipe: NanoRecipe, run: RunOptions) -> Path:
    """Trains, or goes on where an interrupted run of the same folder stopped; returns the folder of the model.

    Raises:
        DataError: the pack is missing or has none of a concept.
        DeviceError: the device is not to be had.
    """
    vocabulary = load_vocabulary()
    source = find_pack(run.pack)
    pack = load_pack(source, recipe.concepts, split="train", sprites_per_concept=recipe.sprites_per_concept)
    pack.require(recipe.concepts)
    make_folder(run.out)
    torch.manual_seed(recipe.seed)
    lisa, processor = load_model(str(run.start), LoadOptions(device="cpu")) if run.start else _fresh(vocabulary)
    tokenizer = processor.tokenizer
    learner = NanoLearner(lisa.train(), tokenizer.seg_id, len(recipe.concepts))
    trainer = NanoTrainer(
        model=learner,
        args=arguments(
            run,
            per_device_train_batch_size=recipe.batch_size,
            num_train_epochs=1,
            learning_rate=recipe.learning_rate,
            weight_decay=0.02,
            seed=recipe.seed,
        ),
        train_dataset=SceneLessons(recipe=recipe, pack=pack, processor=processor, vocabulary=vocabulary),
        data_collator=partial(collate, pad_id=tokenizer.pad_id),
    )
    train(trainer, run)
    folder = run.out / "model"
    save_model(learner.lisa, processor, folder)
    return folder


def _fresh(vocabulary: Vocabulary) -> tuple[Lisa, Processor]:
    """A new tokenizer and a network that knows nothing."""
    tokenizer = train_tokenizer(vocabulary)
    config = nano_config(len(tokenizer))
    return build(config), Processor(config, tokenizer, nano_images())


def build(config: LisaConfig) -> Lisa:
    """A network with fresh weights; SAM's random positions get the spread of the original, 1."""
    lisa = Lisa(config)
    nn.init.normal_(lisa.segmenter.shared_image_embedding.positional_embedding)
    return lisa
