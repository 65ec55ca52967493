"""Comparison of arms: known differences, planted truths, published figures, and what may be said."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from scipy import stats
from sklearn import metrics
from statsmodels.stats.proportion import confint_proportions_2indep, proportions_ztest

from tunescope.errors import DataError
from tunescope.evaluation.comparison import METRICS, ComparisonOptions, compare_arms, compare_published
from tunescope.evaluation.comparison.inputs import Run, align
from tunescope.evaluation.comparison.published import newcombe, two_shares_p
from tunescope.evaluation.comparison.swaps import score_swap_p, swap_p
from tunescope.stats.intervals import wilson
from tunescope.stats.paired import bootstrap_p, tango
from tunescope.stats.tests import holm, mcnemar_exact

NAMES = ("negative", "positive")


def frame(truth, guesses, names=NAMES, strength=2.0, split="test"):
    """Predictions of a model that is about as sure of every row."""
    truth, guesses = np.asarray(truth), np.asarray(guesses)
    logits = np.random.default_rng(len(truth)).normal(0, 0.1, (len(truth), len(names)))
    logits[np.arange(len(truth)), guesses] += strength
    return pl.DataFrame(
        {
            "row_id": [f"r{i:05d}" for i in range(len(truth))], "split": split, "label": truth,
            "prediction": guesses, **{f"logit_{name}": logits[:, i] for i, name in enumerate(names)},
        }
    )  # fmt: skip


def with_errors(truth, wrong):
    guesses = np.array(truth)
    guesses[wrong] = 1 - guesses[wrong]
    return guesses


def pair_of(n, only_first, only_second, neither=10):
    """Two arms with given counts of discordant rows."""
    truth = np.arange(n) % 2
    wrong_first = np.r_[np.arange(only_second), np.arange(n - neither, n)]
    wrong_second = np.r_[np.arange(only_second, only_second + only_first), np.arange(n - neither, n)]
    return {
        ("one", 0): frame(truth, with_errors(truth, wrong_first)),
        ("other", 0): frame(truth, with_errors(truth, wrong_second)),
    }


def test_one_seed_each_gives_the_exact_test_and_its_interval():
    found = compare_arms(pair_of(400, 30, 12), NAMES)
    (pair,) = found["pairs"]
    assert pair["mcnemar"] == [
        {"seed": 0, "only_first": 30, "only_second": 12, "n": 400, "p": mcnemar_exact(30, 12)}
    ]
    assert pair["p"] == pair["q"] == mcnemar_exact(30, 12)
    assert (pair["low"], pair["high"]) == (tango(30, 12, 400).low, tango(30, 12, 400).high)
    assert (pair["verdict"], pair["better"]) == ("found", "one")
    assert [arm["value"] for arm in found["arms"]] == [pytest.approx(378 / 400), pytest.approx(360 / 400)]
    assert found["arms"][0]["low"] == wilson(378, 400).low
    assert pair["sentence"].startswith(
        "As trained here, one is better than other: one minus other is 0.045 [0.014, 0.079] in accuracy"
    )
    assert found["ranking"] == (
        "Ranking by accuracy on test, every step decided: one > other. One seed each: this is about these trained "
        "models; of the methods nothing is decided before several seeds."
    )


def test_one_training_each_says_nothing_of_the_methods():
    found = compare_arms(
        pair_of(400, 60, 2), NAMES, baselines={"zeros": frame(np.arange(400) % 2, np.zeros(400, int))}
    )
    (pair,), (against, _) = found["pairs"], found["against_baselines"]
    assert (pair["scope"], pair["verdict"], pair["better"]) == ("checkpoints", "found", "one")
    assert pair["methods"] == {"verdict": "undecided", "better": None, "because": "one seed each"}
    assert pair["sentence"].endswith(
        "This is about these two trained models, on other rows; whether the methods differ is undecided (one seed "
        "each) and needs several seeds of each."
    )
    assert (against["scope"], against["better"]) == ("checkpoints", "one")
    assert against["methods"] == {"verdict": "undecided", "better": None, "because": "one seed"}
    assert "what the method does with other seeds is undecided (one seed)" in against["sentence"]


def test_one_training_against_several_is_about_the_trainings():
    generator = np.random.default_rng(2)
    truth = generator.integers(0, 2, 500)
    arms = {**seeds_of("a", [0.9, 0.9], truth, generator), **seeds_of("b", [0.3], truth, generator)}
    (pair,) = compare_arms(arms, NAMES)["pairs"]
    assert (pair["scope"], pair["better"]) == ("checkpoints", "a")
    assert pair["methods"] == {"verdict": "undecided", "better": None, "because": "one seed of b"}
    assert "This is about these very trainings" in pair["sentence"]


def test_what_is_not_decided_is_not_ranked_and_the_missed_difference_is_said():
    found = compare_arms(pair_of(400, 12, 9), NAMES)
    (pair,) = found["pairs"]
    assert (pair["verdict"], pair["better"]) == ("undecided", None)
    assert pair["sentence"].startswith("Whether one or other is better cannot be said")
    assert "Nor are they shown to be equivalent within ±0.01." in pair["sentence"]
    assert (
        f"A true difference of {pair['detectable']['value']:.3f} would be found here in 80% of cases"
        in pair["sentence"]
    )
    assert found["ranking"] == (
        "No ranking can be drawn by accuracy on test: the one comparison does not show a difference."
    )


def test_equivalence_is_a_verdict_of_its_own():
    found = compare_arms(pair_of(4000, 20, 21), NAMES, ComparisonOptions(equivalent_within=0.01))
    assert found["pairs"][0]["verdict"] == "equivalent"
    assert found["pairs"][0]["methods"]["verdict"] == "undecided"
    start = "As trained here, one and other are equivalent within ±0.01 of accuracy"
    assert found["pairs"][0]["sentence"].startswith(start)
    start = "No ranking by accuracy on test: both arms are equivalent within ±0.01. One seed each"
    assert found["ranking"].startswith(start)
    narrow = compare_arms(pair_of(4000, 20, 21), NAMES, ComparisonOptions(equivalent_within=0.002))
    assert narrow["pairs"][0]["verdict"] == "undecided"


def test_p_values_of_all_pairs_are_corrected_together_by_either_method():
    truth = np.arange(500) % 2
    arms = {
        (f"arm{k}", 0): frame(truth, with_errors(truth, np.arange(k, 500, 13 - k))) for k in range(5)
    }  # fmt: skip
    found = compare_arms(arms, NAMES)
    p = [pair["p"] for pair in found["pairs"]]
    assert len(p) == 10
    np.testing.assert_allclose([pair["q"] for pair in found["pairs"]], holm(p))
    other = compare_arms(arms, NAMES, ComparisonOptions(correction="bh"))
    assert all(b["q"] <= a["q"] + 1e-12 for a, b in zip(found["pairs"], other["pairs"], strict=True))
    assert any(b["q"] < a["q"] for a, b in zip(found["pairs"], other["pairs"], strict=True))
    assert "Holm over 10 comparisons" in found["pairs"][0]["sentence"]
    assert "Benjamini-Hochberg over 10 comparisons" in other["pairs"][0]["sentence"]


def noisy(truth, share, generator, classes=2):
    return np.where(generator.random(len(truth)) < share, truth, generator.integers(0, classes, len(truth)))


@pytest.mark.parametrize(
    "metric", ["f1_macro", "balanced_accuracy", "matthews_corrcoef", "roc_auc_ovr", "log_loss"]
)
def test_any_metric_is_scikit_learns_and_its_difference_is_that_of_a_plain_bootstrap(metric):
    generator = np.random.default_rng(5)
    truth = (generator.random(300) < 0.3).astype(int)
    tables = {
        (name, 0): frame(truth, noisy(truth, share, generator), strength=1.5)
        for name, share in (("good", 0.9), ("fair", 0.6))
    }
    found = compare_arms(tables, NAMES, ComparisonOptions(metric=metric, resamples=1500))

    def measure(table, rows):
        logits = table.select("logit_negative", "logit_positive").to_numpy()[rows]
        chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        own, guesses = truth[rows], logits.argmax(axis=1)
        return {
            "f1_macro": lambda: metrics.f1_score(own, guesses, average="macro"),
            "balanced_accuracy": lambda: metrics.balanced_accuracy_score(own, guesses),
            "matthews_corrcoef": lambda: metrics.matthews_corrcoef(own, guesses),
            "roc_auc_ovr": lambda: metrics.roc_auc_score(own, chances[:, 1]),
            "log_loss": lambda: metrics.log_loss(own, chances),
        }[metric]()

    every = np.arange(300)
    for arm, table in zip(found["arms"], tables.values(), strict=True):
        assert arm["value"] == pytest.approx(measure(table, every), abs=1e-7)
    one, other = tables.values()
    gaps = []
    for _ in range(300):
        rows = generator.integers(0, 300, 300)
        gaps.append(measure(one, rows) - measure(other, rows))
    (pair,) = found["pairs"]
    assert pair["value"] == pytest.approx(measure(one, every) - measure(other, every), abs=1e-7)
    half = (pair["high"] - pair["low"]) / 2
    assert [pair["low"], pair["high"]] == pytest.approx(np.quantile(gaps, [0.025, 0.975]), abs=0.3 * half)
    assert pair["better"] == "good"


def test_arms_that_do_not_clear_the_majority_are_marked_and_not_ranked():
    generator = np.random.default_rng(0)
    truth = (generator.random(600) < 0.3).astype(int)
    tables = {
        ("good", 0): frame(truth, noisy(truth, 0.9, generator)),
        ("lazy", 0): frame(truth, np.zeros(600, dtype=int)),
        ("wild", 0): frame(truth, generator.integers(0, 2, 600)),
    }
    found = compare_arms(tables, NAMES, baselines={"majority": frame(truth, np.zeros(600, dtype=int))})
    assert [arm["learned"] for arm in found["arms"]] == [True, False, False]
    verdicts = {(pair["first"], pair["second"]): pair["verdict"] for pair in found["pairs"]}
    assert verdicts == {
        ("good", "lazy"): "found",
        ("good", "wild"): "found",
        ("lazy", "wild"): "task not learned",
    }
    sentences = {(pair["first"], pair["second"]): pair["sentence"] for pair in found["pairs"]}
    assert sentences["lazy", "wild"].startswith("Neither lazy nor wild has learned the task")
    assert "lazy has not learned the task." in sentences["good", "lazy"]
    against = {pair["first"]: pair["verdict"] for pair in found["against_baselines"]}
    assert against == {"good": "found", "lazy": "task not learned", "wild": "task not learned"}
    assert "Task not learned: lazy and wild. One seed each" in found["ranking"]
    assert found["majority"]["class"] == "negative"


def seeds_of(arm, shares, truth, generator):
    return {(arm, seed): frame(truth, noisy(truth, share, generator)) for seed, share in enumerate(shares)}


def test_three_seeds_show_their_spread_and_speak_for_other_seeds_as_five_do():
    generator = np.random.default_rng(2)
    truth = generator.integers(0, 2, 500)
    three = compare_arms(
        {
            **seeds_of("a", [0.9, 0.8, 0.85], truth, generator),
            **seeds_of("b", [0.5, 0.6, 0.55], truth, generator),
        },
        NAMES,
    )
    assert three["arms"][0]["spread"]["standard_deviation"] > 0
    assert three["arms"][0]["value"] == pytest.approx(
        np.mean([s["value"] for s in three["arms"][0]["seeds"]])
    )
    assert (three["pairs"][0]["scope"], three["pairs"][0]["better"]) == ("rows and seeds", "a")
    assert three["pairs"][0]["methods"] == {"verdict": "found", "better": "a", "because": None}
    assert three["pairs"][0]["method"].startswith("Multi-bootstrap over 3 seeds (Student's t)")
    assert len(three["pairs"][0]["mcnemar"]) == 3
    five = compare_arms(
        {**seeds_of("a", [0.9] * 5, truth, generator), **seeds_of("b", [0.5] * 5, truth, generator)},
        NAMES,
        baselines={"tfidf": frame(truth, noisy(truth, 0.6, generator))},
    )
    assert five["pairs"][0]["scope"] == "rows and seeds"
    assert five["pairs"][0]["method"].startswith("Multi-bootstrap over 5 seeds")
    assert five["pairs"][0]["sentence"].endswith(
        "This is about the methods: it holds for other rows and for other seeds."
    )
    assert "seed" not in five["ranking"]
    assert five["pairs"][0]["better"] == "a"
    assert five["pairs"][0]["value"] == pytest.approx(five["arms"][0]["value"] - five["arms"][1]["value"])
    against = five["against_baselines"][0]
    assert (against["scope"], against["better"]) == ("rows and seeds", "a")
    assert against["value"] == pytest.approx(five["arms"][0]["value"] - five["baselines"][0]["value"])


def test_seeds_that_disagree_widen_the_interval_and_undo_the_finding():
    generator = np.random.default_rng(4)
    truth = generator.integers(0, 2, 2000)
    steady = {**seeds_of("a", [0.84] * 5, truth, generator), **seeds_of("b", [0.78] * 5, truth, generator)}
    unsteady = {
        **seeds_of("a", [0.99, 0.65, 0.95, 0.70, 0.91], truth, generator), **seeds_of("b", [0.78] * 5, truth, generator)
    }  # fmt: skip
    (firm,), (loose,) = (compare_arms(arms, NAMES)["pairs"] for arms in (steady, unsteady))
    assert firm["verdict"] == "found"
    assert loose["verdict"] == "undecided"
    assert loose["high"] - loose["low"] > 3 * (firm["high"] - firm["low"])


def test_few_seeds_that_agree_only_by_chance_are_no_finding():
    """Differences of three seeds that lie close together: the t interval of them alone is far too narrow."""
    truth = np.arange(400) % 2
    wrong = [(12, 17), (12, 18), (13, 18)]  # of a and of b, seed by seed; the same few rows each time
    arms = {}
    for seed, counts in enumerate(wrong):
        for arm, count, start in zip("ab", counts, (0, 200), strict=True):
            arms[arm, seed] = frame(truth, with_errors(truth, start + np.arange(count)))
    (pair,) = compare_arms(arms, NAMES)["pairs"]
    gaps = np.array([(b - a) / 400 for a, b in wrong])
    half = stats.t.ppf(0.975, 2) * gaps.std(ddof=1) / np.sqrt(3)
    assert gaps.mean() - half > 0
    assert pair["low"] < 0 < pair["value"] < pair["high"]
    assert pair["verdict"] == "undecided"


def test_what_three_seeds_could_see_follows_from_their_interval():
    """Student's t of two degrees of freedom has no standard deviation, so that of its draws would be any number."""
    generator = np.random.default_rng(3)
    truth = generator.integers(0, 2, 600)
    arms = {
        **seeds_of("a", [0.7, 0.8, 0.75], truth, generator),
        **seeds_of("b", [0.7, 0.8, 0.75], truth, generator),
    }
    (pair,) = compare_arms(arms, NAMES)["pairs"]
    error = (pair["high"] - pair["low"]) / (2 * stats.norm.ppf(0.975))
    assert pair["detectable"]["value"] == pytest.approx(error * stats.norm.ppf([0.975, 0.8]).sum())


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro"])
def test_exchanged_answers_are_the_exact_test(metric):
    """Five rows for one model and none for the other: .06 by the exact test, where the bootstrap says about .01."""
    tables = pair_of(400, 5, 0)
    (pair,) = compare_arms(tables, NAMES, ComparisonOptions(metric=metric, resamples=4000))["pairs"]
    assert pair["p"] == pytest.approx(2 * 0.5**5, abs=0.012)
    assert pair["verdict"] == "undecided"
    rows = align(tables, NAMES, "test")
    one, other = Run("one", 0), Run("other", 0)
    draws = rows.draws(metric, 4000, 0).drawn
    assert bootstrap_p(draws[one] - draws[other]) < 0.03
    exact = swap_p(
        align(pair_of(400, 14, 4), NAMES, "test"), "accuracy", (one, other), resamples=20_000, seed=0
    )
    assert exact == pytest.approx(mcnemar_exact(14, 4), abs=0.005)


