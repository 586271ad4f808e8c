"""The network: a vision-language model that says `[SEG]`, a promptable segmenter that draws, and a projection between.

Letters in names and shapes: B rows (one instruction each), I pictures, L token positions, P picture tokens, D width of
the language model, N masks, C channels, H W height and width.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration, PreTrainedModel, SamModel

from lisaseg.language.tokenizer import IMAGE_ID
from lisaseg.model.configuration import LisaConfig

FP32_ALWAYS = ["shared_image_embedding", "prompt_encoder.shared_embedding"]
"""Parts that no half precision is good for: SAM's positions, under both their names, lose two digits."""
FP32_IN_FP16 = ["segmenter.vision_encoder.neck"]
"""Parts that overflow in fp16."""
MASKS_PER_CALL = 32
"""So many masks are drawn together: a model may babble hundreds of `[SEG]`, and each takes 30 MB while it is drawn."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """What the two encoders made of some pictures; everything later reads this and never the pixels again."""

    vlm_IPD: Float[Tensor, "I P D"]
    """Picture tokens for the language model."""
    segmenter_ICHW: Float[Tensor, "I C H W"]
    """SAM image embeddings."""

    @property
    def nbytes(self) -> int:
        """What they take."""
        return self.vlm_IPD.nbytes + self.segmenter_ICHW.nbytes

    def __getitem__(self, picture: int) -> "Pictures":
        """One of them, in memory of its own."""
        one = slice(picture, picture + 1)
        return Pictures(vlm_IPD=self.vlm_IPD[one].clone(), segmenter_ICHW=self.segmenter_ICHW[one].clone())


@dataclass(frozen=True, kw_only=True, eq=False)
class Hand:
    """What a hand adds to N masks, in pixels of the segmenter's square input (x, y)."""

    points_NK2: Float[Tensor, "N K 2"]
    labels_NK: Int[Tensor, "N K"]
    """1 inside, 0 outside, -1 no point."""
    boxes_N4: Float[Tensor, "N 4"] | None = None
    """xyxy."""


