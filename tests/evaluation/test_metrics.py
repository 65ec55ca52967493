"""Classification metrics: against scikit-learn, plain resampling, and simulation."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from scipy.stats import rankdata
from sklearn import metrics as reference

from tunescope.errors import DataError, ModelError
from tunescope.evaluation.metrics import classification_metrics, confusion_matrix, derive, margin
from tunescope.evaluation.ranks import AUCSweep, resample_rows
from tunescope.stats import wilson

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
    for metric, value in expected.items():
        assert got[metric, None]["value"] == pytest.approx(value, abs=1e-10), metric
    for metric, values in each.items():
        for c, value in enumerate(values):
            assert got[metric, NAMES[c]]["value"] == pytest.approx(value, abs=1e-10), (metric, c)
    assert len(got) == len(expected) + 4 * classes
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
    for _ in range(1000):
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
        assert ends == pytest.approx(tuple(expected), abs=0.12 * np.ptp(expected)), key


@pytest.mark.parametrize("decimals", [8, 1, 0])
@pytest.mark.parametrize("n", [2, 7, 300])
def test_the_weighted_auc_is_scikit_learns_with_ties(n, decimals):
    generator = np.random.default_rng(n)
    positive = generator.random(n) < 0.4
    positive[:2] = [True, False]
    scores = np.round(generator.normal(size=n) + positive, decimals)
    weights = generator.integers(0, 4, (n, 20)).astype(np.float32)
    weights[:2] = 1
    areas = AUCSweep(scores, positive).areas(weights.copy())
    for column, area in enumerate(areas):
        expected = reference.roc_auc_score(positive, scores, sample_weight=weights[:, column])
        assert area == pytest.approx(expected, abs=1e-6)


def test_resamples_are_uniform_and_an_area_without_a_kind_is_nan():
    weights = np.concatenate(list(resample_rows(7, 5000, np.random.default_rng(0))), axis=1)
    assert weights.shape == (7, 5000)
    assert (weights.sum(axis=0) == 7).all()
    np.testing.assert_allclose(weights.mean(axis=1), 1, atol=0.06)
    assert weights[3].var() == pytest.approx(6 / 7, rel=0.1)  # binomial(7, 1/7)
    kinds = np.array([[1, 0, 0, 2], [0, 1, 0, 2], [1, 1, 1, 1]], dtype=np.float32).T
    areas = AUCSweep(np.arange(4.0), np.array([False, True, True, False])).areas(kinds)
    np.testing.assert_array_equal(areas, [np.nan, 0, 0.5])


def test_resamples_that_lose_a_class_are_left_out_and_counted():
    labels = np.r_[np.zeros(40, int), np.ones(20, int), 2]
    got = run(labels, 3 * np.eye(3)[labels] + made(61, 3, 0)[1])
    for metric in ("f1", "roc_auc_ovr"):
        record = got[metric, "fear"]
        assert record["note"].startswith("undefined in 3")  # exp(-1) of a thousand
        assert record["note"].endswith("of 1000 resamples, which were left out")
        assert record["low"] is not None
        assert got[metric, "joy"]["note"] is None


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
        assert got[metric, "sad"]["note"] is None
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
    for key, share in coverage(120, 300).items():
        assert 0.86 <= share <= 1.0, key


@pytest.mark.slow
def test_intervals_cover_in_many_draws():
    for key, share in coverage(1500, 600).items():
        assert 0.92 <= share <= 0.975, key
