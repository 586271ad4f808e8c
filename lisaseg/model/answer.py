"""Hop three: from inputs to words and mask logits, for a whole batch at once, or word by word."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

import torch
from jaxtyping import Float
from torch import Tensor

from lisaseg.config import AskOptions
from lisaseg.language.tokenizer import Tokenizer
from lisaseg.model.engine import Engine
from lisaseg.model.generate import Step, chooser, decode_steps
from lisaseg.model.lisa import Hand, Lisa, Pictures, states_before
from lisaseg.model.past import stack, unstack
from lisaseg.model.processor import ImageSize, Inputs, left_padded
from lisaseg.model.stopwatch import Stopwatch


@dataclass(frozen=True, kw_only=True, eq=False)
class Reply:
    """What the network says to one row: new token ids without the end mark, and for each `[SEG]` a mask."""

    token_ids: list[int]
    logits_Nhw: Float[Tensor, "N h w"]
    """Mask logits at the decoder's resolution."""
    predicted_iou_N: Float[Tensor, " N"]
    """SAM's own estimate of each mask's IoU."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """One mask, as the decoder drew it."""

    prompt_C: Float[Tensor, " C"]
    """What the segmenter was told: the projected state of the `[SEG]`."""
    logits_hw: Float[Tensor, "h w"]
    """Mask logits at the decoder's resolution."""
    predicted_iou: float
    """SAM's own estimate of the mask's IoU."""

    def kept(self) -> "Drawn":
        """The same in ordinary memory, in fp32 and on its own."""
        return Drawn(
            prompt_C=self.prompt_C.detach().float().cpu().clone(),
            logits_hw=self.logits_hw.detach().float().cpu().clone(),
            predicted_iou=self.predicted_iou,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """A prompt over one picture."""

    ids: list[int]
    """Token ids, `IMAGE_ID` at each of the picture's places."""
    digest: str
    """The picture's, under which it and what was read over it are remembered."""
    picture: Pictures


@dataclass(frozen=True, kw_only=True, eq=False)
class Said:
    """One more token of one answer, and the mask that it asked for."""

    row: int
    token: int
    drawn: Drawn | None


@torch.inference_mode()
def answer(
    lisa: Lisa,
    tokenizer: Tokenizer,
    inputs: Inputs,
    options: AskOptions,
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
    tokens, states = _decode(lisa, tokenizer, embeddings_BLD, inputs, options, watch, draw_prompt=draw_prompt)
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


def converse(engine: Engine, questions: Sequence[Question], options: AskOptions, watch: Stopwatch) -> Iterator[Said]:
    """Answers word by word, each mask drawn as soon as its `[SEG]` is said.

    Of a question only what is new is read: the longest beginning that the cache holds is gone on from, and what has
    been read is put there at the end. Nothing is put there by an answer that is given up.
    """
    lisa, tokenizer = engine.lisa, engine.processor.tokenizer
    with watch.stage("prefill"), torch.inference_mode():  # never around a yield: it would be the listener's mode too
        pasts = [engine.cache.past(question.digest, question.ids) for question in questions]
        tails = [question.ids[len(past.ids) if past else 0 :] for question, past in zip(questions, pasts, strict=True)]
        cache, mask_BP = stack(pasts, lisa.config.text)
        ids_BL, mask_BL = (tensor.to(lisa.device) for tensor in left_padded(tails, tokenizer.pad_id))
        vlm_BPD = torch.cat([question.picture.vlm_IPD for question in questions])
        embeddings_BLD = lisa.embed(ids_BL, vlm_BPD, torch.arange(len(questions), device=lisa.device))
        mask_BS = torch.cat([mask_BP.to(lisa.device), mask_BL], dim=1)
    steps = decode_steps(
        lisa,
        embeddings_BLD,
        mask_BS,
        min(options.max_new_tokens, _room(lisa, max(len(question.ids) for question in questions))),
        choose=chooser(options, len(questions)),
        cache=cache,
    )
    tokens = [list(question.ids) for question in questions]
    for step, said in _speak(steps, tokenizer, len(questions), watch):
        masks = {}
        if pointing := [row for row, token in said.items() if token == tokenizer.seg_id]:
            with watch.stage("mask_decoder"), torch.inference_mode():
                masks = _draw_now(lisa, step, pointing, [questions[row].picture for row in pointing])
        for row, token in said.items():
            tokens[row].append(token)
            if token != tokenizer.eos_id:
                yield Said(row=row, token=token, drawn=masks.get(row))
    new = cache.get_seq_length() - mask_BS.shape[1]
    mask_BS = torch.cat([mask_BS, mask_BS.new_ones(len(mask_BS), new)], dim=1)
    for question, past in zip(questions, unstack(cache, mask_BS, tokens), strict=True):
        engine.cache.keep_past(question.digest, past)


@torch.inference_mode()
def draw_again(engine: Engine, prompts: Sequence[Float[Tensor, " C"]], picture: Pictures) -> list[Drawn]:
    """The masks of prompts that were kept."""
    if not prompts:
        return []
    prompts_NC = torch.stack(list(prompts)).to(engine.lisa.device)
    pictures_N = torch.zeros(len(prompts), dtype=torch.long, device=engine.lisa.device)
    return _drawn(prompts_NC, *engine.lisa.draw_prompts(prompts_NC, picture.segmenter_ICHW, pictures_N))


@torch.inference_mode()
def correct(
    engine: Engine,
    drawn: Drawn,
    picture: Pictures,
    size: ImageSize,
    points: Sequence[tuple[int | float, int | float, int]],
    box: Sequence[int | float] | None,
) -> Drawn:
    """A mask drawn again from the same words, its last logits, and all that a hand has added to it.

    Points are (x, y, +1 inside or -1 outside) and the box is xyxy, in pixels of the picture.
    """
    device = engine.lisa.device
    to_square = torch.tensor([b / a for a, b in zip(size.original, size.resized, strict=True)][::-1], device=device)
    places = torch.tensor([point[:2] for point in points], device=device).reshape(1, -1, 2)
    hand = Hand(
        points_NK2=places * to_square,
        labels_NK=torch.tensor([[int(sign > 0) for *_, sign in points]], device=device).long(),
        boxes_N4=None if box is None else torch.tensor([box], device=device) * to_square.repeat(2),
    )
    prompts_NC, logits_Nhw = drawn.prompt_C[None].to(device), drawn.logits_hw[None].to(device)
    redrawn = engine.lisa.redraw(prompts_NC, hand, logits_Nhw, picture.segmenter_ICHW)
    return _drawn(prompts_NC, *redrawn)[0]


def _drawn(
    prompts_NC: Float[Tensor, "N C"], logits_Nhw: Float[Tensor, "N h w"], predicted_iou_N: Float[Tensor, " N"]
) -> list[Drawn]:
    return [
        Drawn(prompt_C=prompt, logits_hw=logits, predicted_iou=iou)
        for prompt, logits, iou in zip(prompts_NC, logits_Nhw, predicted_iou_N.tolist(), strict=True)
    ]


def _draw_now(lisa: Lisa, step: Step, rows: Sequence[int], pictures: Sequence[Pictures]) -> dict[int, Drawn]:
    """The masks of the rows whose token of this step is `[SEG]`."""
    prompts_NC = lisa.prompts(step.states_BD[rows])
    segmenter_NCHW = torch.cat([picture.segmenter_ICHW for picture in pictures])
    pictures_N = torch.arange(len(rows), device=lisa.device)
    return dict(zip(rows, _drawn(prompts_NC, *lisa.draw_prompts(prompts_NC, segmenter_NCHW, pictures_N)), strict=True))


def _room(lisa: Lisa, prompt_length: int) -> int:
    """How many tokens still have a position after a prompt."""
    return lisa.config.text.max_position_embeddings - prompt_length


def _decode(
    lisa: Lisa,
    tokenizer: Tokenizer,
    embeddings_BLD: Float[Tensor, "B L D"],
    inputs: Inputs,
    options: AskOptions,
    watch: Stopwatch,
    *,
    draw_prompt: bool,
) -> tuple[list[list[int]], list[list[Tensor]]]:
    """For each row its new token ids and the states that predicted each `[SEG]`."""
    rows = range(len(embeddings_BLD))
    tokens: list[list[int]] = [[] for _ in rows]
    states: list[list[Tensor]] = [[] for _ in rows]
    limit = min(options.max_new_tokens, _room(lisa, embeddings_BLD.shape[1]))
    steps = decode_steps(
        lisa, embeddings_BLD, inputs.attention_mask_BL, limit, choose=chooser(options, len(embeddings_BLD))
    )
    for number, (step, said) in enumerate(_speak(steps, tokenizer, len(rows), watch)):
        if draw_prompt and number == 0:
            for state, row in zip(*states_before(step.states_BLD, inputs.token_ids_BL, tokenizer.seg_id), strict=True):
                states[int(row)].append(state)
        for row, token in said.items():
            if token != tokenizer.eos_id:
                tokens[row].append(token)
            if token == tokenizer.seg_id:
                states[row].append(step.states_BD[row])
    return tokens, states


def _speak(
    steps: Iterator[Step], tokenizer: Tokenizer, num_rows: int, watch: Stopwatch
) -> Iterator[tuple[Step, dict[int, int]]]:
    """Each step with the tokens of the rows that have not ended before it; end marks are among them."""
    ended: set[int] = set()
    for stage in chain(("prefill",), repeat("decode")):
        with watch.stage(stage), torch.inference_mode():
            step = next(steps, None)
            if step is None:
                return
            said = {row: token for row, token in enumerate(step.tokens_B.tolist()) if row not in ended}
            ended |= {row for row, token in said.items() if token == tokenizer.eos_id}
        yield step, said
        if len(ended) == num_rows:
            return
