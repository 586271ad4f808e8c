"""What a language model has read, kept: its keys and values never change, so that any number of turns go on from them.

A `Past` may be cut anywhere and padded into a batch with others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache, LlamaConfig


@dataclass(frozen=True, kw_only=True, eq=False)
class Past:
    """Keys and values of a sequence of tokens over one picture. Letters: H heads, L tokens, K width of a head."""

    ids: tuple[int, ...]
    """The tokens, `IMAGE_ID` at each of the picture's places."""
    layers: tuple[tuple[Float[Tensor, "H L K"], Float[Tensor, "H L K"]], ...]
    """Keys and values of each layer."""

    @property
    def nbytes(self) -> int:
        """What the tensors take."""
        return sum(part.numel() * part.element_size() for layer in self.layers for part in layer)

    def shared(self, ids: Sequence[int]) -> int:
        """How many tokens it has in common with others, from the start."""
        for place, (own, other) in enumerate(zip(self.ids, ids, strict=False)):
            if own != other:
                return place
        return min(len(self.ids), len(ids))

    def cut(self, length: int) -> "Past":
        """Its first tokens; nothing is copied."""
        layers = tuple((keys[:, :length], values[:, :length]) for keys, values in self.layers)
        return Past(ids=self.ids[:length], layers=layers)


def stack(pasts: Sequence[Past | None], config: LlamaConfig) -> tuple[DynamicCache, Int[Tensor, "B S"]]:
    """A cache to go on from, one row for each past, padded on the left, and the mask of what is no padding."""
    lengths = [len(past.ids) if past else 0 for past in pasts]
    longest = max(lengths)
    mask = torch.tensor([[0] * (longest - length) + [1] * length for length in lengths], dtype=torch.long)
    known = next((past for past in pasts if past), None)
    if known is None or longest == 0:
        return DynamicCache(config=config), mask
    layers = []
    for number, like in enumerate(known.layers):
        nothing = (like[0][:, :0], like[1][:, :0])
        rows = [past.layers[number] if past else nothing for past in pasts]
        layers.append(tuple(_padded([row[part] for row in rows], longest) for part in (0, 1)))
    return DynamicCache(layers), mask


def unstack(cache: DynamicCache, mask_BS: Int[Tensor, "B S"], tokens: Sequence[Sequence[int]]) -> list[Past]:
    """What each row has read: of its tokens as many as the cache holds."""
    pasts = []
    for row, ids in enumerate(tokens):
        places = mask_BS[row].nonzero()[: len(ids), 0]
        is_whole = len(tokens) == 1 and len(places) == mask_BS.shape[1]  # a view of one row of many would hold them all
        layers = tuple(
            (keys[row], values[row]) if is_whole else (keys[row][:, places], values[row][:, places])
            for keys, values, *_ in cache
        )
        pasts.append(Past(ids=tuple(ids[: len(places)]), layers=layers))
    return pasts


def _padded(rows: Sequence[Float[Tensor, "H _ K"]], longest: int) -> Float[Tensor, "B H S K"]:
    missing = [longest - row.shape[1] for row in rows]
    return torch.stack([pad(row, (0, 0, gap, 0)) if gap else row for row, gap in zip(rows, missing, strict=True)])
