"""Classification metrics: against scikit-learn, plain resampling, and simulation."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, logit, softmax
from scipy.stats import rankdata
from sklearn import metrics as reference

from tunescope.errors import DataError, ModelError
from tunescope.evaluation.metrics import (
    MetricOptions,
    classification_metrics,
    confusion_matrix,
    derive,
    margin,
    measure,
    metrics_from_confusion,
)
from tunescope.evaluation.ranks import RankSweep
from tunescope.evaluation.resampling import resample_rows
from tunescope.evaluation.sweep import MetricSweep
from tunescope.stats import stratified_bootstrap, wilson
from tunescope.stats.scaled import scaled_interval

NAMES = ["sad", "joy", "fear", "love", "anger", "calm"]


def made(n, classes, signal=1.5, seed=0, shares=None):
    generator = np.random.default_rng(seed)
    labels = generator.choice(classes, n, p=shares)
    logits = generator.normal(size=(n, classes))
    logits[np.arange(n), labels] += signal
    return labels, logits


def by_name(records):
    return {(r["metric"], r["class"]): r for r in records}


def run(labels, logits, classes=None, **options):
    names = NAMES[: classes or np.shape(logits)[1]]
    return by_name(classification_metrics(labels, logits, names, "test", **options))


def calibration_error(labels, shares, count=15):
    """Guo et al. (2017), bin by bin."""
    confidence, right = shares.max(axis=1), shares.argmax(axis=1) == labels
    error = 0.0
    for b in range(count):
        inside = (confidence > b / count) & (confidence <= (b + 1) / count)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


@pytest.mark.parametrize(("n", "classes"), [(40, 2), (300, 3), (2000, 6)])
def test_values_are_scikit_learns(n, classes):
    labels, logits = made(n, classes)
    got = run(labels, logits)
    guess, shares = logits.argmax(axis=1), softmax(logits, axis=1)
    expected = {
        "accuracy": reference.accuracy_score(labels, guess),
        "balanced_accuracy": reference.balanced_accuracy_score(labels, guess),
        "matthews_corrcoef": reference.matthews_corrcoef(labels, guess),
        "log_loss": reference.log_loss(labels, shares),
        "majority_accuracy": np.bincount(labels).max() / n,
        "roc_auc_ovr": reference.roc_auc_score(
            labels, shares[:, 1] if classes == 2 else shares, multi_class="ovr"
        ),
    }
    each = {}
    for name in ("precision", "recall", "f1"):
        score = getattr(reference, f"{name}_score")
        for average in ("macro", "weighted"):
            expected[f"{name}_{average}"] = score(labels, guess, average=average)
        each[name] = score(labels, guess, average=None)
    each["roc_auc_ovr"] = [reference.roc_auc_score(labels == c, shares[:, c]) for c in range(classes)]
    each["average_precision"] = [
        reference.average_precision_score(labels == c, shares[:, c]) for c in range(classes)
    ]
    expected["average_precision_macro"] = np.mean(each["average_precision"])
    expected["brier_score_loss"] = reference.brier_score_loss(
        labels, shares[:, 1] if classes == 2 else shares
    )
    expected["expected_calibration_error"] = calibration_error(labels, shares)
    for metric, value in expected.items():
        assert got[metric, None]["value"] == pytest.approx(value, abs=1e-10), metric
    for metric, values in each.items():
        for c, value in enumerate(values):
            assert got[metric, NAMES[c]]["value"] == pytest.approx(value, abs=1e-10), (metric, c)
    assert len(got) == len(expected) + 5 * classes
    for record in got.values():
        assert record["low"] < record["value"] < record["high"]
        assert record["split"] == "test"


def test_shares_have_wilson_intervals():
    labels, logits = made(300, 3)
    got, guess = run(labels, logits), logits.argmax(axis=1)
    for c in range(3):
        both = int(((labels == c) & (guess == c)).sum())
        for metric, rows in (("recall", labels == c), ("precision", guess == c)):
            interval, record = wilson(both, int(rows.sum())), got[metric, NAMES[c]]
            assert (record["low"], record["high"], record["n"]) == (interval.low, interval.high, rows.sum())
    assert got["accuracy", None]["method"] == "wilson"


def area(positive, scores):
    """The area under the ROC curve from ranks (Mann and Whitney)."""
    hits = int(positive.sum())
    ranks = rankdata(scores)[positive].sum() - hits * (hits + 1) / 2
    return ranks / (hits * (len(positive) - hits))


def test_bootstrap_intervals_are_those_of_resampling_row_by_row():
    labels, logits = made(250, 3, shares=[0.7, 0.2, 0.1])
    got, guess, shares = run(labels, logits), logits.argmax(axis=1), softmax(logits, axis=1)
    generator = np.random.default_rng(7)
    draws = []
    for _ in range(500):
        index = generator.integers(0, 250, 250)
        y, p, s = labels[index], guess[index], shares[index]
        precision, _, f1, support = reference.precision_recall_fscore_support(y, p, zero_division=0)
        areas = [area(y == c, s[:, c]) for c in range(3)]
        draws.append({
            ("f1_macro", None): f1.mean(), ("f1", "fear"): f1[2],
            ("precision_weighted", None): np.average(precision, weights=support),
            ("matthews_corrcoef", None): reference.matthews_corrcoef(y, p),
            ("log_loss", None): -np.log(s[np.arange(250), y]).mean(),
            ("roc_auc_ovr", None): np.mean(areas), ("roc_auc_ovr", "joy"): areas[1],
        })  # fmt: skip
    for key in draws[0]:
        expected = np.quantile([draw[key] for draw in draws], [0.025, 0.975])
        ends = (got[key]["low"], got[key]["high"])
        assert ends == pytest.approx(tuple(expected), abs=0.15 * np.ptp(expected)), key


@pytest.mark.parametrize("decimals", [8, 1, 0])
@pytest.mark.parametrize("n", [2, 7, 300])
def test_the_weighted_auc_is_scikit_learns_with_ties(n, decimals):
    generator = np.random.default_rng(n)
    positive = generator.random(n) < 0.4
    positive[:2] = [True, False]
    scores = np.round(generator.normal(size=n) + positive, decimals)
    weights = generator.integers(0, 4, (n, 20)).astype(np.float32)
    weights[:2] = 1
    areas = RankSweep(scores, positive).areas(weights.copy())
    for column, area in enumerate(areas):
        expected = reference.roc_auc_score(positive, scores, sample_weight=weights[:, column])
        assert area == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("decimals", [8, 1, 0])
@pytest.mark.parametrize("n", [2, 7, 300])
def test_the_weighted_average_precision_is_scikit_learns_with_ties(n, decimals):
    generator = np.random.default_rng(n)
    positive = generator.random(n) < 0.3
    positive[:2] = [True, False]
    scores = np.round(generator.normal(size=n) + positive, decimals)
    weights = generator.integers(0, 4, (n, 20)).astype(np.float32)
    weights[:2] = 1
    averages = RankSweep(scores, positive).precisions(weights.copy())
    for column, average in enumerate(averages):
        expected = reference.average_precision_score(positive, scores, sample_weight=weights[:, column])
        assert average == pytest.approx(expected, abs=1e-5)


def test_strata_keep_their_rows_and_groups_stay_whole():
    strata = np.array([2, 0, 0, 2, 1, 2, 0])
    weights = next(resample_rows(7, 30_000, np.random.default_rng(1), strata=strata))
    for stratum in range(3):
        assert (weights[strata == stratum].sum(axis=0) == (strata == stratum).sum()).all()
    np.testing.assert_allclose(weights.mean(axis=1), 1, atol=0.06)
    groups = np.array(["b", "a", "a", "b", "c", "b", "c"])
    whole = next(resample_rows(7, 3000, np.random.default_rng(0), groups=groups))
    for name in "abc":
        assert (whole[groups == name] == whole[groups == name][0]).all()
    assert (whole[[0, 1, 4]].sum(axis=0) == 3).all()  # three groups are drawn, of whatever size
    with pytest.raises(ValueError, match="expected strata or groups, found both"):
        next(resample_rows(7, 3, np.random.default_rng(0), strata, groups))
    with pytest.raises(ValueError, match=r"one group for each of 7 rows, found \(6,\)"):
        next(resample_rows(7, 3, np.random.default_rng(0), groups=groups[1:]))


def test_metrics_of_weighted_rows_are_those_of_repeated_rows():
    labels, logits = made(80, 3)
    weights = np.random.default_rng(1).integers(0, 3, (80, 4)).astype(np.float32)
    values = MetricSweep(labels, logits).values(weights)
    for column in range(4):
        rows = np.repeat(np.arange(80), weights[:, column].astype(int))
        expected = run(labels[rows], logits[rows])
        for (metric, c), value in values.items():
            record = expected[metric, None if c is None else NAMES[c]]
            assert value[column] == pytest.approx(record["value"], abs=1e-5), metric


def test_groups_widen_every_interval():
    labels, logits = made(60, 3)
    groups = np.repeat(np.arange(60), 5)
    copied = np.repeat(labels, 5), np.repeat(logits, 5, axis=0)
    single, naive, robust = run(labels, logits), run(*copied), run(*copied, groups=groups)
    for key, record in robust.items():
        width, narrow, wide = (r["high"] - r["low"] for r in (record, naive[key], single[key]))
        assert record["value"] == pytest.approx(naive[key]["value"])
        if key[0] not in ("expected_calibration_error",):
            assert width == pytest.approx(wide, rel=0.25), key
            assert width > 1.5 * narrow, key
    assert robust["accuracy", None]["method"].startswith("wilson, cluster-robust: 60 groups")
    assert robust["f1_macro", None]["method"] == "clustered bootstrap, 1000 resamples of 60 groups"
    shuffled = np.random.default_rng(0).permutation(300)
    again = run(copied[0][shuffled], copied[1][shuffled], groups=[f"text {g:02d}" for g in groups[shuffled]])
    for key in (("f1_macro", None), ("accuracy", None), ("roc_auc_ovr", "joy")):
        assert (again[key]["low"], again[key]["high"]) == pytest.approx(
            (robust[key]["low"], robust[key]["high"])
        )
    one = run(labels, logits, groups=np.zeros(60))
    assert one["f1_macro", None]["low"] is None
    assert one["accuracy", None]["note"] == "undefined interval: it needs at least 2 groups"


def test_the_stratified_bootstrap_is_there_on_request():
    labels, logits = made(400, 3, shares=[0.6, 0.3, 0.1])
    options = MetricOptions(resampling="classes")
    got = by_name(measure(labels, logits, NAMES[:3], "test", options))
    rows = run(labels, logits)
    assert got["f1_macro", None]["method"] == "stratified bootstrap, 1000 resamples"
    assert got["f1_macro", None]["value"] == rows["f1_macro", None]["value"]

    def f1(y, p):
        return reference.f1_score(y, p, average="macro")

    expected = stratified_bootstrap(f1, (labels, logits.argmax(axis=1)), labels, resamples=300)
    record = got["f1_macro", None]
    width = expected.high - expected.low
    assert (record["low"], record["high"]) == pytest.approx((expected.low, expected.high), abs=0.15 * width)


STUDY_003 = {
    "nanoGPT": ([[0, 10, 0], [0, 9, 1], [0, 4, 6]], 0.5, (33, 67), (0, 0.5455, 0.7059)),
    "GPT-2": ([[0, 7, 3], [0, 5, 5], [0, 3, 7]], 0.4, (25, 58), (0, 0.4, 0.56)),
}


@pytest.mark.parametrize("model", STUDY_003)
def test_the_confusion_matrices_of_study_003_give_its_tables(model):
    matrix, accuracy, ends, f1 = STUDY_003[model]
    names = ["positive", "neutral", "negative"]
    got = by_name(metrics_from_confusion(matrix, names))
    record = got["accuracy", None]
    assert record["value"] == accuracy
    assert (round(100 * record["low"]), round(100 * record["high"])) == ends
    for c, name in enumerate(names):
        assert got["recall", name]["value"] == matrix[c][c] / 10  # its "class-wise accuracy"
        assert got["f1", name]["value"] == pytest.approx(f1[c], abs=1e-3)
    assert round(100 * got["recall", "positive"]["high"]) == 28
    assert got["precision", "positive"]["note"] == "undefined: no row was predicted as 'positive'"
    assert got["majority_accuracy", None]["value"] == pytest.approx(1 / 3)
    truth = np.repeat(np.arange(3), 10)
    guess = np.concatenate([np.repeat(np.arange(3), line) for line in matrix])
    assert got["f1_macro", None]["value"] == pytest.approx(reference.f1_score(truth, guess, average="macro"))
    rows = run(truth, 9.0 * np.eye(3)[guess])
    for metric in ("f1_macro", "balanced_accuracy"):
        wide, own = rows[metric, None], got[metric, None]
        width = wide["high"] - wide["low"]
        assert (own["low"], own["high"]) == pytest.approx((wide["low"], wide["high"]), abs=0.15 * width)


def test_a_matrix_that_is_none_is_said():
    with pytest.raises(
        DataError, match=r"of shape \(2, 2\), one line for each of 2 names .*; found \(2, 3\)"
    ):
        metrics_from_confusion([[1, 2, 3], [4, 5, 6]], ["a", "b"])
    with pytest.raises(DataError, match="counts of at least 0 in a confusion matrix; found -1"):
        metrics_from_confusion([[1, 2], [-1, 5]], ["a", "b"])
    empty = metrics_from_confusion([[0, 0], [0, 0]], ["a", "b"])
    assert all(r["value"] is None and r["note"].startswith("undefined: no row") for r in empty)


@pytest.mark.parametrize("scale", ["logit", "log"])
def test_scaled_intervals_are_normal_on_their_scale(scale):
    draws = np.random.default_rng(0).normal(0.8, 0.02, 4000)
    got = scaled_interval(0.8, draws, 500, "m", scale, 1e9)
    into, slope = (logit, 1 / (0.8 * 0.2)) if scale == "logit" else (np.log, 1 / 0.8)
    expected = into(0.8) + np.array([-1, 1]) * 1.959964 * draws.std(ddof=1) * slope
    np.testing.assert_allclose(into(np.array([got.low, got.high])), expected, rtol=1e-5)
    wide = scaled_interval(0.8, draws, 500, "m", scale, 9)
    assert np.ptp(into(np.array([wide.low, wide.high]))) == pytest.approx(
        np.ptp(expected) * 2.262157 / 1.959964, rel=1e-5
    )
    assert got.method == f"m, standard error on the {scale} scale"
    mostly = scaled_interval(0.8, np.r_[np.full(60, np.nan), draws[:40]], 5, "m", scale, 9)
    assert mostly.note == "undefined interval: the metric was undefined in 60 of 100 resamples"
    edge = scaled_interval(1.0 if scale == "logit" else 0.0, np.ones(10), 5, "m", scale, 9)
    assert edge.low == edge.high
    assert "no proof of certainty" in edge.note


def test_resamples_are_uniform_and_an_area_without_a_kind_is_nan():
    weights = np.concatenate(list(resample_rows(7, 5000, np.random.default_rng(0))), axis=1)
    assert weights.shape == (7, 5000)
    assert (weights.sum(axis=0) == 7).all()
    np.testing.assert_allclose(weights.mean(axis=1), 1, atol=0.06)
    assert weights[3].var() == pytest.approx(6 / 7, rel=0.1)  # binomial(7, 1/7)
    kinds = np.array([[1, 0, 0, 2], [0, 1, 0, 2], [1, 1, 1, 1]], dtype=np.float32).T
    areas = RankSweep(np.arange(4.0), np.array([False, True, True, False])).areas(kinds)
    np.testing.assert_array_equal(areas, [np.nan, 0, 0.5])


def test_resamples_that_lose_a_class_are_left_out_and_counted():
    labels = np.r_[np.zeros(40, int), np.ones(20, int), 2]
    got = run(labels, 3 * np.eye(3)[labels] + made(61, 3, 0)[1])
    for metric in ("f1", "roc_auc_ovr"):
        record = got[metric, "fear"]
        assert record["note"].startswith("undefined in 3")  # exp(-1) of a thousand
        assert "of 1000 resamples, which were left out" in record["note"]
        assert record["low"] is not None
        assert "undefined" not in (got[metric, "joy"]["note"] or "")


def test_saturated_probabilities_still_rank():
    logits = np.array([[0, 40.0], [0, 50.0], [0, 60.0], [0, 45.0]])  # in float64 all are 1 - 1e-18
    assert (softmax(logits, axis=1)[:, 1] == 1).all()
    assert run([0, 1, 1, 0], logits)["roc_auc_ovr", "joy"]["value"] == 1.0


def test_the_seed_decides_and_batches_of_torch_are_the_same():
    labels, logits = made(200, 3)
    assert run(labels, logits) == run(torch.tensor(labels), torch.tensor(logits))
    assert run(labels, logits, seed=1) != run(labels, logits, seed=2)


def test_a_class_that_is_absent_is_said():
    labels, logits = made(200, 3)
    labels[labels == 2] = 0
    got = run(labels, logits)
    for metric in ("precision", "recall", "f1", "roc_auc_ovr"):
        record = got[metric, "fear"]
        assert (record["value"], record["low"], record["high"]) == (None, None, None)
        assert record["note"] == "undefined: no row of this split has the label 'fear'"
        assert "undefined" not in (got[metric, "sad"]["note"] or "")
    recalls = [got["recall", name]["value"] for name in ("sad", "joy")]
    for metric in ("balanced_accuracy", "recall_macro"):
        assert got[metric, None]["value"] == pytest.approx(np.mean(recalls))
        assert got[metric, None]["note"] == "over the classes of this split, which lacks fear"
    areas = [got["roc_auc_ovr", name]["value"] for name in ("sad", "joy")]
    assert got["roc_auc_ovr", None]["value"] == pytest.approx(np.mean(areas))
    assert "lacks fear" in got["roc_auc_ovr", None]["note"]
    json.dumps(list(got.values()), allow_nan=False)


def test_a_class_that_is_never_predicted_is_said():
    labels, logits = made(200, 3)
    logits[:, 2] = -50
    got = run(labels, logits)
    assert got["precision", "fear"]["value"] is None
    assert got["precision", "fear"]["note"] == "undefined: no row was predicted as 'fear'"
    assert got["recall", "fear"]["value"] == 0.0
    assert got["f1", "fear"]["value"] == 0.0
    expected = reference.precision_score(labels, logits.argmax(1), average="macro", zero_division=0)
    assert got["precision_macro", None]["value"] == pytest.approx(expected)
    assert "0 for fear, which was never predicted" in got["precision_macro", None]["note"]
    logits[:, 1] = -50
    assert run(labels, logits)["matthews_corrcoef", None]["value"] == 0.0
    assert "all rows were predicted as one class" in run(labels, logits)["matthews_corrcoef", None]["note"]


def test_one_class_one_row_and_no_rows():
    one = run(np.zeros(30, int), made(30, 3)[1])
    for key in (("roc_auc_ovr", None), ("roc_auc_ovr", "sad"), ("matthews_corrcoef", None)):
        assert one[key]["value"] is None
        assert one[key]["note"] == "undefined: the split has one class only"
    assert one["log_loss", None]["value"] is not None
    single = run([1], [[0.2, 1.0, 0.1]])
    assert single["log_loss", None]["low"] is None
    assert single["f1_macro", None]["note"].startswith("undefined interval: it needs at least 2 rows")
    for labels, logits in (([], np.zeros((0, 3))), ([-1, -1], np.ones((2, 3)))):
        empty = run(np.array(labels, dtype=int), logits)
        assert empty.keys() == one.keys()
        assert all(r["value"] is None and r["n"] == 0 for r in empty.values())
        assert all(r["note"].startswith("undefined: no row") for r in empty.values())


def test_perfect_predictions_do_not_claim_certainty():
    labels = np.arange(30) % 3
    got = run(labels, 20.0 * np.eye(3)[labels])
    assert got["accuracy", None]["low"] < 0.9
    assert got["f1_macro", None]["low"] == 1.0
    assert "no proof of certainty" in got["f1_macro", None]["note"]


def test_unlabelled_rows_are_left_out():
    labels, logits = made(100, 3)
    mixed, more = np.r_[labels, [-1] * 5], np.r_[logits, np.ones((5, 3))]
    assert run(mixed, more) == run(labels, logits)
    assert confusion_matrix(mixed, more.argmax(1), 3) == confusion_matrix(labels, logits.argmax(1), 3)


def test_the_confusion_matrix_has_true_classes_as_rows():
    labels, logits = made(100, 3)
    got = confusion_matrix(torch.tensor(labels), logits.argmax(1), 4)
    expected = reference.confusion_matrix(labels, logits.argmax(1), labels=range(4)).tolist()
    assert got == expected
    assert got != np.transpose(expected).tolist()
    assert isinstance(got[0][0], int)
    with pytest.raises(DataError, match="Expected every prediction from 0 to 2; found 3 in 1 rows"):
        confusion_matrix([0, 1], [3, 0], 3)
    with pytest.raises(DataError, match="one prediction per label"):
        confusion_matrix([0, 1], [0], 3)


def test_what_does_not_fit_is_said():
    labels, logits = made(10, 3)
    with pytest.raises(DataError, match=r"logits of shape \(9, 3\), found \(10, 3\)"):
        run(labels[1:], logits)
    with pytest.raises(DataError, match="Expected every label from 0 to 2; found 3 in 10 rows"):
        run(np.full(10, 3), logits)
    with pytest.raises(DataError, match="at least 2 classes; there are 1"):
        run(np.zeros(3, int), np.zeros((3, 1)))
    logits[4, 1] = np.nan
    with pytest.raises(ModelError, match="The logits of 1 of 10 rows are NaN or infinite"):
        run(labels, logits)


def test_derived_metrics_of_many_matrices_are_those_of_each():
    counts = np.random.default_rng(0).integers(0, 4, (50, 3, 3))
    together = derive(counts)
    for i in range(50):
        alone = derive(counts[i])
        for metric, values in together.values.items():
            assert values[i] == alone.values[metric]


@pytest.mark.parametrize("kind", ["numpy", "torch", "half"])
def test_the_margin_is_the_log_odds(kind):
    labels, logits = made(50, 4)
    given = {"numpy": logits, "torch": torch.tensor(logits), "half": torch.tensor(logits).half()}[kind]
    got = margin(given, labels if kind == "numpy" else torch.tensor(labels))
    exact = logits if kind != "half" else given.double().numpy()
    own = log_softmax(exact, axis=1)[np.arange(50), labels]
    expected = own - np.log1p(-np.exp(own))
    np.testing.assert_allclose(np.asarray(got), expected, rtol=1e-5 if kind == "half" else 1e-10, atol=1e-5)
    assert type(got).__name__ == ("ndarray" if kind == "numpy" else "Tensor")
    two = margin(given[:, :2], labels % 2 if kind == "numpy" else torch.tensor(labels % 2))
    sign = np.where(labels % 2 == 0, 1, -1)
    np.testing.assert_allclose(np.asarray(two), sign * (exact[:, 0] - exact[:, 1]), rtol=1e-5, atol=1e-6)


def test_the_margin_is_stable_keeps_leading_axes_and_passes_gradients():
    logits = torch.tensor([[[1e4, -1e4, 0.0], [0.0, 1e4, 1e4]]], dtype=torch.float32, requires_grad=True)
    labels = torch.tensor([[0, 0]])
    got = margin(logits, labels)
    np.testing.assert_allclose(got.detach().numpy(), [[1e4, -1e4 - np.log(2)]], rtol=1e-6)
    plain = margin(logits.detach().numpy(), labels.numpy())
    np.testing.assert_allclose(plain, got.detach().numpy(), rtol=1e-6)
    got.sum().backward()
    np.testing.assert_allclose(logits.grad.numpy()[0], [[1, 0, -1], [1, -0.5, -0.5]], atol=1e-3)
    with pytest.raises(ValueError, match="at least 2 classes, found 1"):
        margin(np.ones((3, 1)), np.zeros(3, int))
    for kind in (np.asarray, torch.tensor):
        with pytest.raises(IndexError, match="labels from 0 to 2, found -1"):
            margin(kind(np.ones((2, 3))), kind(np.array([-1, 0])))
        with pytest.raises(IndexError, match="labels from 0 to 2, found 3"):
            margin(kind(np.ones((2, 3))), kind(np.array([3, 0])))


def coverage(repeats, n):
    """How often the intervals hold the population's values, got from one very large sample."""
    labels, logits = made(200_000, 3, seed=999, shares=[0.6, 0.3, 0.1])
    guess = logits.argmax(axis=1)
    truth = {
        ("f1_macro", None): reference.f1_score(labels, guess, average="macro"),
        ("f1", "fear"): reference.f1_score(labels, guess, average=None)[2],
        ("roc_auc_ovr", "joy"): reference.roc_auc_score(labels == 1, softmax(logits, axis=1)[:, 1]),
        ("matthews_corrcoef", None): reference.matthews_corrcoef(labels, guess),
        ("log_loss", None): reference.log_loss(labels, softmax(logits, axis=1)),
    }
    hits = dict.fromkeys(truth, 0)
    for seed in range(repeats):
        got = run(*made(n, 3, seed=seed, shares=[0.6, 0.3, 0.1]), seed=seed)
        for key, value in truth.items():
            hits[key] += got[key]["low"] <= value <= got[key]["high"]
    return {key: count / repeats for key, count in hits.items()}


def test_intervals_cover():
    for key, share in coverage(60, 300).items():
        assert 0.83 <= share <= 1.0, key


@pytest.mark.slow
def test_intervals_cover_in_many_draws():
    for key, share in coverage(1500, 600).items():
        assert 0.92 <= share <= 0.975, key
