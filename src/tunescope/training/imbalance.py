"""What is done about classes of unequal size: weights, sampling, logit adjustment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from tunescope.config.fitting import FittingConfig
from tunescope.config.problems import unknown
from tunescope.data.tokens import Tokens
from tunescope.errors import ConfigError, DataError
from tunescope.training.losses import ClassLoss


def class_loss(
    fitting: FittingConfig, smoothing: float, labels: np.ndarray, names: Sequence[str]
) -> ClassLoss:
    """Return the loss that the study asks for, with what it needs from the train rows.

    Args:
        fitting: Our own training fields.
        smoothing: ``label_smoothing_factor``.
        labels: Class indices of the train rows, [N].
        names: Names of the classes.

    Raises:
        ConfigError: ``class_weights`` names other labels than the data has.
        DataError: Logit adjustment needs the share of a class that no train row has.
    """
    weights = adjustment = None
    counts = np.bincount(labels, minlength=len(names))
    if fitting.class_weights is not None:
        weights = torch.tensor(_weights(fitting.class_weights, counts, names), dtype=torch.float32)
    if fitting.logit_adjustment > 0:
        absent = [name for name, count in zip(names, counts, strict=True) if count == 0]
        if absent:
            raise DataError(
                f"training.logit_adjustment needs the share of every class, and no train row has the label "
                f"{absent[0]!r}.",
                hint="Take the label out of data.labels, or use class_weights.",
            )
        shares = np.log(counts / counts.sum())
        adjustment = torch.tensor(fitting.logit_adjustment * shares, dtype=torch.float32)
    return ClassLoss(weights, adjustment, smoothing)


def _weights(asked: str | Mapping[str, float], counts: np.ndarray, names: Sequence[str]) -> list[float]:
    """Return one weight a class; ``balanced`` is ``N / (C n_c)`` over the classes that have rows."""
    if isinstance(asked, str):
        there = int((counts > 0).sum())
        return [float(counts.sum() / (there * count)) if count else 1.0 for count in counts]
    for name in asked:
        if name not in names:
            raise ConfigError(f"training.class_weights: {unknown('label', name, names)}")
    missing = [name for name in names if name not in asked]
    if missing:
        raise ConfigError(
            f"training.class_weights gives no weight to {len(missing)} of {len(names)} labels, first "
            f"{missing[0]!r}.",
            hint="Name every label, or write class_weights: balanced.",
        )
    return [float(asked[name]) for name in names]


def balanced_subset(tokens: Tokens, seed: int) -> np.ndarray:
    """Choose as many rows of every class as the smallest class has.

    The choice depends on the row ids and the seed, not on the order of the rows; classes without a row are left
    alone.

    Args:
        tokens: Labelled rows.
        seed: Another seed chooses other rows.

    Returns:
        Positions in ascending order.
    """
    generator = np.random.Generator(np.random.PCG64([seed, 0xBA1]))
    by_id = np.asarray(sorted(range(len(tokens)), key=lambda position: tokens.row_ids[position]))
    drawn = by_id[generator.permutation(len(by_id))]
    labels = tokens.labels[drawn]
    least = min(int((labels == label).sum()) for label in np.unique(labels))
    chosen = [drawn[labels == label][:least] for label in np.unique(labels)]
    return np.sort(np.concatenate(chosen))