@pytest.mark.parametrize("metric", ["log_loss", "brier_score_loss"])
def test_a_loss_that_few_rows_carry_is_no_finding(metric):
    """Five rows lose much in one model and none in the other: again 2 / 2^5, whatever the bootstrap says."""
    one, other = pair_of(400, 5, 0).values()
    logits = pl.col("logit_negative", "logit_positive")
    same = other.with_columns(logits).join(one.select("row_id", hit=pl.col("prediction")), on="row_id")
    agree = pl.col("prediction") == pl.col("hit")
    kept = one.select("row_id", own_n="logit_negative", own_p="logit_positive")
    mixed = same.join(kept, on="row_id").with_columns(
        logit_negative=pl.when(agree).then("own_n").otherwise("logit_negative"),
        logit_positive=pl.when(agree).then("own_p").otherwise("logit_positive"),
    )
    tables = {("one", 0): one, ("other", 0): mixed.select(one.columns)}
    (pair,) = compare_arms(tables, NAMES, ComparisonOptions(metric=metric, resamples=4000))["pairs"]
    assert pair["p"] == pytest.approx(2 * 0.5**5, abs=0.012)
    assert pair["verdict"] == "undecided"


def test_whole_groups_are_exchanged():
    tables = pair_of(400, 40, 0)
    single = {f"r{i:05d}": i for i in range(400)}
    paired = {row: max(i - i % 10, 0) for row, i in single.items()}  # the 40 rows are 4 groups of 10
    (pair,) = compare_arms(tables, NAMES, groups=paired)["pairs"]
    assert pair["p"] == pytest.approx(2 * 0.5**4, abs=0.02)
    (alone,) = compare_arms(tables, NAMES, groups=single)["pairs"]
    assert alone["p"] < 0.001


