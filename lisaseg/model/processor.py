"""From pictures and words to the network's inputs, and from its masks back to the picture."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import CLIPImageProcessorPil
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from lisaseg.errors import CheckpointError, InstructionError
from lisaseg.language.prompts import IMAGE_MARKER, get_template, render
from lisaseg.language.tokenizer import IMAGE_ID, Tokenizer
from lisaseg.model.configuration import LisaConfig

Dialogue = Sequence[tuple[str, str | None]]
"""Turns of (question, answer); an answer of None is the model's to give."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSize:
    """Height and width of a picture, and of its resized copy inside the segmenter's square, in pixels."""

    original: tuple[int, int]
    resized: tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pixels:
    """I pictures as the two encoders read them."""

    vlm: Float32[Tensor, "I 3 h w"]
    segmenter: Float32[Tensor, "I 3 side side"]
    sizes: tuple[ImageSize, ...]

    def to(self, device: torch.device) -> "Pixels":
        """The same on a device."""
        return replace(self, vlm=self.vlm.to(device), segmenter=self.segmenter.to(device))


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """What the network reads: B rows, each a dialogue over one of I pictures."""

    token_ids_BL: Int64[Tensor, "B L"]
    """Left-padded token ids, `IMAGE_ID` at each of the picture's positions."""
    attention_mask_BL: Int64[Tensor, "B L"]
    """1 where a row has a token, 0 where it is padded."""
    picture_of_row_B: Int64[Tensor, " B"]
    pixels: Pixels

    def to(self, device: torch.device) -> "Inputs":
        """The same on a device."""
        return Inputs(**{name: value.to(device) for name, value in vars(self).items()})


