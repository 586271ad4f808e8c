"""From what a model says to what a person reads: words without `[SEG]`, and the words each mask belongs to."""

import re

from lisaseg.language.prompts import SEG_TOKEN

_OPENERS = re.compile(
    r"^(?:(?:sure|yes|okay|certainly|of course|it is|they are|this is|these are|here is|here it is|here they are|"
    r"i found|i would choose|you can find it here|you can find them here|the answer is|so|therefore|and|or|both|"
    r"the segmentation results? (?:is|are)|the masks? (?:is|are)|here (?:is|are) the masks?)\b[\s,:]*)+",
    re.IGNORECASE,
)


def strip_seg(raw_text: str) -> str:
    """The words alone: `Sure, it is the dog [SEG].` -> `Sure, it is the dog.`; a lone `[SEG].` -> an empty text."""
    text = re.sub(rf"\s*{re.escape(SEG_TOKEN)}", "", raw_text)
    text = re.sub(r"\s+([.,;:!?])", r"\1", re.sub(r"\s+", " ", text)).strip()
    return "" if re.fullmatch(r"[\s.,;:!?]*", text) else text


def phrases(raw_text: str, fallback: str) -> list[str]:
    """For each `[SEG]` in order, the words it belongs to.

    These are the words between it and the mark, `[SEG]` or start before it, without openers such as `Sure, it is`:
    `They are a dog [SEG] and a cat [SEG].` -> `a dog`, `a cat`. Where the model says nothing of its own
    (`It is [SEG].`), the fallback, which is the instruction.
    """
    before = raw_text.split(SEG_TOKEN)[:-1]
    return [_phrase(words) or fallback for words in before]


def _phrase(words: str) -> str:
    clause = re.split(r"[.;!?]\s|[.;!?]$", words)[-1].strip(" ,:")
    clause = _OPENERS.sub("", clause)
    return clause.rsplit(", ", 1)[-1].strip(" ,:")