def test_exchangeable_models_are_called_different_in_at_most_5_percent():
    """The null hypothesis is exactly true where every row's two answers are dealt by chance."""
    pair, called = (Run("a", 0), Run("b", 0)), []
    for repetition in range(150):
        generator = np.random.default_rng([4, repetition])
        truth = generator.integers(0, 2, 200)
        answers = np.stack([truth, noisy(truth, 0.92, generator)])
        order = generator.random(200) < 0.5
        dealt = [np.where(order, *answers), np.where(order, *answers[::-1])]
        rows = align({run: frame(truth, own) for run, own in zip(pair, dealt, strict=True)}, NAMES, "test")
        called.append(swap_p(rows, "f1_macro", pair, resamples=400, seed=repetition) <= 0.05)
    assert np.mean(called) <= 0.08


def test_rows_that_share_a_group_are_resampled_together():
    truth = np.tile([0, 1], 20)
    arms = pair_of(40, 8, 0, neither=2)
    copies = {
        key: pl.concat([t.with_columns(pl.col("row_id") + f"-{i}") for i in range(12)])
        for key, t in arms.items()
    }
    groups = {row: row.split("-")[0] for row in next(iter(copies.values()))["row_id"]}
    naive = compare_arms(copies, NAMES)["pairs"][0]
    clustered = compare_arms(copies, NAMES, groups=groups)
    assert clustered["groups"] == 40 == len(truth)
    pair = clustered["pairs"][0]
    assert pair["value"] == pytest.approx(naive["value"])
    assert pair["high"] - pair["low"] > 2.5 * (naive["high"] - naive["low"])
    with pytest.raises(DataError, match="have no group"):
        compare_arms(copies, NAMES, groups={})


