"""Maps of 20,000 points: processor time and peak memory of every step, for one layer of base and tuned rows together.

Each step runs once on generated rows (three directions that separate two groups, the rest noise of falling variance).
A map holds the rows of both models: 20,000 rows of each are 40,000 points. Prints one JSON line a step.

Usage: ``python benchmarks/maps.py [points]``; times of t-SNE and UMAP grow a little faster than the points.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tunescope.stats.embedding import nearest, principal, trustworthiness, tsne, umap
from tunescope.stats.grouping import hdbscan, kmeans

POINTS, WIDTH = 20_000, 384
CLUSTERED, JUDGED = 2_000, 2_000  # the lens's own caps
PERPLEXITY, NEIGHBOURS = 30.0, 14
TREE = 5_000  # t-SNE in three axes has no interpolation, only a tree: minutes from here on, so it is left out


def measured(step: str, work: Callable[[], Any]) -> Any:
    start = time.process_time()
    found = work()
    line = {
        "figure": f"maps of 20,000 points: {step}", "seconds": round(time.process_time() - start, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }  # fmt: skip
    print(json.dumps(line), flush=True)
    return found


def main(points: int) -> None:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(points, WIDTH)) * np.linspace(3, 0.3, WIDTH)
    rows[::2, :3] += 8
    found = measured("principal axes", lambda: principal(rows, np.ones(points), 50))
    reduced = found.project(rows)
    near = measured("exact neighbours", lambda: nearest(reduced, int(3 * PERPLEXITY)))
    queries = np.arange(min(JUDGED, points))
    measured("trustworthiness", lambda: trustworthiness(rows, reduced[:, :2], 10, queries))
    measured("k-means, k from 2 to 8", lambda: kmeans(rows[:CLUSTERED], 8, 0))
    measured("HDBSCAN", lambda: hdbscan(rows[:CLUSTERED], 40))
    for axes in (2, 3):
        start = reduced[:, :axes]
        measured(f"UMAP, {axes} axes", lambda start=start: umap(reduced, start, near.first(NEIGHBOURS), 0))
        if axes == 3 and points > TREE:
            continue
        measured(f"t-SNE, {axes} axes", lambda start=start: tsne(start, near, PERPLEXITY, 0))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else POINTS)
