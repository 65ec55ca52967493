"""Streamed CKA against whole Gram matrices, its memory as rows grow, and removal curves against one pass a point.

Every measurement runs in a process of its own, so that peak memory is its own; memory is counted above what Python and
the libraries take before the first row. Both methods read the same generated stream of rows in float32 with the same
number of threads. Times are processor time. Prints one JSON line a figure.

The Gram method computes every kernel once, U-centres it once, and takes all pairs of layers in one product. It is run
twice: giving what the streamed method gives (products in float32 that are summed in float64, and the control of
shuffled rows; the intervals are ours alone), and in its leanest form (all in float32, no control). What neither can
avoid is n x n numbers a layer.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

from tunescope.stats.dimension_curves import Linear, removal_curve
from tunescope.stats.hsic import BlockHSIC

THREADS = "1"
LAYERS, WIDTH, ROWS = 13, 768, 5_000
BATCH = 256
LONG = {
    "layers": 3,
    "width": 64,
    "rows": (10_000, 1_000_000),
}  # a million rows, in a shape that a minute allows
SHARED = 16  # directions that every layer has in common, so that CKA has something to find
GOALS = {"time": 20, "memory": 20, "growth": 1.5, "curve": 50}


def stream(layers: int, width: int, rows: int) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Yield (ranks, features of every layer): a drift from layer to layer around shared directions.

    Noise is drawn once and used again under other signs, for drawing it would take longer than what is measured.
    """
    generator = np.random.default_rng(0)
    mixes = [generator.normal(size=(SHARED, width)).astype(np.float32) for _ in range(layers)]
    noise = generator.normal(size=(layers, BATCH, width)).astype(np.float32)
    for start in range(0, rows, BATCH):
        count = min(BATCH, rows - start)
        latent = generator.normal(size=(count, SHARED)).astype(np.float32)
        signs = generator.choice(np.array([-1, 1], dtype=np.float32), size=(count, 1))
        order = generator.permutation(BATCH)[:count]
        yield (
            np.arange(start, start + count),
            [latent @ mix + 2 * signs * noise[layer, order] for layer, mix in enumerate(mixes)],
        )


def streamed(layers: int, width: int, rows: int) -> np.ndarray:
    """CKA as the lens computes it, intervals and control included."""
    names = [str(layer) for layer in range(layers)]
    state = BlockHSIC(names, rows)
    for ranks, features in stream(layers, width, rows):
        state.update(ranks, dict(zip(names, features, strict=True)))
    return state.matrix().value


def gram(layers: int, width: int, rows: int, lean: bool = False) -> np.ndarray:
    """Unbiased CKA of whole kernels, with the control of shuffled rows; ``lean`` is float32 throughout without it."""
    whole = [np.empty((rows, width), dtype=np.float32) for _ in range(layers)]
    for ranks, features in stream(layers, width, rows):
        for kept, batch in zip(whole, features, strict=True):
            kept[ranks] = batch
    kernels = np.empty((layers, rows, rows), dtype=np.float32 if lean else np.float64)
    for kernel, features in zip(kernels, whole, strict=True):
        features -= features.mean(axis=0)
        if lean:
            np.matmul(features, features.T, out=kernel)
        else:
            kernel[:] = features @ features.T
        np.fill_diagonal(kernel, 0)
        sums = kernel.sum(axis=1, dtype=np.float64)
        shift = (sums / (rows - 2) - sums.sum() / (2 * (rows - 1) * (rows - 2))).astype(kernel.dtype)
        kernel -= shift[:, None]
        kernel -= shift[None, :]
        np.fill_diagonal(kernel, 0)
    flat = kernels.reshape(layers, -1)
    products = (flat @ flat.T).astype(np.float64)
    if not lean:
        shuffle, shuffled = np.random.default_rng(1).permutation(rows), np.zeros((layers, layers))
        for start in range(0, rows, BATCH):
            part = slice(start, start + BATCH)
            permuted = kernels.take(shuffle[part], axis=1).take(shuffle, axis=2)
            shuffled += kernels[:, part].reshape(layers, -1) @ permuted.reshape(layers, -1).T
    return products / np.sqrt(np.outer(np.diagonal(products), np.diagonal(products)))


def nothing(layers: int, width: int, rows: int) -> np.ndarray:
    """Only generate the rows: what both methods spend before they compute anything."""
    for _ in stream(layers, width, rows):
        pass
    return np.empty(0)


