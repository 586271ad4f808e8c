"""Decoding with the KV cache, one step at a time, keeping the state that predicted each token."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import (
    DynamicCache,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from lisaseg.config import AskOptions
from lisaseg.model.lisa import Lisa

COLDEST = 1e-4
"""Below this temperature the likeliest token is taken: nothing else would ever be drawn."""
Choose = Callable[[Tensor], Tensor]
"""From logits (B V) to one token for each row (B)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One new token per row, and the last hidden states of what was read for it."""

    tokens_B: Int[Tensor, " B"]
    states_BLD: Float[Tensor, "B L D"]
    """Of everything that was new to the cache in the first step, of one token in every later one."""

    @property
    def states_BD(self) -> Float[Tensor, "B D"]:
        """The states that predicted the tokens."""
        return self.states_BLD[:, -1]


def decode_steps(
    lisa: Lisa,
    embeddings_BLD: Float[Tensor, "B L D"],
    attention_mask_BS: Int[Tensor, "B S"],
    max_new_tokens: int,
    *,
    choose: Choose | None = None,
    cache: DynamicCache | None = None,
) -> Iterator[Step]:
    """Yields up to `max_new_tokens` steps; the first one reads all the embeddings (left-padded rows).

    The mask covers what the cache holds already and then the embeddings; the cache grows. Tokens are the likeliest
    unless `choose` says otherwise. The caller stops iterating when every row has ended.
    """
    cache = DynamicCache(config=lisa.config.text) if cache is None else cache
    choose = choose or _likeliest
    mask = attention_mask_BS
    inputs = embeddings_BLD
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -inputs.shape[1] :]
    for _ in range(max_new_tokens):
        states_BLD = lisa.read(inputs, mask, positions, past_key_values=cache, use_cache=True)
        tokens_B = choose(lisa.vlm.lm_head(states_BLD[:, -1]))
        yield Step(tokens_B=tokens_B, states_BLD=states_BLD)
        inputs = lisa.vlm.get_input_embeddings()(tokens_B[:, None])
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        positions = positions[:, -1:] + 1


def chooser(options: AskOptions, num_rows: int) -> Choose:
    """How the options choose tokens. Each row is drawn for itself, so that nothing depends on its neighbours."""
    if options.temperature < COLDEST:
        return _likeliest
    warpers = LogitsProcessorList(
        [TemperatureLogitsWarper(float(options.temperature)), TopPLogitsWarper(float(options.top_p))]
    )
    generators = [torch.Generator().manual_seed(options.seed) for _ in range(num_rows)]

    def draw(logits_BV: Float[Tensor, "B V"]) -> Int[Tensor, " B"]:
        no_ids = cast(torch.LongTensor, torch.empty(len(logits_BV), 0, dtype=torch.long))
        below_best = logits_BV.float() - logits_BV.float().amax(dim=-1, keepdim=True)  # stays finite when it is cold
        probabilities = warpers(no_ids, below_best).softmax(dim=-1).cpu()
        rows = zip(probabilities, generators, strict=True)
        return torch.cat([torch.multinomial(row, 1, generator=own) for row, own in rows]).to(logits_BV.device)

    return draw


def _likeliest(logits_BV: Float[Tensor, "B V"]) -> Int[Tensor, " B"]:
    return logits_BV.argmax(dim=-1)