class Lisa(PreTrainedModel):
    """LLaVA + SAM + projection; both parts are the `transformers` classes as they are."""

    config_class = LisaConfig
    base_model_prefix = "lisa"
    _no_split_modules = ["LlamaDecoderLayer", "CLIPEncoderLayer", "SamVisionLayer"]
    _supports_sdpa = True
    _keep_in_fp32_modules_strict = FP32_ALWAYS
    _keep_in_fp32_modules = FP32_IN_FP16

    def __init__(self, config: LisaConfig):
        super().__init__(config)
        self.vlm = LlavaForConditionalGeneration(config.vlm_config)
        self.segmenter = SamModel(config.segmenter_config)
        self.segmenter.vision_encoder.neck.register_forward_pre_hook(_in_own_precision)
        width = config.text.hidden_size
        if config.projector == "linear":
            projector = nn.Linear(config.vision.hidden_size, width)
            self.vlm.model.set_submodule("multi_modal_projector", projector)
        self.projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, config.prompt_width))
        self.post_init()

    def forward(
        self,
        ids: Int[Tensor, "B L"],
        attention_mask: Int[Tensor, "B L"],
        is_learned: Bool[Tensor, "B L"],
        vlm_pixels: Float[Tensor, "I 3 h w"],
        segmenter_pixels: Float[Tensor, "I 3 height width"],
        picture_of_row: Int[Tensor, " B"],
        seg_id: int,
    ) -> dict[str, Tensor]:
        """Reads whole dialogues at once, answers included, as in training (teacher-forced).

        Args:
            ids: token ids, `IMAGE_ID` at each of the picture's positions; padded on either side.
            attention_mask: 1 where there is a token.
            is_learned: which tokens a prediction is wanted of.
            vlm_pixels: for the language model's encoder.
            segmenter_pixels: for the segmenter's.
            picture_of_row: which picture each dialogue is about.
            seg_id: the token id of `[SEG]`.

        Returns:
            `token_logits` (T V): for each such token the logits of what stands there, in row order.
            `mask_logits` (N h w) and `predicted_iou` (N): for each `[SEG]`, in row order.
        """
        pictures = self.encode(vlm_pixels, segmenter_pixels)
        embeddings = self.embed(ids, pictures.vlm_IPD, picture_of_row)
        states_BLD = self.read(embeddings, attention_mask, use_cache=False)
        states_ND, rows_N = states_before(states_BLD, ids, seg_id)
        number = len(states_ND)
        if number == 0 and self.training:  # processes that learn together must all reach the same parameters
            states_ND, rows_N = states_BLD[:1, 0], rows_N.new_zeros(1)
        masks, predicted_iou = self.draw(states_ND, pictures.segmenter_ICHW, picture_of_row[rows_N])
        return {
            "token_logits": self.vlm.lm_head(states_BLD[:, :-1][is_learned[:, 1:]]),
            "mask_logits": masks[:number],
            "predicted_iou": predicted_iou[:number],
        }

    def encode(
        self, vlm_pixels: Float[Tensor, "I 3 h w"], segmenter_pixels: Float[Tensor, "I 3 height width"]
    ) -> Pictures:
        """Runs both image encoders once."""
        return Pictures(vlm_IPD=self.see(vlm_pixels), segmenter_ICHW=self.look(segmenter_pixels))

    def see(self, vlm_pixels: Float[Tensor, "I 3 h w"]) -> Float[Tensor, "I P D"]:
        """Picture tokens of the language model (CLIP, then LLaVA's projector)."""
        dtype = self.vlm.model.vision_tower.dtype
        return torch.stack(self.vlm.get_image_features(vlm_pixels.to(dtype)).pooler_output)

    def look(self, segmenter_pixels: Float[Tensor, "I 3 height width"]) -> Float[Tensor, "I C H W"]:
        """Image embeddings of the segmenter."""
        # not `get_image_embeddings`: it runs under no_grad, and nano learns its encoder
        encoder = self.segmenter.vision_encoder
        return encoder(segmenter_pixels.to(encoder.dtype)).last_hidden_state.to(encoder.dtype)

    def embed(
        self, token_ids_BL: Int[Tensor, "B L"], vlm_IPD: Float[Tensor, "I P D"], picture_of_row_B: Int[Tensor, " B"]
    ) -> Float[Tensor, "B L D"]:
        """Token embeddings with each row's picture tokens where `IMAGE_ID` stands."""
        is_picture_BL = token_ids_BL == IMAGE_ID
        words_BLD = self.vlm.get_input_embeddings()(token_ids_BL.masked_fill(is_picture_BL, 0))
        has_picture_B = is_picture_BL.any(dim=1)
        pictures = vlm_IPD[picture_of_row_B[has_picture_B]].to(words_BLD.dtype)
        return words_BLD.masked_scatter(is_picture_BL[..., None], pictures)

    def read(
        self,
        embeddings_BLD: Float[Tensor, "B L D"],
        attention_mask: Int[Tensor, "B S"],
        position_ids: Int[Tensor, "B L"] | None = None,
        **kwargs: Any,
    ) -> Float[Tensor, "B L D"]:
        """Last hidden states, after the final norm, of the language model; `kwargs` may hold a cache, which grows."""
        return self.vlm.model.language_model(
            inputs_embeds=embeddings_BLD, attention_mask=attention_mask, position_ids=position_ids, **kwargs
        ).last_hidden_state

    def draw(
        self,
        states_ND: Float[Tensor, "N D"],
        segmenter_ICHW: Float[Tensor, "I C H W"],
        picture_of_mask_N: Int[Tensor, " N"],
    ) -> tuple[Float[Tensor, "N h w"], Float[Tensor, " N"]]:
        """Mask logits at the decoder's resolution and SAM's predicted IoU, for the states that predict `[SEG]`."""
        return self.draw_prompts(self.prompts(states_ND), segmenter_ICHW, picture_of_mask_N)

    def prompts(self, states_ND: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """What the segmenter is told: the states that predict `[SEG]`, projected."""
        return self.projection(states_ND)

    def draw_prompts(
        self,
        prompts_NC: Float[Tensor, "N C"],
        segmenter_ICHW: Float[Tensor, "I C H W"],
        picture_of_mask_N: Int[Tensor, " N"],
    ) -> tuple[Float[Tensor, "N h w"], Float[Tensor, " N"]]:
        """Mask logits at the decoder's resolution and SAM's predicted IoU, for projected states.

        Masks share calls of the mask decoder, `MASKS_PER_CALL` each; no prompts give no masks.
        """
        if len(prompts_NC) == 0:
            side = 4 * segmenter_ICHW.shape[-1]
            return prompts_NC.new_zeros((0, side, side)), prompts_NC.new_zeros(0)
        dense = self.segmenter.prompt_encoder.no_mask_embed.weight[..., None, None]
        calls = zip(prompts_NC.split(MASKS_PER_CALL), picture_of_mask_N.split(MASKS_PER_CALL), strict=True)
        masks, predicted_iou = zip(
            *(
                self._decode_masks(prompts[:, None, None], dense, segmenter_ICHW[pictures])
                for prompts, pictures in calls
            ),
            strict=True,
        )
        return torch.cat(masks), torch.cat(predicted_iou)

    def redraw(
        self,
        prompts_NC: Float[Tensor, "N C"],
        hand: Hand,
        logits_Nhw: Float[Tensor, "N h w"],
        segmenter_NCHW: Float[Tensor, "N C H W"],
    ) -> tuple[Float[Tensor, "N h w"], Float[Tensor, " N"]]:
        """Masks drawn again from the same words, what a hand adds, and their last logits, as `draw` gave them."""
        encoder = self.segmenter.prompt_encoder
        has_points = hand.points_NK2.shape[1] > 0
        by_hand, dense = encoder(
            input_points=hand.points_NK2[:, None] if has_points else None,
            input_labels=hand.labels_NK[:, None] if has_points else None,
            input_boxes=None if hand.boxes_N4 is None else hand.boxes_N4[:, None],
            input_masks=logits_Nhw[:, None].to(encoder.no_mask_embed.weight.dtype),
        )
        words = prompts_NC[:, None, None].to(segmenter_NCHW.dtype)
        return self._decode_masks(torch.cat([by_hand.to(words.dtype), words], dim=2), dense, segmenter_NCHW)

    def _decode_masks(
        self,
        prompts_N1KC: Float[Tensor, "N 1 K C"],
        dense: Float[Tensor, "..."],
        embeddings_NCHW: Float[Tensor, "N C H W"],
    ) -> tuple[Float[Tensor, "N h w"], Float[Tensor, " N"]]:
        """SAM's mask decoder, one mask for each of N prompts of K vectors."""
        positions = self.segmenter.get_image_wide_positional_embeddings()
        masks, predicted_iou = self.segmenter.mask_decoder(
            image_embeddings=embeddings_NCHW,
            image_positional_embeddings=positions.to(embeddings_NCHW.dtype).expand(len(prompts_N1KC), -1, -1, -1),
            sparse_prompt_embeddings=prompts_N1KC.to(embeddings_NCHW.dtype),
            dense_prompt_embeddings=dense.expand_as(embeddings_NCHW),
            multimask_output=False,
        )
        return masks[:, 0, 0], predicted_iou[:, 0, 0]


def _in_own_precision(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    """Hook: what goes into a module takes the precision of its weights."""
    return (args[0].to(next(module.parameters()).dtype),)


def states_before(
    states_BLD: Float[Tensor, "B L D"], token_ids_BL: Int[Tensor, "B L"], seg_id: int
) -> tuple[Float[Tensor, "N D"], Int[Tensor, " N"]]:
    """The states that predict each `[SEG]` (one position before it), and the rows they are of."""
    predicts_seg_BL = torch.zeros_like(token_ids_BL, dtype=torch.bool)
    predicts_seg_BL[:, :-1] = token_ids_BL[:, 1:] == seg_id
    return states_BLD[predicts_seg_BL], predicts_seg_BL.nonzero()[:, 0]
