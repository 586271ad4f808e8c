"""Memory and speed of a large model on an accelerator, in 16, 8 and 4 bit, each in a process of its own.

python benchmarks/accelerator.py MODEL [--modes 16bit 8bit 4bit] [--device cuda] [--new-tokens 200]

Peak memory (10^9 bytes, allocated by torch) while loading and during one answer about a picture of 1024x768; seconds to
the first mask, of a question whose answer is `It is [SEG].`; and the language model's decoding against the limit that
memory bandwidth sets: every weight of it, and the cache, is read once for each token. The bandwidth is what a copy
within the device's memory reaches in the same run. Random weights do: python benchmarks/make_official.py --size 13b
--out FOLDER. On a CPU, where torch counts nothing, the process's peak resident memory takes the place of the former.
"""

import argparse
import resource
import subprocess
import sys
import time

import numpy as np
import torch

from lisaseg import Segmenter
from lisaseg.model.generate import decode_steps

ANSWER_BEFORE_MASK = 5
"""Tokens of `It is [SEG].` up to the mark, and what follows it."""
MODES = {"16bit": None, "8bit": "8bit", "4bit": "4bit"}


def main() -> None:
    """Prints a block for each mode."""
    options = _options()
    if len(options.modes) > 1:
        for mode in options.modes:
            subprocess.run([sys.executable, *sys.argv, "--modes", mode], check=True)
        return
    (mode,) = options.modes
    started = time.perf_counter()
    dtype = "fp16" if mode == "8bit" else options.dtype
    segmenter = Segmenter.load(options.model, device=options.device, dtype=dtype, quantize=MODES[mode])
    device = segmenter.lisa.device
    print(f"{mode}: {options.model} in {segmenter.lisa.dtype} on {_name(device)}")
    print(f"  load              {time.perf_counter() - started:8.2f} s, peak {_peak(device):.2f} GB")
    picture = np.random.default_rng(0).integers(0, 256, (768, 1024, 3), dtype=np.uint8)
    _first_mask(segmenter, picture)  # warm up
    print(f"  first mask        {_first_mask(segmenter, picture):8.2f} s")
    _decoding(segmenter, picture, options.new_tokens)
    print(f"  peak memory       {_peak(device):8.2f} GB, with an answer of {options.new_tokens} tokens")


@torch.inference_mode()
def _first_mask(segmenter: Segmenter, picture: np.ndarray) -> float:
    """Seconds from the picture to the first mask at its size, on the host."""
    lisa, processor = segmenter.lisa, segmenter.processor
    started = time.perf_counter()
    inputs = processor([picture], [(0, [("Can you segment the dog in this image?", None)])]).to(lisa.device)
    pictures = lisa.encode(inputs.pixels.vlm, inputs.pixels.segmenter)
    embeddings = lisa.embed(inputs.token_ids_BL, pictures.vlm_IPD, inputs.picture_of_row_B)
    steps = list(decode_steps(lisa, embeddings, inputs.attention_mask_BL, ANSWER_BEFORE_MASK))
    logits, _ = lisa.draw(steps[-1].states_BD, pictures.segmenter_ICHW, inputs.picture_of_row_B)
    processor.restore(logits, inputs.pixels.sizes[0]).cpu()
    return time.perf_counter() - started


@torch.inference_mode()
def _decoding(segmenter: Segmenter, picture: np.ndarray, new_tokens: int) -> None:
    """Milliseconds of a token, the limit, and the ratio."""
    lisa = segmenter.lisa
    inputs = segmenter.processor([picture], [(0, [("Can you segment the dog in this image?", None)])]).to(lisa.device)
    pictures = lisa.encode(inputs.pixels.vlm, inputs.pixels.segmenter)
    embeddings = lisa.embed(inputs.token_ids_BL, pictures.vlm_IPD, inputs.picture_of_row_B)
    marks = []
    for step in decode_steps(lisa, embeddings, inputs.attention_mask_BL, new_tokens):
        step.tokens_B.tolist()  # an answer is read as it comes
        marks.append(time.perf_counter())
    token = (marks[-1] - marks[0]) / (len(marks) - 1)
    text = lisa.config.text
    parts = (lisa.vlm.model.language_model.layers, lisa.vlm.lm_head)
    weights = sum(parameter.numel() * parameter.itemsize for part in parts for parameter in part.parameters())
    positions = embeddings.shape[1] + new_tokens / 2
    cache = 2 * text.num_hidden_layers * text.hidden_size * positions * embeddings.itemsize
    bandwidth = _bandwidth(lisa.device)
    limit = (weights + cache) / bandwidth
    print(
        f"  decoding          {1e3 * token:8.2f} ms a token; limit {1e3 * limit:.2f} ms "
        f"({(weights + cache) / 1e9:.2f} GB "
        f"at {bandwidth / 1e9:,.0f} GB/s), {limit / token:.0%} of it"
    )


def _bandwidth(device: torch.device) -> float:
    """Bytes per second that a copy within the memory reads and writes."""
    source = torch.empty(250_000_000, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(5):
        _synchronize(device)
        started = time.perf_counter()
        target.copy_(source)
        _synchronize(device)
        times.append(time.perf_counter() - started)
    return 2 * source.numel() * source.itemsize / min(times)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak(device: torch.device) -> float:
    """GB at the most so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--modes", choices=MODES, nargs="+", default=list(MODES))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", choices=["fp32", "bf16", "fp16"], default="bf16")
    parser.add_argument("--new-tokens", type=int, default=200)
    return parser.parse_args()


if __name__ == "__main__":
    main()
