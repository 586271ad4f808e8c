"""How fast a model loads, against reading the same files, and how much memory that takes at its peak.

python benchmarks/loading.py MODEL [--quantize 4bit|8bit] [--dtype D] [--device D] [--repeat 3]

Weights are mapped into memory and read where they are used, by lisaseg as by safetensors' own load_file, so both are
timed until every byte has been touched. Each run is a process of its own; where the files fit into memory, a run before
them fills the system's cache. Peak host memory: anonymous (the process's own) and mapped (pages of the files, which the
system takes back when it needs room), sampled every 20 ms.
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from lisaseg.config import LoadOptions
from lisaseg.model.checkpoints import load_model
from lisaseg.model.hub import find_model
from lisaseg.model.weights import weight_files


def main() -> None:
    """Prints a line for each kind of run, and the ratio."""
    options = _options()
    if options.run:
        print(json.dumps(_measure(options)))
        return
    files = list(weight_files(find_model(options.model)))
    size = sum(path.stat().st_size for path in files)
    print(
        f"{options.model}: {len(files)} files, {size / 1e9:.2f} GB, quantize {options.quantize}, dtype {options.dtype}"
    )
    kinds = ["load"] if files[0].suffix == ".bin" or options.quantize else ["read", "load"]
    rates = {}
    for kind in kinds:
        runs = (
            [_own_process(kind) for _ in range(options.repeat + 1)][1:] if options.repeat > 1 else [_own_process(kind)]
        )
        seconds = statistics.median(run["seconds"] for run in runs)
        rates[kind] = size / seconds / 1e9
        print(
            f"{kind:<6}{seconds:8.2f} s  {rates[kind]:6.2f} GB/s  model {runs[0]['model'] / 1e9:.2f} GB, "
            f"peak anonymous {max(run['anonymous'] for run in runs) / 1e9:.2f} GB, "
            f"mapped {max(run['mapped'] for run in runs) / 1e9:.2f} GB"
        )
    if len(rates) == 2:
        print(f"load is at {rates['load'] / rates['read']:.0%} of the speed of reading")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--quantize", choices=["8bit", "4bit"])
    parser.add_argument("--dtype", choices=["fp32", "bf16", "fp16"], default="bf16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeat", type=int, default=3, help="1 measures once, without a run before")
    parser.add_argument("--run", choices=["read", "load"], help=argparse.SUPPRESS)
    return parser.parse_args()


def _own_process(kind: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, *sys.argv, "--run", kind], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _measure(options: argparse.Namespace) -> dict[str, float]:
    """Seconds, bytes of the model, and peaks above what the process had before."""
    before = _resident()
    peaks = dict(before)
    is_done = threading.Event()

    def sample() -> None:
        while not is_done.wait(0.02):
            for name, value in _resident().items():
                peaks[name] = max(peaks[name], value)

    watcher = threading.Thread(target=sample)
    watcher.start()
    started = time.perf_counter()
    tensors = _read(options) if options.run == "read" else _load(options)
    for tensor in tensors:
        tensor.reshape(-1).view(torch.uint8)[:: 4096 if tensor.device.type == "cpu" else 1 << 30].sum().item()
    seconds = time.perf_counter() - started
    is_done.set()
    watcher.join()
    size = sum(tensor.numel() * tensor.itemsize for tensor in tensors)
    return {"seconds": seconds, "model": size, **{name: peaks[name] - before[name] for name in peaks}}


def _read(options: argparse.Namespace) -> list[torch.Tensor]:
    return [tensor for path in weight_files(find_model(options.model)) for tensor in load_file(path).values()]


def _load(options: argparse.Namespace) -> list[torch.Tensor]:
    chosen = LoadOptions(device=options.device, dtype=options.dtype, quantize=options.quantize)
    lisa, _ = load_model(options.model, chosen)
    return [*lisa.parameters()]


def _resident() -> dict[str, int]:
    """Bytes in memory: the process's own, and pages of mapped files."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        name: int(lines[field].split()[0]) * 1024 for name, field in (("anonymous", "RssAnon"), ("mapped", "RssFile"))
    }


if __name__ == "__main__":
    main()
