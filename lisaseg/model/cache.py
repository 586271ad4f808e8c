"""What is remembered between questions, by content and within a budget of bytes; the least lately used goes first."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import RLock
from typing import cast

from cachetools import LRUCache

from lisaseg.model.lisa import Pictures
from lisaseg.model.past import Past

Key = tuple[str, tuple[int, ...] | None]
"""A picture's digest, and the tokens that were read over it; None for what the encoders made of it."""


@dataclass(frozen=True, kw_only=True)
class CacheInfo:
    """Figures of a cache."""

    pictures: int
    """Encoded pictures that are held."""
    contexts: int
    """Sequences of tokens whose keys and values are held."""
    bytes: int
    """What both take."""
    budget_bytes: int
    """What they may take."""
    hits: int
    misses: int
    evictions: int
    """What had to go for something newer."""


class ContentCache:
    """Encoded pictures and what was read over them, shared by all conversations of a model. Safe to use by threads."""

    def __init__(self, budget_bytes: int):
        self._entries = _Entries(budget_bytes)
        self._lock = RLock()
        self._hits = self._misses = 0

    def pictures(self, picture: str) -> Pictures | None:
        """What the encoders made of a picture, where that is remembered."""
        with self._lock:
            found = self._entries.get((picture, None))
            self._count(is_hit=found is not None)
            return cast(Pictures | None, found)

    def keep_pictures(self, picture: str, pictures: Pictures) -> None:
        """Remembers what the encoders made of one picture."""
        with self._lock:
            self._entries.put((picture, None), pictures)

    def past(self, picture: str, ids: Sequence[int]) -> Past | None:
        """The longest remembered beginning of these tokens over a picture, but never all of them."""
        with self._lock:
            known = self._entries.read_over.get(picture, {}).values()
            best = max(known, key=lambda past: past.shared(ids), default=None)
            length = min(best.shared(ids), len(ids) - 1) if best else 0
            self._count(is_hit=length > 0)
            if best is None or length == 0:
                return None
            self._entries[picture, best.ids]  # now the latest used
            return best.cut(length)

    def keep_past(self, picture: str, past: Past) -> None:
        """Remembers what was read over a picture, instead of all beginnings of it."""
        with self._lock:
            own = self._entries.get((picture, None))
            if past.nbytes + (own.nbytes if own else 0) > self._entries.maxsize:
                return  # a shorter beginning that is there, and the picture, are better than nothing
            for ids in tuple(self._entries.read_over.get(picture, {})):
                if past.ids[: len(ids)] == ids:
                    del self._entries[picture, ids]
            self._entries.put((picture, past.ids), past)

    def info(self) -> CacheInfo:
        """Figures so far."""
        with self._lock:
            pictures = sum(read is None for _, read in self._entries)
            return CacheInfo(
                pictures=pictures,
                contexts=len(self._entries) - pictures,
                bytes=int(self._entries.currsize),
                budget_bytes=int(self._entries.maxsize),
                hits=self._hits,
                misses=self._misses,
                evictions=self._entries.evictions,
            )

    def clear(self) -> None:
        """Forgets everything but the figures."""
        with self._lock:
            for key in tuple(self._entries):
                del self._entries[key]

    def _count(self, *, is_hit: bool) -> None:
        self._hits += is_hit
        self._misses += not is_hit


class _Entries(LRUCache[Key, Pictures | Past]):
    """An LRU that knows what was read over each picture."""

    def __init__(self, budget_bytes: int):
        super().__init__(budget_bytes, getsizeof=lambda entry: entry.nbytes)
        self.evictions = 0
        self.read_over: defaultdict[str, dict[tuple[int, ...], Past]] = defaultdict(dict)

    def put(self, key: Key, entry: Pictures | Past) -> None:
        """Adds an entry; one that is larger than the whole budget is not kept."""
        if entry.nbytes > self.maxsize:
            return
        self[key] = entry
        if isinstance(entry, Past):
            self.read_over[key[0]][entry.ids] = entry

    def __delitem__(self, key: Key) -> None:
        super().__delitem__(key)
        picture, ids = key
        if ids is not None:
            del self.read_over[picture][ids]
            if not self.read_over[picture]:
                del self.read_over[picture]

    def popitem(self) -> tuple[Key, Pictures | Past]:
        """Drops the least lately used."""
        self.evictions += 1
        return super().popitem()
