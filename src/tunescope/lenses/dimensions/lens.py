"""Which dimensions carry the decision: one-dimension classifiers, exact logit shares, removal curves.

Study 001 claims that one dimension of great variance classifies almost as well as the whole model. The claim is
tested as it should be: the threshold is exact, the dimension is chosen on train rows, by variance (theirs) and by
accuracy (the control), scored on other rows, paired with the full model's answers, and held against random
directions, the discriminant direction and permuted labels.

Formula:
    One-dimension accuracy: the best threshold (or pair of thresholds by class) of one dimension, found exactly
    on train rows. Logit share: ``w_d h_d`` of a linear head, which sum to the logit.

Range:
    Accuracies 0 to 1; shares add up to 1 over the dimensions.

How to read:
    A dimension carries the task if it does as well as the whole model on rows that did not choose it, clearly
    better than random directions and than labels permuted.

Cost:
    Pooled states of train and of scored rows, once; removal curves over all dimensions cost what one evaluation
    costs.

Limits:
    Random directions of a well-tuned model may do as well: then no single dimension is special. Shares need a
    linear head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tunescope.errors import LensError
from tunescope.lenses.dimensions.head_input import HeadInput, read_head_inputs
from tunescope.lenses.dimensions.study import (
    MACHINES,
    cumulative,
    machine_predictions,
    matched_order,
    their_counts,
    their_dimensions,
)
from tunescope.lenses.subject import LensRows, Subject, Which
from tunescope.stats.dimension_curves import Linear, logit_shares, refit_curve, removal_curve
from tunescope.stats.intervals import Interval, wilson
from tunescope.stats.paired import tango
from tunescope.stats.results import result_table
from tunescope.stats.tests import mcnemar_exact
from tunescope.stats.thresholds import Thresholds, best_thresholds

WHAT = (
    "What single dimensions of the head's input decide: exact thresholds chosen on train rows, each dimension's share "
    "of the logits, and accuracy as dimensions are removed, against random directions, orders and permuted labels."
)
Record = dict[str, Any]


class DimensionOptions(BaseModel):
    """Options of the lens ``dimensions``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: LensRows = Field(default_factory=lambda: LensRows(n=2000), description="which rows are scored")
    train_rows: int = Field(
        4000, ge=10, description="how many train rows thresholds are fitted on: 10 or more"
    )
    random: int = Field(20, ge=2, description="random directions, orders and permutations each: 2 or more")
    points: int = Field(65, ge=2, description="points of a removal curve that are kept: 2 or more")
    support_vectors: bool = Field(
        True, description="linear and RBF support vectors on single dimensions as well, as study 001 has them"
    )


@dataclass(frozen=True)
class Side:
    """One model's view: the head's input on train rows and on the rows that are scored."""

    which: Which
    train: HeadInput
    train_labels: np.ndarray
    rows: HeadInput
    labels: np.ndarray
    classes: int

    @property
    def deviation(self) -> np.ndarray:
        """Standard deviation of every dimension over the train rows, `[D]`."""
        return self.train.values.std(axis=0)

    @property
    def full(self) -> np.ndarray:
        """Whether the whole model is right, bool `[N]`."""
        return self.rows.logits.argmax(axis=1) == self.labels


def run(subject: Subject, options: DimensionOptions) -> tuple[pl.DataFrame, None]:
    """Measure both models.

    Raises:
        LensError: There are no labelled train rows, or a class is missing from them.
    """
    if options.rows.split == "train":
        raise LensError(
            "Thresholds are fitted on train rows, so train rows cannot score them; look at validation."
        )
    rows = subject.draw(options.rows)
    train = subject.draw(LensRows(split="train", n=options.train_rows))
    classes = len(subject.tuned.labels)
    counts = np.bincount(train.labels, minlength=classes)
    if counts.min() < 2:
        name = subject.tuned.labels.names[int(counts.argmin())]
        few = "No train row" if counts.min() == 0 else "Only one train row"
        raise LensError(
            f"{few} of class {name!r} was drawn; two of every class are needed.",
            hint="Raise train_rows, or give the train split rows of every class.",
        )
    records: list[Record] = []
    models = subject.models_with_logits()
    both = [model for _, model in models]
    on_train, on_rows = (
        read_head_inputs(both, own, subject.progress, subject.store) for own in (train, rows)
    )
    base_variance = on_train[0].values.var(axis=0) if models[0][0] == "base" else None
    for (which, _), fitted, scored in zip(models, on_train, on_rows, strict=True):
        side = Side(which, fitted, train.labels, scored, rows.labels, classes)
        generator = np.random.default_rng(subject.sampling_seed)
        about = {
            "arm": subject.arm, "seed": subject.seed, "model": which, "site": "head_input", "n": len(rows),
            "base_head": subject.base_head if which == "base" else None,
        }  # fmt: skip
        found = [*_one_dimension(side, options, generator), *_curves(side, options, generator)]
        found += [*_shares(side, subject.tuned.labels.names, _kept(side, options))]
        found += [*_theirs(side, options, base_variance, subject.sampling_seed)]
        records += [{**about, **record} for record in found]
    return result_table(records), None


