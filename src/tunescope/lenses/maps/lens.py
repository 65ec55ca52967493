"""Maps: PCA, t-SNE and UMAP of pooled states, base and tuned in one frame, and clusters of the full space.

What distances mean. PCA is fitted on base and tuned rows together, layer by layer, so that within a layer the way from
a row's base point to its tuned point is the projection of the true difference. Frames of successive layers are turned
or mirrored onto one another (orthogonal Procrustes); between layers nothing but that common orientation is meant.
t-SNE and UMAP place the base and tuned rows of a layer in one optimisation that starts from the aligned PCA: near
points are neighbours in truth as far as the trustworthiness says, far distances, sizes and densities mean nothing.
States that are equal to the last bit are one point, so that what tuning did not touch does not move.

Formula:
    PCA: projection on leading eigenvectors of base and tuned rows together. Trustworthiness (Venna and Kaski
    2001): one minus a penalty for neighbours in the map that are none in the full space.

Range:
    Positions without unit; trustworthiness 0 to 1; adjusted Rand index about 0 (chance) to 1.

How to read:
    In PCA the way from a row's base point to its tuned point is true; in t-SNE and UMAP only neighbourhoods
    are. Believe clusters by their numbers in the full space, not by the picture.

Cost:
    One pass over the rows; t-SNE and UMAP take most, and grow with rows times layers.

Limits:
    Far distances, sizes and densities in t-SNE and UMAP mean nothing, and frames of different layers share an
    orientation only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from tunescope.capture.sites import Site
from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.lenses.geometry.pooled import KeptRows, depth, site_name, stream_sites
from tunescope.lenses.maps import clusters as map_clusters
from tunescope.lenses.maps import numbers as map_numbers
from tunescope.lenses.maps.frames import SIDES, Frames, Stage
from tunescope.lenses.maps.options import Layers, MapOptions, Method
from tunescope.lenses.reading import View, read_pass
from tunescope.lenses.subject import Subject, Which, clusters
from tunescope.models.classifier import Classifier
from tunescope.stats.embedding import MINIMUM_POINTS, require_libraries
from tunescope.stats.results import result_table

__all__ = ["WHAT", "MapOptions", "run"]
AXES = ("x", "y", "z")
WHAT = (
    "Maps of the pooled states by PCA, t-SNE and UMAP, base and tuned rows in one frame, how trustworthy each map is, "
    "and clusters found in the full space, not in a map, compared with the labels."
)
Record = dict[str, Any]


class MapStates(KeptRows):
    """Keeps the pooled states of all rows at the chosen sites, and what each model predicts."""

    def __init__(self, rows: int, layers: Layers) -> None:
        super().__init__(rows)
        self.layers = layers
        self.predictions: dict[str, np.ndarray] = {}

    def sites(self, model: Classifier) -> list[Site]:
        """Return the chosen sites of the stream, and the logits."""
        return [*chosen_sites(model, self.layers), Site("logits")]

    def update(self, view: View) -> None:
        """Keep pooled states; of logits only the greatest."""
        if view.site.name != "logits":
            super().update(view)
            return
        kept = self.predictions.setdefault(view.which, np.full(self.rows, -1, dtype=np.int64))
        kept[view.ranks] = view.activation.argmax(dim=-1).cpu().numpy()


def chosen_sites(model: Classifier, layers: Layers) -> list[Site]:
    """Return the sites that are mapped, from the input to the output.

    Raises:
        LensError: The model has no such layer.
    """
    sites = {depth(site, model): site for site in stream_sites(model)}
    if layers == "all":
        return list(sites.values())
    last = model.n_layers - 1
    wanted = {0, last // 2, last, *({last + 1} & set(sites))} if layers is None else set(layers)
    missing = sorted(wanted - set(sites))
    if missing:
        raise LensError(
            f"maps: there is no layer {missing[0]}; the model has {min(sites)} (embeddings) to {max(sites)}."
        )
    return [sites[layer] for layer in sorted(wanted)]


def run(subject: Subject, options: MapOptions) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Map both models; return the numbers, and the coordinates of every row.

    Raises:
        LensError: Too few rows, or activations that are not finite.
        MissingDependencyError: The library of a method is not installed.
    """
    require_libraries(options.methods)
    tokens = subject.draw(options.rows, labelled=False)
    if len(tokens) < MINIMUM_POINTS:
        raise LensError(f"A map needs at least {MINIMUM_POINTS} rows; there are {len(tokens)}.")
    states = MapStates(len(tokens), options.layers)
    read_pass(subject, tokens, [states])
    records: list[Record] = []
    frames: list[pl.DataFrame] = []
    painter = Frames(options, subject.sampling_seed)
    columns = _columns(subject, tokens, states)
    sites = chosen_sites(subject.tuned, options.layers)
    with subject.progress.task(f"{subject.arm}: maps", len(sites), "layers") as task:
        for site in sites:
            stage = _stage(subject, states, site, options.standardised)
            grouped, found = map_clusters.clustered(stage, tokens, options.clusters, subject)
            records += [{**stage.about, **record} for record in found]
            if len(stage.values) < MINIMUM_POINTS:
                note = f"no map: {len(stage.values)} different states; {MINIMUM_POINTS} are needed"
                records.append(
                    {**stage.about, "model": "base_tuned", "metric": "trustworthiness", "note": note}
                )
            else:
                drawn = painter.draw(stage)
                records += map_numbers.judged(
                    stage, drawn, options.trusted, clusters(tokens), subject.sampling_seed
                )
                frames.append(_coordinates(stage, drawn.maps, columns, grouped))
            task.advance()
    if not frames:
        raise LensError(
            f"{subject.arm}: no layer has {MINIMUM_POINTS} different states, so nothing can be mapped."
        )
    return result_table(map_clusters.corrected(records)), pl.concat(frames)


