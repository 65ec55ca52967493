"""Checks of weights and activations: an update of known rank and size, and a neuron that was moved."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl
import torch

from tunescope.doctor.check import Bench, Line, near, same, smallest_found
from tunescope.doctor.subjects import a_model, perturbed, random_rows, seen, subject_of
from tunescope.models import Classifier
from tunescope.models.matrices import Matrix, matrices

PLACE = (0, "mlp_projection")


def rank_update(bench: Bench) -> Iterable[Line]:
    """Add an update of rank r to one matrix: the weights lens names the matrix, the rank and the size."""
    for kind in ("gpt2", "bert"):
        model = a_model(bench.folder, kind)
        for rank in (1, 2, 5):
            tuned, size = _updated(model, rank, 0.01, bench.seed)
            table = seen(subject_of(model, tuned, random_rows(20)), "weights", vectors=3).table
            values = _of(table)
            yield same(f"{kind}: rank of an update of rank {rank}", rank, values["rank"])
            yield near(f"{kind}: its relative size", size, values["relative_frobenius"], 1e-4 * size)
            moved = table.filter((pl.col("metric") == "relative_frobenius") & (pl.col("value") > 0))
            blocks = moved.filter(pl.col("site") == "block")["layer"].to_list()
            yield same(f"{kind}: blocks that moved", [0], blocks)
    model = a_model(bench.folder, "gpt2")

    def found(size: float, trial: int) -> bool:
        tuned, _ = _updated(model, 2, size, trial)
        return (
            _of(seen(subject_of(model, tuned, random_rows(8)), "weights", vectors=1, heads=False).table)[
                "rank"
            ]
            == 2
        )

    yield smallest_found(
        "an update of rank 2, read at its rank from weights in float32",
        "of the matrix's norm",
        (1e-7, 1e-6, 1e-5, 1e-4, 1e-3),
        10,
        found,
    )


def _updated(model: Classifier, rank: int, size: float, seed: int) -> tuple[Classifier, float]:
    """Return a copy with a random update of a rank at one matrix, and the update's size as it is in float32."""
    tuned = copy.deepcopy(model)
    one, before = _matrix(tuned), _matrix(model).weight.detach().double()
    generator = torch.Generator().manual_seed(seed)
    rows, columns = one.weight.shape
    update = torch.randn(rows, rank, generator=generator) @ torch.randn(rank, columns, generator=generator)
    with torch.no_grad():
        one.weight.add_(
            update * size * float(before.norm()) / float(update.norm())
        )  # a view of the model's own
    return tuned, float((one.weight.double() - before).norm() / before.norm())


def _matrix(model: Classifier) -> Matrix:
    return next(one for one in matrices(model) if (one.layer, one.part) == PLACE)


def _of(table: pl.DataFrame) -> dict[str, float]:
    own = table.filter(
        (pl.col("layer") == PLACE[0]) & (pl.col("site") == PLACE[1]) & pl.col("value").is_not_null()
    )
    return dict(
        own.filter(~pl.col("metric").is_in(["principal_angle", "intruder_dimensions"]))
        .select("metric", "value")
        .rows()
    )


def activations(bench: Bench) -> Iterable[Line]:
    """Move one neuron and make one dimension massive: the activations lens names both."""
    model = a_model(bench.folder, "gpt2")
    tuned = _moved_neuron(model, 2.0)
    table = seen(subject_of(model, tuned, random_rows(60)), "activations", rows={"n": 24}).table
    yield same("neuron that moved most", (1, 17), _most_moved(table))
    loud = copy.deepcopy(model)
    trunk: Any = loud.trunk
    with torch.no_grad():
        trunk.h[1].mlp.c_proj.bias[9] += 5000.0
    table = seen(subject_of(model, loud, random_rows(60)), "activations", rows={"n": 24}).table
    massive = table.filter(
        (pl.col("metric") == "largest") & (pl.col("model") == "tuned") & (pl.col("layer") == 1)
        & (pl.col("site") == "resid_post")
    )["value"].to_list()  # fmt: skip
    yield near("largest number of the stream behind block 1", 5000, massive[0] if massive else None, 50)

    def found(size: float, trial: int) -> bool:
        moved = _moved_neuron(perturbed(model, 0.01, trial), size)
        own = seen(subject_of(model, moved, random_rows(80, seed=trial)), "activations", rows={"n": 40}).table
        return _most_moved(own) == (1, 17)

    yield smallest_found(
        "the neuron whose bias moved, ranked first while all weights move by 1 % of their spread",
        "of its bias (pre-activations have a spread of 1.5; 40 rows)",
        (0.05, 0.1, 0.2, 0.4, 0.8, 1.6),
        10,
        found,
    )


def _moved_neuron(model: Classifier, size: float) -> Classifier:
    changed = copy.deepcopy(model)
    trunk: Any = changed.trunk
    with torch.no_grad():
        trunk.h[1].mlp.c_fc.bias[17] += size
    return changed


def _most_moved(table: pl.DataFrame) -> tuple[int, int] | None:
    own = table.filter(pl.col("neuron").is_not_null() & (pl.col("model") == "tuned_minus_base"))
    if not own.height:
        return None
    row = (
        own.with_columns(pl.col("value").abs().alias("size")).sort("size", descending=True).row(0, named=True)
    )
    return int(row["layer"]), int(np.asarray(row["neuron"]))
