"""HSIC and CKA: against the formulas written out, the published truth table, and simulation."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import torch

from tunescope.errors import LensError
from tunescope.stats import BlockHSIC, cka, hsic_biased, hsic_unbiased
from tunescope.stats.kernels import linear_kernel, u_center


def gaussians(n, d, seed, e=None):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((n, d)), generator.standard_normal((n, e or d))


def related(n, seed, d=20, noise=1.0):
    """Two representations that share a part, and a third one of another width."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((n, d)) * np.linspace(0.3, 2, d)
    mix = np.random.default_rng(99).standard_normal((d, d)) / np.sqrt(d)
    return x, x @ mix + noise * generator.standard_normal((n, d)), np.tanh(x[:, :7])


def naive_hsic_1(k, l):  # noqa: E741 - the letters of the paper
    """Song et al. 2012, equation 5, term by term."""
    m = len(k)
    k, l = k.copy(), l.copy()  # noqa: E741
    for i in range(m):
        k[i, i] = l[i, i] = 0
    trace = sum(k[i, j] * l[j, i] for i in range(m) for j in range(m))
    both = sum(map(sum, k)) * sum(map(sum, l)) / ((m - 1) * (m - 2))
    cross = 2 / (m - 2) * sum(k[a, i] * l[i, b] for a in range(m) for i in range(m) for b in range(m))
    return (trace + both - cross) / (m * (m - 3))


def naive_cka(x, y):
    k, l = x @ x.T, y @ y.T  # noqa: E741
    return naive_hsic_1(k, l) / np.sqrt(naive_hsic_1(k, k) * naive_hsic_1(l, l))


def stream(arrays, order=None, batch=17, **options):
    rows = len(next(iter(arrays.values())))
    state = BlockHSIC(list(arrays), rows, **options)
    order = np.arange(rows) if order is None else order
    for start in range(0, rows, batch):
        index = order[start : start + batch]
        state.update(index, {site: values[index] for site, values in arrays.items()})
    return state


@pytest.mark.parametrize("n", [4, 5, 9, 16])
def test_hsic_1_is_the_papers_formula(n):
    x, y = gaussians(n, 3, n, 6)
    assert hsic_unbiased(x @ x.T, y @ y.T) == pytest.approx(naive_hsic_1(x @ x.T, y @ y.T), rel=1e-10)


def test_hsic_0_is_the_trace_formula():
    x, y = gaussians(12, 3, 1, 6)
    h = np.eye(12) - 1 / 12
    expected = np.trace(x @ x.T @ h @ y @ y.T @ h) / 11**2
    assert hsic_biased(x @ x.T, y @ y.T) == pytest.approx(expected, rel=1e-12)


def test_hsic_1_is_unbiased_where_hsic_0_is_not():
    # Population value of linear HSIC with y = x in one dimension of variance 1: (cov)^2 = 1.
    draws = [gaussians(8, 1, seed)[0] for seed in range(4000)]
    unbiased = [hsic_unbiased(x @ x.T, x @ x.T) for x in draws]
    error = np.std(unbiased) / np.sqrt(len(unbiased))
    assert abs(np.mean(unbiased) - 1) < 3 * error
    assert abs(np.mean([hsic_biased(x @ x.T, x @ x.T) for x in draws]) - 1) > 3 * error


