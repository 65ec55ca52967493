"""What tuning did to the weights, matrix by matrix and head by head, without any data.

The numbers are exact (no rows are drawn, so there is no sampling error). Beside each stands what an update of the
same Frobenius norm without any structure gives (independent Gaussian entries), and across seeds the same number of
another training. Intruder dimensions: Shuttleworth et al. 2024, arXiv 2410.21228.

Formula:
    Relative change ``|W' - W|_F / |W|_F``; effective rank of the update from its singular values; intruder
    dimensions: leading singular vectors of W' whose cosine with all of W's stays below a threshold.

Range:
    Relative change from 0; rank 1 to the smaller side; cosines 0 to 1.

How to read:
    Compare with the update of equal norm without structure: a lower rank than that is structure. Intruders
    speak of directions that the base did not have.

Cost:
    Linear algebra of every matrix, no rows; ``spectra: false`` leaves the costly part out.

Limits:
    How far weights moved is not what that did: small changes may decide and large ones be idle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tunescope.errors import LensError
from tunescope.lenses.subject import Subject
from tunescope.models.matrices import Matrix, matrices
from tunescope.seeds import derive_seed
from tunescope.stats.results import Finding, result_table
from tunescope.stats.weight_change import (
    Spectrum,
    intruder_curve,
    rounding,
    spectrum,
    turn,
    unstructured_update,
)

WHAT = (
    "How far tuning moved each weight matrix and each head's part of it: relative size of the update, in how many "
    "directions it goes, how the leading singular vectors turned, and leading vectors that are like none before."
)
LARGEST = 8192  # rows or columns: of larger matrices (embeddings) only the size of the update is taken


class WeightOptions(BaseModel):
    """Options of the lens ``weights``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vectors: int = Field(
        10, ge=1, description="leading singular vectors for angles and intruder dimensions: 1 or more"
    )
    thresholds: tuple[float, ...] = Field(
        (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        description="cosines below which a leading vector is like none before: each above 0 and below 1, rising",
    )
    spectra: bool = Field(True, description="also ranks, angles and intruder dimensions, which cost most")
    heads: bool = Field(
        True,
        description="also each head's rows of query, key, value and columns of the output, by the same measures",
    )


def run(subject: Subject, options: WeightOptions) -> tuple[pl.DataFrame, None]:
    """Return the change of every matrix, every head's slices and every block from base to tuned.

    Raises:
        LensError: The models' matrices differ in shape or number, or hold NaN; thresholds are out of order.
    """
    if any(not 0 < one < 1 for one in options.thresholds) or list(options.thresholds) != sorted(
        options.thresholds
    ):
        raise LensError(
            f"weights: thresholds are cosines above 0 and below 1 that rise, got {list(options.thresholds)}."
        )
    records: list[dict[str, Any]] = []
    sums: dict[tuple[str | None, int | None], list[float]] = {}
    pairs = list(_pairs(subject))
    axes = {"arm": subject.arm, "seed": subject.seed, "model": "base_tuned"}
    with subject.progress.task(f"{subject.arm}: comparing weights", len(pairs), "matrices") as task:
        for before, after in pairs:
            about = {**axes, "site": before.part, "layer": before.layer, "stack": before.stack}
            seed = derive_seed(subject.sampling_seed, f"weights {before.stack} {before.layer} {before.part}")
            records += _of_matrix(_array(before.weight), _array(after.weight), about, options, seed)
            if options.heads:
                records += _of_heads(before, after, about, options)
            total = sums.setdefault((before.stack, before.layer), [0.0, 0.0])
            total[0] += _square(after.weight - before.weight)
            total[1] += _square(before.weight)
            task.advance(1)
    for (stack, layer), (change, size) in sums.items():
        place = "block" if layer is not None else "embeddings"
        records.append({
            **axes, "site": place, "layer": layer, "stack": stack, "metric": "relative_frobenius",
            "value": (change / size) ** 0.5 if size else None,
        })  # fmt: skip
    table = result_table(records)
    return (table.drop("stack") if table["stack"].null_count() == table.height else table), None


def _pairs(subject: Subject) -> Iterator[tuple[Matrix, Matrix]]:
    ours, theirs = list(matrices(subject.base)), list(matrices(subject.tuned))
    names = [(one.stack, one.layer, one.part) for one in ours]
    if names != [(one.stack, one.layer, one.part) for one in theirs]:
        raise LensError(
            f"weights: base and tuned have different matrices ({len(ours)} and {len(theirs)}), so no matrix of one "
            "is the other's.",
            hint="Compare a tuned model with the base that it was tuned from, or leave the lens weights out.",
        )
    for before, after in zip(ours, theirs, strict=True):
        if before.weight.shape != after.weight.shape:
            raise LensError(
                f"weights: {_place(before)} is {list(before.weight.shape)} in the base and "
                f"{list(after.weight.shape)} in the tuned model."
            )
        yield before, after


def _of_matrix(
    before: np.ndarray, after: np.ndarray, about: dict[str, Any], options: WeightOptions, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield what one matrix shows; an unmoved one has a size of 0 and nothing else to say."""
    update = after - before
    if max(before.shape) > LARGEST or not options.spectra:
        size = float(np.linalg.norm(before))
        yield {
            **about, "metric": "relative_frobenius", "value": float(np.linalg.norm(update)) / size if size else None,
            "note": f"larger than {LARGEST}: only the size of the update is taken" if options.spectra else None,
        }  # fmt: skip
        return
    own, base = spectrum(update), spectrum(before)
    random = unstructured_update(update, seed) if own.spectral else update
    values = _sizes(own, base, spectrum(random) if own.spectral else None)
    values["rank"] = (float(own.rank(rounding(before))), float(min(before.shape)) if own.spectral else None)
    for metric, (value, control) in values.items():
        yield {**about, "metric": metric, "value": value, "control": control}
    if own.spectral:
        turned, other = turn(before, after, options.vectors), turn(before, before + random, options.vectors)
        for index, (angle, against) in enumerate(zip(turned.angles, other.angles, strict=True)):
            yield {
                **about, "metric": "principal_angle", "value": float(angle), "control": float(against), "index": index,
            }  # fmt: skip
        for threshold in options.thresholds:
            yield {
                **about, "metric": "intruder_dimensions", "value": float(turned.intruders(threshold)),
                "control": float(other.intruders(threshold)), "threshold": threshold,
            }  # fmt: skip


def _sizes(
    own: Spectrum, base: Spectrum, random: Spectrum | None
) -> dict[str, tuple[float | None, float | None]]:
    """Return metric -> (value, control); the control has the same Frobenius norm by construction."""

    def share(part: float, whole: float) -> float | None:
        return part / whole if whole else None

    return {
        "relative_frobenius": (share(own.frobenius, base.frobenius), None),
        "relative_spectral": (
            share(own.spectral, base.spectral),
            share(random.spectral, base.spectral) if random else None,
        ),
        "stable_rank": (own.stable_rank, random.stable_rank if random else None),
        "effective_rank": (own.effective_rank, random.effective_rank if random else None),
    }


def _of_heads(
    before: Matrix, after: Matrix, about: dict[str, Any], options: WeightOptions
) -> Iterator[dict[str, Any]]:
    """Yield what one head's own rows or columns show: sizes, and with spectra ranks, angles and intruders."""
    whole = options.spectra and max(before.weight.shape) <= LARGEST
    for head in range(len(before.heads)):
        own, moved, axes = _array(before.of_head(head)), _array(after.of_head(head)), {**about, "head": head}
        update = moved - own
        if not whole:
            size = float(np.linalg.norm(own))
            value = float(np.linalg.norm(update)) / size if size else None
            yield {**axes, "metric": "relative_frobenius", "value": value}
            continue
        change = spectrum(update)
        for metric, (value, _) in _sizes(change, spectrum(own), None).items():
            yield {**axes, "metric": metric, "value": value}
        if change.spectral:
            # Vectors in the stream's width: in the head's own width its vectors span all there is.
            tall = own.shape[0] >= own.shape[1]
            turned = turn(own if tall else own.T, moved if tall else moved.T, options.vectors)
            for index, angle in enumerate(turned.angles):
                yield {**axes, "metric": "principal_angle", "value": float(angle), "index": index}
            for threshold, count in zip(
                options.thresholds, intruder_curve(turned, options.thresholds), strict=True
            ):
                yield {**axes, "metric": "intruder_dimensions", "value": float(count), "threshold": threshold}


def _array(weight: Any) -> np.ndarray:
    return np.asarray(weight.cpu().double().numpy())


def _square(weight: Any) -> float:
    return float(weight.double().square().sum())


def _place(matrix: Matrix) -> str:
    where = "" if matrix.layer is None else f" of block {matrix.layer}"
    return f"{matrix.part}{where}" if matrix.stack is None else f"{matrix.stack}: {matrix.part}{where}"


def findings(table: pl.DataFrame, subject: Subject) -> Sequence[Finding]:
    """Say which block moved most, and in how many directions the updates go."""
    own = table.filter((pl.col("arm") == subject.arm) & pl.col("seed").eq_missing(pl.lit(subject.seed)))
    size = own.filter((pl.col("metric") == "relative_frobenius") & pl.col("value").is_not_null())
    blocks = size.filter(pl.col("site") == "block").sort("value", descending=True)
    if blocks.is_empty() or not blocks["value"][0]:
        return []
    most, least = blocks.row(0, named=True), blocks.row(-1, named=True)
    whole = own.filter(pl.col("layer").is_not_null() & pl.col("head").is_null())
    ranks = whole.filter(pl.col("metric") == "stable_rank").drop_nulls("value")
    directions, control = "", "none: spectra were not asked for"
    if ranks.height:
        rank, against = (float(np.median(ranks[name].to_numpy())) for name in ("value", "control"))
        shared = f"{rank:.1f} directions (median stable rank; without structure {against:.1f})"
        directions = f"; an update's size is shared by {shared}"
        control = f"an update of equal norm without structure: stable rank {against:.1f}"
    sentence = (
        f"Tuning moved block {_named(most)} most, by {most['value']:.2%} of its weights' norm, and block "
        f"{_named(least)} least, by {least['value']:.2%}{directions}."
    )
    return [
        Finding(
            lens="weights", arm=subject.arm, sentence=sentence, metric="relative_frobenius", value=most["value"],
            low=None, high=None, n=0, test="exact: no rows are drawn",
            control=control,
            rows="no rows: weights alone", verdict="task not learned" if subject.learned is False else "found",
        )
    ]  # fmt: skip


def _named(row: dict[str, Any]) -> str:
    return f"{row['layer']}" if not row.get("stack") else f"{row['layer']} of the {row['stack']}"
