"""From what a model says to what a person reads: words without `[SEG]`, and the words each mask belongs to."""

import re

from lisaseg.language.prompts import SEG_TOKEN

_SEG = re.escape(SEG_TOKEN)
_SEGS = rf"\s*{_SEG}(?:(?:\s*,)?(?:\s*\b(?:and|or))?\s*{_SEG})*+"
"""One mark, or a list of them: `[SEG], [SEG] and [SEG]`; possessive, since a model may say nothing else for long."""
_SENTENCE = re.compile(rf"(^|[.!?]){_SEGS}\s*[.,;:!?]*")
"""Marks that are a sentence of their own, or begin one."""
_CLAUSE = re.compile(rf"[,;:]?{_SEGS}(?=\s*(?:[.,;:!?]|$))")
"""Marks that end a clause, and what led to them: the colon of `Here it is: [SEG].`."""

_ANYTHING = r"(?:the|these|those) (?:segmentation )?(?:answer|mask|object|one|region|result|segmentation|thing)s?"
"""Words for whatever is meant."""
_OPENERS = re.compile(
    r"^(?:(?:sure|yes|ok|okay|certainly|of course|so|therefore|and|or|both(?= the)|"
    r"here (?:it is|they are)|(?:it|this|that|they|these|those|here|there)(?: is| are|['’]s|['’]re)|"
    rf"{_ANYTHING} (?:is|are)|the (?:segmentation )?(?:mask|region|result|segmentation)s? (?:of|for)|"
    r"i (?:found|see|(?:would )?choose)|you can (?:find|see)(?: (?:it|them) here)?)\b[\s,:]*)+",
    re.IGNORECASE,
)
_CLOSERS = re.compile(r" (?:is|are|here|there)$", re.IGNORECASE)
_SAYS_NOTHING = re.compile(rf"{_ANYTHING}|it|this|that|they|these|those|here|there", re.IGNORECASE)


def strip_seg(raw_text: str) -> str:
    """The words alone: `Sure, it is the dog [SEG].` -> `Sure, it is the dog.`; a lone `[SEG].` -> an empty text."""
    text = _SENTENCE.sub(r"\1 ", raw_text)
    text = re.sub(_SEGS, " ", _CLAUSE.sub("", text))
    text = re.sub(r"\s+([.,;:!?])", r"\1", " ".join(text.split()))
    return text if re.search(r"\w", text) else ""


def phrases(raw_text: str, fallback: str) -> list[str]:
    """For each `[SEG]` in order, the words it belongs to.

    These are the words between it and the mark, `[SEG]` or start before it, without openers such as `Sure, it is`:
    `They are a dog [SEG] and a cat [SEG].` -> `a dog`, `a cat`. Where the model says nothing of its own
    (`It is [SEG].`), the fallback, which is the instruction. A leading article is lower case, so that a thing has one
    name wherever it stands.
    """
    before = raw_text.split(SEG_TOKEN)[:-1]
    return [_phrase(words) or fallback for words in before]


def _phrase(words: str) -> str:
    """The last clause before a mark, less what does not name a thing; an empty text where nothing is left."""
    sentence = re.split(r"[.;!?](?: |$)", " ".join(words.split()))[-1]
    clause = re.split(r"[,:] ", sentence.strip(" ,:"))[-1]
    name = _CLOSERS.sub("", _OPENERS.sub("", clause))
    return "" if _SAYS_NOTHING.fullmatch(name) else re.sub(r"^(The|An?)\b", lambda article: article[0].lower(), name)
