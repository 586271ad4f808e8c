"""The one obvious call: a picture and what a person means by words, to words and a mask for each thing meant."""

import os
from collections.abc import Iterable, Sequence

from lisaseg.config import Dtype, GenerateOptions, ImageLimits, LoadOptions, Quantize
from lisaseg.images.read import ImageSource, read
from lisaseg.language.wording import phrases, strip_seg
from lisaseg.model.answer import Reply, Stopwatch, answer
from lisaseg.model.checkpoints import load_model
from lisaseg.model.lisa import Lisa
from lisaseg.model.memory import telling_out_of_memory
from lisaseg.model.processor import Pixels, Processor
from lisaseg.values import Answer, Segment


class Segmenter:
    """A loaded model. It keeps nothing between calls."""

    def __init__(self, lisa: Lisa, processor: Processor, *, limits: ImageLimits | None = None, parity: bool = False):
        """Wraps a network and its processor; most callers use `Segmenter.load`."""
        self.lisa = lisa
        self.processor = processor
        self.limits = limits or ImageLimits()
        self.parity = parity

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] = "nano",
        *,
        device: str | None = None,
        dtype: Dtype | None = None,
        quantize: Quantize | None = None,
        quantize_all: bool = False,
        vision_tower: str | None = None,
        parity: bool = False,
        limits: ImageLimits | None = None,
    ) -> "Segmenter":
        """Loads a model.

        Args:
            model: `nano` (bundled), a published checkpoint (`lisa-7b`, `lisa-7b-explanatory`, `lisa-13b`,
                `lisa-13b-explanatory`), a local folder of ours or in the published layout, or a Hugging Face hub id.
            device: `cuda`, `mps` or `cpu`; by default the first of them that is there.
            dtype: `fp32`, `bf16` or `fp16`; by default bf16 (else fp16) on CUDA, fp16 on MPS, fp32 on CPU.
            quantize: `8bit` or `4bit` for the language model's weights (CUDA and CPU; needs bitsandbytes).
            quantize_all: quantise its head and both projections too, as the original does.
            vision_tower: folder or hub id of CLIP, instead of the one that a published config.json names.
            parity: answer like the original in every detail: SAM's positions in `dtype`, and a mask for each `[SEG]`
                in the instruction, before those of the answer.
            limits: what pictures may be as large as.

        Raises:
            CheckpointError: the model cannot be found or read.
            DeviceError: the device is not to be had, cannot quantise, or has too little memory.
            MissingExtraError: `quantize` without bitsandbytes.
        """
        options = LoadOptions(
            device=device,
            dtype=dtype,
            quantize=quantize,
            quantize_all=quantize_all,
            vision_tower=vision_tower,
            parity=parity,
        )
        lisa, processor = load_model(os.fspath(model), options)
        return cls(lisa, processor, limits=limits, parity=parity)

    def segment(self, image: ImageSource, instruction: str, *, max_new_tokens: int = 512) -> Answer:
        """Answers one instruction about one picture.

        Args:
            image: path, bytes, binary file, PIL picture, or HWC uint8 RGB array.
            instruction: what is meant, in free words.
            max_new_tokens: the answer's longest length in tokens.

        Returns:
            The answer; `segments` is empty where the model refuses or only talks.

        Raises:
            ImageError: the picture cannot be read.
            InstructionError: the instruction is empty or too long.
            DeviceError: memory ran out.
        """
        return self.segment_batch([(image, instruction)], max_new_tokens=max_new_tokens)[0]

    def segment_batch(
        self,
        pairs: Iterable[tuple[ImageSource, str]],
        *,
        batch_size: int = 4,
        max_new_tokens: int = 512,
    ) -> list[Answer]:
        """Answers many (picture, instruction) pairs, `batch_size` at a time, in order.

        Each batch is padded together: one pass of each encoder over its distinct pictures, one decoding loop, and the
        mask decoder for all masks. Timings of an answer are its share of its batch.

        Raises:
            ImageError: a picture cannot be read.
            InstructionError: an instruction is empty or too long.
            DeviceError: memory ran out.
            ValueError: batch_size is below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        pairs = list(pairs)
        options = GenerateOptions(max_new_tokens=max_new_tokens)
        with telling_out_of_memory(self.lisa.device):
            return [
                found
                for start in range(0, len(pairs), batch_size)
                for found in self._answer_batch(pairs[start : start + batch_size], options)
            ]

    def _answer_batch(self, pairs: Sequence[tuple[ImageSource, str]], options: GenerateOptions) -> list[Answer]:
        watch = Stopwatch(device=self.lisa.device)
        with watch.stage("read"):
            keys = [_key(source) for source, _ in pairs]
            distinct = dict(zip(keys, (source for source, _ in pairs), strict=True))
            images = {key: read(source, self.limits) for key, source in distinct.items()}
        with watch.stage("prepare"):
            order = list(images)
            rows = [(order.index(key), [(text, None)]) for key, (_, text) in zip(keys, pairs, strict=True)]
            inputs = self.processor(list(images.values()), rows).to(self.lisa.device)
        replies = answer(
            self.lisa, self.processor.tokenizer, inputs, options.max_new_tokens, watch, draw_prompt=self.parity
        )
        with watch.stage("restore"):
            said = [self.processor.tokenizer.decode(reply.token_ids) for reply in replies]
            segments = [
                self._segments(reply, raw_text, text, inputs.pixels, row)
                for reply, raw_text, (_, text), (row, _) in zip(replies, said, pairs, rows, strict=True)
            ]
        share = {stage: seconds / len(pairs) for stage, seconds in watch.seconds.items()}
        return [
            Answer(
                image=images[key],
                source=_name(source),
                model=self.lisa.config.model_name,
                instruction=text,
                text=strip_seg(raw_text),
                raw_text=raw_text,
                segments=found,
                timings={**share, "total": sum(share.values())},
            )
            for key, (source, text), raw_text, found in zip(keys, pairs, said, segments, strict=True)
        ]

    def _segments(
        self, reply: Reply, raw_text: str, instruction: str, pixels: Pixels, picture: int
    ) -> tuple[Segment, ...]:
        if len(reply.logits_Nhw) == 0:
            return ()
        words = phrases(raw_text, instruction)
        if self.parity:
            words = [*phrases(instruction, instruction), *words]
        logits = self.processor.restore(reply.logits_Nhw, pixels.sizes[picture]).cpu().numpy()
        return tuple(
            Segment(index=index, phrase=phrase, logits=mask, predicted_iou=float(iou))
            for index, (phrase, mask, iou) in enumerate(
                zip(words, logits, reply.predicted_iou_N.float().tolist(), strict=True)
            )
        )


def _key(source: ImageSource) -> str | int:
    """Equal for the same picture given twice: paths by their text, everything else by identity."""
    return os.fspath(source) if isinstance(source, str | os.PathLike) else id(source)


def _name(source: ImageSource) -> str:
    """The file's name where there is one."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    name = getattr(source, "filename", None) or getattr(source, "name", None)
    return name if isinstance(name, str) and name else "image"