@pytest.mark.parametrize(("n", "biased"), [(64, 0.923), (256, 0.750), (1000, 0.434), (4000, 0.161)])
def test_truth_table_of_independent_gaussians(n, biased):
    pairs = [gaussians(n, 768, seed) for seed in range(max(1, 1600 // n))]
    values = [cka(x, y, unbiased=False).value for x, y in pairs]
    assert np.mean(values) == pytest.approx(biased, abs=0.0015)
    spread = np.sqrt(2) / n  # the standard deviation of the unbiased estimate for unrelated inputs
    assert all(abs(cka(x, y).value) < 4 * spread for x, y in pairs)


def test_unbiased_cka_of_unrelated_inputs_scatters_around_zero():
    values = np.array([cka(*gaussians(64, 768, seed)).value for seed in range(40)])
    assert abs(values.mean()) < 3 * values.std(ddof=1) / np.sqrt(len(values))
    assert values.std(ddof=1) == pytest.approx(np.sqrt(2) / 64, rel=0.35)


@pytest.mark.parametrize("unbiased", [True, False])
def test_cka_is_one_for_equal_inputs_and_blind_to_rotation_scale_and_shift(unbiased):
    x, y, _ = related(50, 0)
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((20, 20)))[0]
    assert cka(x, x, unbiased).value == 1.0
    assert cka(x, 7 * x @ rotation - 3, unbiased).value == pytest.approx(1, abs=1e-12)
    value = cka(x, y, unbiased).value
    assert 0.1 < value < 0.9
    assert cka(1e-3 * x @ rotation + 5, y, unbiased).value == pytest.approx(value, abs=1e-10)
    assert cka(y, x, unbiased).value == pytest.approx(value, abs=1e-14)


def test_cka_is_naive_cka_and_takes_torch():
    x, y, z = related(11, 4)
    assert cka(x, y).value == pytest.approx(naive_cka(x, y), abs=1e-12)
    assert cka(torch.tensor(x), torch.tensor(z)).value == pytest.approx(naive_cka(x, z), abs=1e-12)


@pytest.mark.parametrize("unbiased", [True, False])
def test_cka_says_why_it_is_undefined(unbiased):
    x, _ = gaussians(30, 4, 0)
    constant = np.full((30, 4), 0.1)
    assert "second features: the features are constant" in cka(x, constant, unbiased).undefined
    assert np.isnan(cka(x, constant, unbiased).value)
    assert "first features: the features are constant" in cka(np.zeros((30, 2)), x, unbiased).undefined
    assert "at least" in cka(x[:1], x[:1], unbiased).undefined
    with pytest.raises(LensError, match="second features: the activations hold NaN"):
        cka(x, np.full((30, 4), np.nan), unbiased)
    with pytest.raises(ValueError, match=r"found \(30, 4\) and \(29, 4\)"):
        cka(x, x[1:], unbiased)


def test_features_that_differ_by_rounding_alone_are_constant():
    generator = np.random.default_rng(0)
    row = generator.standard_normal(64).astype(np.float32)
    jitter = row + np.float32(6e-8) * generator.standard_normal((30, 64)).astype(np.float32)
    assert len(np.unique(jitter, axis=0)) > 1
    x, _ = gaussians(30, 4, 0)
    assert "constant" in cka(x, jitter).undefined
    assert "constant" in stream({"x": x, "jitter": jitter}).matrix().why("jitter", "x")


def test_too_few_rows_that_differ_is_undefined_not_noise():
    odd = np.zeros((6, 3))
    odd[2] = 1.0  # one row differs: HSIC_1 with itself is exactly 0
    assert hsic_unbiased(odd @ odd.T, odd @ odd.T) == pytest.approx(0, abs=1e-15)
    x, _ = gaussians(6, 4, 0)
    assert "not positive" in cka(odd, x).undefined
    matrix = stream({"x": x, "odd": odd}).matrix()
    assert "odd: its HSIC with itself is not positive" in matrix.why("x", "odd")


def test_u_centred_kernels_have_zero_diagonal_and_zero_row_sums():
    x, _ = gaussians(9, 4, 2)
    centred = u_center(x @ x.T)
    np.testing.assert_allclose(np.diag(centred), 0, atol=0)
    np.testing.assert_allclose(centred.sum(axis=0), 0, atol=1e-12)


def test_a_kernel_of_a_large_common_offset_keeps_its_digits():
    x, y = gaussians(200, 16, 0)
    far = (x + 3000).astype(np.float32)  # what float32 makes of it is the truth here
    expected = cka(far.astype(np.float64), y).value
    got = stream({"far": far, "y": y.astype(np.float32)}).matrix().value[0, 1]
    assert got == pytest.approx(expected, abs=2e-6)
    assert np.abs(linear_kernel(far * np.float32(1e30)).matrix).max() < 1e3


# ---- the streamed state


def test_few_rows_are_the_full_estimate():
    x, y, z = related(30, 0)
    matrix = stream({"x": x, "y": y, "z": z}).matrix()
    expected = [[naive_cka(a, b) for b in (x, y, z)] for a in (x, y, z)]
    np.testing.assert_allclose(matrix.value, expected, atol=1e-12)
    np.testing.assert_array_equal(np.diag(matrix.value), 1.0)
    assert matrix.method == "unbiased HSIC over one block; jackknife over 10 groups of rows"


@pytest.mark.parametrize("rows", [64, 65, 67, 68, 75])
def test_blocks_are_averaged_by_their_rows(rows):
    arrays = dict(zip("xyz", related(rows, 1), strict=True))
    matrix = stream(arrays, block=16, full_below=0).matrix()
    bounds = [0, 16, 32, 48, rows] if rows < 68 else [0, 16, 32, 48, 64, rows]  # fewer than 4 rows: folded
    hsic = np.zeros((3, 3))
    for start, stop in itertools.pairwise(bounds):
        kernels = [values[start:stop] @ values[start:stop].T for values in arrays.values()]
        hsic += (stop - start) * np.array([[naive_hsic_1(k, m) for m in kernels] for k in kernels])
    size = np.sqrt(np.diag(hsic))
    np.testing.assert_allclose(matrix.value, hsic / np.outer(size, size), atol=1e-12)
    assert matrix.n == rows


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{"block": 32, "full_below": 0}, {}])
def test_any_order_and_any_sharding_gives_the_same(dtype, options):
    rows = 203
    arrays = {name: values.astype(dtype) for name, values in zip("xyz", related(rows, 2), strict=True)}
    reference = stream(arrays, **options).matrix()
    generator = np.random.default_rng(0)
    for shards in (1, 2, 5, 40):
        order = generator.permutation(rows)
        states = []
        for part in np.array_split(order, shards):
            state = BlockHSIC("xyz", rows, **options)
            for index in np.array_split(part, 3):
                state.update(torch.tensor(index), {s: torch.tensor(v[index]) for s, v in arrays.items()})
            states.append(state)
        generator.shuffle(states)
        got = functools.reduce(lambda a, b: a + b, states).matrix()
        for name in ("value", "low", "high", "control"):
            np.testing.assert_allclose(getattr(got, name), getattr(reference, name), atol=1e-10, rtol=0)


