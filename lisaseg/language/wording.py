"""From what a model says to what a person reads: words without `[SEG]`, and the words each mask belongs to."""

import re
from itertools import takewhile

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
_ARTICLE = re.compile(r"^(The|An?)\b")
_NO_SPACE_BEFORE = re.compile(r"\s+([.,;:!?])")
_CLOSERS = re.compile(r" (?:is|are|here|there)$", re.IGNORECASE)
_SAYS_NOTHING = re.compile(rf"{_ANYTHING}|it|this|that|they|these|those|here|there", re.IGNORECASE)


def strip_seg(raw_text: str) -> str:
    """The words alone: `Sure, it is the dog [SEG].` -> `Sure, it is the dog.`; a lone `[SEG].` -> an empty text."""
    text = _SENTENCE.sub(r"\1 ", raw_text)
    text = re.sub(_SEGS, " ", _CLAUSE.sub("", text))
    text = _NO_SPACE_BEFORE.sub(r"\1", " ".join(text.split()))
    return text if re.search(r"\w", text) else ""


def phrases(raw_text: str, fallback: str) -> list[str]:
    """For each `[SEG]` in order, the words it belongs to.

    These are the words between it and the mark, `[SEG]` or start before it, without openers such as `Sure, it is`:
    `They are a dog [SEG] and a cat [SEG].` -> `a dog`, `a cat`. Where the model says nothing of its own
    (`It is [SEG].`), the fallback, which is the instruction. A leading article is lower case, so that a thing has one
    name wherever it stands.
    """
    return [_ARTICLE.sub(lambda article: article[0].lower(), _name(words)) or fallback for words in _before(raw_text)]


def spans(raw_text: str) -> list[tuple[int, int] | None]:
    """For each `[SEG]` in order, where its phrase stands in the words alone: `text[start:end]` is the phrase.

    None where the phrase is the fallback.
    """
    text, place = strip_seg(raw_text), 0
    found: list[tuple[int, int] | None] = []
    for words in _before(raw_text):
        name = _name(words)
        clause = _NO_SPACE_BEFORE.sub(r"\1", " ".join(words.split())).strip(" .,;:!?")
        start = text.find(clause, place) if name else -1
        if start < 0 or name not in clause:
            found.append(None)
            continue
        place = start + len(clause)
        start += clause.rindex(name)
        found.append((start, start + len(name)))
    return found


class Narrator:
    """Tells the words of an answer while it grows, and takes none of them back.

    What further words may change is held back: the colon of `Here it is:` goes where `[SEG].` follows.
    """

    def __init__(self) -> None:
        self._settled = 0
        """Letters of the raw text that nothing later can change."""
        self._told = ""
        """What has been told of the rest."""

    def tell(self, raw_text: str) -> str:
        """The words that are new and certain, given all that the model has said so far."""
        raw_text = _UNFINISHED.sub("", raw_text)
        new = ""
        if boundary := _last_boundary(raw_text, self._settled):
            new = strip_seg(raw_text[self._settled : boundary])[len(self._told) :] + " "
            self._settled, self._told = boundary + 1, ""
        rest = raw_text[self._settled :]
        certain = _common_start([strip_seg(rest + more) for more in _WHAT_MAY_FOLLOW])
        new += certain[len(self._told) :]
        self._told = max(self._told, certain, key=len)
        return new

    def finish(self, raw_text: str) -> str:
        """The words that were held back, given the whole answer."""
        return strip_seg(raw_text[self._settled :])[len(self._told) :]


_WHAT_MAY_FOLLOW = (
    "",
    "a",
    " a",
    ".",
    ". A",
    " [SEG]",
    " [SEG].",
    " [SEG] a",
    ", [SEG]. A",
    " and [SEG].",
    " or [SEG] a",
)
_UNFINISHED = re.compile(r"\s*\[[SEG]{0,3}$|\ufffd+$")
"""Letters that may yet become a mark or a character."""
_BOUNDARY = re.compile(r"(?<=\w) (?=\w)")
"""Between two words, neither of which is a mark: each side can be told without the other."""


def _last_boundary(text: str, start: int) -> int:
    """Where the last boundary after a place is, or 0."""
    found = 0
    for match in _BOUNDARY.finditer(text, start):
        found = match.start()
    return found


def _common_start(texts: list[str]) -> str:
    """The letters with which all of them begin."""
    first, last = min(texts), max(texts)  # in the order of a dictionary the others lie between
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return "".join(letter for letter, _ in same)


def _before(raw_text: str) -> list[str]:
    """What stands before each mark, after the one before it."""
    return raw_text.split(SEG_TOKEN)[:-1]


def _name(words: str) -> str:
    """The last clause before a mark, less what does not name a thing; an empty text where nothing is left."""
    sentence = re.split(r"[.;!?](?: |$)", " ".join(words.split()))[-1]
    clause = re.split(r"[,:] ", sentence.strip(" ,:"))[-1]
    name = _CLOSERS.sub("", _OPENERS.sub("", clause))
    return name if re.search(r"\w", name) and not _SAYS_NOTHING.fullmatch(name) else ""
