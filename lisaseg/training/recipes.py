"""What a model trained from nothing is made of: its network, how it sees pictures, and its tokenizer."""

from collections.abc import Iterable
from io import BytesIO

import sentencepiece
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, LlamaConfig, LlavaConfig, SamConfig

from lisaseg.data.vocabulary import Vocabulary
from lisaseg.language.prompts import IMAGE_END, IMAGE_START, SEG_TOKEN
from lisaseg.language.tokenizer import Tokenizer
from lisaseg.model.configuration import LisaConfig


def nano_config(vocabulary_size: int) -> LisaConfig:
    """Nano's network: LLaVA and SAM in small, about 9 million parameters."""
    text = LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    vision = CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=112,
        patch_size=16,
    )
    segmenter = SamConfig(
        vision_config=dict(
            hidden_size=192,
            output_channels=128,
            num_hidden_layers=6,
            num_attention_heads=4,
            image_size=192,
            patch_size=16,
            use_rel_pos=False,
            global_attn_indexes=list(range(6)),
            num_pos_feats=64,
            initializer_range=0.02,
        ),
        prompt_encoder_config=dict(hidden_size=128, image_size=192, patch_size=16),
        mask_decoder_config=dict(hidden_size=128, mlp_dim=512, num_attention_heads=4, iou_head_hidden_dim=128),
    )
    llava = LlavaConfig(
        vision_config=vision,
        text_config=text,
        vision_feature_layer=-1,
        image_seq_length=49,
        image_token_index=vocabulary_size - 1,
    )
    return LisaConfig(
        vlm_config=llava, segmenter_config=segmenter, template="plain", max_prompt_tokens=320, model_name="nano"
    )


def nano_images() -> CLIPImageProcessorPil:
    """The whole picture, squeezed into a square: unlike CLIP's centre crop, nothing of it is hidden."""
    return CLIPImageProcessorPil(size={"height": 112, "width": 112}, do_center_crop=False)


def train_tokenizer(vocabulary: Vocabulary, size: int = 4000) -> Tokenizer:
    """A SentencePiece tokenizer of the packaged words (training wordings only), with LISA's added tokens."""
    model = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_sentences(vocabulary)),
        model_writer=model,
        vocab_size=size,
        model_type="unigram",
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).get_piece_size()
    added = {token: pieces + place for place, token in enumerate((SEG_TOKEN, IMAGE_START, IMAGE_END))}
    return Tokenizer(model.getvalue(), added)


def _sentences(vocabulary: Vocabulary) -> Iterable[str]:
    """Names often, so that each becomes one piece; then everything that is said of them."""
    for concept in vocabulary.concepts.values():
        for name in (concept.name, concept.plural, *concept.synonyms):
            yield from [f"USER: the {name} ASSISTANT: It is the {name}."] * 8
    for knowledge in vocabulary.knowledge.values():
        yield from (query.text for query in knowledge.queries["train"])
        yield from knowledge.explanations
        yield f"It is used for {knowledge.used_for}."
        yield f"It is made of {', '.join(knowledge.made_of)}. It is found in {', '.join(knowledge.found_in)}."
    for group in vocabulary.sets:
        yield group.name
        yield from group.queries["train"]
    yield from _strings(vocabulary.templates)


def _strings(templates: object) -> Iterable[str]:
    if isinstance(templates, str):
        yield templates.replace("{", "").replace("}", "")
    elif isinstance(templates, dict):
        for value in templates.values():
            yield from _strings(value)
    elif isinstance(templates, list):
        for value in templates:
            yield from _strings(value)