def test_equal_predictions_are_no_difference_and_no_proof_of_equivalence():
    truth = np.arange(40) % 2
    same = frame(truth, with_errors(truth, np.arange(4)))
    found = compare_arms({("a", 0): same, ("b", 0): same}, NAMES)["pairs"][0]
    assert (found["p"], found["verdict"]) == (1.0, "undecided")
    score = compare_arms({("a", 0): same, ("b", 0): same}, NAMES, ComparisonOptions(metric="f1_macro"))[
        "pairs"
    ][0]
    assert (score["p"], score["verdict"], score["note"]) == (
        1.0,
        "undecided",
        "the two never differ on these rows",
    )


def test_order_of_rows_does_not_matter_and_other_rows_are_refused():
    arms = pair_of(100, 9, 3)
    shuffled = {key: table.sample(fraction=1.0, shuffle=True, seed=1) for key, table in arms.items()}
    assert compare_arms(shuffled, NAMES) == compare_arms(arms, NAMES)
    arms["other", 0] = arms["other", 0].head(90)
    with pytest.raises(
        DataError, match=r"other \(seed 0\) and one \(seed 0\) do not predict the same test rows: 10 "
    ):
        compare_arms(arms, NAMES)


@pytest.mark.parametrize("seeds", [1, 5])
def test_a_metric_that_rows_of_one_class_do_not_define_is_said_to_be_undefined(seeds):
    truth = np.zeros(60, dtype=int)
    generator = np.random.default_rng(0)
    arms = {(arm, s): frame(truth, generator.integers(0, 2, 60)) for arm in "ab" for s in range(seeds)}
    found = compare_arms(arms, NAMES, ComparisonOptions(metric="roc_auc_ovr"))
    assert found["arms"][0]["value"] is None
    assert "undefined for these rows" in found["arms"][0]["note"]
    pair = found["pairs"][0]
    assert (pair["value"], pair["p"], pair["q"]) == (None, None, None)
    assert "cannot be compared by roc_auc_ovr" in pair["sentence"] or pair["verdict"] == "task not learned"
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("metric", METRICS)
def test_a_comparison_by_any_metric_can_be_written_as_json(metric):
    generator = np.random.default_rng(1)
    truth = generator.integers(0, 2, 80)
    arms = {(arm, s): frame(truth, noisy(truth, 0.8, generator)) for arm in "ab" for s in range(2)}
    options = ComparisonOptions(metric=metric, resamples=200)
    found = compare_arms(arms, NAMES, options, baselines={"majority": frame(truth, np.zeros(80, dtype=int))})
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["pairs"][0]["low"] <= found["pairs"][0]["value"] <= found["pairs"][0]["high"]


