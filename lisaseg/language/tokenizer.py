"""The tokenizer of LISA: SentencePiece plus a few added tokens, split by the rules its checkpoints were trained with.

Newer tokenizers of the same vocabulary give other ids around added tokens, and a model answers worse for it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import sentencepiece

from lisaseg.errors import CheckpointError
from lisaseg.files import write_atomic
from lisaseg.language.prompts import IMAGE_END, IMAGE_MARKER, IMAGE_START, SEG_TOKEN

IMAGE_ID = -200
"""Stands for the picture among token ids (LLaVA's IMAGE_TOKEN_INDEX)."""
_MODEL_FILE, _ADDED_FILE = "tokenizer.model", "added_tokens.json"


class Tokenizer:
    """Text to ids and back.

    Rules of the original (transformers 4.31, slow LLaMA tokenizer in legacy mode): split at added and core special
    tokens; strip all white space beside *added* tokens, none beside `<s>`, `</s>`, `<unk>`; encode every remaining
    piece on its own, so that each starts with a word mark; one `<s>` in front.
    """

    def __init__(self, model: bytes, added: Mapping[str, int]):
        """Builds from the bytes of a SentencePiece model and the ids of the added tokens.

        Raises:
            CheckpointError: it is no such model, or it lacks a token that LISA needs.
        """
        self._pieces = sentencepiece.SentencePieceProcessor()
        try:
            self._pieces.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise CheckpointError(f"{_MODEL_FILE} is no SentencePiece model; get a whole copy of it") from error
        self._model = model
        self.added = dict(added)
        for token in (SEG_TOKEN, IMAGE_START, IMAGE_END):
            if token not in self.added:
                raise CheckpointError(
                    f"the tokenizer has no {token} token, so this is no LISA model; "
                    f"{_ADDED_FILE} names {sorted(self.added) or 'no tokens'}"
                )
        self.bos_id, self.eos_id, self.pad_id = self._pieces.bos_id(), self._pieces.eos_id(), self._pieces.unk_id()
        if min(self.bos_id, self.eos_id, self.pad_id) < 0:
            raise CheckpointError(f"{_MODEL_FILE} lacks <s>, </s> or <unk>, so this is no LISA model")
        self.seg_id = self.added[SEG_TOKEN]
        self._core = {self._pieces.id_to_piece(i): i for i in (self.bos_id, self.eos_id, self.pad_id)}
        self._text_of_added = {number: text for text, number in self.added.items()}
        longest_first = sorted([*self.added, *self._core], key=len, reverse=True)
        self._splitter = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Reads `tokenizer.model` and `added_tokens.json`.

        Raises:
            CheckpointError: a file is missing or unreadable.
        """
        try:
            added = json.loads((folder / _ADDED_FILE).read_text("utf-8"))
            model = (folder / _MODEL_FILE).read_bytes()
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"no readable tokenizer in {folder} ({_MODEL_FILE}, {_ADDED_FILE}): {error}"
            ) from error
        if not isinstance(added, dict) or not all(isinstance(number, int) for number in added.values()):
            raise CheckpointError(
                f"{folder / _ADDED_FILE} is no table of tokens and ids; get a whole copy of the model"
            )
        return cls(model, added)

    @staticmethod
    def num_pieces(model: bytes) -> int:
        """How many pieces a SentencePiece model has.

        Raises:
            CheckpointError: it is no such model.
        """
        try:
            return sentencepiece.SentencePieceProcessor(model_proto=model).get_piece_size()
        except RuntimeError as error:
            raise CheckpointError(f"{_MODEL_FILE} is no SentencePiece model; get a whole copy of it") from error

    def save(self, folder: Path) -> None:
        """Writes the two files that `load` reads."""
        write_atomic(folder / _MODEL_FILE, self._model)
        write_atomic(folder / _ADDED_FILE, json.dumps(self.added, indent=2).encode())

    def __len__(self) -> int:
        """Rows that embeddings need: the pieces and the added tokens."""
        return max(self._pieces.get_piece_size(), max(self.added.values()) + 1)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, with `<s>` in front; `<image>` is not known here, see `encode_with_image`."""
        parts = self._splitter.split(text)
        ids = [self.bos_id]
        for position, part in enumerate(parts):
            if position % 2:  # the splitter puts the special tokens at the odd places
                ids.append(self.added[part] if part in self.added else self._core[part])
                continue
            if position > 0 and parts[position - 1] in self.added:
                part = part.lstrip()
            if position + 1 < len(parts) and parts[position + 1] in self.added:
                part = part.rstrip()
            if part:
                ids.extend(self._pieces.encode(part))
        return ids

    def encode_with_image(self, text: str) -> list[int]:
        """Ids of a rendered prompt, one `IMAGE_ID` where `<image>` stands (LLaVA's tokenizer_image_token)."""
        first, *rest = text.split(IMAGE_MARKER)
        ids = self.encode(first)
        for chunk in rest:
            ids += [IMAGE_ID, *self.encode(chunk)[1:]]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids: `[SEG]` is kept, `<s>`, `</s>`, `<unk>` and the picture are left out."""
        words, run = [], []
        for number in [*ids, None]:
            if number is not None and number not in self._text_of_added:
                if number not in (self.bos_id, self.eos_id, self.pad_id, IMAGE_ID):
                    run.append(number)
                continue
            if run:
                spelled = self._pieces.decode(run).strip()
                words.append(spelled.replace(SEG_TOKEN, "SEG"))  # letters that look like the token are not it
                run = []
            if number is not None:
                words.append(self._text_of_added[number])
        return re.sub(r" ([.,;:!?)])", r"\1", " ".join(word for word in words if word))
