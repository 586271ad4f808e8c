"""Where the time of an answer goes."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch


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

    def share(self, number: int) -> dict[str, float]:
        """The seconds of one of so many that were answered together, and their `total`."""
        share = {stage: seconds / number for stage, seconds in self.seconds.items()}
        return {**share, "total": sum(share.values())}
