"""How rows spread over the classes, and how that shifts between splits."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from tunescope.data.audit.columns import chi_square
from tunescope.data.rows import Rows


def audit_balance(rows: Rows) -> dict[str, Any]:
    """Count classes per split and compare splits.

    Returns:
        ``counts`` and ``shares`` per split and class; ``unlabelled`` per split; ``ratio`` per split, the most
        frequent class over the rarest that has a row; ``shift`` per pair of splits: ``distance`` (total
        variation, the share of rows that would have to change class, 0 to 1) and the chi-square test.
    """
    names, n = rows.labels.names, len(rows.labels)
    labels, splits = rows.label_array, rows.frame["split"].to_numpy()
    counts = {s: np.bincount(labels[(splits == s) & (labels >= 0)], minlength=n) for s in rows.splits}
    labelled = {s: c for s, c in counts.items() if c.sum()}
    shift = {}
    for first, second in combinations(labelled, 2):
        one, two = labelled[first], labelled[second]
        distance = float(np.abs(one / one.sum() - two / two.sum()).sum() / 2)
        shift[f"{first}/{second}"] = {"distance": distance, **chi_square(np.stack([one, two]))}
    return {
        "counts": {s: dict(zip(names, c.tolist(), strict=True)) for s, c in counts.items()},
        "shares": {s: dict(zip(names, (c / c.sum()).tolist(), strict=True)) for s, c in labelled.items()},
        "unlabelled": {s: int(((splits == s) & (labels < 0)).sum()) for s in rows.splits},
        "ratio": {s: float(c.max() / c[c > 0].min()) for s, c in labelled.items()},
        "shift": shift,
    }