def test_sites_may_come_one_after_the_other():
    arrays = dict(zip("xyz", related(50, 2), strict=True))
    state = BlockHSIC("xyz", 50, block=16, full_below=0)
    for site, values in arrays.items():
        state.update(np.arange(50), {site: values})
    np.testing.assert_array_equal(state.matrix().value, stream(arrays, block=16, full_below=0).matrix().value)


def test_memory_is_bounded_by_open_blocks():
    x, y, _ = related(400, 0)
    state = BlockHSIC("xy", 400, block=32, full_below=0)
    for start in range(0, 400, 10):
        index = np.arange(start, start + 10)
        state.update(index, {"x": x[index], "y": y[index]})
        assert len(state.open) <= 1
    assert not state.open


def test_float32_streams_within_5e_4_of_float64():
    x, y, _ = related(3000, 5, d=768, noise=2.0)
    x = x + 50 * (np.arange(768) == 400)  # a rogue dimension
    double = stream({"x": x, "y": y}, batch=512).matrix()
    single = stream({"x": x.astype(np.float32), "y": y.astype(np.float32)}, batch=512).matrix()
    assert 0.2 < double.value[0, 1] < 0.95
    np.testing.assert_allclose(single.value, double.value, atol=1e-5)
    np.testing.assert_allclose(single.low, double.low, atol=1e-4)
    # And the block estimate is that of all rows at once, up to what chance leaves.
    full = cka(x, y).value
    assert double.low[0, 1] < full < double.high[0, 1]


