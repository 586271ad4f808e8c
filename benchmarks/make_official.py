"""Writes a checkpoint of random numbers with the names, shapes, dtypes and shard sizes of a published one.

python benchmarks/make_official.py --size 7b|13b|mid --out FOLDER [--tokenizer LLAMA_TOKENIZER_MODEL]

7b and 13b are the published sizes (16 and 29 GB; CLIP, 1.2 GB, lies inside the folder). mid is a smaller one of the
same build for machines without an accelerator: a language model of 0.3 billion parameters and SAM's ViT-B. The LLaMA
vocabulary may not be shipped: without --tokenizer a stand-in of as many pieces takes its place.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from sentencepiece import sentencepiece_model_pb2
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel

from lisaseg.data.vocabulary import load_vocabulary
from lisaseg.training.recipes import train_tokenizer

SHARD_BYTES = 10_000_000_000
PIECES = 32_000
COMMON = dict(
    architectures=["LISAForCausalLM"],
    model_type="llava",
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
    mm_hidden_size=1024,
    mm_use_im_start_end=True,
    mm_vision_select_feature="patch",
    mm_vision_select_layer=-2,
    out_dim=256,
    tie_word_embeddings=False,
    vision_tower="clip",
)
ADDED_7B = {"<im_end>": 32002, "<im_patch>": 32000, "<im_start>": 32001, "[SEG]": 32003}
ADDED_13B = {"<im_end>": 32002, "<im_start>": 32001, "[SEG]": 32000}
SIZES: dict[str, dict[str, Any]] = {
    "7b": dict(
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        max_position_embeddings=2048,
        rms_norm_eps=1e-6,
        vocab_size=32004,
    ),
    "13b": dict(
        hidden_size=5120,
        intermediate_size=13824,
        num_hidden_layers=40,
        num_attention_heads=40,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        vocab_size=32003,
    ),
    "mid": dict(
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=18,
        num_attention_heads=16,
        max_position_embeddings=2048,
        rms_norm_eps=1e-6,
        vocab_size=32004,
    ),
}
VIT_B = dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, global_attn_indexes=[2, 5, 8, 11])


def main() -> None:
    """Writes the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, help="a LLaMA tokenizer.model")
    options = parser.parse_args()
    make_official(options.size, options.out, options.tokenizer)


def make_official(size: str, out: Path, tokenizer: Path | None = None) -> None:
    """Writes a checkpoint of a size to a folder."""
    (out / "clip").mkdir(parents=True)
    (out / "config.json").write_text(json.dumps({**COMMON, **SIZES[size]}, indent=1))
    (out / "added_tokens.json").write_text(json.dumps(ADDED_13B if size == "13b" else ADDED_7B))
    (out / "tokenizer.model").write_bytes(tokenizer.read_bytes() if tokenizer else _stand_in_tokenizer())
    if size == "mid":
        (out / "lisaseg.json").write_text(json.dumps({"sam": VIT_B}))
    random = _Random()
    shards = list(_shards(_shapes(size)))
    weight_map = {}
    for number, shapes in enumerate(shards, 1):
        file = f"pytorch_model-{number:05}-of-{len(shards):05}.bin"
        weight_map |= dict.fromkeys(shapes, file)
        torch.save({name: random.tensor(name, shape) for name, shape in shapes.items()}, out / file)
        print(f"{out / file}: {(out / file).stat().st_size / 1e9:.2f} GB")
    (out / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}, indent=1))
    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14
    )
    CLIPVisionModel(vision).save_pretrained(out / "clip")


def _shapes(size: str) -> dict[str, list[int]]:
    """Names and shapes in the order of the files."""
    manifest = Path(__file__).with_name(f"keys_{'7b' if size == 'mid' else size}.json")
    shapes = json.loads(manifest.read_text("utf-8"))
    return _shrunk(shapes) if size == "mid" else shapes


def _shrunk(shapes: dict[str, list[int]]) -> dict[str, list[int]]:
    """The 7B manifest with fewer layers and narrower ones: sizes are told by what they are in the manifest."""
    mid = SIZES["mid"]
    language = {4096: mid["hidden_size"], 11008: mid["intermediate_size"], 64: 32}
    sam = {1280: 768, 3840: 3 * 768, 5120: 4 * 768, 80: 64}
    kept: dict[str, list[int]] = {}
    for name, shape in shapes.items():
        words = name.split(".")
        if "visual_model" not in name:
            if words[1] == "layers" and int(words[2]) >= mid["num_hidden_layers"]:
                continue
            kept[name] = [language.get(side, side) for side in shape]
        elif "image_encoder" not in name:
            kept[name] = shape
        elif "blocks" not in name or int(words[4]) < VIT_B["num_hidden_layers"]:  # type: ignore[operator]
            kept[name] = [sam.get(side, side) for side in shape]
            if "rel_pos" in name:
                kept[name][0] = 127 if int(words[4]) in VIT_B["global_attn_indexes"] else 27  # type: ignore[operator]
    return kept


def _dtype(name: str) -> torch.dtype:
    """As published: the language model in bf16, SAM and the [SEG] projection in fp32."""
    is_fp32 = "visual_model" in name or "text_hidden_fcs" in name or "inv_freq" in name
    return torch.float32 if is_fp32 else torch.bfloat16


def _shards(shapes: dict[str, list[int]]) -> Iterator[dict[str, list[int]]]:
    """Cut as `transformers` cut them: greedily, at most 10 GB each."""
    shard, size = {}, 0
    for name, shape in shapes.items():
        bytes_of_it = torch.Size(shape).numel() * _dtype(name).itemsize
        if size + bytes_of_it > SHARD_BYTES:
            yield shard
            shard, size = {}, 0
        shard[name] = shape
        size += bytes_of_it
    yield shard


class _Random:
    """Normal numbers, drawn once and used again from another place for each tensor: 13 billion would take minutes."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)
        self._pool = torch.randn(50_000_017, generator=self._generator)

    def tensor(self, name: str, shape: list[int]) -> Tensor:
        """Norms are ones, biases zeros, everything else keeps the variance of what goes through it."""
        dtype = _dtype(name)
        if len(shape) == 1:
            return (torch.ones if name.endswith("weight") else torch.zeros)(shape, dtype=dtype)
        if name.endswith("gaussian_matrix"):
            return torch.randn(shape, generator=self._generator)
        flat = torch.empty(torch.Size(shape).numel(), dtype=dtype)
        scale = 0.5 * torch.Size(shape[1:]).numel() ** -0.5
        pool = (self._pool * scale).to(dtype)
        start = int(torch.randint(len(pool), (1,), generator=self._generator))
        filled = 0
        while filled < len(flat):
            piece = pool[start : start + len(flat) - filled]
            flat[filled : filled + len(piece)] = piece
            filled, start = filled + len(piece), 0
        return flat.reshape(shape)


def _stand_in_tokenizer() -> bytes:
    """nano's tokenizer, filled up with pieces that no text has."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(train_tokenizer(load_vocabulary())._model)
    for number in range(len(proto.pieces), PIECES):
        proto.pieces.add(piece=f"▁filler{number}", score=-1e3)
    return proto.SerializeToString()


if __name__ == "__main__":
    main()
