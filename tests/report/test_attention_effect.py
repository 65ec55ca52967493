"""Attention against ablation: rankings that agree, disagree or have nothing to do with one another."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from tunescope.report.attention_effect import agreement, figure, sentence
from tunescope.stats.results import result_table


def tables(moved, effect, metric="kl"):
    heads = [(index // 4, index % 4) for index in range(len(moved))]
    attention = result_table([
        {"arm": "a", "seed": 0, "model": "base_tuned", "layer": layer, "head": head, "metric": metric,
         "value": value}
        for (layer, head), value in zip(heads, moved, strict=True)
    ])  # fmt: skip
    ablation = result_table([
        {"arm": "a", "seed": 0, "model": model, "site": "head_out", "layer": layer, "head": head, "edit": edit,
         "control": "none", "metric": "margin_change", "value": value if (model, edit) == ("tuned", "mean") else 9.0}
        for (layer, head), value in zip(heads, effect, strict=True)
        for model in ("base", "tuned") for edit in ("zero", "mean")
    ])  # fmt: skip
    return attention, ablation.sample(fraction=1, shuffle=True, seed=1)


def test_the_correlation_is_scipys_with_the_size_of_the_effect_head_by_head():
    generator = np.random.default_rng(0)
    moved, effect = generator.random(24), generator.normal(size=24)
    found = agreement(*tables(moved, effect))
    assert found.value == pytest.approx(spearmanr(moved, np.abs(effect)).statistic)
    assert found.low < found.value < found.high
    assert found.heads.height == 24
    other = agreement(*tables(moved, effect, "jensen_shannon"), metric="jensen_shannon")
    assert other.value == found.value
    assert agreement(*tables(moved, effect, "jensen_shannon")) is None  # by KL, which is not there


@pytest.mark.parametrize(
    ("sign", "said"), [(1, "tend to matter more"), (-1, "tend to matter less"), (0, "does not tell")]
)
def test_the_sentence_follows_the_interval(sign, said):
    generator = np.random.default_rng(1)
    moved = generator.random(40)
    effect = -(2 + sign * moved + 0.2 * generator.normal(size=40))  # taking a head out hurts: below 0
    found = agreement(*tables(moved, effect))
    assert said in sentence(found)
    assert "bootstrap over heads" in sentence(found)
    shown = figure([found], "key", "#000000")
    assert [panel.title for panel in shown.panels] == ["KL"]
    assert len(shown.panels[0].figure["data"][0]["x"]) == 40
    assert "does not tell" in shown.caption or "tend to matter" in shown.caption


def test_nothing_is_said_of_too_few_heads_or_of_attention_that_did_not_move():
    assert agreement(*tables(np.arange(7.0), np.arange(7.0))) is None
    assert agreement(*tables(np.zeros(24), np.arange(24.0))) is None
    attention, ablation = tables(np.arange(24.0), np.arange(24.0))
    assert agreement(attention, ablation.filter(pl.col("site") == "attn_out")) is None