def test_equal_sites_are_exactly_one_with_zero_width():
    x, y, _ = related(300, 0)
    single = x.astype(np.float32)
    for options in ({}, {"block": 64, "full_below": 0}):
        matrix = stream({"base": single, "tuned": single.copy(), "y": y}, **options).matrix()
        for name in ("value", "low", "high"):
            np.testing.assert_array_equal(getattr(matrix, name)[:2, :2], 1.0)
        assert matrix.high[0, 2] < 1


def test_the_shuffled_control_is_unrelated():
    x, y, _ = related(600, 0)
    matrix = stream({"x": x, "y": y}, block=64, full_below=0).matrix()
    assert matrix.value[0, 1] > 0.3
    assert np.abs(matrix.control).max() < 0.1
    assert np.abs(matrix.control).min() > 0
    other = stream({"x": x, "y": y}, block=64, full_below=0, permutation_seed=1).matrix()
    assert (other.control != matrix.control).any()
    np.testing.assert_allclose(other.value, matrix.value, atol=1e-12)


def naive_jackknife(replicates, value):
    """The textbook jackknife with groups of equal size and Student's t."""
    from scipy import stats

    g = len(replicates)
    error = np.sqrt((g - 1) / g * ((replicates - np.mean(replicates)) ** 2).sum())
    half = stats.t.ppf(0.975, g - 1) * error
    return value - half, value + half


def test_the_interval_over_blocks_is_the_textbook_jackknife():
    rows, block = 192, 16
    x, y, _ = related(rows, 3)
    hsic = []
    for start in range(0, rows, block):
        k, l = (v[start : start + block] @ v[start : start + block].T for v in (x, y))  # noqa: E741
        hsic.append([hsic_unbiased(k, l), hsic_unbiased(k, k), hsic_unbiased(l, l)])
    hsic = np.array(hsic)

    def ratio(h):
        a, b, c = h.mean(axis=0)
        return a / np.sqrt(b * c)

    replicates = np.array([ratio(np.delete(hsic, i, axis=0)) for i in range(len(hsic))])
    low, high = naive_jackknife(replicates, ratio(hsic))
    matrix = stream({"x": x, "y": y}, block=block, full_below=0).matrix()
    assert (matrix.low[0, 1], matrix.high[0, 1]) == pytest.approx((low, high), abs=1e-10)
    assert "jackknife over 12 blocks" in matrix.method


def test_the_interval_of_the_full_estimate_leaves_groups_of_rows_out():
    # Every row a group: no matter how groups are drawn, they are the same, and each is recomputed naively.
    x, y, _ = related(10, 3)
    value = naive_cka(x, y)
    replicates = np.array([naive_cka(np.delete(x, i, 0), np.delete(y, i, 0)) for i in range(10)])
    low, high = np.clip(naive_jackknife(replicates, value), -1, 1)
    matrix = stream({"x": x, "y": y}).matrix()
    assert (matrix.low[0, 1], matrix.high[0, 1]) == pytest.approx((low, high), abs=1e-9)


def test_hsic_without_a_group_is_hsic_of_the_rest():
    x, y, z = related(47, 3)
    state = stream({"x": x, "y": y, "z": z})
    block = state.done[0]
    seeds = np.random.SeedSequence([0, 0])
    order = np.random.default_rng(seeds).permutation(47)
    bounds = np.r_[0, np.cumsum(block.group_rows)]
    assert len(bounds) == 11
    for g in range(10):
        rest = np.delete(order, np.arange(bounds[g], bounds[g + 1]))
        kernels = [v[rest] @ v[rest].T for v in (x, y, z)]
        expected = [[hsic_unbiased(k, m) for m in kernels] for k in kernels]
        np.testing.assert_allclose(block.without[g], expected, rtol=1e-9)


