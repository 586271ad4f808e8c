"""Kept keys and values: cut, padded into a batch, and taken apart again."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from lisaseg.model.past import Past, stack, unstack
from lisaseg.training.recipes import nano_config

CONFIG = nano_config(4000).text
HEADS, WIDTH = CONFIG.num_attention_heads, CONFIG.hidden_size // CONFIG.num_attention_heads


def past(*ids: int) -> Past:
    """Its numbers say which token they are of."""
    numbers = torch.tensor(ids, dtype=torch.float32)[None, :, None].expand(HEADS, -1, WIDTH)
    return Past(ids=ids, layers=tuple((numbers + layer, -numbers - layer) for layer in range(CONFIG.num_hidden_layers)))


def equal(one: Past, other: Past) -> bool:
    pairs = zip(one.layers, other.layers, strict=True)
    return one.ids == other.ids and all(
        torch.equal(a, b) for left, right in pairs for a, b in zip(left, right, strict=True)
    )


def test_what_two_sequences_share_is_their_beginning() -> None:
    assert past(1, 2, 3).shared([1, 2, 4]) == 2
    assert past(1, 2, 3).shared([1, 2, 3, 4]) == 3
    assert past(1, 2, 3).shared([1]) == 1
    assert past(1, 2, 3).shared([]) == past(1).shared([2]) == 0


def test_a_cut_copies_nothing() -> None:
    whole = past(1, 2, 3)
    assert equal(whole.cut(2), past(1, 2))
    assert whole.cut(2).layers[0][0].untyped_storage().data_ptr() == whole.layers[0][0].untyped_storage().data_ptr()


def test_bytes_are_those_of_keys_and_values() -> None:
    assert past(1, 2, 3).nbytes == 2 * CONFIG.num_hidden_layers * 3 * CONFIG.hidden_size * 4


@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=4), new=st.integers(1, 3))
def test_a_batch_comes_apart_as_it_was_put_together(lengths: list[int], new: int) -> None:
    pasts = [past(*range(10 * row, 10 * row + length)) if length else None for row, length in enumerate(lengths)]
    cache, mask = stack(pasts, CONFIG)
    assert mask.sum(dim=1).tolist() == lengths
    for layer in range(CONFIG.num_hidden_layers):
        further = torch.full((len(lengths), HEADS, new, WIDTH), 99.0)
        cache.update(further, -further, layer)
    mask = torch.cat([mask, torch.ones(len(lengths), new, dtype=torch.long)], dim=1)
    tokens = [[*(one.ids if one else ()), *[99] * new, 100] for one in pasts]  # the last token was not read
    for row, found in enumerate(unstack(cache, mask, tokens)):
        assert found.ids == tuple(tokens[row][:-1])
        assert found.layers[0][0][:, lengths[row] :].eq(99).all()
        if one := pasts[row]:
            assert equal(found.cut(lengths[row]), one)


def test_pasts_are_not_changed_by_going_on() -> None:
    before = past(1, 2)
    cache, _ = stack([before, past(3)], CONFIG)
    cache.update(torch.zeros(2, HEADS, 1, WIDTH), torch.zeros(2, HEADS, 1, WIDTH), 0)
    assert equal(before, past(1, 2))
