"""Where the time of an evaluation goes: reading, the network, the metric, run lengths.

python benchmarks/evaluation.py BENCHMARK [--model nano] [--data-root DIR] [--limit 50]
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from lisaseg import Segmenter
from lisaseg.evaluation.benchmarks import open_benchmark
from lisaseg.evaluation.evaluate import Times, evaluate
from lisaseg.evaluation.options import EvaluateOptions


def main() -> None:
    """Prints seconds and shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--limit", type=int, default=50)
    options = parser.parse_args()
    benchmark, source = open_benchmark(options.benchmark, options.data_root)
    segmenter, times = Segmenter.load(options.model), Times()
    pictures: list[int] = []
    look = segmenter.lisa.look
    segmenter.lisa.look = lambda pixels: pictures.append(len(pixels)) or look(pixels)  # ty: ignore[invalid-assignment]
    with TemporaryDirectory() as folder:
        found = evaluate(segmenter, benchmark, source, EvaluateOptions(limit=options.limit), Path(folder), times=times)
    total = sum(times.seconds.values())
    for stage, seconds in times.seconds.items():
        print(f"{stage:8}{seconds:8.2f} s {seconds / total:7.1%}")
    asked = found.scores[0].questions
    print(f"{asked} questions about {found.scores[0].pictures} pictures, which were encoded {sum(pictures)} times")


if __name__ == "__main__":
    main()
