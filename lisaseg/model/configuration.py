"""The shape of a LISA network, saved beside its weights: a vision-language model, a segmenter, and how they speak."""

from typing import Any, ClassVar, cast

from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, PreTrainedConfig, SamConfig
from transformers.models.sam.configuration_sam import SamPromptEncoderConfig, SamVisionConfig


class LisaConfig(PreTrainedConfig):
    """Architecture of `Lisa`.

    Attributes:
        vlm_config: the vision-language model (LLaVA).
        segmenter_config: the promptable segmenter (SAM).
        projector: from the vision tower to the language model: `mlp` (two layers) or `linear` (one, as LLaVA v1).
        template: name of the conversation template (`language.prompts.TEMPLATES`).
        max_prompt_tokens: longest prompt the model may be asked, in token ids, the picture's included.
        model_name: what the model calls itself in results.
    """

    model_type = "lisaseg"
    has_no_defaults_at_init: ClassVar[bool] = True
    sub_configs_defaults: ClassVar[dict[str, Any]] = {"vlm_config": LlavaConfig, "segmenter_config": SamConfig}
    sub_configs: ClassVar[dict[str, Any]] = sub_configs_defaults  # the name that transformers 5.17 knows

    vlm_config: LlavaConfig
    segmenter_config: SamConfig
    projector: str = "mlp"
    template: str = "llava_v1"
    max_prompt_tokens: int = 1536
    model_name: str = "lisa"

    def __post_init__(self, **kwargs: Any) -> None:
        for name, kind in (("vlm_config", LlavaConfig), ("segmenter_config", SamConfig)):
            part = getattr(self, name)
            if isinstance(part, dict):  # as read from a file, by transformers 5.17
                setattr(self, name, kind(**part))
        super().__post_init__(**kwargs)

    @property
    def text(self) -> LlamaConfig:
        """The language model's part."""
        return cast(LlamaConfig, self.vlm_config.text_config)

    @property
    def vision(self) -> CLIPVisionConfig:
        """The vision tower's part."""
        return cast(CLIPVisionConfig, self.vlm_config.vision_config)

    @property
    def sam(self) -> SamVisionConfig:
        """The segmenter's image encoder."""
        return cast(SamVisionConfig, self.segmenter_config.vision_config)

    @property
    def num_image_tokens(self) -> int:
        """Token positions that one picture takes in a prompt."""
        return (cast(int, self.vision.image_size) // cast(int, self.vision.patch_size)) ** 2

    @property
    def segmenter_side(self) -> int:
        """Side of the segmenter's square input in pixels."""
        return cast(int, self.sam.image_size)

    @property
    def segmenter_cells(self) -> int:
        """Side of the segmenter's image embedding in patches."""
        return self.segmenter_side // cast(int, self.sam.patch_size)

    @property
    def prompt_width(self) -> int:
        """Width of the segmenter's prompt embeddings."""
        return cast(SamPromptEncoderConfig, self.segmenter_config.prompt_encoder_config).hidden_size
