"""Greedy decoding with the KV cache, one step at a time, keeping the state that predicted each token."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from lisaseg.model.lisa import Lisa


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One new token per row, and the last hidden states of what was read for it."""

    tokens_B: Int[Tensor, " B"]
    states_BLD: Float[Tensor, "B L D"]
    """Of the whole prompt in the first step, of one token in every later one."""

    @property
    def states_BD(self) -> Float[Tensor, "B D"]:
        """The states that predicted the tokens."""
        return self.states_BLD[:, -1]


def decode_steps(
    lisa: Lisa, embeddings_BLD: Float[Tensor, "B L D"], attention_mask_BL: Int[Tensor, "B L"], max_new_tokens: int
) -> Iterator[Step]:
    """Yields up to `max_new_tokens` greedy steps; the first one reads the whole prompt (left-padded rows).

    The caller stops iterating when every row has ended.
    """
    cache = DynamicCache(config=lisa.config.text)
    mask = attention_mask_BL
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    inputs = embeddings_BLD
    for _ in range(max_new_tokens):
        states_BLD = lisa.read(inputs, mask, positions, past_key_values=cache, use_cache=True)
        tokens_B = lisa.vlm.lm_head(states_BLD[:, -1]).argmax(dim=-1)
        yield Step(tokens_B=tokens_B, states_BLD=states_BLD)
        inputs = lisa.vlm.get_input_embeddings()(tokens_B[:, None])
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        positions = positions[:, -1:] + 1