def _one_dimension(side: Side, options: DimensionOptions, generator: np.random.Generator) -> Iterator[Record]:
    fitted = best_thresholds(side.train.values, side.train_labels, side.classes)
    scores = fitted.scores(side.rows.values, side.labels)
    variance = side.deviation**2
    for dimension, score in enumerate(scores):
        yield {
            "metric": "threshold_accuracy", "dimension": dimension, "value": float(score),
            "train_accuracy": float(fitted.accuracy[dimension]), "cut": _finite(fitted.cut[dimension]),
            "variance": float(variance[dimension]),
        }  # fmt: skip
    yield _scored("model_accuracy", side.full, None)
    for chosen_by, dimension in (
        ("variance", int(variance.argmax())),
        ("train accuracy", int(fitted.accuracy.argmax())),
    ):
        right = fitted.predict(side.rows.values)[:, dimension] == side.labels
        yield {**_scored("one_dimension_accuracy", right, side.full), "by": chosen_by, "dimension": dimension}
    discriminant = _discriminant(side)
    yield {**_along(side, discriminant[:, None])[0], "by": "discriminant direction"}
    draws = generator.normal(size=(side.train.values.shape[1], options.random))
    for record in _along(side, draws / np.linalg.norm(draws, axis=0)):
        yield {**record, "by": "random direction"}
    for _ in range(options.random):
        yield {**_scored("one_dimension_accuracy", *_permuted(side, generator)), "by": "labels permuted"}


def _theirs(
    side: Side, options: DimensionOptions, base_variance: np.ndarray | None, seed: int
) -> Iterator[Record]:
    """Return study 001's dimensions by the exact threshold, and its two machines on them and on the loudest."""
    fitted = best_thresholds(side.train.values, side.train_labels, side.classes)
    answers = side.rows.logits.argmax(axis=1)
    named = their_dimensions(side.train.values.shape[1], base_variance)
    for by, dimension in named.items():
        right = fitted.predict(side.rows.values)[:, dimension] == side.labels
        yield {**_scored("one_dimension_accuracy", right, side.full), "by": by, "dimension": dimension}
    if not options.support_vectors:
        return
    for by, dimension in {"variance": int(side.deviation.argmax()), **named}.items():
        for kernel, name in MACHINES.items():
            said = machine_predictions(
                side.train.values[:, dimension],
                side.train_labels,
                side.rows.values[:, dimension],
                kernel,
                seed,
            )
            yield {
                **_scored("support_vector_accuracy", said == side.labels, side.full), "by": by, "classifier": name,
                "dimension": dimension, "agreement": float((said == answers).mean()),
            }  # fmt: skip


def _permuted(side: Side, generator: np.random.Generator) -> tuple[np.ndarray, None]:
    """Choose the best of all dimensions where labels mean nothing: what choosing alone brings."""
    labels = generator.permutation(side.train_labels)
    fitted = best_thresholds(side.train.values, labels, side.classes)
    best = int(fitted.accuracy.argmax())
    return fitted.predict(side.rows.values)[:, best] == generator.permutation(side.labels), None


def _along(side: Side, directions: np.ndarray) -> list[Record]:
    fitted: Thresholds = best_thresholds(side.train.values @ directions, side.train_labels, side.classes)
    right = fitted.predict(side.rows.values @ directions) == side.labels[:, None]
    return [_scored("one_dimension_accuracy", column, side.full) for column in right.T]