def test_wrong_inputs_are_named():
    arms = pair_of(100, 9, 3)
    with pytest.raises(DataError, match="unknown metric 'acc'; did you mean 'accuracy'"):
        compare_arms(arms, NAMES, ComparisonOptions(metric="acc"))
    with pytest.raises(DataError, match="has no labelled validation rows"):
        compare_arms(arms, NAMES, ComparisonOptions(split="validation"))
    with pytest.raises(DataError, match="there are none"):
        compare_arms({}, NAMES)
    flipped = arms["other", 0].with_columns((1 - pl.col("label")).alias("label"))
    with pytest.raises(DataError, match="do not have the same labels"):
        compare_arms({**arms, ("other", 0): flipped}, NAMES)
    one = compare_arms({("one", 0): arms["one", 0]}, NAMES)
    assert one["ranking"] == "There is one arm, and nothing to rank."
    assert one["pairs"] == []


def test_the_published_sst2_figures_cannot_decide():
    found = compare_published({"LoRA": 809, "full": 796}, 872)
    first, second = found["arms"]
    assert [round(first[k], 3) for k in ("value", "low", "high")] == [0.928, 0.909, 0.943]
    assert [round(second[k], 3) for k in ("value", "low", "high")] == [0.913, 0.892, 0.930]
    assert found["decided"] is None
    assert found["paired"]["least_p"] == pytest.approx(2 * 0.5**13)
    assert found["paired"]["greatest_p"] == pytest.approx(mcnemar_exact(76, 63))
    assert (found["paired"]["least_discordant"], found["paired"]["most_discordant"]) == (13, 139)
    assert found["detectable"]["value"] == pytest.approx(0.0365, abs=0.0005)
    assert found["p"] > 0.05
    assert found["sentence"].endswith(
        "the published figures cannot decide which is better; only the predictions row by row could."
    )


