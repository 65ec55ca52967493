"""Accuracy as dimensions are taken out of a representation one by one: the whole curve by increments.

A linear head's logits are a sum over dimensions, so taking one more dimension out subtracts one term; and the
least-squares head on the first k dimensions of an order is a partial sum over one Gram-Schmidt basis, so every
refitted head comes out of one factorisation. A curve over D dimensions costs what one evaluation costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from tunescope.errors import LensError

STRIP = 32  # dimensions whose values are gathered at once
RIDGE = 1e-6  # share of the mean variance that is added to every variance, so that the factorisation exists


@dataclass(frozen=True)
class Linear:
    """A linear head.

    Attributes:
        weight: `[C, D]`.
        bias: `[C]`.
    """

    weight: np.ndarray
    bias: np.ndarray

    def logits(self, values: np.ndarray) -> np.ndarray:
        """Return logits `[N, C]` of values `[N, D]`."""
        return values @ self.weight.T + self.bias


def removal_logits(
    values: np.ndarray, head: Linear, order: np.ndarray, fill: np.ndarray
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (k, logits `[C, N]`) with the first k dimensions of ``order`` replaced by ``fill``, from all to none.

    Dimensions are put back rather than taken out, so that what is left when all are gone is exact: there the
    logits of all rows are equal, and rounding would decide. The array is changed by the next step.

    Args:
        values: `[N, D]`.
        head: The frozen head.
        order: Dimensions in the order in which they go.
        fill: What replaces them, `[D]`: zeros, or the dimensions' means (which keeps the head's offset).
    """
    values, fill = np.asarray(values, dtype=np.float64), np.asarray(fill, dtype=np.float64)
    edited = values.copy()
    edited[:, order] = fill[order]
    logits = np.ascontiguousarray(head.logits(edited).T)
    yield len(order), logits
    for stop in range(len(order), 0, -STRIP):
        start = max(stop - STRIP, 0)
        back = order[start:stop]
        gaps = (
            np.ascontiguousarray(values.take(back, axis=1).T) - fill[back, None]
        )  # a row is read once a strip
        for step in range(stop - 1, start - 1, -1):
            for line, weight in zip(logits, head.weight[:, order[step]].tolist(), strict=True):
                line += weight * gaps[step - start]
            yield step, logits


def removal_curve(
    values: np.ndarray, labels: np.ndarray, head: Linear, order: np.ndarray, fill: np.ndarray
) -> np.ndarray:
    """Return whether every row is right after 0, 1, ... dimensions were taken out: bool `[1 + len(order), N]`."""
    right = np.empty((len(order) + 1, len(values)), dtype=bool)
    two = len(head.weight) == 2 and bool(np.isin(labels, (0, 1)).all())
    second = np.asarray(labels) == 1
    for step, logits in removal_logits(values, head, order, fill):
        if two:  # several times as fast as argmax; of equal logits both take the first
            np.equal(logits[1] > logits[0], second, out=right[step])
        else:
            np.equal(logits.argmax(axis=0), labels, out=right[step])
    return right


def refit_curve(
    train: tuple[np.ndarray, np.ndarray], rows: tuple[np.ndarray, np.ndarray], order: np.ndarray, classes: int
) -> np.ndarray:
    """Return for every row whether a head refitted on what is left is right: bool `[1 + D, N]`.

    The head is the least-squares fit of one-hot labels (a linear discriminant) with intercept, on the dimensions
    that remain after the first 0, 1, ..., D of ``order`` were taken out. One Cholesky factor serves all of them:
    with the dimensions in reverse order, the factor of the first k is the top-left block of the factor of all.

    Args:
        train: Values `[M, D]` and labels `[M]` that the heads are fitted on.
        rows: Values `[N, D]` and labels `[N]` that are scored.
        order: All D dimensions, in the order in which they go.
        classes: Number of classes.

    Raises:
        LensError: ``order`` does not hold every dimension once.
    """
    (fitted, targets), (values, labels) = train, rows
    if sorted(order.tolist()) != list(range(fitted.shape[1])):
        raise LensError("A refitted curve needs an order that holds every dimension once.")
    kept = np.asarray(order)[::-1]
    mean = fitted.mean(axis=0, dtype=np.float64)
    centred = fitted[:, kept] - mean[kept]
    one_hot = np.eye(classes)[targets]
    share = one_hot.mean(axis=0)
    gram = centred.T @ centred
    gram[np.diag_indices_from(gram)] += RIDGE * np.trace(gram) / len(gram) + np.finfo(np.float64).tiny
    factor = scipy.linalg.cholesky(gram, lower=True)
    inner = scipy.linalg.solve_triangular(factor, centred.T @ (one_hot - share), lower=True)  # [D, C]
    basis = scipy.linalg.solve_triangular(factor, (values[:, kept] - mean[kept]).T, lower=True)  # [D, N]
    right = np.empty((len(kept) + 1, len(values)), dtype=bool)
    logits = np.tile(share, (len(values), 1))
    right[len(kept)] = logits.argmax(axis=1) == labels
    for step in range(len(kept)):
        logits += np.outer(basis[step], inner[step])
        right[len(kept) - 1 - step] = logits.argmax(axis=1) == labels
    return right


def logit_shares(values: np.ndarray, head: Linear) -> np.ndarray:
    """Return how much of each class's contrast every dimension carries, `[C, D]`; each class's shares sum to 1.

    The contrast of class c is ``z_c`` minus the mean of the other logits; it is a sum over dimensions, and the
    share of dimension d is the covariance of its term with the contrast over the contrast's variance. Negative
    where a dimension works against the rest. With two classes this is the share in ``z_1 - z_0``.

    Raises:
        LensError: A contrast does not vary over the rows, so that shares are undefined.
    """
    values = np.asarray(values, dtype=np.float64)
    others = (head.weight.sum(axis=0) - head.weight) / (len(head.weight) - 1)
    direction = head.weight - others  # [C, D]
    centred = values - values.mean(axis=0)
    contrast = centred @ direction.T  # [N, C]
    variance = (contrast**2).sum(axis=0)
    if (variance <= 0).any():
        raise LensError("A class's logit is the same in every row, so its shares are undefined.")
    return direction * (contrast.T @ centred) / variance[:, None]
