"""The cache: by content, within its budget, the least lately used goes first."""

import random
import threading

import torch

from lisaseg.model.cache import ContentCache
from lisaseg.model.lisa import Pictures
from lisaseg.model.past import Past


def past(*ids: int) -> Past:
    """100 bytes a token."""
    part = torch.zeros(1, len(ids), 25, dtype=torch.float16)
    return Past(ids=ids, layers=((part, part.clone()),))


def pictures(size: int = 100) -> Pictures:
    return Pictures(vlm_IPD=torch.zeros(1, 1, size // 8), segmenter_ICHW=torch.zeros(1, 1, 1, size // 8))


def test_pictures_are_found_by_what_they_show() -> None:
    cache, kept = ContentCache(1000), pictures()
    assert cache.pictures("cat") is None
    cache.keep_pictures("cat", kept)
    assert cache.pictures("cat") is kept
    assert cache.pictures("dog") is None
    info = cache.info()
    assert (info.pictures, info.contexts, info.bytes, info.hits, info.misses) == (1, 0, kept.nbytes, 1, 2)


def test_the_longest_beginning_is_found_but_never_all() -> None:
    cache = ContentCache(10_000)
    cache.keep_past("cat", past(1, 2, 3, 4))
    cache.keep_past("cat", past(1, 2, 9, 9, 9))
    cache.keep_past("dog", past(1, 2, 3, 4, 5, 6))
    for ids, expected in {(1, 2, 3, 7): (1, 2, 3), (1, 2, 9, 9, 8): (1, 2, 9, 9), (1, 2, 3, 4): (1, 2, 3)}.items():
        found = cache.past("cat", ids)
        assert found is not None
        assert found.ids == expected
    assert cache.past("cat", (7, 1)) is None
    assert cache.past("cat", (1,)) is None
    assert cache.past("bird", (1, 2)) is None


def test_what_is_the_beginning_of_something_newer_goes() -> None:
    cache = ContentCache(10_000)
    for ids in ((1,), (1, 2), (3,), (1, 2, 4)):
        cache.keep_past("cat", past(*ids))
    assert cache.info().contexts == 2
    assert cache.info().bytes == 400


def test_the_least_lately_used_goes_first() -> None:
    cache = ContentCache(1000)
    for number in range(3):
        cache.keep_past(f"picture {number}", past(1, 2, 3))
    cache.past("picture 0", (1, 2, 3, 4))
    cache.keep_pictures("new", pictures())
    cache.keep_past("another", past(1))
    assert cache.past("picture 1", (1, 2)) is None
    assert cache.past("picture 0", (1, 2)) is not None
    assert cache.info().evictions == 1
    assert cache.info().bytes <= 1000


def test_what_is_larger_than_the_budget_is_not_kept() -> None:
    cache = ContentCache(250)
    cache.keep_past("cat", past(1, 2))
    cache.keep_past("dog", past(1, 2, 3))
    assert cache.info().bytes == 200
    assert cache.past("dog", (1, 2)) is None
    nothing = ContentCache(0)
    nothing.keep_pictures("cat", pictures())
    assert nothing.info().bytes == 0


def test_all_can_be_forgotten() -> None:
    cache = ContentCache(1000)
    cache.keep_past("cat", past(1, 2))
    cache.keep_pictures("cat", pictures())
    cache.clear()
    assert cache.info().bytes == cache.info().pictures == cache.info().contexts == 0
    assert cache.past("cat", (1, 2, 3)) is None


def test_threads_may_share_it() -> None:
    cache = ContentCache(3000)
    problems: list[Exception] = []

    def use(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(300):
                name = f"picture {chance.randrange(5)}"
                ids = tuple(chance.randrange(2) for _ in range(chance.randrange(1, 8)))
                cache.keep_past(name, past(*ids))
                found = cache.past(name, ids)
                assert found is None or found.ids == ids[: len(found.ids)]
                cache.keep_pictures(name, pictures())
                assert cache.info().bytes <= 3000
        except Exception as error:  # noqa: BLE001  told by the test
            problems.append(error)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
