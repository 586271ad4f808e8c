"""The shape of a LISA network, saved beside its weights: a vision-language model, a segmenter, and how they speak."""

from transformers import LlavaConfig, PreTrainedConfig, SamConfig


class LisaConfig(PreTrainedConfig):
    """Architecture of `Lisa`.

    Attributes:
        vlm_config: the vision-language model (LLaVA).
        segmenter_config: the promptable segmenter (SAM).
        template: name of the conversation template (`language.prompts.TEMPLATES`).
        max_prompt_tokens: longest prompt the model may be asked, in token ids, the picture's included.
        model_name: what the model calls itself in results.
    """

    model_type = "lisaseg"
    sub_configs_defaults = {"vlm_config": LlavaConfig, "segmenter_config": SamConfig}

    vlm_config: dict | PreTrainedConfig | None = None
    segmenter_config: dict | PreTrainedConfig | None = None
    template: str = "llava_v1"
    max_prompt_tokens: int = 1536
    model_name: str = "lisa"

    @property
    def num_image_tokens(self) -> int:
        """Token positions that one picture takes in a prompt."""
        vision = self.vlm_config.vision_config
        return (vision.image_size // vision.patch_size) ** 2

    @property
    def prompt_width(self) -> int:
        """Width of the segmenter's prompt embeddings."""
        return self.segmenter_config.prompt_encoder_config.hidden_size
