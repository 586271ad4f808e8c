"""Teaches a segmenter to follow clicks: a hand clicks where a mask is wrong, again and again, beside the words.

As SAM was trained, but each prompt keeps its `[SEG]` vector. Only the prompt encoder and the mask decoder learn; what
the encoders see and what the language model says is computed once and stays as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d, softplus
from torch.utils.data import DataLoader, Dataset

from lisaseg.config import FIRST_WORLD, ClickRecipe, LoadOptions, NanoRecipe, RunOptions
from lisaseg.data.pack import find_pack, load_pack
from lisaseg.data.vocabulary import load_vocabulary
from lisaseg.files import make_folder
from lisaseg.model.checkpoints import load_model, save_model
from lisaseg.model.lisa import Hand, Lisa, states_before
from lisaseg.model.processor import Processor
from lisaseg.training.learner import LisaLearner, LossTrainer, arguments, train, weighed
from lisaseg.training.losses import bce_loss, dice_loss
from lisaseg.training.nano import SceneLessons, collate

WEIGHTS = {"words": 1.0, "masks": 1.0, "hits": 0.3}
"""Weights of the losses: masks of the words alone, masks after clicks, and the clicked places themselves."""
ROUNDS = 2
"""Clicks on each mask, one after another."""
BOX_SHARE = 0.15
"""How often a box comes with them."""
_CELL = 4
"""Pixels of the segmenter's input to one of the mask decoder's output, each way."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A scene as the mask decoder meets it, with the masks that its dialogue speaks of."""

    segmenter_CHW: Float[Tensor, "C H W"]
    prompts_NC: Float[Tensor, "N C"]
    masks_Nhw: Float[Tensor, "N h w"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ClickLessons(Dataset):
    """Scenes, seen once."""

    pictures: Sequence[Picture]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Picture:
        return self.pictures[index]


def collate_pictures(pictures: Sequence[Picture]) -> dict[str, Tensor]:
    """One batch."""
    counts = torch.tensor([len(picture.prompts_NC) for picture in pictures])
    return {
        "segmenter_ICHW": torch.stack([picture.segmenter_CHW for picture in pictures]),
        "prompts_NC": torch.cat([picture.prompts_NC for picture in pictures]),
        "masks_Nhw": torch.cat([picture.masks_Nhw for picture in pictures]),
        "picture_of_mask_N": torch.arange(len(pictures)).repeat_interleave(counts),
    }


class ClickLearner(LisaLearner):
    """Lisa whose segmenter learns from clicks."""

    def __init__(self, lisa: Lisa):
        super().__init__(lisa)
        lisa.requires_grad_(False)
        for part in (lisa.segmenter.mask_decoder, lisa.segmenter.prompt_encoder):
            part.requires_grad_(True)
        lisa.segmenter.prompt_encoder.shared_embedding.requires_grad_(False)

    def forward(
        self,
        segmenter_ICHW: Float[Tensor, "I C H W"],
        prompts_NC: Float[Tensor, "N C"],
        masks_Nhw: Float[Tensor, "N h w"],
        picture_of_mask_N: Int[Tensor, " N"],
    ) -> dict[str, Tensor]:
        """Losses of a batch of `collate_pictures`."""
        logits_Nhw, _ = self.lisa.draw_prompts(prompts_NC, segmenter_ICHW, picture_of_mask_N)
        words = _mask_loss(logits_Nhw, masks_Nhw)
        targets = _wishes(masks_Nhw, picture_of_mask_N)
        boxes = _boxes(targets) if torch.rand(()) < BOX_SHARE else None
        points = prompts_NC.new_zeros((len(targets), 0, 2))
        labels = picture_of_mask_N.new_zeros((len(targets), 0))
        masks, hits = [], []
        for _ in range(ROUNDS):
            point, label = _click(logits_Nhw.detach(), targets)
            points, labels = torch.cat([points, point], dim=1), torch.cat([labels, label], dim=1)
            hand = Hand(points_NK2=points, labels_NK=labels, boxes_N4=boxes)
            logits_Nhw, _ = self.lisa.redraw(prompts_NC, hand, logits_Nhw.detach(), segmenter_ICHW[picture_of_mask_N])
            masks.append(_mask_loss(logits_Nhw, targets))
            hits.append(_hit_loss(logits_Nhw, point, label))
        return weighed({"words": words, "masks": torch.stack(masks).sum(), "hits": torch.stack(hits).sum()}, WEIGHTS)


def train_clicks(recipe: ClickRecipe, run: RunOptions) -> Path:
    """Trains, or goes on where an interrupted run of the same folder stopped; returns the folder of the model.

    Raises:
        CheckpointError: the model to start from cannot be read.
        DataError: the pack is missing or has none of a concept.
        DeviceError: the device is not to be had.
    """
    make_folder(run.out)
    lisa, processor = load_model(str(run.start or "nano"), LoadOptions(device="cpu"))
    lessons = ClickLessons(pictures=_look(lisa, processor, recipe, run))
    torch.manual_seed(recipe.seed)
    learner = ClickLearner(lisa.train())
    trainer = LossTrainer(
        model=learner,
        args=arguments(
            run,
            per_device_train_batch_size=recipe.batch_size,
            num_train_epochs=recipe.passes,
            learning_rate=recipe.learning_rate,
            weight_decay=0.01,
            seed=recipe.seed,
        ),
        train_dataset=lessons,
        data_collator=collate_pictures,
    )
    train(trainer, run)
    folder = run.out / "model"
    save_model(learner.lisa, processor, folder)
    return folder


@torch.inference_mode()
def _look(lisa: Lisa, processor: Processor, recipe: ClickRecipe, run: RunOptions) -> list[Picture]:
    """The scenes as the encoders see them, with what the language model would tell the segmenter about each mask."""
    pack = load_pack(
        find_pack(run.pack), FIRST_WORLD, split="train", sprites_per_concept=NanoRecipe.sprites_per_concept
    )
    scenes = NanoRecipe(scenes=recipe.scenes, look_scenes=0, photo_share=0.0, seed=recipe.seed)
    lessons = SceneLessons(recipe=scenes, pack=pack, processor=processor, vocabulary=load_vocabulary())
    pad = partial(collate, pad_id=processor.tokenizer.pad_id)
    pictures = []
    for batch in DataLoader(lessons, batch_size=recipe.batch_size, collate_fn=pad, num_workers=run.workers):
        seen = lisa.encode(batch["vlm_pixels"], batch["segmenter_pixels"])
        embeddings = lisa.embed(batch["ids"], seen.vlm_IPD, batch["picture_of_row"])
        states = lisa.read(embeddings, batch["attention_mask"], use_cache=False)
        states_ND, rows_N = states_before(states, batch["ids"], processor.tokenizer.seg_id)
        prompts_NC, picture_of_mask_N = lisa.prompts(states_ND), batch["picture_of_row"][rows_N]
        for number, segmenter_CHW in enumerate(seen.segmenter_ICHW):
            own = picture_of_mask_N == number
            if own.any():
                pictures.append(
                    Picture(
                        segmenter_CHW=segmenter_CHW.clone(), prompts_NC=prompts_NC[own], masks_Nhw=batch["masks"][own]
                    )
                )
    return pictures


def _mask_loss(logits_Nhw: Float[Tensor, "N h w"], targets_Nhw: Float[Tensor, "N h w"]) -> Float[Tensor, ""]:
    return 2 * bce_loss(logits_Nhw, targets_Nhw) + dice_loss(logits_Nhw, targets_Nhw)


def _hit_loss(
    logits_Nhw: Float[Tensor, "N h w"], point_N12: Float[Tensor, "N 1 2"], label_N1: Int[Tensor, "N 1"]
) -> Float[Tensor, ""]:
    """Cross entropy of the clicked places alone: a mask that obeys everywhere but there is no use."""
    columns, rows = (((point_N12[:, 0] + 0.5) / _CELL).long().clamp(0, logits_Nhw.shape[-1] - 1)).unbind(dim=-1)
    clicked = logits_Nhw[torch.arange(len(logits_Nhw), device=rows.device), rows, columns]
    sign = (2 * label_N1[:, 0] - 1).to(clicked.dtype)
    return (softplus(-sign * clicked) * (label_N1[:, 0] >= 0)).mean()


def _wishes(masks_Nhw: Float[Tensor, "N h w"], picture_of_mask_N: Int[Tensor, " N"]) -> Float[Tensor, "N h w"]:
    """What the hand is after: the mask itself, with or without another of the same picture, or that other alone."""
    is_same_picture = (picture_of_mask_N[:, None] == picture_of_mask_N).float()
    other = masks_Nhw[torch.multinomial(is_same_picture, 1)[:, 0]]
    without = (masks_Nhw - other).clamp(min=0)
    kinds = torch.randint(5, (len(masks_Nhw),), device=masks_Nhw.device)[:, None, None]
    wish = torch.where(kinds == 1, torch.maximum(masks_Nhw, other), masks_Nhw)
    wish = torch.where(kinds == 2, without, wish)
    wish = torch.where(kinds == 3, other, wish)
    is_nothing = (wish > 0.5).flatten(1).any(dim=1).logical_not()[:, None, None]
    return torch.where(is_nothing, masks_Nhw, wish)


def _click(
    logits_Nhw: Float[Tensor, "N h w"], targets_Nhw: Float[Tensor, "N h w"]
) -> tuple[Float[Tensor, "N 1 2"], Int[Tensor, "N 1"]]:
    """One click for each mask, rather in the middle than at the edge of what is wrong; inside it where nothing is."""
    wanted = targets_Nhw > 0.5
    wrong = (logits_Nhw > 0) != wanted
    is_right = wrong.flatten(1).any(dim=1).logical_not()[:, None, None]
    places = torch.where(is_right, wanted, wrong).float()
    weights = places * avg_pool2d(places[:, None], 5, stride=1, padding=2)[:, 0] ** 2
    is_empty = weights.flatten(1).sum(dim=1) == 0
    cells = torch.multinomial(weights.flatten(1) + is_empty[:, None], 1)
    columns = places.shape[-1]
    corner = torch.stack([cells % columns, cells // columns], dim=-1)
    point = (corner + torch.rand_like(corner, dtype=targets_Nhw.dtype)) * _CELL - 0.5
    label = wanted.flatten(1).gather(1, cells).long()
    return point, torch.where(is_empty[:, None], -1, label)


def _boxes(masks_Nhw: Float[Tensor, "N h w"]) -> Float[Tensor, "N 4"]:
    """xyxy of each mask in pixels of the segmenter's input; the whole square for an empty one."""
    inside = masks_Nhw > 0.5
    edges = []
    for axis in (1, 2):  # columns, then rows
        is_taken = inside.any(dim=axis) | ~inside.flatten(1).any(dim=1)[:, None]
        places = torch.arange(is_taken.shape[1], device=is_taken.device)
        first = torch.where(is_taken, places, is_taken.shape[1]).amin(dim=1)
        last = torch.where(is_taken, places + 1, 0).amax(dim=1)
        edges.append((first, last))
    (x0, x1), (y0, y1) = edges
    return torch.stack([x0, y0, x1, y1], dim=1).to(masks_Nhw.dtype) * _CELL
