"""Linear probes, and the control task that says how much of a probe's accuracy is the probe's own doing.

Hewitt and Liang 2019 (arXiv 1909.03368): give every type of input a label at random, fit the same probe to it, and
call the difference of the two accuracies selectivity. A probe that is strong enough to learn the types by heart does
well on both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tunescope.errors import LensError
from tunescope.seeds import derive_seed
from tunescope.stats.arrays import as_float64, as_integers


@dataclass(frozen=True)
class Probe:
    """A fitted probe.

    Attributes:
        mean: `[D]`, of the rows it was fitted on.
        scale: `[D]`, their standard deviation; 1 where a dimension is constant.
        model: scikit-learn's logistic regression on standardised rows.
    """

    mean: np.ndarray
    scale: np.ndarray
    model: Any

    def predict(self, features: Any) -> np.ndarray:
        """Return class indices `[N]` of features `[N, D]`."""
        return np.asarray(self.model.predict((as_float64(features) - self.mean) / self.scale))


def fit_linear_probe(features: Any, labels: Any, strength: float = 0.1) -> Probe:
    """Fit a logistic regression with L2 penalty on standardised features.

    Args:
        features: `[N, D]`.
        labels: `[N]` class indices, of two classes or more.
        strength: Inverse of the penalty (scikit-learn's C).

    Raises:
        LensError: Numbers that are not finite, or fewer than two classes.
        ValueError: There is not one label per row.
    """
    from sklearn.linear_model import LogisticRegression

    values, targets = as_float64(features), as_integers(labels)
    if len(values) != len(targets):
        raise ValueError(f"expected one label per row, found {len(values)} rows and {len(targets)} labels")
    if not np.isfinite(values).all():
        raise LensError(f"Probe: {int((~np.isfinite(values)).sum())} features are NaN or infinite.")
    if len(np.unique(targets)) < 2:
        raise LensError("A probe needs rows of at least two classes.")
    mean, scale = values.mean(axis=0), values.std(axis=0)
    # What rounding leaves of a constant dimension must not be blown up to size 1.
    scale[scale <= 1e-6 * np.abs(values).max(axis=0, initial=0.0)] = 1.0
    scale[scale == 0] = 1.0
    model = LogisticRegression(C=strength, max_iter=5000, tol=1e-3)
    return Probe(mean, scale, model.fit((values - mean) / scale, targets))


def control_labels(types: Any, shares: Any, seed: int) -> np.ndarray:
    """Return a label for every row that is a random function of its type alone.

    The same type has the same label in every split, whatever other rows there are.

    Args:
        types: `[N]` whole numbers, the type of each row.
        shares: `[C]`, how often each label is drawn; those of the task.
        seed: Seeds the function.
    """
    wanted = as_integers(types)
    unique, index = np.unique(wanted, return_inverse=True)
    edges = np.cumsum(as_float64(shares))
    draws = [np.random.default_rng(derive_seed(seed, "control task", int(kind))).random() for kind in unique]
    drawn = np.searchsorted(edges / edges[-1], draws, side="right")
    return np.minimum(drawn, len(edges) - 1).astype(np.int64)[index]
