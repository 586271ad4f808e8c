"""lisaseg against the original's algorithm, on the same network, weights and machine.

python benchmarks/original_way.py MODEL [--dtype D] [--device D] [--image PICTURE] [--new-tokens 16 32 64]
    [--questions 1 2 4]

The original keeps nothing: for every new token it runs CLIP, the projector and the whole sequence again, with the head
over every position, and it encodes the picture for SAM again with every question. `original_way` does that with
lisaseg's own network, so that the two differ in the algorithm alone; in fp32 every run checks that both choose the same
tokens and draw the same masks. Ends of answers are ignored, so that they are as long as asked. To make a checkpoint:
python benchmarks/make_official.py --size mid --out FOLDER
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lisaseg import Segmenter
from lisaseg.images.read import read
from lisaseg.model.generate import decode_steps

INSTRUCTIONS = (
    "Can you segment the dog in this image?",
    "What can make the woman stand higher? Please output segmentation mask.",
    "Where can the driver see the speed of the car? Please explain why.",
    "Segment the food that tastes spicy and hot.",
)
Drawn = list[tuple[list[int], Tensor]]
"""For each question the new tokens and the mask logits at the picture's size."""


def main() -> None:
    """Prints a line for each length and each number of questions."""
    options = _options()
    segmenter = Segmenter.load(options.model, device=options.device, dtype=options.dtype)
    picture = read(options.image) if options.image else _noise()
    print(f"{options.model}, {segmenter.lisa.dtype}, {segmenter.lisa.device}, {torch.get_num_threads()} threads")
    print(f"picture {picture.shape[1]}x{picture.shape[0]}; seconds end to end, and how often faster")
    our_way(segmenter, picture, INSTRUCTIONS[:1], 2)  # warm up
    for number in options.new_tokens:
        _compare(segmenter, picture, 1, number)
    for questions in options.questions:
        _compare(segmenter, picture, questions, min(options.new_tokens))


def _compare(segmenter: Segmenter, picture: np.ndarray, questions: int, new_tokens: int) -> None:
    asked = [INSTRUCTIONS[number % len(INSTRUCTIONS)] for number in range(questions)]
    ours, seconds = _timed(our_way, segmenter, picture, asked, new_tokens)
    theirs, original_seconds = _timed(original_way, segmenter, picture, asked, new_tokens)
    for (tokens, mask), (original_tokens, original_mask) in zip(ours, theirs, strict=True):
        if segmenter.lisa.dtype == torch.float32:
            assert tokens == original_tokens
            torch.testing.assert_close(mask, original_mask, atol=1e-2, rtol=1e-2)
    print(
        f"questions {questions}, new tokens {new_tokens:3}: lisaseg {seconds:7.2f} s, the original's way "
        f"{original_seconds:7.2f} s, {original_seconds / seconds:5.1f}x",
        flush=True,
    )


@torch.inference_mode()
def our_way(segmenter: Segmenter, picture: np.ndarray, asked: Sequence[str], new_tokens: int) -> Drawn:
    """The hops of `Segmenter`, for answers of a fixed length that end in `[SEG]`."""
    lisa, processor = segmenter.lisa, segmenter.processor
    inputs = processor([picture], [(0, [(text, None)]) for text in asked]).to(lisa.device)
    pictures = lisa.encode(inputs.pixels.vlm, inputs.pixels.segmenter)
    embeddings = lisa.embed(inputs.token_ids_BL, pictures.vlm_IPD, inputs.picture_of_row_B)
    steps = list(decode_steps(lisa, embeddings, inputs.attention_mask_BL, new_tokens))
    logits, _ = lisa.draw(steps[-1].states_BD, pictures.segmenter_ICHW, inputs.picture_of_row_B)
    masks = processor.restore(logits, inputs.pixels.sizes[0])
    tokens = torch.stack([step.tokens_B for step in steps], dim=1).tolist()
    return list(zip(tokens, masks.cpu(), strict=True))


@torch.inference_mode()
def original_way(segmenter: Segmenter, picture: np.ndarray, asked: Sequence[str], new_tokens: int) -> Drawn:
    """Question after question; nothing is kept from one token to the next."""
    lisa, processor = segmenter.lisa, segmenter.processor
    answers: Drawn = []
    for text in asked:
        inputs = processor([picture], [(0, [(text, None)])]).to(lisa.device)
        ids = inputs.token_ids_BL
        for _ in range(new_tokens):
            embeddings = lisa.embed(ids, lisa.see(inputs.pixels.vlm), inputs.picture_of_row_B)
            states = lisa.read(embeddings, torch.ones_like(ids), use_cache=False)
            ids = torch.cat([ids, lisa.vlm.lm_head(states)[:, -1:].argmax(dim=-1)], dim=1)
        embedding = lisa.look(inputs.pixels.segmenter)
        logits, _ = lisa.draw(states[:, -1], embedding, inputs.picture_of_row_B)
        mask = processor.restore(logits, inputs.pixels.sizes[0])[0].cpu()
        answers.append((ids[0, -new_tokens:].tolist(), mask))
    return answers


def _timed(
    way: Callable[[Segmenter, np.ndarray, Sequence[str], int], Drawn],
    segmenter: Segmenter,
    picture: np.ndarray,
    asked: Sequence[str],
    new_tokens: int,
) -> tuple[Drawn, float]:
    """What it draws, and the seconds it takes; masks are on the host by then."""
    started = time.perf_counter()
    drawn = way(segmenter, picture, asked, new_tokens)
    return drawn, time.perf_counter() - started


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--dtype", choices=["fp32", "bf16", "fp16"], default="fp32")
    parser.add_argument("--device")
    parser.add_argument("--image", type=Path, help="a picture; noise of 1024x768 without it")
    parser.add_argument("--new-tokens", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--questions", type=int, nargs="+", default=[1, 2, 4])
    return parser.parse_args()


def _noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (768, 1024, 3), dtype=np.uint8)


if __name__ == "__main__":
    main()
