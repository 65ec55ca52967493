"""Mergeable states: one battery for all of them, then what each must get right."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tunescope.errors import LensError
from tunescope.stats import BlockHSIC, Histogram, Mean, Moments

ROWS, WIDTH = 40, 5


def data(dtype=np.float64):
    return np.random.default_rng(3).normal(2.0, 3.0, (ROWS, WIDTH)).astype(dtype)


def feed(state, index):
    values = data()[index]
    if isinstance(state, BlockHSIC):
        return state.update(index, {"a": values, "b": values[:, ::-1] ** 2})
    return state.update(values)


MAKE = {
    "mean": lambda: Mean(WIDTH),
    "moments": lambda: Moments(WIDTH),
    "histogram": lambda: Histogram(np.linspace(-4, 8, 7)),
    "hsic": lambda: BlockHSIC(["a", "b"], ROWS, block=8, full_below=0),
    "hsic_full": lambda: BlockHSIC(["a", "b"], ROWS),
}


def flat(state):
    """Every number in a state dict, by path."""
    found = {}

    def walk(path, value):
        if isinstance(value, dict):
            for key, each in value.items():
                walk(f"{path}/{key}", each)
        else:
            found[path] = np.asarray(value)

    walk("", state.state_dict())
    return found


def assert_same(first, second, tolerance=1e-12):
    a, b = flat(first), flat(second)
    assert a.keys() == b.keys()
    for key, value in a.items():
        if value.dtype.kind in "fc":
            np.testing.assert_allclose(value, b[key], rtol=tolerance, atol=tolerance, err_msg=key)
        else:
            np.testing.assert_array_equal(value, b[key], err_msg=key)


@pytest.fixture(params=list(MAKE))
def make(request):
    return MAKE[request.param]


def test_any_order_and_any_sharding_gives_the_same(make):
    whole = feed(make(), np.arange(ROWS))
    generator = np.random.default_rng(0)
    for shards in (2, 3, 7, ROWS):
        parts = [feed(make(), part) for part in np.array_split(generator.permutation(ROWS), shards)]
        generator.shuffle(parts)
        merged = make()
        for part in parts:
            merged = merged + part
        assert_same(whole, merged)


def test_the_empty_state_changes_nothing_from_either_side(make):
    some = feed(make(), np.arange(0, ROWS, 3))
    assert_same(some, some + make())
    assert_same(some, make() + some)
    assert_same(make(), make() + make())


def test_one_row_at_a_time(make):
    whole, single = feed(make(), np.arange(ROWS)), make()
    for row in range(ROWS):
        feed(single, np.array([row]))
    assert_same(whole, single)


def test_merging_leaves_both_sides_as_they_were(make):
    first, second = feed(make(), np.arange(0, 12)), feed(make(), np.arange(12, ROWS))
    before = flat(first), flat(second)
    merged = first + second
    if not isinstance(merged, BlockHSIC):
        feed(merged, np.arange(3))
    for old, state in zip(before, (first, second), strict=True):
        for key, value in flat(state).items():
            np.testing.assert_array_equal(old[key], value, err_msg=key)


def test_a_state_dict_round_trips_and_goes_on(make):
    half = feed(make(), np.arange(0, 19))
    loaded = type(half).from_state_dict(half.state_dict())
    assert_same(half, loaded, 0)
    assert_same(feed(make(), np.arange(ROWS)), feed(loaded, np.arange(19, ROWS)))


@pytest.mark.parametrize("shape", [(ROWS, WIDTH), (4, 10, WIDTH)])
def test_moments_are_numpys(shape):
    values = data().reshape(shape)
    state = Moments(WIDTH).update(values)
    np.testing.assert_allclose(state.mean, data().mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(state.variance(), data().var(axis=0, ddof=1), rtol=1e-13)
    np.testing.assert_allclose(state.standard_deviation(0), data().std(axis=0), rtol=1e-13)
    assert state.count == ROWS


def test_moments_of_a_rogue_dimension_keep_their_digits():
    # A mean of 3,000 and a spread of 0.1: raw sums of squares in float32 lose everything.
    generator = np.random.default_rng(0)
    values = (3000 + 0.1 * generator.standard_normal((20_000, 1))).astype(np.float32)
    state = Moments(1)
    for part in np.array_split(values, 50):
        state.update(torch.tensor(part))
    expected = values.astype(np.float64).var(ddof=1)
    assert state.variance()[0] == pytest.approx(expected, rel=1e-9)
    raw = (values**2).mean(dtype=np.float32) - values.mean(dtype=np.float32) ** 2
    assert abs(raw / expected - 1) > 0.5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_torch_tensors_of_any_float_type(dtype):
    values = torch.tensor(data()).to(dtype).requires_grad_()
    state = Moments(WIDTH).update(values)
    np.testing.assert_allclose(state.mean, values.detach().double().numpy().mean(axis=0), rtol=1e-13)
    assert state.mean.dtype == np.float64


@pytest.mark.parametrize("kind", ["numpy", "torch bool", "torch long"])
def test_a_mask_leaves_out_positions_even_where_they_are_nan(kind):
    values = data().reshape(4, 10, WIDTH).copy()
    mask = np.random.default_rng(1).random((4, 10)) < 0.6
    values[~mask] = np.nan
    given = {"numpy": mask, "torch bool": torch.tensor(mask), "torch long": torch.tensor(mask).long()}[kind]
    state = Moments(WIDTH).update(torch.tensor(values), given)
    np.testing.assert_allclose(state.mean, values[mask].mean(axis=0), rtol=1e-13)
    assert state.count == mask.sum()


def test_an_empty_batch_and_a_mask_of_nothing_change_nothing():
    state = feed(Moments(WIDTH), np.arange(9))
    before = flat(state)
    state.update(np.zeros((0, WIDTH))).update(data(), np.zeros(ROWS))
    for key, value in flat(state).items():
        np.testing.assert_array_equal(before[key], value)


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match=r"width 5, found shape \(2, 4\)"):
        Moments(5).update(np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"mask of shape \(2, 3\), found \(2,\)"):
        Moments(5).update(np.zeros((2, 3, 5)), np.ones(2))
    with pytest.raises(LensError, match="1 of 10 numbers are NaN or infinite"):
        Moments(5).update(np.array([[1, 2, 3, 4, np.inf], [1, 2, 3, 4, 5]]))
    with pytest.raises(ValueError, match="Moments of width 5 with Moments of width 4"):
        Moments(5) + Moments(4)
    with pytest.raises(ValueError, match="Moments of width 5 with Mean of width 5"):
        Moments(5) + Mean(5)
    with pytest.raises(LensError, match="more than 1 vectors; 1 were seen"):
        Moments(2).update(np.ones((1, 2))).variance()


def test_a_histogram_is_numpys_and_counts_what_lies_outside():
    edges = np.array([-1.0, 0.0, 2.0, 5.0])
    values = np.concatenate([data().ravel(), edges])
    state = Histogram(edges).update(values.reshape(2, -1))
    np.testing.assert_array_equal(state.counts, np.histogram(values, edges)[0])
    assert state.below == (values < -1).sum() > 0
    assert state.above == (values > 5).sum() > 0
    assert state.count == values.size
    masked = Histogram(edges).update(np.array([[0.5, np.nan], [1.0, 9.0]]), np.array([[1, 0], [1, 1]]))
    assert masked.counts.tolist() == [0, 2, 0]
    assert masked.above == 1
    with pytest.raises(ValueError, match="rising edges"):
        Histogram([1, 1])
    with pytest.raises(ValueError, match="different edges"):
        Histogram([0, 1]) + Histogram([0, 2])
