"""Batches and the sampler: every row once, about equally long, the same after a resume."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tunescope.data import Tokens, batches, collate
from tunescope.data.sampler import LengthGroupedSampler
from tunescope.errors import DataError

LAWS = settings(max_examples=80, deadline=None)
LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=120)


def tokens_of(lengths: list[int], types: bool = False, pad_id: int = 7) -> Tokens:
    ids = [np.arange(100 * i, 100 * i + n, dtype=np.int32) + 10 for i, n in enumerate(lengths)]
    return Tokens(
        row_ids=[f"id{i}" for i in range(len(lengths))],
        input_ids=ids,
        token_type_ids=[np.ones(n, dtype=np.int32) for n in lengths] if types else None,
        labels=np.arange(len(lengths)) % 3 - 1,
        lengths=np.asarray(lengths),
        pad_id=pad_id,
    )


@pytest.mark.parametrize("types", [False, True])
def test_collate_pads_on_the_right_and_masks_by_length(types):
    tokens = tokens_of([3, 1, 5, 2], types)
    batch = collate(tokens, np.asarray([3, 0, 1]))
    assert batch.input_ids.tolist() == [[310, 311, 7], [10, 11, 12], [110, 7, 7]]
    assert batch.attention_mask.tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]
    assert batch.labels.tolist() == [-1, -1, 0]
    assert batch.row_ids == ["id3", "id0", "id1"]
    assert batch.index.tolist() == [3, 0, 1]
    assert len(batch) == 3
    tensors = {"input_ids", "attention_mask"} | ({"token_type_ids"} if types else set())
    assert set(batch.inputs()) == tensors
    assert all(tensor.dtype == torch.int64 for tensor in (*batch.inputs().values(), batch.labels))
    if types:
        assert batch.token_type_ids.tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]


def test_the_pad_id_inside_a_text_stays_unmasked():
    tokens = tokens_of([2, 3], pad_id=11)  # 11 is also a token of row 0
    assert collate(tokens, [0, 1]).attention_mask.tolist() == [[1, 1, 0], [1, 1, 1]]


def test_a_batch_moves_and_leaves_the_first_where_it_was():
    batch = collate(tokens_of([2, 3], types=True), [0, 1])
    moved = batch.to("meta")
    assert {tensor.device.type for tensor in (*moved.inputs().values(), moved.labels)} == {"meta"}
    assert batch.input_ids.device.type == "cpu"
    assert moved.row_ids == batch.row_ids


def test_an_empty_batch_is_refused():
    with pytest.raises(DataError, match="at least one row"):
        collate(tokens_of([1]), [])


@LAWS
@given(LENGTHS, st.integers(1, 200), st.integers(1, 20), st.none() | st.integers(1, 50))
def test_batches_hold_every_row_once_within_their_bounds(lengths, max_tokens, max_rows, window):
    tokens = tokens_of(lengths)
    found = list(batches(tokens, max_tokens, max_rows, window))
    assert sorted(np.concatenate([batch.index for batch in found]).tolist()) == list(range(len(lengths)))
    for batch in found:
        assert 1 <= len(batch) <= max_rows
        assert len(batch) == 1 or batch.input_ids.numel() <= max_tokens
        for row, position in enumerate(batch.index):
            kept = batch.input_ids[row][batch.attention_mask[row] == 1].tolist()
            assert kept == tokens.input_ids[position].tolist()
            assert batch.row_ids[row] == tokens.row_ids[position]
    if window:
        blocks = [set((batch.index // window).tolist()) for batch in found]
        assert all(len(block) == 1 for block in blocks)
        order = [next(iter(block)) for block in blocks]
        assert order == sorted(order)
    else:
        widths = [batch.input_ids.shape[1] for batch in found]
        assert widths == sorted(widths, reverse=True)


def test_batches_of_no_rows():
    assert list(batches(tokens_of([]))) == []


def test_length_batches_hardly_pad():
    lengths = np.random.default_rng(0).integers(5, 80, 2000).tolist()
    found = list(batches(tokens_of(lengths)))
    padded = sum(batch.input_ids.numel() for batch in found)
    assert sum(lengths) / padded > 0.97


@LAWS
@given(LENGTHS, st.integers(1, 17), st.integers(0, 2**32 - 1), st.integers(0, 50))
def test_the_sampler_yields_every_row_once(lengths, batch_size, seed, epoch):
    sampler = LengthGroupedSampler(lengths, batch_size, seed)
    sampler.set_epoch(epoch)
    assert sorted(sampler) == list(range(len(lengths))) == list(range(len(sampler)))


@LAWS
@given(LENGTHS, st.integers(1, 9), st.integers(0, 99), st.integers(0, 9))
def test_the_order_is_a_function_of_seed_and_epoch_alone(lengths, batch_size, seed, epoch):
    fresh = LengthGroupedSampler(lengths, batch_size, seed)
    fresh.set_epoch(epoch)
    state = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())
    expected = list(fresh)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == state[1:]
    used = LengthGroupedSampler(lengths, batch_size, seed)
    for earlier in range(epoch):  # a run that was there from the start, its generators stirred
        used.set_epoch(earlier)
        list(used)
        torch.manual_seed(earlier)
        np.random.seed(earlier)
    used.set_epoch(epoch)
    iterator = iter(used)
    half = [next(iterator) for _ in range(len(lengths) // 2)]
    assert half == expected[: len(half)]
    assert list(used) == expected


def test_epochs_and_seeds_differ():
    lengths = list(range(1, 101))
    orders = set()
    for seed in range(3):
        for epoch in range(3):
            sampler = LengthGroupedSampler(lengths, 4, seed)
            sampler.set_epoch(epoch)
            orders.add(tuple(sampler))
    assert len(orders) == 9


def test_the_order_is_the_one_recorded():
    """A resume on another machine or version must see this very order."""
    sampler = LengthGroupedSampler([5, 1, 4, 2, 3, 9, 7], 2, seed=3)
    sampler.set_epoch(1)
    assert list(sampler) == RECORDED


RECORDED = [5, 6, 0, 2, 4, 1, 3]


def test_batches_of_the_sampler_are_of_equal_length_and_shuffled():
    lengths = np.random.default_rng(1).integers(1, 100, 4001)
    order = np.asarray(list(LengthGroupedSampler(lengths, 8, 0)))
    cut = lengths[order[:4000]].reshape(-1, 8)
    kept = cut.sum() / (cut.max(axis=1) * 8).sum()
    assert kept > 0.9
    means = cut.mean(axis=1)
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.2
    # rows are mixed between epochs, not only batches
    again = LengthGroupedSampler(lengths, 8, 0)
    again.set_epoch(1)
    first = {frozenset(batch) for batch in order[:4000].reshape(-1, 8).tolist()}
    second = {frozenset(batch) for batch in np.asarray(list(again))[:4000].reshape(-1, 8).tolist()}
    assert len(first & second) < 10


def test_a_data_loader_takes_it():
    lengths = [3, 1, 2, 5, 4]
    sampler = LengthGroupedSampler(lengths, 2, 0)
    loader = torch.utils.data.DataLoader(list(range(5)), batch_size=2, sampler=sampler)
    assert [i for batch in loader for i in batch.tolist()] == list(sampler)


def test_a_batch_size_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1, not 0"):
        LengthGroupedSampler([1], 0, 0)
