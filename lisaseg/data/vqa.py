"""LLaVA-Instruct-150k: dialogues about COCO pictures, without masks, so that a model does not forget how to talk."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lisaseg.data.index_files import coco_id, expecting, load_json
from lisaseg.data.sample import Dialogue, Exchange, Sample, Source
from lisaseg.errors import DataError
from lisaseg.images.read import read
from lisaseg.language.prompts import IMAGE_MARKER


class Vqa(Source):
    """One dialogue of several turns for each record, said word for word."""

    def __init__(self, name: str, records: Path, pictures: Path, exclude: Collection[int] = frozenset()):
        """Reads the records.

        Args:
            name: what messages call the source.
            records: JSON, a list of `{"id", "image", "conversations": [{"from", "value"}, ...]}`.
            pictures: the folder that `image` starts from.
            exclude: numbers of COCO pictures to leave out.

        Raises:
            DataError: the file is missing or malformed, or has no records.
        """
        self.name = name
        self._pictures = pictures
        with expecting(records, "a list of dialogues about pictures"):
            self._records = [record for record in load_json(records) if coco_id(record["image"]) not in exclude]
        if not self._records:
            raise DataError(f"{records} has no dialogues that are not excluded")

    def __len__(self) -> int:
        return len(self._records)

    def entry(self, index: int) -> str:
        """The record's id."""
        record = self._records[index]
        return str(record.get("id", record["image"]))

    def __getitem__(self, index: int) -> Sample:
        name = self.entry(index)
        with expecting(name, "a dialogue about a picture"):
            dialogue = _dialogue(self._records[index]["conversations"], name)
        return Sample(name=name, image=read(self._pictures / self._records[index]["image"]), dialogues=(dialogue,))


def _dialogue(turns: Sequence[Mapping[str, Any]], name: str) -> Dialogue:
    """Questions with their answers; as in the original, an answer before the first question is passed over."""
    if turns and turns[0]["from"] == "gpt":
        turns = turns[1:]
    speakers = [turn["from"] for turn in turns]
    if not turns or len(turns) % 2 or speakers != ["human", "gpt"] * (len(turns) // 2):
        raise DataError(f"the turns of record {name} do not alternate human, gpt: got {', '.join(speakers) or 'none'}")
    texts = [_without_marker(turn["value"]) for turn in turns]
    return tuple(
        Exchange(text=question, answer=answer) for question, answer in zip(texts[::2], texts[1::2], strict=True)
    )


def _without_marker(text: str) -> str:
    """The processor puts the picture before the first question itself."""
    return text.replace(IMAGE_MARKER, "").strip() if IMAGE_MARKER in text else text
