"""Metrics of test rows after a correction for prior shift, beside those before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunescope.errors import DataError
from tunescope.evaluation.metrics import classification_metrics
from tunescope.evaluation.prior import PriorEstimate, correct_prior, estimate_prior
from tunescope.evaluation.thresholds import Scored

LEAST = 1e-12  # of an estimated share: a class that no row seems to have keeps finite logits
SPLIT = "test"
NO_LABEL_READ = "No test label chose the target shares"
ASSUMES = "it holds where only the shares differ and the model is calibrated on those of training"


@dataclass(frozen=True)
class PriorRows:
    """The test rows that are corrected.

    Attributes:
        scored: Labels (-1 where there is none) and logits.
        names: The C names, in the order of indices.
        groups: `[n]` group of each row where rows are not independent, or None.
    """

    scored: Scored
    names: Sequence[str]
    groups: Any | None = None


def effective_prior(choices: Mapping[str, Any], names: Sequence[str]) -> np.ndarray | None:
    """Return the classes' shares that a training's logits carry, `[C]`, or None where they are not known.

    Those of the train rows; equal ones where sampling made them so; times the class weights, because weighted
    cross-entropy is least at `w_c p(c | x)`; and over `share^tau` where logits were adjusted in the loss (Menon et
    al. 2021), because the adjustment is then what the logits lack.

    Args:
        choices: What the training recorded: ``train_rows`` and, where they were used, ``sampling``,
            ``class_weights`` and ``logit_adjustment`` (each a mapping from label to number, but for sampling).
        names: The C names, in the order of indices.
    """
    if "train_rows" not in choices:
        return None
    rows = np.array([choices["train_rows"][name] for name in names], dtype=np.float64)
    if choices.get("sampling") is not None:
        rows = (rows > 0).astype(np.float64)
    if "class_weights" in choices:
        rows *= [choices["class_weights"][name] for name in names]
    if "logit_adjustment" in choices:
        rows *= np.exp([-choices["logit_adjustment"][name] for name in names])
    shares: np.ndarray = rows / rows.sum()
    return shares


def prior_shift(
    asked: str | Mapping[str, float], train: np.ndarray | None, rows: PriorRows, seed: int = 0
) -> dict[str, Any]:
    """Correct test logits for the shares that a study names, and measure the same rows again.

    The target comes from the study or from the logits alone, never from test labels.

    Args:
        asked: ``uniform``; ``estimate`` (Saerens et al. 2002: expectation maximisation on the logits of all test
            rows, labels unread); or a positive share or count of every label.
        train: `[C]` shares that the logits carry, of :func:`effective_prior`; None where they are not known.
        rows: The test rows.
        seed: Seeds the bootstraps; that of the metrics before gives the same resamples.

    Returns:
        ``{"done": True, "asked", "split", "target", "train", "estimate", "note", "records"}``: target and train
        map labels to shares, estimate holds ``low, high`` (by label), ``steps, converged, n`` or is None, and
        records are as of :func:`classification_metrics`. ``{"done": False, "asked", "reason"}`` where nothing
        can be corrected.
    """
    if train is None:
        return {
            "done": False,
            "asked": _plain(asked),
            "reason": "the classes' shares in training are not known",
        }
    names, labels, logits = list(rows.names), rows.scored.labels, rows.scored.logits
    estimate = None
    try:
        if asked == "estimate":
            estimate = estimate_prior(logits, train, seed)
        target = _target(asked, names, estimate)
        corrected = correct_prior(logits, train, target)
    except DataError as error:
        return {"done": False, "asked": _plain(asked), "reason": error.message}
    return {
        "done": True,
        "asked": _plain(asked),
        "split": SPLIT,
        "target": dict(zip(names, target.tolist(), strict=True)),
        "train": dict(zip(names, train.tolist(), strict=True)),
        "estimate": None if estimate is None else _estimated(estimate, names),
        "note": _note(asked, estimate),
        "records": classification_metrics(labels, corrected, names, SPLIT, seed, rows.groups),
    }


def _target(asked: Any, names: list[str], estimate: PriorEstimate | None) -> np.ndarray:
    if estimate is not None:
        shares = np.maximum(estimate.prior, LEAST)
    elif asked == "uniform":
        shares = np.ones(len(names))
    else:
        shares = np.array([asked[name] for name in names], dtype=np.float64)
    normal: np.ndarray = shares / shares.sum()
    return normal


def _estimated(estimate: PriorEstimate, names: list[str]) -> dict[str, Any]:
    def by_label(ends: np.ndarray) -> dict[str, float]:
        return dict(zip(names, ends.tolist(), strict=True))

    return {
        "low": by_label(estimate.low), "high": by_label(estimate.high), "steps": estimate.steps,
        "converged": estimate.converged, "n": estimate.n,
    }  # fmt: skip


def _note(asked: Any, estimate: PriorEstimate | None) -> str:
    if estimate is not None:
        ended = "" if estimate.converged else f", which had not converged after {estimate.steps:,} steps"
        how = (
            f"they are estimated by expectation maximisation on the logits of {estimate.n:,} test rows{ended}"
        )
    else:
        how = "they are equal" if asked == "uniform" else "the study names them"
    return f"{NO_LABEL_READ}: {how}; {ASSUMES}."


def _plain(asked: str | Mapping[str, float]) -> str | dict[str, float]:
    return asked if isinstance(asked, str) else dict(asked)