def test_few_blocks_are_split_so_that_the_jackknife_has_enough_groups():
    x, y, _ = related(1030, 0)
    four = stream({"x": x[:1027], "y": y[:1027]}).matrix()
    assert "4 blocks; jackknife over 12 groups of rows" in four.method
    tail = stream({"x": x, "y": y}).matrix()  # 4 blocks of 256, and one of 6 that only goes as a whole
    assert "5 blocks; jackknife over 9 groups" in tail.method
    assert np.isfinite(tail.low).all()


def test_the_interval_over_split_blocks_is_that_of_dropping_rows_and_starting_again():
    rows, size = 48, 16
    x, y, _ = related(rows, 8)
    state = stream({"x": x, "y": y}, block=size, full_below=0)
    assert state.groups == 4  # 3 blocks of 4 groups of 4 rows

    def estimate(blocks):
        hsic = np.zeros((2, 2))
        for index in blocks:
            kernels = [v[index] @ v[index].T for v in (x, y)]
            hsic += len(index) * np.array([[hsic_unbiased(k, m) for m in kernels] for k in kernels])
        return hsic[0, 1] / np.sqrt(hsic[0, 0] * hsic[1, 1])

    whole = [np.arange(start, start + size) for start in range(0, rows, size)]
    replicates = []
    for number in range(3):
        order = np.random.default_rng(np.random.SeedSequence([0, number])).permutation(size)
        for group in np.split(order, 4):
            rest = np.setdiff1d(whole[number], whole[number][group])
            replicates.append(estimate([*whole[:number], rest, *whole[number + 1 :]]))
    low, high = np.clip(naive_jackknife(np.array(replicates), estimate(whole)), -1, 1)
    matrix = state.matrix()
    assert (matrix.low[0, 1], matrix.high[0, 1]) == pytest.approx((low, high), abs=1e-10)


def coverage(rows, repeats, **options):
    """How often the interval holds the population's CKA."""
    d, noise = 20, 1.0
    scale = np.diag(np.linspace(0.3, 2, d) ** 2)
    mix = np.random.default_rng(99).standard_normal((d, d)) / np.sqrt(d)
    cross = scale @ mix
    own = mix.T @ scale @ mix + noise**2 * np.eye(d)
    truth = np.sum(cross**2) / np.sqrt(np.sum(scale**2) * np.sum(own**2))
    hits = 0
    for seed in range(repeats):
        x, y, _ = related(rows, 1000 + seed)
        matrix = stream({"x": x, "y": y}, batch=rows, **options).matrix()
        hits += matrix.low[0, 1] <= truth <= matrix.high[0, 1]
    return hits / repeats


@pytest.mark.parametrize(("rows", "options"), [(120, {}), (640, {"block": 32, "full_below": 0})])
def test_intervals_cover_the_population_value(rows, options):
    assert 0.88 <= coverage(rows, 150, **options) <= 0.995


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "options"), [(60, {}), (500, {}), (500, {"full_below": 0, "block": 128}), (2560, {})]
)
def test_intervals_cover_the_population_value_in_many_draws(rows, options):
    assert 0.92 <= coverage(rows, 600, **options) <= 0.98


def test_undefined_sites_are_said_and_the_others_stay():
    x, y, _ = related(60, 0)
    for options in ({}, {"block": 16, "full_below": 0}):
        matrix = stream({"x": x, "still": np.full((60, 3), 0.7), "y": y}, **options).matrix()
        assert matrix.undefined[0] is None
        assert "the features are constant" in matrix.undefined[1]
        assert np.isnan(matrix.value[1]).all()
        assert np.isnan(matrix.value[:, 1]).all()
        assert np.isfinite(matrix.value[[0, 2]][:, [0, 2]]).all()
        for record in matrix.records():
            known = "still" not in (record["first"], record["second"])
            assert (record["value"] is not None) == (record["low"] is not None) == known
            assert (record["note"] is None) == known
            assert not any(isinstance(v, float) and np.isnan(v) for v in record.values())


