"""The biased CKA over all rows against the kernels of the textbook, whole and with groups of rows left out."""

from __future__ import annotations

import numpy as np
import pytest

from tunescope.errors import LensError
from tunescope.stats import BlockHSIC
from tunescope.stats.biased_cka import GROUPS, BiasedCKA
from tunescope.stats.kernels import cka


@pytest.fixture(scope="module")
def sites():
    generator = np.random.default_rng(3)
    first = generator.normal(size=(57, 9)) + 4
    return {
        "a": first,
        "b": first[:, :5] ** 2 + generator.normal(size=(57, 5)),
        "c": generator.normal(size=(57, 40)),
    }


def state_of(sites, parts=(slice(None),), seed=1):
    state = BiasedCKA(list(sites), 57, seed)
    for part in parts:
        for name, values in sites.items():
            state.update(np.arange(57)[part], {name: values[part]})
    return state.matrix()


def test_values_equal_the_pure_function_of_hsic_0_and_shards_do_not_matter(sites):
    matrix = state_of(sites)
    for i, first in enumerate(sites):
        for j, second in enumerate(sites):
            expected = cka(sites[first], sites[second], unbiased=False).value
            assert matrix.value[i, j] == pytest.approx(expected, abs=1e-12)
    backwards = state_of(sites, (slice(40, None), slice(0, 11), slice(11, 40)))
    np.testing.assert_allclose(backwards.value, matrix.value, atol=1e-12)
    np.testing.assert_allclose(backwards.low, matrix.low, atol=1e-12)
    assert "biased HSIC over all rows; jackknife over 10 groups" in matrix.method


def test_what_the_jackknife_leaves_out_equals_cka_of_the_rows_that_are_left(sites):
    matrix = state_of(sites)
    order = np.random.default_rng(1).permutation(57)
    bounds = np.linspace(0, 57, GROUPS + 1).round().astype(int)
    for group in (0, 4, 9):
        left = np.delete(order, np.arange(bounds[group], bounds[group + 1]))
        expected = cka(sites["a"][left], sites["b"][left], unbiased=False).value
        assert matrix.replicates[group, 0, 1] == pytest.approx(expected, abs=1e-10)


def test_unrelated_sites_look_alike_to_the_biased_estimate_alone():
    generator = np.random.default_rng(0)
    pair = {"a": generator.normal(size=(64, 768)), "b": generator.normal(size=(64, 768))}
    biased, unbiased = BiasedCKA(["a", "b"], 64), BlockHSIC(["a", "b"], 64)
    for state in (biased, unbiased):
        state.update(np.arange(64), pair)
    assert biased.matrix().value[0, 1] == pytest.approx(0.92, abs=0.02)
    assert abs(unbiased.matrix().value[0, 1]) < 0.05
    assert biased.matrix().control[0, 1] == pytest.approx(biased.matrix().value[0, 1], abs=0.02)


def test_bad_rows_are_named(sites):
    state = BiasedCKA(["a"], 57)
    state.update(np.arange(20), {"a": sites["a"][:20]})
    with pytest.raises(LensError, match="CKA expected 57 rows at each site; 37 did not come"):
        state.matrix()
    with pytest.raises(LensError, match="Row 3 came twice at a"):
        state.update(np.array([3]), {"a": sites["a"][:1]})
    assert "constant" in state_of({"a": np.ones((57, 3)), "b": sites["b"]}).why("a", "b")
    few = BiasedCKA(["a"], 3).update(np.arange(3), {"a": sites["a"][:3]})
    assert "needs at least 4 rows, there are 3" in few.matrix().undefined[0]
