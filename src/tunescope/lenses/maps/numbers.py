"""Numbers beside a map: how trustworthy it is, how much variance it shows, and how far rows move in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tunescope.lenses.maps.frames import SIDES, Drawn, Stage
from tunescope.stats.embedding import trustworthiness
from tunescope.stats.intervals import bootstrap_mean

JUDGED = 2_000  # rows a model whose neighbourhoods are judged; the first of a random order
RESAMPLES = 500
Record = dict[str, Any]


def judged(stage: Stage, drawn: Drawn, trusted: int, groups: np.ndarray, seed: int) -> list[Record]:
    """Return the numbers of all maps of one layer.

    Trustworthiness is that of a model's own rows: the neighbours of a base row among the base rows. Its control is the
    same map with its rows permuted. Movement is the mean distance from a row's base point to its tuned point, over the
    mean distance between a base point and the tuned point of another row (its control is then 1): 0 where nothing
    moved, about 1 where a row is no nearer to itself than to others. It is given for the full space as well.

    Args:
        stage: The layer.
        drawn: Its maps.
        trusted: Neighbours that count; fewer where there are few rows.
        groups: `[n]`: rows of one text share a group.
        seed: Seeds intervals and permutations.
    """
    generator = np.random.default_rng(seed)
    shuffle = generator.permutation(stage.rows)
    queries = np.arange(min(JUDGED, stage.rows))
    k = min(trusted, (stage.rows - 1) // 2)
    records: list[Record] = []
    for (method, axes), points in drawn.maps.items():
        common = {**stage.about, "method": method, "axes": axes}
        for which, own in zip(SIDES, (points[: stage.rows], points[stage.rows :]), strict=True):
            values = stage.values[stage.side(which)]
            values = values - values.mean(axis=0)
            shares = trustworthiness(values, own, k, queries)
            control = float(trustworthiness(values, own[shuffle], k, queries).mean())
            interval = bootstrap_mean(shares, groups[queries], seed=seed, resamples=RESAMPLES)
            records.append({
                **common, "model": which, "metric": "trustworthiness", **interval.record(), "method": method,
                "control": control, "how": f"{k} neighbours; {interval.method}",
            })  # fmt: skip
        if method == "pca":
            share = float(drawn.explained[: min(axes, len(drawn.explained))][-1])
            records.append({**common, "model": "base_tuned", "metric": "explained_variance", "value": share})
        records.append(
            {**common, **_movement(points[: stage.rows], points[stage.rows :], shuffle, groups, seed)}
        )
    base, tuned = (stage.values[stage.side(which)] for which in SIDES)
    records.append({**stage.about, "method": "full", **_movement(base, tuned, shuffle, groups, seed)})
    return records


def _movement(
    base: np.ndarray, tuned: np.ndarray, shuffle: np.ndarray, groups: np.ndarray, seed: int
) -> Record:
    own = np.linalg.norm(tuned - base, axis=1)
    other = float(np.linalg.norm(tuned[shuffle] - base, axis=1).mean())
    record: Record = {"model": "base_tuned", "metric": "movement", "control": 1.0}
    if other == 0:
        return {**record, "value": None, "note": "every row has the same state"}
    interval = bootstrap_mean(own / other, groups, seed=seed, resamples=RESAMPLES)
    found = interval.record()
    return {
        **record,
        **{name: found[name] for name in ("value", "low", "high", "n", "note")},
        "how": found["method"],
    }
