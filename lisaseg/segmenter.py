"""The one obvious call: a picture and what a person means by words, to words and a mask for each thing meant."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from lisaseg.config import CACHE_MB, AskOptions, Dtype, ImageLimits, LoadOptions, Quantize
from lisaseg.conversation import Conversation, ask_together
from lisaseg.images.read import ImageSource, read
from lisaseg.language.wording import strip_seg
from lisaseg.model.answer import Reply, answer
from lisaseg.model.cache import CacheInfo
from lisaseg.model.engine import Engine
from lisaseg.model.lisa import Lisa
from lisaseg.model.memory import telling_out_of_memory
from lisaseg.model.processor import Pixels, Processor
from lisaseg.model.segments import make_segments, sift
from lisaseg.model.stopwatch import Stopwatch
from lisaseg.values import Answer, Segment

Item = TypeVar("Item")


class Segmenter:
    """A loaded model. Single questions leave nothing behind; conversations share its cache."""

    def __init__(self, engine: Engine, *, limits: ImageLimits | None = None):
        """Wraps an engine; most callers use `Segmenter.load`."""
        self.engine = engine
        self.limits = limits or ImageLimits()

    @property
    def lisa(self) -> Lisa:
        """The network."""
        return self.engine.lisa

    @property
    def processor(self) -> Processor:
        """What stands between the network and plain data."""
        return self.engine.processor

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
        adapter: str | os.PathLike[str] | None = None,
        parity: bool = False,
        limits: ImageLimits | None = None,
        cache_mb: int = CACHE_MB,
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
            adapter: what a training left in its `adapter/`, a folder or hub id, to be laid over the model.
            parity: answer like the original in every detail: SAM's positions in `dtype`, and a mask for each `[SEG]`
                in the instruction, before those of the answer.
            limits: what pictures may be as large as.
            cache_mb: megabytes of encoded pictures and of what was said over them that conversations keep together;
                what has to go is computed anew when it is needed.

        Raises:
            CheckpointError: the model cannot be found or read.
            DeviceError: the device is not to be had, cannot quantise, or has too little memory.
            MissingExtraError: `quantize` without bitsandbytes, or `adapter` without PEFT.
        """
        options = LoadOptions(
            device=device,
            dtype=dtype,
            quantize=quantize,
            quantize_all=quantize_all,
            vision_tower=vision_tower,
            adapter=None if adapter is None else os.fspath(adapter),
            parity=parity,
        )
        return cls(Engine.load(model, options, cache_mb), limits=limits)

    def segment(self, image: ImageSource, instruction: str, options: AskOptions | None = None) -> Answer:
        """Answers one instruction about one picture.

        Args:
            image: path, bytes, binary file, PIL picture, or HWC uint8 RGB array.
            instruction: what is meant, in free words.
            options: how words are chosen, and which masks count.

        Returns:
            The answer; `segments` is empty where the model refuses or only talks.

        Raises:
            ImageError: the picture cannot be read.
            InstructionError: the instruction is empty or too long.
            DeviceError: memory ran out.
        """
        return self.segment_batch([(image, instruction)], options=options)[0]

    def segment_batch(
        self,
        pairs: Iterable[tuple[ImageSource, str]],
        *,
        batch_size: int = 4,
        options: AskOptions | None = None,
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
        with telling_out_of_memory(self.lisa.device):
            return [
                found
                for batch in _batches(pairs, batch_size)
                for found in self._answer_batch(batch, options or AskOptions())
            ]

    def start(self, image: ImageSource, options: AskOptions | None = None) -> Conversation:
        """Starts a conversation about one picture. Masks are drawn for answers alone, with `parity` too.

        Args:
            image: path, bytes, binary file, PIL picture, or HWC uint8 RGB array.
            options: how its questions are answered unless one says otherwise.

        Raises:
            ImageError: the picture cannot be read.
        """
        return Conversation(self.engine, read(image, self.limits), source=_name(image), options=options)

    def resume(self, folder: str | Path) -> Conversation:
        """Takes up a conversation that `Conversation.save` wrote.

        Raises:
            ConversationError: the files are damaged, or it was had with another model.
            ImageError: the picture is missing or unreadable.
        """
        return Conversation.load(folder, self.engine, self.limits)

    def ask_batch(
        self,
        asks: Iterable[tuple[Conversation, str]],
        *,
        batch_size: int = 4,
        options: AskOptions | None = None,
    ) -> list[Answer]:
        """Asks one more question in each of many conversations, `batch_size` at a time, in order.

        A batch is answered whole or not at all; each conversation may be there once in it. Without options, the
        conversations' own, which must then be the same.

        Raises:
            ConversationError: one is closed, is there twice in a batch, or is of another model.
            DeviceError: memory ran out.
            InstructionError: a question is empty or too long.
            ValueError: batch_size is below 1.
        """
        return [found for batch in _batches(asks, batch_size) for found in ask_together(batch, options)]

    def cache_info(self) -> CacheInfo:
        """What conversations keep at the moment, in bytes and entries, and how often it was of use."""
        return self.engine.cache.info()

    def cache_clear(self) -> None:
        """Frees what conversations keep; they go on, and compute what they need anew."""
        self.engine.cache.clear()

    def _answer_batch(self, pairs: Sequence[tuple[ImageSource, str]], options: AskOptions) -> list[Answer]:
        watch = Stopwatch(device=self.lisa.device)
        with watch.stage("read"):
            keys = [_key(source) for source, _ in pairs]
            distinct = dict(zip(keys, (source for source, _ in pairs), strict=True))
            images = {key: read(source, self.limits) for key, source in distinct.items()}
        with watch.stage("prepare"):
            order = list(images)
            rows = [(order.index(key), [(text, None)]) for key, (_, text) in zip(keys, pairs, strict=True)]
            inputs = self.processor(list(images.values()), rows).to(self.lisa.device)
        replies = answer(self.lisa, self.processor.tokenizer, inputs, options, watch, draw_prompt=self.engine.parity)
        with watch.stage("restore"):
            said = [self.processor.tokenizer.decode(reply.token_ids) for reply in replies]
            segments = [
                sift(self._segments(reply, raw_text, text, inputs.pixels, row), options)
                for reply, raw_text, (_, text), (row, _) in zip(replies, said, pairs, rows, strict=True)
            ]
        timings = watch.share(len(pairs))
        return [
            Answer(
                image=images[key],
                source=_name(source),
                model=self.lisa.config.model_name,
                instruction=text,
                text=strip_seg(raw_text),
                raw_text=raw_text,
                segments=kept,
                dropped=dropped,
                timings=timings,
            )
            for key, (source, text), raw_text, (kept, dropped) in zip(keys, pairs, said, segments, strict=True)
        ]

    def _segments(self, reply: Reply, raw_text: str, instruction: str, pixels: Pixels, picture: int) -> list[Segment]:
        if len(reply.logits_Nhw) == 0:
            return []
        logits = self.processor.restore(reply.logits_Nhw, pixels.sizes[picture]).cpu().numpy()
        return make_segments(list(logits), reply.predicted_iou_N.float().tolist(), raw_text, instruction)


def _batches(items: Iterable[Item], batch_size: int) -> Iterator[Sequence[Item]]:
    """The items in order, so many at a time."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    items = list(items)
    for start in range(0, len(items), batch_size):
        yield items[start : start + batch_size]


def _key(source: ImageSource) -> str | int:
    """Equal for the same picture given twice: paths by their text, everything else by identity."""
    return os.fspath(source) if isinstance(source, str | os.PathLike) else id(source)


def _name(source: ImageSource) -> str:
    """The file's name where there is one."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    name = getattr(source, "filename", None) or getattr(source, "name", None)
    return name if isinstance(name, str) and name else "image"
