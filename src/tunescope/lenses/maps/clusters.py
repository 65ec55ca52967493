"""Clusters of the full space, of each model by itself, and how far they agree with the labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from tunescope.data.tokens import Tokens
from tunescope.lenses.maps.frames import SIDES, Stage
from tunescope.lenses.maps.options import ClusterOptions
from tunescope.lenses.subject import Subject, Which, clusters
from tunescope.stats.grouping import (
    NOISE,
    Clustering,
    Draws,
    LabelAgreement,
    hdbscan,
    kmeans,
    label_agreement,
)
from tunescope.stats.intervals import percentile_interval
from tunescope.stats.tests import benjamini_hochberg

FEWEST = 3  # different states below which there is nothing to cluster
Record = dict[str, Any]
METHODS = ("kmeans", "hdbscan")


def clustered(
    stage: Stage, tokens: Tokens, options: ClusterOptions, subject: Subject
) -> tuple[dict[Which, dict[str, np.ndarray]], list[Record]]:
    """Cluster the first rows of each model at one layer, and compare the clusters with the labels.

    Returns:
        Clusters by model and method, ``[rows]`` each, and records without what is common to the layer.
    """
    rows = min(options.rows, stage.rows)
    groups, labels = clusters(tokens)[:rows], tokens.labels[:rows]
    draws = Draws(options.resamples, options.permutations, subject.sampling_seed)
    found: dict[Which, dict[str, np.ndarray]] = {"base": {}, "tuned": {}}
    records: list[Record] = []
    agreed: dict[tuple[str, str], dict[Which, LabelAgreement]] = {}
    for which in SIDES:
        values = stage.values[stage.side(which)[:rows]]
        different = len(np.unique(stage.side(which)[:rows]))
        if different < FEWEST:
            note = f"no clusters: {different} different states; {FEWEST} are needed"
            records.append({"model": which, "metric": "clusters", "n": rows, "note": note})
            continue
        least = options.least_rows or max(5, round(0.02 * rows))
        made = {
            "kmeans": kmeans(values, options.most, subject.sampling_seed), "hdbscan": hdbscan(values, least)
        }  # fmt: skip
        for method, clustering in made.items():
            found[which][method] = clustering.clusters
            records += [
                {"model": which, "n": rows, "method": method, **one} for one in _described(clustering)
            ]
            known = labels >= 0
            if len(np.unique(labels[known])) < 2:
                note = "not compared: fewer than two labels"
                records.append(
                    {"model": which, "metric": "adjusted_rand", "method": method, "n": 0, "note": note}
                )
                continue
            for metric, one in label_agreement(
                clustering.clusters[known], labels[known], groups[known], draws
            ).items():
                agreed.setdefault((metric, method), {})[which] = one
                records.append({
                    "model": which, "metric": metric, "clusters": clustering.count, **one.interval.record(),
                    "control": one.control, "p": one.p, "method": method, "how": one.interval.method,
                })  # fmt: skip
    return found, [*records, *_changes(agreed)]


def _described(clustering: Clustering) -> list[Record]:
    """Return the number of clusters, the share of noise, and the silhouettes that chose the number."""
    noise = float((clustering.clusters == NOISE).mean())
    records: list[Record] = [{"metric": "clusters", "value": float(clustering.count)}]
    if clustering.silhouettes:
        records += [
            {"metric": "silhouette", "clusters": k, "value": value,
             "control": clustering.reference if k == clustering.count else None}
            for k, value in clustering.silhouettes.items()
        ]  # fmt: skip
    else:
        records.append({"metric": "noise_share", "value": noise})
    return records


def _changes(agreed: dict[tuple[str, str], dict[Which, LabelAgreement]]) -> list[Record]:
    """Return tuned minus base, on the same resamples of rows."""
    records = []
    for (metric, method), sides in agreed.items():
        if set(sides) != set(SIDES):
            continue
        base, tuned = sides["base"], sides["tuned"]
        change = float(tuned.interval.value or 0.0) - float(base.interval.value or 0.0)
        how = f"paired {tuned.interval.method}"
        interval = percentile_interval(change, tuned.draws - base.draws, tuned.interval.n, how)
        records.append({
            "model": "tuned_minus_base", "metric": metric, **interval.record(), "method": method, "how": how,
        })  # fmt: skip
    return records


def corrected(records: list[Record]) -> list[Record]:
    """Return the records with q values, over all tests of this look together."""
    q = benjamini_hochberg([record.get("p", float("nan")) for record in records])
    return [{**record, "q": float(value)} for record, value in zip(records, q, strict=True)]