def _stage(subject: Subject, states: MapStates, site: Site, standardised: bool) -> Stage:
    """Return the states of one site as different points.

    Raises:
        LensError: A state is not finite; the message names layer and row.
    """
    layer = depth(site, subject.tuned)
    both = []
    for which in SIDES:
        features = states.features(which, site)
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if len(bad):
            raise LensError(
                f"{subject.arm}: the {which} model's states at {site_name(site.name, layer)} are not finite in "
                f"{len(bad)} of {len(features)} rows, the first is {states.row_ids[int(bad[0])]!r}.",
                hint="Look for overflow in training (loss, learning rate, half precision).",
            )
        both.append(features)
    values, place = np.unique(np.vstack(both), axis=0, return_inverse=True)
    values, place = values.astype(np.float64), place.reshape(-1)
    if standardised:
        counts = np.bincount(place)
        mean = counts @ values / counts.sum()
        deviation = np.sqrt(counts @ (values - mean) ** 2 / counts.sum())
        values = (values - mean) / np.where(deviation > 0, deviation, 1.0)
    about = {
        "arm": subject.arm, "seed": subject.seed, "site": site.name, "layer": layer, "n": len(both[0]),
    }  # fmt: skip
    return Stage(about, values, place)


def _columns(subject: Subject, tokens: Tokens, states: MapStates) -> dict[Which, pl.DataFrame]:
    """Return, per model, row id, label, prediction and whether it is wrong, by name and in the order of the rows."""
    names = list(subject.tuned.labels.names)
    speaking = {which for which, _ in subject.models_with_logits()}

    def named(indices: np.ndarray) -> pl.Series:
        return pl.Series(
            [names[index] if index >= 0 else None for index in indices.tolist()], dtype=pl.String
        )

    found: dict[Which, pl.DataFrame] = {}
    for which in SIDES:
        silent = np.full(len(tokens), -1)
        predicted = states.predictions[which] if which in speaking else silent
        wrong = [
            None if truth < 0 or guess < 0 else truth != guess
            for truth, guess in zip(tokens.labels.tolist(), predicted.tolist(), strict=True)
        ]
        found[which] = pl.DataFrame({
            "row_id": tokens.row_ids, "model": which, "label": named(tokens.labels), "prediction": named(predicted),
            "error": pl.Series(wrong, dtype=pl.Boolean),
        })  # fmt: skip
    return found


def _coordinates(
    stage: Stage,
    maps: Mapping[tuple[Method, int], np.ndarray],
    columns: Mapping[Which, pl.DataFrame],
    grouped: Mapping[Which, Mapping[str, np.ndarray]],
) -> pl.DataFrame:
    """Return one row per row, model, method and number of axes, base rows first."""
    known = []
    for which in SIDES:
        groups = {}
        for (
            name
        ) in map_clusters.METHODS:  # both always, though a model whose rows are all alike has no clusters
            found = grouped[which].get(name, np.empty(0, dtype=np.int64)).tolist()
            groups[name] = pl.Series([*found, *[None] * (stage.rows - len(found))], dtype=pl.Int64)
        known.append(columns[which].with_columns(**groups))
    rows = pl.concat(known)
    about = {"arm": pl.lit(stage.about["arm"]), "seed": pl.lit(stage.about["seed"], dtype=pl.Int64),
             "site": pl.lit(stage.about["site"]), "layer": pl.lit(stage.about["layer"], dtype=pl.Int64)}  # fmt: skip
    frames = []
    for (method, axes), points in maps.items():
        spots = {
            name: pl.Series(points[:, place], dtype=pl.Float64)
            if place < axes
            else pl.lit(None, dtype=pl.Float64)
            for place, name in enumerate(AXES)
        }
        frames.append(
            rows.with_columns(**about, method=pl.lit(method), axes=pl.lit(axes, dtype=pl.Int64), **spots)
        )
    return pl.concat(frames)
