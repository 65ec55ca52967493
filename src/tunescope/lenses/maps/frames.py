"""The frames of a map: one layer's base and tuned rows together, turned onto the layer before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tunescope.lenses.maps.options import DrawOptions, Method
from tunescope.lenses.subject import Which
from tunescope.stats.embedding import Neighbours, nearest, principal, rotated_onto, tsne, umap

SIDES: tuple[Which, Which] = ("base", "tuned")
Record = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """One layer of both models: `[2n, D]` states, base rows first, and the points that are different.

    Attributes:
        about: What stands in every record of this layer.
        values: `[P, D]` float64, every different state once.
        place: `[2n]`, the point of each row.
    """

    about: Record
    values: np.ndarray
    place: np.ndarray

    @property
    def rows(self) -> int:
        """n, the rows of one model."""
        return len(self.place) // 2

    def side(self, which: Which) -> np.ndarray:
        """Return the points of one model's rows, `[n]`."""
        return self.place[: self.rows] if which == "base" else self.place[self.rows :]


@dataclass(frozen=True)
class Drawn:
    """The maps of one layer.

    Attributes:
        maps: Coordinates `[2n, A]` by method and number of axes, centred on zero, base rows first.
        explained: The share of the variance along the first axes together, one number an axis.
    """

    maps: dict[tuple[Method, int], np.ndarray]
    explained: np.ndarray


class Frames:
    """Draws layer after layer, each turned or mirrored onto the one before.

    Args:
        options: What is drawn.
        seed: Seeds t-SNE and UMAP.
    """

    def __init__(self, options: DrawOptions, seed: int) -> None:
        self.options, self.seed = options, seed
        self.before: dict[tuple[Method, int], np.ndarray] = {}

    def draw(self, stage: Stage) -> Drawn:
        """Return the maps of one layer."""
        options = self.options
        counts = np.bincount(stage.place)
        found = principal(stage.values, counts, max(options.components, max(options.axes)))
        reduced = found.project(stage.values)
        near: Neighbours | None = None
        if set(options.methods) != {"pca"}:
            wanted = max(int(3 * options.perplexity), options.umap_neighbours - 1)
            near = nearest(reduced, min(wanted, len(reduced) - 1))
        maps: dict[tuple[Method, int], np.ndarray] = {}
        for axes in dict.fromkeys(options.axes):
            flat = np.zeros((len(stage.place), axes))
            kept = reduced[stage.place, :axes]
            flat[:, : kept.shape[1]] = kept
            start = self._turned("pca", axes, flat, None)
            for method in dict.fromkeys(options.methods):
                if method == "pca" or near is None:
                    maps[method, axes] = start
                    continue
                # One point a state: where it stands for several rows, the first of them gives its start.
                _, first = np.unique(stage.place, return_index=True)
                points = self._optimised(method, reduced, start[first], near)[stage.place]
                maps[method, axes] = self._turned(method, axes, points, start)
        return Drawn(maps, np.cumsum(found.variance[:3]) / (found.total or 1.0))

    def _turned(self, method: Method, axes: int, points: np.ndarray, first: np.ndarray | None) -> np.ndarray:
        """Turn a map onto that of the layer before; the first one onto ``first``, where there is such a thing."""
        onto = self.before.get((method, axes), first)
        turned = points - points.mean(axis=0) if onto is None else rotated_onto(points, onto)
        self.before[method, axes] = turned
        return turned

    def _optimised(
        self, method: Method, reduced: np.ndarray, start: np.ndarray, near: Neighbours
    ) -> np.ndarray:
        if method == "tsne":
            perplexity = min(self.options.perplexity, (len(reduced) - 1) / 3)
            return tsne(start, near.first(int(3 * perplexity)), perplexity, self.seed)
        wanted = min(
            self.options.umap_neighbours, len(reduced) - 1
        )  # UMAP needs fewer neighbours than points
        return umap(reduced, start, near.first(wanted - 1), self.seed)
