"""Attention statistics: closed forms, scipy, laws, and padding that changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from tunescope.errors import LensError
from tunescope.lenses.attention.statistics import Visible, divergences, mass_on, statistics


def visible(length: int, causal: bool = True, rows: int = 1, padding: int = 0) -> Visible:
    mask = torch.ones(rows, length + padding, dtype=torch.long)
    mask[:, length:] = 0
    return Visible.of(mask, causal)


def random_pattern(seen: Visible, heads: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    keys = seen.keys[:, None]
    scores = 2 * torch.randn(len(keys), heads, *keys.shape[2:], generator=generator, dtype=torch.float64)
    return torch.nan_to_num(scores.masked_fill(~keys, -torch.inf).softmax(-1))


@pytest.mark.parametrize("causal", [True, False])
def test_uniform_attention_has_entropy_one_and_gini_zero(causal):
    seen = visible(7, causal)
    pattern = seen.keys[:, None].double() / seen.counts[:, None, :, None]
    found = statistics(pattern, seen)
    for name in ("entropy", "entropy_without_sink"):
        torch.testing.assert_close(found[name], torch.ones(1, 1, dtype=torch.float64))
    torch.testing.assert_close(found["gini"], torch.zeros(1, 1, dtype=torch.float64))


def test_attention_to_one_key_has_entropy_zero_and_the_greatest_gini():
    seen = visible(5, causal=False)
    pattern = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    pattern[..., 2] = 1
    found = statistics(pattern, seen)
    assert found["entropy"].item() == 0
    assert found["sink_mass"].item() == 0
    assert found["gini"].item() == pytest.approx(1 - 1 / 5)
    assert found["distance"].item() == pytest.approx(np.mean([2, 1, 0, 1, 2]))


def test_numbers_are_scipys():
    seen = visible(9)
    before, after = random_pattern(seen, seed=1), random_pattern(seen, seed=2)
    found, apart = statistics(before, seen), divergences(before, after, seen)
    for head in range(3):
        p, r = before[0, head].numpy(), after[0, head].numpy()
        queries = range(1, 9)
        assert found["entropy"][0, head].item() == pytest.approx(
            np.mean([entropy(p[q, : q + 1]) / np.log(q + 1) for q in queries])
        )
        rest = [p[q, 1 : q + 1] / p[q, 1 : q + 1].sum() for q in range(2, 9)]
        assert found["entropy_without_sink"][0, head].item() == pytest.approx(
            np.mean([entropy(one) / np.log(len(one)) for one in rest])
        )
        assert apart["kl"][0, head].item() == pytest.approx(
            np.mean([entropy(p[q, : q + 1], r[q, : q + 1]) for q in queries])
        )
        assert apart["jensen_shannon"][0, head].item() == pytest.approx(
            np.mean([jensenshannon(p[q, : q + 1], r[q, : q + 1], 2) ** 2 for q in queries])
        )
        gini = [
            np.abs(np.subtract.outer(p[q, : q + 1], p[q, : q + 1])).sum() / (2 * (q + 1)) for q in queries
        ]
        assert found["gini"][0, head].item() == pytest.approx(np.mean(gini))


def test_padding_and_batch_mates_change_nothing():
    alone, among = visible(6), visible(6, rows=2, padding=4)
    pattern = random_pattern(alone)
    padded = torch.zeros(2, 3, 10, 10, dtype=torch.float64)
    padded[0, :, :6, :6] = pattern[0]
    padded[1] = random_pattern(visible(6, padding=4), seed=5)[0]
    padded[:, :, 6:, 0] = 1  # what softmax leaves in rows of padding must not count
    for name, value in statistics(pattern, alone).items():
        torch.testing.assert_close(statistics(padded, among)[name][0], value[0])
    other = random_pattern(alone, seed=9)
    wide = padded.clone()
    wide[0, :, :6, :6] = other[0]
    for name, value in divergences(pattern, other, alone).items():
        torch.testing.assert_close(divergences(padded, wide, among)[name][0], value[0])


def test_which_queries_are_sorted_depends_on_the_text_alone():
    short, mate = visible(20), visible(70)
    pattern = random_pattern(short)
    together = Visible.of(torch.tensor([[1] * 20 + [0] * 50, [1] * 70]), causal=True)
    wide = torch.zeros(2, 3, 70, 70, dtype=torch.float64)
    wide[0, :, :20, :20], wide[1] = pattern[0], random_pattern(mate)[0]
    wide[0, :, 20:, 0] = 1
    torch.testing.assert_close(statistics(wide, together)["gini"][0], statistics(pattern, short)["gini"][0])


def test_a_pattern_against_itself_is_zero_and_disjoint_ones_are_one():
    seen = visible(6, causal=False)
    pattern = random_pattern(seen)
    apart = divergences(pattern, pattern, seen)
    assert apart["kl"].abs().max() < 1e-12
    assert apart["jensen_shannon"].abs().max() < 1e-12
    first, second = torch.zeros(2, 1, 1, 6, 6, dtype=torch.float64)
    first[..., 0], second[..., 3] = 1, 1
    assert divergences(first, second, seen)["jensen_shannon"].item() == pytest.approx(1.0)


def test_long_texts_sort_every_sixteenth_query_and_the_mean_stays_close():
    seen = visible(200)
    pattern = random_pattern(seen, heads=2)
    rough = statistics(pattern, seen)["gini"]
    exact = [
        np.mean([
            (np.sort(row[: q + 1]) * (2 * np.arange(1, q + 2) - q - 2)).sum() / (q + 1)
            for q, row in enumerate(pattern[0, head].numpy()) if q >= 1
        ])
        for head in range(2)
    ]  # fmt: skip
    np.testing.assert_allclose(rough[0].numpy(), exact, atol=0.02)


def test_mass_on_a_region_counts_queries_that_have_a_choice():
    seen = visible(4)
    pattern = seen.keys[:, None].double() / seen.counts[:, None, :, None]
    region = torch.tensor([[True, True, False, False]])
    assert mass_on(pattern, region, seen).item() == pytest.approx(np.mean([2 / 3, 2 / 4]))


def test_texts_of_one_token_have_no_numbers_and_bad_patterns_are_refused():
    seen = visible(1)
    found = statistics(torch.ones(1, 2, 1, 1), seen)
    assert torch.isnan(found["entropy"]).all()
    with pytest.raises(LensError, match="do not sum to 1"):
        statistics(torch.full((1, 1, 3, 3), 0.5), visible(3))
    with pytest.raises(LensError, match="cannot be compared head by head"):
        divergences(torch.ones(1, 2, 3, 3), torch.ones(1, 4, 3, 3), visible(3))