def test_of_study_003_no_ranking_can_be_drawn():
    found = compare_published({"nanoGPT": 15, "GPT-2": 12}, 30)
    assert [round(100 * found["arms"][0][k]) for k in ("value", "low", "high")] == [50, 33, 67]
    assert [round(100 * found["arms"][1][k]) for k in ("value", "low", "high")] == [40, 25, 58]
    assert found["p"] == pytest.approx(0.44, abs=0.005)
    assert found["decided"] is False
    assert found["paired"]["least_p"] == 0.25
    assert found["sentence"].endswith("so no ranking can be drawn.")


def test_figures_far_apart_decide_even_unseen_and_equal_ones_never():
    assert compare_published({"a": 860, "b": 600}, 872)["decided"] is True
    assert "equal, so no ranking" in compare_published({"a": 10, "b": 10}, 30)["sentence"]
    with pytest.raises(DataError, match="two names"):
        compare_published({"a": 1}, 3)
    with pytest.raises(DataError, match="from 0 to n"):
        compare_published({"a": 4, "b": 1}, 3)


@pytest.mark.parametrize(("a", "b", "n"), [(809, 796, 872), (15, 12, 30), (5, 0, 9)])
def test_unpaired_interval_and_test_are_those_of_statsmodels(a, b, n):
    theirs = confint_proportions_2indep(a, n, b, n, method="newcomb", compare="diff")
    assert newcombe(a, n, b, n) == pytest.approx(theirs, abs=1e-9)
    assert two_shares_p(a, n, b, n) == pytest.approx(proportions_ztest([a, b], [n, n])[1], rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("metric", "seeds"), [("accuracy", 1), ("f1_macro", 1), ("accuracy", 5)])
