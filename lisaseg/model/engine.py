"""A loaded model and what it remembers: all that an answer needs, whoever asks."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8

from lisaseg.config import CACHE_MB, LoadOptions
from lisaseg.model.cache import ContentCache
from lisaseg.model.checkpoints import load_model
from lisaseg.model.lisa import Lisa, Pictures
from lisaseg.model.processor import Processor
from lisaseg.model.stopwatch import Stopwatch


@dataclass(frozen=True, kw_only=True, eq=False)
class Engine:
    """A network, what stands between it and plain data, and a cache that all conversations share."""

    lisa: Lisa
    processor: Processor
    cache: ContentCache
    source: str
    """What it was loaded by: a name, a folder, or a hub id."""
    parity: bool = False
    """Answers like the original in every detail."""

    @classmethod
    def load(cls, model: str | os.PathLike[str], options: LoadOptions, cache_mb: int = CACHE_MB) -> "Engine":
        """Loads a model; see `load_model` for what may go wrong."""
        lisa, processor = load_model(os.fspath(model), options)
        cache = ContentCache(cache_mb * 1_000_000)
        return cls(lisa=lisa, processor=processor, cache=cache, source=os.fspath(model), parity=options.parity)

    def fingerprint(self) -> list[float]:
        """Numbers that hardly depend on the precision, and tell models of one shape apart."""
        parts = self.lisa.projection.get_parameter("2.bias"), self.lisa.vlm.model.language_model.norm.weight
        return [number for part in parts for number in part[:16].detach().float().tolist()]

    @torch.inference_mode()
    def see(self, images: Mapping[str, UInt8[np.ndarray, "_ _ 3"]], watch: Stopwatch) -> dict[str, Pictures]:
        """What both encoders make of pictures, by their digests: remembered, or encoded together and remembered."""
        found = {digest: self.cache.pictures(digest) for digest in images}
        new = [digest for digest, pictures in found.items() if pictures is None]
        if new:
            with watch.stage("prepare"):
                pixels = self.processor.pixels([images[digest] for digest in new]).to(self.lisa.device)
            with watch.stage("clip"):
                vlm_IPD = self.lisa.see(pixels.vlm)
            with watch.stage("sam_encoder"):
                segmenter_ICHW = self.lisa.look(pixels.segmenter)
            together = Pictures(vlm_IPD=vlm_IPD, segmenter_ICHW=segmenter_ICHW)
            for place, digest in enumerate(new):
                found[digest] = own = together[place]
                self.cache.keep_pictures(digest, own)
        return {digest: pictures for digest, pictures in found.items() if pictures is not None}
