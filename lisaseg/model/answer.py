"""Hop three: from inputs to words and mask logits, for a whole batch at once."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, repeat

import torch
from jaxtyping import Float
from torch import Tensor

from lisaseg.language.tokenizer import Tokenizer
from lisaseg.model.generate import decode_steps
from lisaseg.model.lisa import Lisa, states_before
from lisaseg.model.processor import Inputs


@dataclass(frozen=True, kw_only=True, eq=False)
class Reply:
    """What the network says to one row: new token ids without the end mark, and for each `[SEG]` a mask."""

    token_ids: list[int]
    logits_Nhw: Float[Tensor, "N h w"]
    """Mask logits at the decoder's resolution."""
    predicted_iou_N: Float[Tensor, " N"]
    """SAM's own estimate of each mask's IoU."""


@dataclass(frozen=True, kw_only=True)
class Stopwatch:
    """Seconds by stage; on a GPU a stage ends when its work is done, not when it is queued."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Adds the time of a block to a stage."""
        started = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


@torch.inference_mode()
def answer(
    lisa: Lisa,
    tokenizer: Tokenizer,
    inputs: Inputs,
    max_new_tokens: int,
    watch: Stopwatch,
    *,
    draw_prompt: bool = False,
) -> list[Reply]:
    """Replies to all rows: both encoders once per picture, one decoding loop, the mask decoder for all masks.

    With `draw_prompt`, each `[SEG]` of a prompt has a mask too, before those of the answer, as in the original.
    """
    with watch.stage("clip"):
        vlm_IPD = lisa.see(inputs.pixels.vlm)
    with watch.stage("sam_encoder"):
        segmenter_ICHW = lisa.look(inputs.pixels.segmenter)
    with watch.stage("prefill"):
        embeddings_BLD = lisa.embed(inputs.token_ids_BL, vlm_IPD, inputs.picture_of_row_B)
    tokens, states = _decode(lisa, tokenizer, embeddings_BLD, inputs, max_new_tokens, watch, draw_prompt=draw_prompt)
    with watch.stage("mask_decoder"):
        counts = [len(row) for row in states]
        flat = [state for row in states for state in row]
        states_ND = torch.stack(flat) if flat else embeddings_BLD.new_zeros(0, embeddings_BLD.shape[-1])
        pictures_N = inputs.picture_of_row_B.repeat_interleave(torch.tensor(counts, device=states_ND.device))
        logits, predicted_iou = lisa.draw(states_ND, segmenter_ICHW, pictures_N)
    return [
        Reply(token_ids=row_tokens, logits_Nhw=row_logits, predicted_iou_N=row_iou)
        for row_tokens, row_logits, row_iou in zip(
            tokens, logits.split(counts), predicted_iou.split(counts), strict=True
        )
    ]


def _decode(
    lisa: Lisa,
    tokenizer: Tokenizer,
    embeddings_BLD: Float[Tensor, "B L D"],
    inputs: Inputs,
    max_new_tokens: int,
    watch: Stopwatch,
    *,
    draw_prompt: bool,
) -> tuple[list[list[int]], list[list[Tensor]]]:
    """For each row its new token ids and the states that predicted each `[SEG]`."""
    rows = range(len(embeddings_BLD))
    tokens: list[list[int]] = [[] for _ in rows]
    states: list[list[Tensor]] = [[] for _ in rows]
    ended: set[int] = set()
    room = lisa.config.text.max_position_embeddings - embeddings_BLD.shape[1]
    steps = decode_steps(lisa, embeddings_BLD, inputs.attention_mask_BL, min(max_new_tokens, room))
    for stage in chain(("prefill",), repeat("decode")):
        with watch.stage(stage):
            step = next(steps, None)
            if step is None:
                break
            if draw_prompt and stage == "prefill":
                for state, row in zip(
                    *states_before(step.states_BLD, inputs.token_ids_BL, tokenizer.seg_id), strict=True
                ):
                    states[int(row)].append(state)
            for row, token in enumerate(step.tokens_B.tolist()):
                if row in ended:
                    continue
                if token == tokenizer.eos_id:
                    ended.add(row)
                    continue
                tokens[row].append(token)
                if token == tokenizer.seg_id:
                    states[row].append(step.states_BD[row])
        if len(ended) == len(rows):
            break
    return tokens, states
