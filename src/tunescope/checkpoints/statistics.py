"""What one model's weights are like, matrix by matrix, beside what structureless matrices of that size would be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from tunescope.errors import ModelError
from tunescope.models import Classifier
from tunescope.models.matrices import matrices
from tunescope.progress import Progress
from tunescope.stats.results import result_table
from tunescope.stats.weight_change import spectrum_of

WHAT = (
    "Size and rank of every weight matrix: Frobenius and spectral norm, stable rank (how many directions share the "
    "size), mean and greatest entry; beside the stable rank, that of independent Gaussian entries of the same shape."
)


def weight_statistics(model: Classifier, arm: str, progress: Progress) -> pl.DataFrame:
    """Return a tidy table of every matrix's norms and ranks; exact, for no rows are drawn.

    Singular values are roots of the eigenvalues of the smaller Gram matrix in float64, so those below 1e-8 of the
    greatest are rounding; norms and stable rank do not depend on them.

    Raises:
        ModelError: A matrix holds NaN or infinity.
    """
    found = list(matrices(model))
    records: list[dict[str, Any]] = []
    with progress.task(f"{arm}: reading weights", len(found), "matrices") as task:
        for one in found:
            values = one.weight.detach().cpu().numpy().astype(np.float64)
            if not np.isfinite(values).all():
                where = one.part if one.layer is None else f"{one.part} of layer {one.layer}"
                raise ModelError(
                    f"{arm}: {int((~np.isfinite(values)).sum()):,} numbers of {where} are NaN or infinite.",
                    hint="The checkpoint is damaged, or its training diverged; take an earlier one.",
                )
            about = {
                "arm": arm,
                "seed": None,
                "model": "tuned",
                "site": one.part,
                "layer": one.layer,
                "stack": one.stack,
            }
            records += [{**about, **record, "n": values.size} for record in matrix_statistics(values)]
            task.advance(1)
    table = result_table(records)
    return table.drop("stack") if table["stack"].null_count() == table.height else table


def matrix_statistics(values: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yield the numbers of one matrix `[rows, columns]`."""
    rows, columns = values.shape
    gram = values @ values.T if rows <= columns else values.T @ values
    own = spectrum_of(np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0.0, None)))
    # Two norms of a Gaussian matrix: sqrt(mn) sigma and, in the limit, (sqrt(m) + sqrt(n)) sigma.
    random = rows * columns / (rows**0.5 + columns**0.5) ** 2
    numbers = {
        "frobenius": own.frobenius, "spectral": own.spectral, "stable_rank": own.stable_rank,
        "effective_rank": own.effective_rank, "mean": float(values.mean()), "deviation": float(values.std()),
        "greatest": float(np.abs(values).max()), "zeros": float((values == 0).mean()),
    }  # fmt: skip
    for metric, value in numbers.items():
        yield {"metric": metric, "value": value, "control": random if metric == "stable_rank" else None}