def test_a_site_that_varies_in_one_block_only_has_a_value_but_no_interval():
    x, y, _ = related(64, 0)
    x = x.copy()
    x[16:] = x[16]
    matrix = stream({"x": x, "y": y}, block=16, full_below=0, batch=64).matrix()
    records = {(r["first"], r["second"]): r for r in matrix.records()}
    assert records["y", "y"]["low"] == 1.0
    assert records["x", "y"]["value"] is not None
    assert records["x", "y"]["low"] is not None  # groups of rows leave some of that block in
    lone = stream({"x": x, "y": y}, block=8, full_below=0, batch=64)
    assert len(lone.starts) == 8


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_too_few_rows_are_undefined_in_words(rows):
    x = np.random.default_rng(0).standard_normal((rows, 3))
    matrix = BlockHSIC(["x"], rows).update(np.arange(rows), {"x": x}).matrix()
    assert matrix.undefined == (f"CKA needs at least 4 rows, there are {rows}",)
    record = next(matrix.records())
    assert record["value"] is None
    assert "at least 4 rows" in record["note"]


def test_four_rows_have_a_value_and_five_an_interval():
    x, _ = gaussians(5, 3, 0)
    four = next(stream({"x": x[:4]}).matrix().records())
    assert four["value"] == 1.0
    assert four["low"] is None
    assert four["note"] == "undefined interval: 4 rows are too few to leave some out"
    assert next(stream({"x": x}).matrix().records())["low"] == 1.0


def test_rows_that_are_missing_or_come_twice_are_errors():
    x, y, _ = related(40, 0)
    state = BlockHSIC("xy", 40, block=16, full_below=0)
    state.update(np.arange(20), {"x": x[:20], "y": y[:20]}).update([25], {"x": x[25:26]})
    with pytest.raises(LensError, match="expected 40 rows at each of 2 sites; 20 did not come"):
        state.matrix()
    with pytest.raises(LensError, match="Row 3 came twice: its block was already whole"):
        state.update([3], {"x": x[3:4]})
    with pytest.raises(LensError, match="Row 25 came twice at x"):
        state.update([25], {"x": x[25:26]})
    with pytest.raises(LensError, match="Row 30 came twice at y"):
        state.update([30, 30], {"y": y[:2]})
    with pytest.raises(LensError, match="Rows 0 to 15 came twice: both shards hold them"):
        state + state
    with pytest.raises(LensError, match="Row 17 came twice at x"):
        state + BlockHSIC("xy", 40, block=16, full_below=0).update([17], {"x": x[:1]})
    with pytest.raises(ValueError, match="differ in sites, rows, block or seed"):
        state + BlockHSIC("xy", 40, block=16, full_below=0, permutation_seed=1)


def test_what_does_not_fit_is_said():
    state = BlockHSIC("xy", 20)
    with pytest.raises(ValueError, match="unknown site 'z'; this state has x, y"):
        state.update([0], {"z": np.ones((1, 2))})
    with pytest.raises(ValueError, match="ranks from 0 to 19"):
        state.update([20], {"x": np.ones((1, 2))})
    with pytest.raises(ValueError, match=r"x: expected \[1, D\], found \(2, 2\)"):
        state.update([0], {"x": np.ones((2, 2))})
    with pytest.raises(ValueError, match="x: expected width 2, found 3"):
        state.update([0], {"x": np.ones((1, 2))}).update([1], {"x": np.ones((1, 3))})
    with pytest.raises(ValueError, match="each named once"):
        BlockHSIC(["x", "x"], 20)
    with pytest.raises(LensError, match="x: the activations hold NaN"):
        BlockHSIC("x", 5).update(np.arange(5), {"x": np.array([[1.0], [2], [np.inf], [3], [4]])})
