"""Where the time of one answer goes: loading, each stage, end to end, the whole process, and the cost of new tokens.

python benchmarks/segment.py [--model nano] [--image PICTURE] [--repeat 10]
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from lisaseg import Segmenter
from lisaseg.images.read import read
from lisaseg.model.generate import decode_steps

INSTRUCTION = "Segment the cup."


def main() -> None:
    """Prints the table."""
    options = _options()
    started = time.perf_counter()
    segmenter = Segmenter.load(options.model)
    threads = torch.get_num_threads()
    print(f"model {options.model}, device {segmenter.lisa.device}, {threads} threads, torch {torch.__version__}")
    print(f"{'load':<28}{1e3 * (time.perf_counter() - started):10.1f} ms")
    picture = read(options.image) if options.image else _noise()
    print(f"picture {picture.shape[1]}x{picture.shape[0]}, median of {options.repeat} after one warm-up")
    segmenter.segment(picture, INSTRUCTION)
    runs = [segmenter.segment(picture, INSTRUCTION) for _ in range(options.repeat)]
    for stage in runs[0].timings:
        print(f"{stage:<28}{1e3 * statistics.median(run.timings[stage] for run in runs):10.1f} ms")
    print(f"answer: {runs[0].raw_text!r}, masks: {len(runs[0].segments)}")
    pairs = [(picture.copy(), INSTRUCTION) for _ in range(8)]
    for batch_size in (1, 8):
        started = time.perf_counter()
        segmenter.segment_batch(pairs, batch_size=batch_size)
        print(f"{f'8 pictures, batch of {batch_size}':<28}{1e3 * (time.perf_counter() - started) / 8:10.1f} ms each")
    _token_cost(segmenter, picture)
    if options.image:
        _whole_process(options.model, options.image)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--image", type=Path, help="a picture; noise of 640x480 without it")
    parser.add_argument("--repeat", type=int, default=10)
    return parser.parse_args()


def _noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)


@torch.inference_mode()
def _token_cost(segmenter: Segmenter, picture: np.ndarray) -> None:
    """Seconds of prefill and of each later step, end marks ignored, for short and long answers and prompts."""
    lisa = segmenter.lisa
    for words in (5, 150):
        inputs = segmenter.processor([picture], [(0, [("cup " * words, None)])]).to(lisa.device)
        embeddings = lisa.embed(inputs.token_ids_BL, lisa.see(inputs.pixels.vlm), inputs.picture_of_row_B)
        for number in (5, 200):
            decoding = decode_steps(lisa, embeddings, inputs.attention_mask_BL, number)
            marks = [time.perf_counter(), *(time.perf_counter() for _ in decoding)]
            steps = np.diff(marks)
            print(
                f"prompt of {embeddings.shape[1]:4} tokens, {number:3} new: prefill {1e3 * steps[0]:7.1f} ms, "
                f"then {1e3 * steps[1:].mean():6.2f} ms a token (first ten {1e3 * steps[1:11].mean():.2f}, "
                f"last ten {1e3 * steps[-10:].mean():.2f})"
            )


def _whole_process(model: str, image: Path) -> None:
    """Wall time and peak memory of `lisaseg segment` as a person starts it."""
    command = [sys.executable, "-m", "lisaseg", "segment", str(image), INSTRUCTION, "--model", model, "--json"]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(f"{'whole process':<28}{time.perf_counter() - started:10.2f} s, peak memory {peak:.2f} GB")


if __name__ == "__main__":
    main()
