"""How a model is asked: with the answer put into its mouth, as in the original's measurement, or answering freely.

Either way each picture is encoded once, and its questions are read together, a bounded number at a time.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from lisaseg.config import AskOptions
from lisaseg.evaluation.options import Protocol
from lisaseg.evaluation.questions import Question
from lisaseg.language.prompts import VALIDATION_ANSWER
from lisaseg.model import answer
from lisaseg.model.cache import ContentCache
from lisaseg.model.engine import Engine
from lisaseg.model.lisa import Lisa, Pictures, states_before
from lisaseg.model.memory import telling_out_of_memory
from lisaseg.model.processor import ImageSize, Processor, left_padded
from lisaseg.model.stopwatch import Stopwatch

Asked = tuple[UInt8[np.ndarray, "_ _ 3"], Sequence[Question]]
"""A picture, and what is asked about it."""
ROWS_PER_PICTURE = 4
"""So many questions are read together for each picture that is encoded together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """What a model drew to one question."""

    masks_NHW: Bool[np.ndarray, "N H W"]
    """At the picture's size; none where it drew nothing."""
    scores_N: Float[np.ndarray, " N"]
    """How sure it was of each: the mean probability inside times SAM's predicted IoU, 0..1."""

    def union(self) -> Bool[np.ndarray, "H W"]:
        """True inside any mask."""
        return self.masks_NHW[0] if len(self.masks_NHW) == 1 else np.logical_or.reduce(self.masks_NHW, axis=0)


def predict(
    lisa: Lisa,
    processor: Processor,
    asked: Sequence[Asked],
    *,
    protocol: Protocol = "lisa",
    rows_per_call: int = 16,
    max_new_tokens: int = 512,
) -> list[list[Prediction]]:
    """A prediction for each question of each picture, in order; the network is left in the mode that it was in.

    Args:
        lisa: the network, perhaps one that is being trained.
        processor: the one that belongs to it.
        asked: pictures with their questions; all the pictures are encoded together.
        protocol: how it is asked; `seg-zero` asks like `generate`.
        rows_per_call: so many questions are read together.
        max_new_tokens: longest answer, where it answers freely.

    Raises:
        DeviceError: memory ran out.
        InstructionError: a question is empty or too long.
    """
    if not asked:
        return []
    rows = [(place, question) for place, (_, questions) in enumerate(asked) for question in questions]
    found: list[list[Prediction]] = [[] for _ in asked]
    with telling_out_of_memory(lisa.device), _measuring(lisa), torch.inference_mode():
        pixels = processor.pixels([image for image, _ in asked]).to(lisa.device)
        pictures = lisa.encode(pixels.vlm, pixels.segmenter)
        for some in _chunks(rows, rows_per_call):
            ask = _forced if protocol == "lisa" else _free
            for (place, _), drawn in zip(some, ask(lisa, processor, pictures, some, max_new_tokens), strict=True):
                found[place].append(_at_full_size(*drawn, processor, pixels.sizes[place]))
    return found


def check_question(processor: Processor, question: Question) -> None:
    """Raises InstructionError where a question is empty or longer than the model reads."""
    processor.encode([*question.before, (question.asked, None)])


Row = tuple[int, Question]
"""The place of a picture, and a question about it."""
Drawn = tuple[Float[Tensor, "N h w"], Float[Tensor, " N"]]
"""Mask logits at the decoder's resolution, and SAM's predicted IoU."""


def _chunks(rows: Sequence[Row], size: int) -> Iterator[Sequence[Row]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _forced(
    lisa: Lisa, processor: Processor, pictures: Pictures, rows: Sequence[Row], max_new_tokens: int
) -> list[Drawn]:
    """The mask of the state before `[SEG]` in an answer that is put into the model's mouth."""
    dialogues = [[*question.before, (question.asked, VALIDATION_ANSWER)] for _, question in rows]
    ids_BL, mask_BL = left_padded([processor.encode(turns) for turns in dialogues], processor.tokenizer.pad_id)
    ids_BL, mask_BL = ids_BL.to(lisa.device), mask_BL.to(lisa.device)
    pictures_B = torch.tensor([place for place, _ in rows], device=lisa.device)
    embeddings_BLD = lisa.embed(ids_BL, pictures.vlm_IPD, pictures_B)
    positions_BL = (mask_BL.cumsum(dim=1) - 1).clamp(min=0)
    states_BLD = lisa.read(embeddings_BLD, mask_BL, positions_BL, use_cache=False)
    states_ND, rows_N = states_before(states_BLD, ids_BL, processor.tokenizer.seg_id)
    last_B = torch.searchsorted(rows_N, torch.arange(len(rows), device=lisa.device), right=True) - 1
    masks, predicted_iou = lisa.draw(states_ND[last_B], pictures.segmenter_ICHW, pictures_B)
    return list(zip(masks.split(1), predicted_iou.split(1), strict=True))


def _free(
    lisa: Lisa, processor: Processor, pictures: Pictures, rows: Sequence[Row], max_new_tokens: int
) -> list[Drawn]:
    """All masks of the answers that the model gives."""
    engine = Engine(lisa=lisa, processor=processor, cache=ContentCache(0), source="")
    of_place = {place: pictures[place] for place, _ in rows}
    questions = [
        answer.Question(
            ids=processor.encode([*question.before, (question.asked, None)]),
            digest=str(place),
            picture=of_place[place],
        )
        for place, question in rows
    ]
    options = AskOptions(max_new_tokens=max_new_tokens)
    drawn: list[list[answer.Drawn]] = [[] for _ in rows]
    for said in answer.converse(engine, questions, options, Stopwatch(device=lisa.device)):
        if said.drawn is not None:
            drawn[said.row].append(said.drawn)
    side = 4 * pictures.segmenter_ICHW.shape[-1]
    nothing = pictures.segmenter_ICHW.new_zeros(0, side, side)
    return [
        (
            torch.stack([one.logits_hw for one in own]) if own else nothing,
            torch.tensor([one.predicted_iou for one in own]),
        )
        for own in drawn
    ]


def _at_full_size(
    logits_Nhw: Float[Tensor, "N h w"], predicted_iou_N: Float[Tensor, " N"], processor: Processor, size: ImageSize
) -> Prediction:
    """Masks at the picture's size, a few at a time: a picture may be large, and a model may babble."""
    masks, scores = [np.zeros((0, *size.original), bool)], []
    for logits, predicted_iou in zip(logits_Nhw.split(8), predicted_iou_N.split(8), strict=True):
        if len(logits) == 0:
            continue
        restored = processor.restore(logits, size)
        inside = restored > 0
        area_N = inside.flatten(1).sum(dim=1).clamp(min=1)
        certainty_N = (restored.sigmoid() * inside).flatten(1).sum(dim=1) / area_N
        scores += (certainty_N * predicted_iou.to(certainty_N).clamp(0, 1)).tolist()
        masks.append(inside.cpu().numpy())
    return Prediction(masks_NHW=np.concatenate(masks), scores_N=np.array(scores, np.float64))


@contextmanager
def _measuring(lisa: Lisa) -> Generator[None]:
    """Dropout and the like are off within, and then as they were."""
    before = [(module, module.training) for module in lisa.modules()]
    lisa.eval()
    try:
        yield
    finally:
        for module, is_training in before:
            module.training = is_training