def test_equal_arms_are_called_different_in_at_most_about_5_percent_of_studies(metric, seeds):
    """Three arms of equal quality: the chance that any of three comparisons is called, corrected by Holm."""
    repetitions, called = 300, 0
    options = ComparisonOptions(metric=metric, resamples=500)
    for repetition in range(repetitions):
        generator = np.random.default_rng([11, repetition])
        truth = generator.integers(0, 2, 400)
        hard = generator.beta(6, 1, 400)  # some rows are hard for all arms, which makes them agree
        arms = {
            (arm, seed): frame(truth, np.where(generator.random(400) < hard, truth, 1 - truth))
            for arm in "abc"
            for seed in range(seeds)
        }
        found = compare_arms(arms, NAMES, options)
        called += any(pair["verdict"] == "found" for pair in found["pairs"])
    assert called / repetitions < 0.08


@pytest.mark.parametrize("arms", [2, 10, 25])
def test_enough_resamples_are_drawn_for_a_p_to_survive_its_correction(arms):
    from tunescope.evaluation.comparison.arms import _resolved

    resamples = _resolved(ComparisonOptions(), arms, 5).resamples
    assert resamples >= 2000
    assert 2 / (resamples + 1) * max(arms * (arms - 1) / 2, 5 * arms) < 0.026
    assert _resolved(ComparisonOptions(resamples=50), arms, 5).resamples == 50


def scored(generator, truth, strength, shared, scale):
    """Predictions whose margin separates the classes by ``strength``; ``shared`` noise makes two models agree."""
    noise = 0.6 * shared + 0.8 * generator.normal(size=len(truth))
    margins = scale * (np.where(truth == 1, strength, -strength) + noise)
    return pl.DataFrame(
        {
            "row_id": [f"r{i:05d}" for i in range(len(truth))], "split": "test", "label": truth,
            "prediction": (margins > 0).astype(int), "logit_negative": np.zeros(len(truth)), "logit_positive": margins,
        }
    )  # fmt: skip


@pytest.mark.parametrize("metric", ["roc_auc_ovr", "average_precision_macro"])
def test_areas_of_equal_models_on_other_scales_are_called_different_in_about_5_percent(metric):
    """Equal in truth, one model's logits twenty times the other's: ranks are exchanged, so that scale says nothing."""
    pair, called = (Run("a", 0), Run("b", 0)), []
    for repetition in range(150):
        generator = np.random.default_rng([6, repetition])
        truth = (generator.random(60) < 0.3).astype(int)
        shared = generator.normal(size=60)
        tables = {
            run: scored(generator, truth, 0.7, shared, by) for run, by in zip(pair, (1, 20), strict=True)
        }
        rows = align(tables, NAMES, "test")
        called.append(score_swap_p(rows, metric, pair, resamples=199, seed=repetition) <= 0.05)
    assert 0.015 <= np.mean(called) <= 0.09


@pytest.mark.parametrize("metric", ["roc_auc_ovr", "average_precision_macro"])
def test_an_area_that_is_better_is_found_and_its_p_is_that_of_plain_exchanges(metric):
    generator = np.random.default_rng(8)
    truth = (generator.random(150) < 0.4).astype(int)
    shared = generator.normal(size=150)
    tables = {
        ("good", 0): scored(generator, truth, 1.4, shared, 3.0), ("poor", 0): scored(generator, truth, 0.5, shared, 1.0)
    }  # fmt: skip
    (found,) = compare_arms(tables, NAMES, ComparisonOptions(metric=metric, resamples=2000))["pairs"]
    assert (found["better"], found["test"]) == (
        "good",
        "ranks exchanged between the two models, rows, 2000 times",
    )
    assert found["p"] == pytest.approx(1 / 2001)
    close = {**tables, ("good", 0): scored(generator, truth, 0.7, shared, 3.0)}
    (open_,) = compare_arms(close, NAMES, ComparisonOptions(metric=metric, resamples=2000))["pairs"]
    ranks = [stats.rankdata(table["logit_positive"].to_numpy()) for table in close.values()]

    def value(score):
        if metric == "roc_auc_ovr":
            return metrics.roc_auc_score(truth, score)
        each = [metrics.average_precision_score(truth == c, score * (2 * c - 1)) for c in (0, 1)]
        return float(np.mean(each))

    seen, far = abs(value(ranks[0]) - value(ranks[1])), 0
    for _ in range(200):
        kept = generator.random(150) < 0.5
        far += abs(value(np.where(kept, *ranks)) - value(np.where(kept, *ranks[::-1]))) >= seen - 1e-12
    assert 0.02 < open_["p"] < 0.98
    assert open_["p"] == pytest.approx((far + 1) / 201, abs=0.1)


