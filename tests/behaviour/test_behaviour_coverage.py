"""The intervals of mean changes hold what they promise where templates are few and cross with names."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

import tunescope.study.behaviour as stage
from tunescope.behaviour import About, Rules, Suite, Wish, measure, pair_table
from tunescope.behaviour.crossed import crossed_error
from tunescope.behaviour.estimates import Settings, mean_changes, share
from tunescope.behaviour.verdicts import judge
from tunescope.config.behaviour import BehaviourConfig
from tunescope.lenses import LensOutput
from tunescope.stats.results import Finding

DATA_SETS = 600


def effects(templates: int, names: int, strengths: tuple[float, float], seed: int = 0):
    """Draw `[templates * names, DATA_SETS]` changes of mean 0 that share a part by template and a part by name."""
    rng = np.random.default_rng(seed)
    template, name = np.repeat(np.arange(templates), names), np.tile(np.arange(names), templates)
    values = (
        strengths[0] * rng.normal(size=(templates, DATA_SETS))[template]
        + strengths[1] * rng.normal(size=(names, DATA_SETS))[name]
        + rng.normal(size=(templates * names, DATA_SETS))
    )
    return values, {"template": template, "name": name}


@pytest.mark.parametrize("strengths", [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (1.0, 0.5)])
def test_eleven_templates_by_twenty_names_cover(strengths):
    values, clusters = effects(11, 20, strengths)
    found = mean_changes(values, clusters, Settings(resamples=200, permutations=99))
    covered = np.mean([one.interval.low <= 0 <= one.interval.high for one in found])
    assert 0.93 <= covered <= 0.99
    called = np.mean([one.p <= 0.05 for one in found])
    assert called <= 0.07
    assert "degrees of freedom" in found[0].interval.method


@pytest.mark.parametrize("templates", [5, 11])
def test_few_templates_alone_cover_and_say_that_they_are_few(templates):
    values, clusters = effects(templates, 12, (1.0, 0.0))
    alone = {"template": clusters["template"]}
    found = mean_changes(values, alone, Settings(resamples=200, permutations=99))
    assert np.mean([one.interval.low <= 0 <= one.interval.high for one in found]) >= 0.93
    assert found[0].interval.note == (
        f"only {templates} groups by template: the interval covers about 90 % instead of 95 % where groups are skewed"
    )


def test_many_groups_of_one_kind_stay_with_the_bootstrap():
    values = np.random.default_rng(0).normal(size=(200, 1))
    (one,) = mean_changes(values, {"text": np.arange(200)}, Settings(resamples=200, permutations=99))
    assert one.interval.method.startswith("percentile bootstrap")


def test_the_crossed_error_is_the_textbook_sum():
    values, clusters = effects(6, 5, (1.0, 1.0), seed=3)
    residual = values[:, 0] - values[:, 0].mean()
    n = len(residual)
    by_hand = 0.0
    for groups, units in ((clusters["template"], 6), (clusters["name"], 5)):
        by_hand += sum(residual[groups == g].sum() ** 2 for g in range(units)) * units / (units - 1)
    by_hand -= (residual**2).sum() * n / (n - 1)  # template by name: every pair is a group of its own
    error, freedom = crossed_error(values[:, :1], clusters)
    assert error[0] == pytest.approx(np.sqrt(by_hand) / n)
    assert freedom == 4
    once, _ = crossed_error(values[:, :1], {"pair": np.arange(n)})
    assert once[0] == pytest.approx(values[:, 0].std(ddof=1) / np.sqrt(n))


def test_shares_of_crossed_groups_cover_and_are_wider_than_by_one_grouping():
    values, clusters = effects(11, 20, (0.7, 0.7))
    scale = np.sqrt(1 + 2 * 0.49)
    truth = 0.25
    hits = values / scale > 0.6744897501960817
    intervals = [share(hits[:, k], clusters) for k in range(DATA_SETS)]
    assert np.mean([one.low <= truth <= one.high for one in intervals]) >= 0.93
    single = [share(hits[:, k], {"template": clusters["template"]}) for k in range(DATA_SETS)]
    assert np.mean([one.high - one.low for one in intervals]) > np.mean(
        [one.high - one.low for one in single]
    )


@pytest.mark.parametrize(("groups", "verdict"), [(5, "inconclusive"), (6, "equivalent"), (30, "equivalent")])
def test_fewer_than_six_groups_are_never_called_equivalent(groups, verdict):
    values = np.random.default_rng(0).normal(0.0, 0.001, size=(groups, 1))
    (one,) = mean_changes(values, {"pair": np.arange(groups)}, Settings(resamples=400, permutations=499))
    assert one.equivalent_p <= 0.05
    assert judge(one, {}, 0.1).verdict == verdict


def test_what_all_pairs_share_groups_nothing_and_is_said():
    records = [
        {
            "original": f"a {index}",
            "rewritten": f"b {index}",
            "template": "x feels y",
            "text": str(index // 2),
        }
        for index in range(8)
    ]
    suite = Suite("mine", "invariance", "", pair_table(records))
    assert set(suite.cluster_columns()) == {"text"}
    found = measure(
        Wish([suite], ["p", "n"], Rules(Settings(resamples=200)), About("arm", None, "pairs")),
        lambda texts: np.array([[float(text[0] == "a"), float(text[-1])] for text in texts]),
    )
    assert "mine: all pairs share one template: intervals speak for it alone" in found.notes
    assert "mine: all pairs share one text: intervals speak for it alone" not in found.notes


def test_findings_of_several_seeds_say_which(monkeypatch):
    finding = Finding(
        lens="behaviour", arm="a", sentence="gender: equivalent.", metric="m", value=0.0, low=0.0, high=0.0, n=9,
        test=None, control=None, rows="rows", verdict="equivalent",
    )  # fmt: skip
    output = LensOutput("behaviour", pl.DataFrame(), None, [finding], {})
    monkeypatch.setattr(stage, "suites_of", lambda *_: [])
    monkeypatch.setattr(stage, "_material", lambda *_: None)
    monkeypatch.setattr(stage, "behaviour_of", lambda *_: (output, None))
    section = BehaviourConfig.model_validate({"suites": ["gender"]})
    for seeds, said in (([0], "gender: equivalent."), ([0, 1], "Seed 1: gender: equivalent.")):
        context = SimpleNamespace(study=SimpleNamespace(behaviour=section, seeds=seeds), progress=None)
        found, _ = stage.look_at_behaviour(context, SimpleNamespace(seed=seeds[-1]))
        assert [one.sentence for one in found.findings] == [said]
