"""From mask logits at the picture's size to segments: the words each belongs to, and which of them count."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float32

from lisaseg.config import AskOptions
from lisaseg.language.wording import phrases, spans
from lisaseg.values import Segment


def make_segments(
    logits: Sequence[Float32[np.ndarray, "H W"]], predicted_iou: Sequence[float], raw_text: str, instruction: str
) -> list[Segment]:
    """A segment for each mask; where there are more than `[SEG]` in the text, the first are the instruction's."""
    words, places = phrases(raw_text, instruction), spans(raw_text)
    asked = phrases(instruction, instruction)[: len(logits) - len(words)]
    words, places = [*asked, *words], [*(None for _ in asked), *places]
    return [
        Segment(index=index, phrase=phrase, span=span, logits=mask, predicted_iou=iou)
        for index, (phrase, span, mask, iou) in enumerate(zip(words, places, logits, predicted_iou, strict=True))
    ]


def sift(segments: Iterable[Segment], options: AskOptions) -> tuple[tuple[Segment, ...], tuple[Segment, ...]]:
    """Segments that count, and those that are too faint or too small."""
    kept: list[Segment] = []
    dropped: list[Segment] = []
    for segment in segments:
        counts = segment.area >= options.min_area and (not options.min_score or segment.score >= options.min_score)
        (kept if counts else dropped).append(segment)
    return tuple(kept), tuple(dropped)