def _discriminant(side: Side) -> np.ndarray:
    """Return the first linear discriminant of the train rows, shrunk as Ledoit and Wolf (2004) do, `[D]`."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    model = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto")
    model.fit(side.train.values, side.train_labels)
    return np.asarray(model.scalings_[:, 0])


def _scored(metric: str, right: np.ndarray, full: np.ndarray | None) -> Record:
    """Return accuracy with its interval, and the exact paired test against the full model where there is one."""
    interval: Interval = wilson(int(right.sum()), len(right))
    record: Record = {"metric": metric, "value": interval.value, "low": interval.low, "high": interval.high}
    if full is not None:
        record["p"] = mcnemar_exact(int((right & ~full).sum()), int((full & ~right).sum()))
        paired = tango(int((right & ~full).sum()), int((full & ~right).sum()), len(right))
        record |= {
            "difference": float(right.mean() - full.mean()),
            "difference_low": paired.low,
            "difference_high": paired.high,
        }
    return record


def _shares(side: Side, names: tuple[str, ...], kept: np.ndarray) -> Iterator[Record]:
    """Return each dimension's share of each class's logit, and the shares together, the loudest dimension first."""
    shares = logit_shares(side.rows.values, side.rows.head)
    loudest = np.argsort(-side.deviation, kind="stable")
    for name, values in zip(names, shares, strict=True):
        for dimension, value in enumerate(values):
            yield {"metric": "logit_share", "class": name, "dimension": dimension, "value": float(value)}
        if np.isfinite(values).all():
            for order, dimensions in (
                ("variance, highest first", loudest),
                ("share, highest first", np.argsort(-values, kind="stable")),
            ):
                for count, value in cumulative(values, dimensions, kept):
                    yield {
                        "metric": "cumulative_share",
                        "class": name,
                        "order": order,
                        "removed": count,
                        "value": value,
                    }


def _kept(side: Side, options: DimensionOptions) -> np.ndarray:
    """Return the counts of dimensions at which curves are kept; study 001's own are among them."""
    width = side.rows.values.shape[1]
    even = np.linspace(0, width, min(options.points, width + 1)).round().astype(int)
    return np.unique([*even, *their_counts(width)])


def _curves(side: Side, options: DimensionOptions, generator: np.random.Generator) -> Iterator[Record]:
    values, width = side.rows.values, side.rows.values.shape[1]
    kept = _kept(side, options)
    up = np.argsort(side.deviation, kind="stable")
    weighted = _weighted(side.rows.head, side.deviation)
    fills = {"zero": np.zeros(width), "mean": side.train.values.mean(axis=0)}
    orders = {
        "variance, highest first": [up[::-1]],
        "variance, lowest first": [up],
        "weight times deviation, highest first": [np.argsort(-weighted)],
        "matched to the loudest in weight times deviation": [matched_order(up[::-1], weighted)],
        "random": [generator.permutation(width) for _ in range(options.random)],
    }
    for order, draws in orders.items():
        for fill, target in fills.items():
            curves = [removal_curve(values, side.labels, side.rows.head, one, target)[kept] for one in draws]
            yield from _points(curves, kept, {"order": order, "edit": fill, "head_fit": "frozen"})
        train = (side.train.values, side.train_labels)
        curves = [refit_curve(train, (values, side.labels), one, side.classes)[kept] for one in draws]
        yield from _points(curves, kept, {"order": order, "edit": "removed", "head_fit": "refitted"})


def _weighted(head: Linear, deviation: np.ndarray) -> np.ndarray:
    """Return how far every dimension can move the logits apart: its weights' spread over classes times its own."""
    return head.weight.std(axis=0) * deviation


def _points(curves: list[np.ndarray], kept: np.ndarray, about: Record) -> Iterator[Record]:
    """Return the points of a curve: Wilson's interval for one order, the middle 95 % of draws for random ones."""
    for place, removed in enumerate(kept):
        shares = np.array([curve[place].mean() for curve in curves])
        if len(curves) == 1:
            interval = wilson(int(curves[0][place].sum()), curves[0].shape[1])
            low, high = interval.low, interval.high
        else:
            low, high = (float(end) for end in np.quantile(shares, [0.025, 0.975]))
        yield {
            "metric": "removal_accuracy", "removed": int(removed), "value": float(shares.mean()), "low": low,
            "high": high, "draws": len(curves), **about,
        }  # fmt: skip


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