class Processor:
    """Everything between plain data and tensors for one model."""

    def __init__(self, config: LisaConfig, tokenizer: Tokenizer, vlm_images: CLIPImageProcessorPil):
        self.config = config
        self.tokenizer = tokenizer
        self.vlm_images = vlm_images
        self.template = get_template(config.template)
        self.segmenter_side = config.segmenter_side
        self._num_image_tokens = config.num_image_tokens  # a configuration takes long to ask

    @classmethod
    def load(cls, folder: Path, config: LisaConfig) -> "Processor":
        """Reads the tokenizer and `preprocessor_config.json` of a saved model."""
        try:
            vlm_images = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"no readable preprocessor_config.json in {folder}: {error}") from error
        return cls(config, Tokenizer.load(folder), vlm_images)

    def save(self, folder: Path) -> None:
        """Writes what `load` reads."""
        self.tokenizer.save(folder)
        self.vlm_images.save_pretrained(folder)

    def __call__(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], rows: Sequence[tuple[int, Dialogue]]) -> Inputs:
        """Inputs for rows of (index of the picture, dialogue).

        Raises:
            InstructionError: an instruction is empty or the prompt is longer than the model reads.
        """
        token_ids, attention_mask = left_padded([self.encode(dialogue) for _, dialogue in rows], self.tokenizer.pad_id)
        pixels = self.pixels(images)
        return Inputs(
            token_ids_BL=token_ids,
            attention_mask_BL=attention_mask,
            picture_of_row_B=torch.tensor([picture for picture, _ in rows]),
            pixels=pixels,
        )

    def encode(self, dialogue: Dialogue) -> list[int]:
        """Token ids of a dialogue, its picture expanded to as many `IMAGE_ID` as it has tokens."""
        question, answer = dialogue[-1]
        if answer is None:
            _refuse_empty(question)
        turns = [(_readable(question), answer) for question, answer in dialogue]
        ids = self.tokenizer.encode_with_image(render(self.template, turns))
        place = ids.index(IMAGE_ID)
        ids[place : place + 1] = [IMAGE_ID] * self._num_image_tokens
        if answer is None and len(ids) > self.config.max_prompt_tokens:
            raise InstructionError(
                f"the instruction is too long: with the picture it takes {len(ids)} tokens and this model reads "
                f"{self.config.max_prompt_tokens}; say it in fewer words"
            )
        return ids

    def encode_further(self, question: str) -> list[int]:
        """Token ids of a question after the end mark of an answer, as they stand in the whole dialogue."""
        _refuse_empty(question)
        text = f"{self.template.later_user_prefix}{_readable(question)}{self.template.user_suffix}"
        return self.tokenizer.encode(text)[1:]

    def pixels(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> Pixels:
        """What both encoders read of some pictures."""
        sizes = tuple(map(self.size, images))
        squares = torch.stack([self.square(image) for image in images])
        return Pixels(vlm=self.vlm_pixels(images), segmenter=normalize_squares(squares, sizes), sizes=sizes)

    def vlm_pixels(self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> Float32[Tensor, "I 3 h w"]:
        """What the language model's encoder reads of some pictures."""
        seen = [_not_vanishing(image, self.segmenter_side) for image in images]
        return self.vlm_images(seen, input_data_format="channels_last", return_tensors="pt")["pixel_values"].float()

    def square(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[Tensor, "side side 3"]:
        """A picture at the segmenter's size, in the top left of its square; `normalize_squares` does the rest.

        In whole bytes, so that little has to travel where pictures are made ready in other processes.
        """
        height, width = self.size(image).resized
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        square = np.zeros((self.segmenter_side, self.segmenter_side, 3), np.uint8)
        square[:height, :width] = resized
        return torch.from_numpy(square)

    def size(self, image: UInt8[np.ndarray, "_ _ 3"]) -> ImageSize:
        """How large a picture is, and how large the segmenter sees it: its longer side fills the square."""
        height, width = image.shape[:2]
        scale = self.segmenter_side / max(height, width)
        resized = max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
        return ImageSize(original=(height, width), resized=resized)

    def restore(self, logits_Nhw: Float[Tensor, "N h w"], size: ImageSize) -> Float32[Tensor, "N H W"]:
        """Mask logits of one picture at its original size: up to the square, padding cut off, then to the original."""
        side = self.segmenter_side
        height, width = size.resized
        square = interpolate(logits_Nhw[:, None].float(), (side, side), mode="bilinear", align_corners=False)
        return interpolate(square[..., :height, :width], size.original, mode="bilinear", align_corners=False)[:, 0]


def normalize_squares(
    squares_ISS3: UInt8[Tensor, "I side side 3"], sizes: Sequence[ImageSize]
) -> Float32[Tensor, "I 3 side side"]:
    """What the segmenter reads: SAM's means and deviations, and zeros beside the picture, as SAM was trained."""
    mean, deviation = (
        torch.tensor(values, device=squares_ISS3.device)[:, None, None] * 255
        for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    )
    pixels = torch.zeros_like(squares_ISS3.permute(0, 3, 1, 2), dtype=torch.float32)
    for place, size in enumerate(sizes):
        height, width = size.resized
        inside = squares_ISS3[place, :height, :width].permute(2, 0, 1)
        pixels[place, :, :height, :width] = (inside - mean) / deviation
    return pixels


def _not_vanishing(image: UInt8[np.ndarray, "H W 3"], side: int) -> UInt8[np.ndarray, "height width 3"]:
    """A picture so thin that nothing of it would be left at that side, shrunk to `side` x 1 here and now."""
    height, width, _ = image.shape
    if min(height, width) * side * 2 >= max(height, width):
        return image
    size = (side, 1) if width > height else (1, side)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def left_padded(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Int64[Tensor, "B L"], Int64[Tensor, "B L"]]:
    """Token ids of several rows, and 1 where they are and 0 where a row is padded."""
    length = max(map(len, rows))
    token_ids = torch.full((len(rows), length), pad_id)
    attention_mask = torch.zeros_like(token_ids)
    for number, row in enumerate(rows):
        token_ids[number, length - len(row) :] = torch.tensor(row)
        attention_mask[number, length - len(row) :] = 1
    return token_ids, attention_mask


def _refuse_empty(question: object) -> None:
    if not isinstance(question, str):
        raise InstructionError(f"expected an instruction as text, got {type(question).__name__}")
    if not question.strip():
        raise InstructionError("the instruction is empty; say what to segment, such as 'Segment the dog.'")


def _readable(question: str) -> str:
    """The question with what is no Unicode, such as bytes of another encoding on the command line, as question marks.

    A person who writes "<image>" means the word: the picture has its own place.
    """
    return question.encode("utf-8", "replace").decode("utf-8").replace(IMAGE_MARKER, "image")