def test_groups_of_areas_are_exchanged_whole_and_calibration_errors_too():
    generator = np.random.default_rng(9)
    truth = np.tile([0, 1], 20)
    shared = generator.normal(size=40)
    tables = {
        ("a", 0): scored(generator, truth, 2.5, shared, 1.0),
        ("b", 0): scored(generator, truth, 0.1, shared, 1.0),
    }
    groups = {f"r{i:05d}": i // 10 for i in range(40)}  # four groups: p is 2 / 2^4 at the least
    options = ComparisonOptions(metric="roc_auc_ovr", resamples=2000)
    (few,) = compare_arms(tables, NAMES, options, groups=groups)["pairs"]
    assert few["p"] == pytest.approx(2 * 0.5**4, abs=0.03)
    (own,) = compare_arms(
        tables, NAMES, ComparisonOptions(metric="expected_calibration_error", resamples=500)
    )["pairs"]
    assert own["test"] == "answers exchanged between the two models, rows, 500 times"


def test_an_arm_of_two_seeds_has_an_interval_of_seeds_and_rows_within_the_metrics_ends():
    """With one degree of freedom t is 12.7: values of .90 and .86 give about .25 on either side, and 1 at the most."""
    truth = np.arange(1000) % 2
    arms = {
        ("a", seed): frame(truth, with_errors(truth, np.arange(wrong)))
        for seed, wrong in enumerate((100, 140))
    }
    own = compare_arms(arms, NAMES)["arms"][0]
    assert own["value"] == pytest.approx(0.88)
    assert own["low"] == pytest.approx(0.88 - stats.t.ppf(0.975, 1) * 0.02, abs=0.06)
    assert own["high"] == own["accuracy"]["high"] == 1.0
    assert own["accuracy"]["low"] == own["low"]
    assert own["method"].startswith("Multi-bootstrap over 2 seeds (Student's t)")
    assert "2 seeds tell little of their spread" in own["note"]
    assert own["learned"] is True


def test_macro_f1_stands_beside_accuracy_with_the_same_interval_of_seeds_and_rows():
    truth = np.arange(400) % 2
    arms = {
        (arm, seed): frame(truth, with_errors(truth, np.arange(30 * seed + first)))
        for arm, first in (("one", 20), ("two", 50)) for seed in range(3)
    }  # fmt: skip
    arms["single", 0] = arms["one", 0]
    own = compare_arms(arms, NAMES)["arms"]
    as_metric = compare_arms(arms, NAMES, ComparisonOptions(metric="f1_macro"))["arms"]
    for found, wanted in zip(own[:2], as_metric[:2], strict=True):
        beside = found["beside"]["f1_macro"]
        assert {key: beside[key] for key in ("value", "low", "high")} == {
            key: wanted[key] for key in ("value", "low", "high")
        }
        assert "beside" not in wanted, "it is the compared metric itself"
    assert "beside" not in own[2], "one seed: its own metrics have the interval"


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3])
def test_an_arms_interval_of_few_seeds_holds_its_methods_quality(seeds):
    """Each training's quality is drawn around the method's own: 95 % of intervals hold that, or a few more."""
    held = []
    for repetition in range(150):
        generator = np.random.default_rng([12, seeds, repetition])
        truth = generator.integers(0, 2, 400)
        qualities = generator.normal(0.8, 0.02, seeds)
        arms = {
            ("a", seed): frame(truth, np.where(generator.random(400) < quality, truth, 1 - truth))
            for seed, quality in enumerate(qualities)
        }
        own = compare_arms(arms, NAMES, ComparisonOptions(resamples=400))["arms"][0]
        held.append(own["low"] <= 0.8 <= own["high"])
    assert np.mean(held) >= 0.92