def curves() -> dict[str, float]:
    """Seconds of the whole removal curve, by increments and by one evaluation a point."""
    generator = np.random.default_rng(1)
    values = generator.normal(size=(ROWS, WIDTH)) * np.geomspace(0.1, 10, WIDTH)
    head = Linear(generator.normal(size=(2, WIDTH)), generator.normal(size=2))
    labels = head.logits(values).argmax(axis=1)
    order = np.argsort(values.std(axis=0))
    fill = values.mean(axis=0)
    start = time.process_time()
    ours = removal_curve(values, labels, head, order, fill)
    middle = time.process_time()
    edited = values.copy()
    naive = np.empty_like(ours)
    for removed in range(WIDTH + 1):
        if removed:
            edited[:, order[removed - 1]] = fill[
                order[removed - 1]
            ]  # nothing is copied: the naive way at its best
        naive[removed] = head.logits(edited).argmax(axis=1) == labels
    stop = time.process_time()
    different = float((ours != naive)[:-1].mean())  # with all removed every row has equal logits
    return {"ours": middle - start, "naive": stop - middle, "different": different}


def measure(what: str, *numbers: str) -> None:
    """Run one measurement in this process and print it as JSON."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    if what == "curve":
        found: dict[str, object] = dict(curves())
    else:
        layers, width, rows = map(int, numbers)
        methods = {"streamed": streamed, "gram": gram, "gram_lean": functools.partial(gram, lean=True),
                   "stream": nothing}  # fmt: skip
        value = methods[what](layers, width, rows)
        found = {"value": value.tolist()}
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1024**2 if sys.platform == "darwin" else 1024
    print(
        json.dumps({**found, "seconds": seconds, "peak_mb": peak / unit, "above_mb": (peak - before) / unit})
    )


def child(what: str, *numbers: int) -> dict[str, float]:
    """Run one measurement in a process of its own."""
    command = [sys.executable, __file__, what, *map(str, numbers)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), THREADS)
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **threads})
    return dict(json.loads(done.stdout.splitlines()[-1]))


def report(figure: str, ratio: float, goal: float, met: bool, **more: object) -> None:
    print(json.dumps({"figure": figure, "ratio": round(ratio, 2), "goal": goal, "met": met, **more}))


def main() -> None:
    """Measure, compare and print."""
    fast, slow, lean = (child(what, LAYERS, WIDTH, ROWS) for what in ("streamed", "gram", "gram_lean"))
    rows = child("stream", LAYERS, WIDTH, ROWS)["seconds"]
    for one in (fast, slow, lean):
        one["seconds"] -= rows  # generating the rows is no part of either method
    gap = float(np.abs(np.array(slow["value"]) - np.array(fast["value"])).max())
    shape = f"{LAYERS} x {LAYERS} layers, width {WIDTH}, {ROWS} rows, {THREADS} thread"
    for name, one in (("Gram", slow), ("lean Gram", lean), ("streamed", fast)):
        print(f"{shape}, {name}: {one['seconds']:.2f} s, {one['above_mb']:.0f} MB above the start")
    print(f"largest difference in CKA {gap:.1e}")
    times, memory = slow["seconds"] / fast["seconds"], slow["above_mb"] / fast["above_mb"]
    report("CKA with its control, processor time of Gram over streamed", times, GOALS["time"], times >= GOALS["time"],
           gram_seconds=round(slow["seconds"], 2), streamed_seconds=round(fast["seconds"], 2),
           lean_gram_seconds=round(lean["seconds"], 2),
           lean_ratio=round(lean["seconds"] / fast["seconds"], 2))  # fmt: skip
    report("CKA, memory of Gram over streamed", memory, GOALS["memory"], memory >= GOALS["memory"],
           gram_mb=round(slow["above_mb"]), streamed_mb=round(fast["above_mb"]),
           lean_ratio=round(lean["above_mb"] / fast["above_mb"], 2),
           of_whole_processes=round(slow["peak_mb"] / fast["peak_mb"], 2))  # fmt: skip

    more = child("streamed", LAYERS, WIDTH, 4 * ROWS)
    growth = more["above_mb"] / fast["above_mb"]
    report("CKA, memory of 20,000 rows over 5,000", growth, GOALS["growth"], growth <= GOALS["growth"])
    few, many = (child("streamed", LONG["layers"], LONG["width"], rows) for rows in LONG["rows"])
    growth = many["peak_mb"] / few["peak_mb"]
    report("CKA, peak of a million rows over 10,000", growth, GOALS["growth"], growth <= GOALS["growth"],
           layers=LONG["layers"], width=LONG["width"], seconds=round(many["seconds"], 1),
           bytes_a_row=round((many["peak_mb"] - few["peak_mb"]) * 2**20 / LONG["rows"][1], 1))  # fmt: skip

    curve = child("curve")
    ratio = curve["naive"] / curve["ours"]
    report("removal curve, one evaluation a point over increments", ratio, GOALS["curve"], ratio >= GOALS["curve"],
           naive_seconds=round(curve["naive"], 2), ours_seconds=round(curve["ours"], 3))  # fmt: skip
    if gap > 0.02 or curve["different"] > 1e-3:
        raise SystemExit(
            f"not the same numbers: CKA differs by {gap}, curves in {curve['different']} of the rows"
        )


if __name__ == "__main__":
    measure(*sys.argv[1:]) if len(sys.argv) > 1 else main()
