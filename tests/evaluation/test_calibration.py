"""Calibration: against scikit-learn's reliability curve and by simulation of what is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.calibration import calibration_curve

from tunescope.evaluation import Binning, expected_calibration_error, measure, reliability_curve
from tunescope.evaluation.calibration import CalibrationSweep, calibration_interval
from tunescope.evaluation.metrics import MetricOptions
from tunescope.stats import wilson


def made(n, sharpness=1.0, seed=0, signal=1.0):
    """Rows whose logits are Bayes' own, times a sharpness."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, n)
    scores = generator.normal(size=(n, 3))
    scores[np.arange(n), labels] += signal
    return labels, sharpness * signal * scores


@pytest.mark.parametrize(("kind", "strategy"), [("width", "uniform"), ("mass", "quantile")])
@pytest.mark.parametrize("count", [5, 15])
def test_the_curve_is_scikit_learns(kind, strategy, count):
    labels, logits = made(700, 1.5)
    shares = softmax(logits, axis=1)
    right, confidence = shares.argmax(axis=1) == labels, shares.max(axis=1)
    accuracy, mean = calibration_curve(right, confidence, n_bins=count, strategy=strategy)
    curve = reliability_curve(labels, logits, Binning(count, kind))
    np.testing.assert_allclose([each["accuracy"] for each in curve], accuracy)
    np.testing.assert_allclose([each["confidence"] for each in curve], mean)
    assert sum(each["n"] for each in curve) == 700
    for each in curve:
        assert each["low"] <= each["confidence"] <= each["high"]
        interval = wilson(round(each["accuracy"] * each["n"]), each["n"])
        assert (each["accuracy_low"], each["accuracy_high"]) == (interval.low, interval.high)
    weights = np.array([each["n"] for each in curve]) / 700
    error = (weights * np.abs(accuracy - mean)).sum()
    assert expected_calibration_error(labels, logits, Binning(count, kind)) == pytest.approx(error)
    ones = np.ones((700, 1))
    assert CalibrationSweep(labels, logits, Binning(count, kind)).errors(ones)[0] == pytest.approx(error)


def test_weights_are_repeated_rows():
    labels, logits = made(60, 2.0)
    weights = np.random.default_rng(0).integers(0, 4, (60, 5)).astype(np.float32)
    got = CalibrationSweep(labels, logits, Binning()).errors(weights)
    for column in range(5):
        rows = np.repeat(np.arange(60), weights[:, column].astype(int))
        assert got[column] == pytest.approx(expected_calibration_error(labels[rows], logits[rows]), abs=1e-6)


def test_a_calibrated_model_shows_what_is_said_and_an_over_confident_one_more():
    seen = [expected_calibration_error(*made(400, seed=seed)) for seed in range(200)]
    labels, logits = made(400)
    sweep = CalibrationSweep(labels, logits, Binning())
    expected = sweep.calibrated(2000, np.random.default_rng(0))
    assert expected.mean() == pytest.approx(np.mean(seen), rel=0.1)
    assert np.quantile(expected, 0.95) == pytest.approx(np.quantile(seen, 0.95), rel=0.15)
    record = next(
        r for r in measure(labels, logits, "abc", "test", MetricOptions()) if "calib" in r["metric"]
    )
    assert record["low"] == 0.0
    assert f"a perfectly calibrated model would show {expected.mean():.2f}" in record["note"]
    assert record["method"].startswith("15 bins of equal width; bootstrap of rows")
    sharp = measure(labels, 4 * logits, "abc", "test", MetricOptions(binning=Binning(10, "mass")))
    record = next(r for r in sharp if "calib" in r["metric"])
    assert record["method"].startswith("10 bins of equal mass")
    assert 0.1 < record["low"] < record["value"] < record["high"]


def test_the_interval_holds_its_estimate_though_all_resamples_lie_above():
    draws = np.linspace(0.06, 0.10, 1000)
    close = calibration_interval(0.05, draws, np.full(100, 0.08), 50, "m")
    assert (close.low, close.value) == (0.0, 0.05)
    far = calibration_interval(0.08, draws, np.full(100, 0.01), 50, "m")
    assert far.low == pytest.approx(2 * 0.08 - far.high)
    assert far.high == pytest.approx(0.099, abs=1e-3)


def test_what_has_no_rows_or_ties():
    assert expected_calibration_error([], np.zeros((0, 2))) is None
    assert reliability_curve([-1], [[0.0, 1.0]]) == []
    tied = reliability_curve([0, 1, 1], np.array([[0.0, 1.0]] * 3), Binning(5, "mass"))
    assert [each["n"] for each in tied] == [3]
    assert tied[0]["accuracy"] == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="at least 1 bin, of kind 'width' or 'mass'; found 0 of 'width'"):
        Binning(0)
