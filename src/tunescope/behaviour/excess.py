"""How far a part of a suite's pairs moves beyond the controls of the same pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tunescope.behaviour.effects import Effects
from tunescope.behaviour.estimates import Clusters, Settings, mean_changes, take
from tunescope.stats.tests import CORRECTIONS

LEAST_PAIRS = 5


def excess_records(
    parts: Sequence[tuple[dict[str, Any], np.ndarray]], effects: Effects, clusters: Clusters, settings: Settings,
    correction: str,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return for every part and control the size of a pair's change minus that of its control, paired.

    Args:
        parts: The axes of each part, as ``{"class": "joy"}``, and which pairs belong to it: places or a mask.
        effects: What the pairs do to the model.
        clusters: Groups of pairs that are not independent.
        settings: How means are judged.
        correction: ``holm`` or ``bh``, over the parts of one control.

    Returns:
        Rows of the table (``excess_over_control``); parts of which fewer than 5 pairs have the control have none.
    """
    size = np.abs(effects.margin_change)
    found: list[dict[str, Any]] = []
    for name, change in effects.control_change.items():
        own: list[dict[str, Any]] = []
        for axes, chosen in parts:
            rows = np.arange(len(size))[chosen]
            rows = rows[~np.isnan(change[rows])]
            if len(rows) < LEAST_PAIRS:
                continue
            (one,) = mean_changes((size[rows] - change[rows])[:, None], take(clusters, rows), settings)
            own.append(
                {
                    "metric": "excess_over_control",
                    "control": name,
                    **axes,
                    "p": one.p,
                    **one.interval.record(),
                }
            )
        q = CORRECTIONS[correction](np.array([np.nan if one["p"] is None else one["p"] for one in own]))
        found += [{**one, "q": value} for one, value in zip(own, q, strict=True)]
    return found
