"""What a conversation saves: later turns and corrections against the first turn, when words and masks come, memory.

python benchmarks/conversation.py [MODEL ...] [--image PICTURE] [--repeat 10] [--new-tokens 16] [--idle 100]
    [--cache-mb 32]

All ratios are of one run. "Before the answer" is everything but decoding the new tokens and drawing their masks: the
picture's preparation, both encoders, and reading the prompt. That reading ends with the first new token, so that one
step of decoding, as long as the others of the same answer, is taken off; the sum with it stands beside. To make a
checkpoint: python benchmarks/make_official.py --size mid --out FOLDER
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from operator import sub
from pathlib import Path

import numpy as np
import psutil
import torch

from lisaseg import AskOptions, Segmenter
from lisaseg.conversation import Conversation
from lisaseg.images.read import read
from lisaseg.model.answer import correct, draw_again
from lisaseg.transcript import Turn
from lisaseg.values import SegmentReady, TextDelta

FIRST, SECOND = "Segment the cat.", "And what is it used for?"
BEFORE = ("prepare", "clip", "sam_encoder", "prefill")
"""Stages of a turn that come before its answer."""


def main() -> None:
    """Prints a block for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["nano"])
    parser.add_argument("--image", type=Path, default=Path("examples/scene_1.jpg"))
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--new-tokens", type=int, default=16, help="longest answer")
    parser.add_argument("--idle", type=int, default=100, help="conversations that are kept at once; 0 for none")
    parser.add_argument("--cache-mb", type=int, default=32, help="what those may keep together")
    options = parser.parse_args()
    for model in options.models:
        segmenter = Segmenter.load(model)
        picture = read(options.image)
        print(
            f"{model}, {segmenter.lisa.dtype}, {segmenter.lisa.device}, {torch.get_num_threads()} threads, "
            f"picture {picture.shape[1]}x{picture.shape[0]}, median of {options.repeat}"
        )
        limit = AskOptions(max_new_tokens=options.new_tokens)
        _turns(segmenter, picture, limit, options.repeat)
        _stream(segmenter, picture, limit)
        if options.idle:
            _idle(model, options.idle, options.cache_mb)


def _turns(segmenter: Segmenter, picture: np.ndarray, limit: AskOptions, repeat: int) -> None:
    """Seconds before the answer in turns 1 and 2, of a correction, and of the turns of a long conversation."""
    firsts, seconds, corrections = [], [], []
    for _ in range(repeat + 1):  # the first one warms up
        segmenter.cache_clear()
        conversation = segmenter.start(picture, limit)
        conversation.ask(FIRST)
        conversation.ask(SECOND)
        firsts.append(conversation.turns[0])
        seconds.append(conversation.turns[1])
        corrections.append(_seconds(_correction(conversation)))
    first, second = (_before(turns[1:]) for turns in (firsts, seconds))
    whole = statistics.median(turn.timings["total"] for turn in firsts[1:])
    print(f"  turn 1, before the answer {_shown(first)}   {_stages(firsts[1:])}")
    print(f"  turn 2, before the answer {_shown(second)} = {second[0] / first[0]:6.1%} of turn 1")
    refine = statistics.median(corrections[1:])
    print(f"  a correction by hand      {1e3 * refine:9.1f} ms = {refine / whole:6.1%} of turn 1, {1e3 * whole:.1f} ms")
    conversation = segmenter.start(picture, limit)
    for _ in range(9):
        conversation.ask(SECOND)
    later = [
        f"{1e3 * _before([turn])[0]:.1f}{'*' * (turn.first > before.first)}"
        for before, turn in pairwise(conversation.turns)
    ]
    print(f"  turns 2 to 9, before the answer {', '.join(later)} ms (* the oldest turns went)")


def _correction(conversation: Conversation) -> Callable[[], object]:
    """A click on the last mask; where a random model drew none, on what it would have drawn."""
    for answer in conversation.answers():
        for segment in answer.segments:
            return lambda: conversation.refine(segment, [(20, 30, 1)])
    engine, size = conversation._engine, conversation._size
    seen = engine.cache.pictures(conversation._digest)
    assert seen is not None
    prompt = torch.zeros(1, engine.lisa.config.prompt_width, device=engine.lisa.device, dtype=engine.lisa.dtype)
    (drawn,) = draw_again(engine, [prompt[0]], seen)
    return lambda: conversation._restored([correct(engine, drawn, seen, size, [(20, 30, 1)], None)])


def _seconds(do: Callable[[], object]) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def _before(turns: Sequence[Turn]) -> tuple[float, float]:
    """Medians of the seconds before the answer, without and with the step that gives its first token."""
    whole = [sum(turn.timings.get(stage, 0.0) for stage in BEFORE) for turn in turns]
    steps = [turn.timings.get("decode", 0.0) / max(1, len(turn.token_ids)) for turn in turns]
    return statistics.median(map(sub, whole, steps)), statistics.median(whole)


def _shown(seconds: tuple[float, float]) -> str:
    return f"{1e3 * seconds[0]:9.1f} ms ({1e3 * seconds[1]:.1f} with the first token)"


def _stages(turns: Sequence[Turn]) -> str:
    medians = {stage: statistics.median(turn.timings[stage] for turn in turns) for stage in BEFORE}
    return ", ".join(f"{stage} {1e3 * seconds:.1f}" for stage, seconds in medians.items())


def _stream(segmenter: Segmenter, picture: np.ndarray, limit: AskOptions) -> None:
    """When the first words and the first mask are there."""
    segmenter.cache_clear()
    started = time.perf_counter()
    came: dict[type, float] = {}
    for event in segmenter.start(picture, limit).stream(FIRST):
        came.setdefault(type(event), time.perf_counter() - started)
    total = time.perf_counter() - started
    moments = [f"{kind.__name__} after {1e3 * came[kind]:.1f} ms" for kind in (TextDelta, SegmentReady) if kind in came]
    print(f"  streamed: {', '.join([*moments, f'all after {1e3 * total:.1f} ms'])}")


def _idle(model: str, number: int, budget: int) -> None:
    """Memory that idle conversations take, each about another picture of 640x480 with one answer."""
    segmenter = Segmenter.load(model, cache_mb=budget)
    rng = np.random.default_rng(0)
    limit = AskOptions(max_new_tokens=8)
    segmenter.start(rng.integers(0, 256, (480, 640, 3), dtype=np.uint8), limit).ask(FIRST)
    gc.collect()
    before = psutil.Process().memory_info().rss
    kept = []
    for _ in range(number):
        conversation = segmenter.start(rng.integers(0, 256, (480, 640, 3), dtype=np.uint8), limit)
        conversation.ask(FIRST)
        kept.append(conversation)
    gc.collect()
    grown = psutil.Process().memory_info().rss - before
    info = segmenter.cache_info()
    pictures = sum(conversation.image.nbytes for conversation in kept)
    print(
        f"  {number} idle conversations: cache {info.bytes / 1e6:.0f} of {budget} MB "
        f"({info.pictures} pictures, {info.contexts} contexts, {info.evictions} evicted), the process grew by "
        f"{grown / 1e6:.0f} MB, of which {pictures / 1e6:.0f} MB are the pictures themselves"
    )


if __name__ == "__main__":
    main()
