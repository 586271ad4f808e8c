"""Published LISA checkpoints as they are: what their config.json means here, how their tensors are called, and CLIP.

A published folder holds `config.json` (`model_type: llava`), shards, and the tokenizer; CLIP lies elsewhere. Our own
optional side file `lisaseg.json` may name the conversation template and the sizes of another SAM than ViT-H.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, LlamaConfig, LlavaConfig, SamConfig
from transformers.models.sam.configuration_sam import SamVisionConfig

from lisaseg.errors import CheckpointError
from lisaseg.model.configuration import LisaConfig

SIDE_FILE = "lisaseg.json"
ROOM_FOR_ANSWER = 512
"""Positions that stay free after the longest prompt."""
VIT_H = dict(hidden_size=1280, num_hidden_layers=32, num_attention_heads=16, global_attn_indexes=[7, 15, 23, 31])
"""SAM's image encoder in every published checkpoint."""
SUPPORTED = (
    "supported are LISA v1 checkpoints (lisa-7b, lisa-13b and their explanatory ones) and what lisaseg has written"
)
_MLP = r"(output_hypernetworks_mlps\.\d+|iou_prediction_head)\.layers"
_SAM = r"model\.visual_model\."
_RENAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^model\.(embed_tokens|layers|norm)\.", r"vlm.model.language_model.\1."),
        (r"^lm_head\.", "vlm.lm_head."),
        (r"^model\.mm_projector\.", "vlm.model.multi_modal_projector."),
        (r"^model\.text_hidden_fcs\.0\.", "projection."),
        (rf"^{_SAM}image_encoder\.blocks\.", "segmenter.vision_encoder.layers."),
        (rf"^{_SAM}image_encoder\.", "segmenter.vision_encoder."),
        (
            rf"^{_SAM}prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$",
            "segmenter.shared_image_embedding.positional_embedding",
        ),
        (rf"^{_SAM}", "segmenter."),
        (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
        (r"(vision_encoder\.layers\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
        (r"\.neck\.0\.", ".neck.conv1."),
        (r"\.neck\.1\.", ".neck.layer_norm1."),
        (r"\.neck\.2\.", ".neck.conv2."),
        (r"\.neck\.3\.", ".neck.layer_norm2."),
        (r"\.point_embeddings\.", ".point_embed."),
        (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
        (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
        (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
        (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
        (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
        (r"\.output_upscaling\.0\.", ".upscale_conv1."),
        (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
        (r"\.output_upscaling\.3\.", ".upscale_conv2."),
        (r"(mask_decoder\.transformer\.layers\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
        (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
        (rf"\.{_MLP}\.0\.", r".\1.proj_in."),
        (rf"\.{_MLP}\.2\.", r".\1.proj_out."),
        (rf"\.{_MLP}\.1\.", r".\1.layers.0."),
    )
)
"""From the names in published files to those of our network, applied in order."""
_RECOMPUTED = re.compile(r"\.rotary_emb\.inv_freq$|^(vision_model\.)?embeddings\.position_ids$")
"""Buffers that published files hold and that are computed here."""
_OTHER_HALF_OF_CLIP = re.compile(r"^(text_model\.|text_projection|visual_projection|logit_scale)")


def rename(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published LISA tensors by the names of our network; those that are computed here are left out."""
    return {_rename(name): tensor for name, tensor in weights.items() if not _RECOMPUTED.search(name)}


def rename_clip(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CLIP's vision tower by the names of our network, from a file of the tower alone or of the whole of CLIP."""
    return {
        f"vlm.vision_tower.{name}": tensor
        for name, tensor in weights.items()
        if not _RECOMPUTED.search(name) and not _OTHER_HALF_OF_CLIP.search(name)
    }


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name


def refuse_lookalikes(folder: Path, record: Mapping[str, Any], names: Iterable[str]) -> None:
    """Tells apart what shares LISA's `model_type`.

    Args:
        folder: where it lies.
        record: its config.json.
        names: its tensors, as far as they are known.

    Raises:
        CheckpointError: it is something else than a LISA v1 checkpoint; the message says what.
    """
    kind = _lookalike(folder, record, set(names))
    if kind:
        raise CheckpointError(f"{folder} is {kind}; {SUPPORTED}")


def _lookalike(folder: Path, record: Mapping[str, Any], names: set[str]) -> str | None:
    def has(prefix: str) -> bool:
        return any(name.startswith(prefix) for name in names)

    if any((folder / f"pytorch_model-{part}.bin").exists() for part in ("visual_model", "text_hidden_fcs")):
        return "a LISA v0 checkpoint, of the code before August 2023, with SAM and the projection in files of their own"
    if has("base_model.model."):
        return "the state of a training with LoRA; merge it first, with the original's merge script"
    if str(record.get("mm_projector_type", "linear")) != "linear" or has("model.mm_projector.0."):
        is_lisa = has("model.text_hidden_fcs.") or "out_dim" in record
        return "a LISA++ checkpoint, on LLaVA 1.5" if is_lisa else "a LLaVA 1.5 model without LISA's parts"
    if "text_config" in record:
        return "a LLaVA model of transformers, without LISA's parts"
    if names and not (has("model.text_hidden_fcs.") and has("model.visual_model.")):
        return "a LLaVA model without LISA's parts ([SEG] projection and SAM)"
    return None


def read_official_config(folder: Path, record: Mapping[str, Any], vision_record: Mapping[str, Any]) -> LisaConfig:
    """Our configuration of a published checkpoint.

    Args:
        folder: the checkpoint's, for its side file.
        record: its config.json.
        vision_record: config.json of its CLIP.

    Raises:
        CheckpointError: a field is missing or asks for what LISA never was, or CLIP does not fit.
    """
    side = _side_file(folder)
    vision = CLIPVisionConfig.from_dict(dict(vision_record.get("vision_config", vision_record)))
    if record["mm_hidden_size"] != vision.hidden_size:
        raise CheckpointError(
            f"{folder} was made with a vision tower {record['mm_hidden_size']} wide, and the one given is "
            f"{vision.hidden_size} wide; the published one is openai/clip-vit-large-patch14"
        )
    if record.get("mm_vision_select_feature", "patch") != "patch" or not record.get("mm_use_im_start_end", True):
        raise CheckpointError(f"{folder} marks or selects picture tokens as no LISA v1 checkpoint does; {SUPPORTED}")
    heads = record["num_attention_heads"]
    text = LlamaConfig(
        vocab_size=record["vocab_size"],
        hidden_size=record["hidden_size"],
        intermediate_size=record["intermediate_size"],
        num_hidden_layers=record["num_hidden_layers"],
        num_attention_heads=heads,
        num_key_value_heads=record.get("num_key_value_heads", heads),
        max_position_embeddings=record["max_position_embeddings"],
        rms_norm_eps=record["rms_norm_eps"],
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    llava = LlavaConfig(
        vision_config=vision, text_config=text, vision_feature_layer=record.get("mm_vision_select_layer", -2)
    )
    sam = SamConfig(
        vision_config={**VIT_H, **side.get("sam", {})},
        prompt_encoder_config={},
        mask_decoder_config=dict(layer_norm_eps=1e-5),  # Meta's; that of transformers moves logits by 4e-4
    )
    return LisaConfig(
        vlm_config=llava,
        segmenter_config=sam,
        projector="linear",
        template=side.get("template", "llava_v1"),
        max_prompt_tokens=record["max_position_embeddings"] - ROOM_FOR_ANSWER,
    )


def clip_images(folder: Path, side: int) -> CLIPImageProcessorPil:
    """How CLIP's folder says pictures are made ready, or, where it says nothing, as the published CLIP does."""
    if (folder / "preprocessor_config.json").is_file():
        return CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
    return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def _side_file(folder: Path) -> dict[str, Any]:
    path = folder / SIDE_FILE
    if not path.exists():
        return {}
    try:
        side = json.loads(path.read_text("utf-8"))
        unknown = sorted({*side} - {"template", "sam"} | {*side.get("sam", {})} - {*SamVisionConfig().to_dict()})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"cannot read {path}: {error}; expected a template and sizes of sam, or no such file"
        ) from error
    if unknown:
        raise CheckpointError(f"{path} has {', '.join(unknown)}; expected template, and sam with sizes of its encoder")
    return side
