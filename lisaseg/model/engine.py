"""A loaded model and what it remembers: all that an answer needs, whoever asks."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from lisaseg.config import BUNDLED, CACHE_MB, LoadOptions
from lisaseg.files import is_folder
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
        if cache_mb < 0:
            raise ValueError(f"cache_mb must be at least 0, got {cache_mb}")
        source = os.fspath(model)
        lisa, processor = load_model(source, options)
        if source not in BUNDLED and is_folder(source):
            source = str(Path(source).absolute())  # to be found from elsewhere too
        cache = ContentCache(cache_mb * 1_000_000)
        return cls(lisa=lisa, processor=processor, cache=cache, source=source, parity=options.parity)

    def fingerprint(self) -> list[list[float]]:
        """Numbers of several parts that hardly depend on the precision, and tell models of one shape apart."""
        segmenter, language_model = self.lisa.segmenter, self.lisa.vlm.model.language_model
        parts = (
            self.lisa.projection.get_parameter("2.bias"),
            language_model.norm.weight,
            language_model.embed_tokens.weight[len(self.processor.tokenizer) // 2],
            segmenter.mask_decoder.mask_tokens.weight[0],
            segmenter.mask_decoder.upscale_conv1.get_parameter("bias"),
            segmenter.prompt_encoder.mask_embed.conv3.get_parameter("bias"),
            segmenter.prompt_encoder.point_embed.get_parameter("1.weight")[0],
        )
        return [part[:16].detach().float().tolist() for part in parts]

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
