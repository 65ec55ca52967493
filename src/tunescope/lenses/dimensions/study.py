"""Study 001's own classifiers and counts, so that its numbers can be had as published beside the corrected ones.

Its text says "linear threshold", its code fits a radial support vector machine, and the code's dimension is the
constant 496 of GPT-2's 768. Both machines are fitted here (scikit-learn, C = 1, gamma = ``scale``). On a model of
another width the constant means nothing: it is carried over as a share of the width and as the base's dimension of
second greatest variance (496 is that in GPT-2), and named so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

THEIR_WIDTH, THEIR_DIMENSION = 768, 496
THEIR_COUNTS = (
    92,
    300,
    765,
)  # of 768: top 92 removed (a rise), after 300 (decay), lowest 765 removed (no loss)
MACHINES = {"linear": "linear support vectors", "rbf": "RBF support vectors"}
MOST_ROWS = 4000  # a support vector machine takes time with the square of the rows


def their_dimensions(width: int, base_variance: np.ndarray | None) -> dict[str, int]:
    """Return the dimensions that stand for study 001's 496, by name.

    Args:
        width: D, dimensions of the head's input.
        base_variance: Variance of each in the base, `[D]`; None where the base is not known.
    """
    if width == THEIR_WIDTH:
        found = {f"study 001's dimension {THEIR_DIMENSION}": THEIR_DIMENSION}
    else:
        found = {
            f"study 001's {THEIR_DIMENSION} of {THEIR_WIDTH} as a share of the width": carried(
                THEIR_DIMENSION, width
            )
        }
    if base_variance is not None and width > 1:
        order = np.argsort(-base_variance, kind="stable")
        found["the base's second greatest variance"] = int(order[1])
    return found


def carried(count: int, width: int) -> int:
    """Return what a place or count of 768 dimensions is in another width: the nearest smaller whole number."""
    return count * width // THEIR_WIDTH


def their_counts(width: int) -> list[int]:
    """Return study 001's numbers of removed dimensions as shares of the width, ascending."""
    return sorted({carried(count, width) for count in THEIR_COUNTS})


def machine_predictions(
    train: np.ndarray, labels: np.ndarray, rows: np.ndarray, kernel: str, seed: int
) -> np.ndarray:
    """Fit a support vector machine on one dimension and return its answers, class indices `[N]`.

    Args:
        train: Values of the train rows, `[M]`; of more than 4,000 a random part.
        labels: Their class indices, `[M]`.
        rows: Values of the rows that are scored, `[N]`.
        kernel: ``linear`` or ``rbf``.
        seed: Seeds which train rows are kept.
    """
    from sklearn.svm import SVC

    if len(train) > MOST_ROWS:
        kept = np.random.default_rng(seed).permutation(len(train))[:MOST_ROWS]
        train, labels = train[kept], labels[kept]
    if np.ptp(train) == 0:
        return np.full(len(rows), np.bincount(labels).argmax())
    machine = SVC(kernel=kernel, C=1.0, gamma="scale", max_iter=200_000)
    return np.asarray(machine.fit(train[:, None], labels).predict(rows[:, None]))


def matched_order(loudest_first: Sequence[int] | np.ndarray, weighted: np.ndarray) -> np.ndarray:
    """Return an order that matches the loudest dimensions in weight times deviation, but is not them, `[D]`.

    At each step the dimension goes that is nearest, in weight times deviation, to the next loudest one, and is
    neither that one nor gone already (where another is left). If removing these costs as much as removing the
    loudest, loudness is not what matters.

    Args:
        loudest_first: Dimensions by falling variance, `[D]`.
        weighted: Weight times deviation of every dimension, `[D]`.
    """
    left = np.ones(len(weighted), dtype=bool)
    order = []
    for dimension in loudest_first:
        gap = np.where(left, np.abs(weighted - weighted[dimension]), np.inf)
        if left.sum() > 1:
            gap[dimension] = np.inf
        order.append(int(gap.argmin()))
        left[order[-1]] = False
    return np.array(order)


def cumulative(shares: np.ndarray, order: np.ndarray, kept: np.ndarray) -> Iterator[tuple[int, float]]:
    """Yield (dimensions counted, their share of the logits together) along an order, at the kept counts.

    Args:
        shares: Each dimension's share, `[D]`; they sum to 1.
        order: A permutation of the dimensions, `[D]`.
        kept: Counts from 0 to D.
    """
    total = np.concatenate([[0.0], np.cumsum(shares[order])])
    for count in kept:
        yield int(count), float(total[count])
