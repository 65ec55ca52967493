"""Task against task, and model against model: the same rows read by models that were tuned for something else.

Study 001 compares a model tuned on SST-2 with one tuned on QNLI. Two models that share a base resemble each other
because of it, so what the untouched base has in common with the other model stands beside every number as its control.
Widths, depths and tokenizers may differ: CKA and RSA compare rows with rows, and every model reads a text with its own
tokenizer and pools it as it does in its own task.

Formula:
    CKA and RSA as in the lenses ``cka`` and ``similarity``, of a layer of this model and a layer of another on
    the same rows.

Range:
    As there: about 0 to 1 (CKA), -1 to 1 (RSA). Shared dimensions: a count from 0 to ``outliers``.

How to read:
    Compare the tuned model's number with the base's: what the base already has in common with the other model
    is not tuning's doing.

Cost:
    One pass a model over the rows; every layer is held against every layer.

Limits:
    Two models that were tuned from one base resemble each other because of it. Dimensions can be compared by
    number only within one base.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tunescope.capture.sites import Site
from tunescope.config import LensConfig
from tunescope.data.rows import Rows
from tunescope.data.tokens import Tokens, tokenize
from tunescope.errors import LensError
from tunescope.lenses.geometry.cka import METRICS
from tunescope.lenses.geometry.pair_plan import say_pairs
from tunescope.lenses.geometry.pooled import KeptRows, depth, site_name, stream_sites
from tunescope.lenses.reading import read_model, read_pass
from tunescope.lenses.subject import LensRows, Subject
from tunescope.models.classifier import Classifier
from tunescope.models.load import load_trunk
from tunescope.stats.cka import CKAMatrix
from tunescope.stats.hsic import BlockHSIC
from tunescope.stats.results import Finding, result_table
from tunescope.stats.rsa import RankedPairs, dissimilarity

WHAT = (
    "Similarity of every layer to every layer of other models on the same rows (CKA, RSA), and the dimensions of "
    "greatest variance that they share; what the base shares with them, before any tuning, is the control."
)
TOP = 10
RSA_RESAMPLES = 200
Record = dict[str, Any]


class OtherModelOptions(BaseModel):
    """Options of the lens ``other_models``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: Mapping[str, str] = Field(
        default_factory=dict,
        description="a mapping from a name to a model folder: of another task, size or family, such as "
        "{qnli: runs/qnli/arms/full/seed-0/model}; in a comparison of several checkpoints, by default the others",
    )
    rows: LensRows = Field(default_factory=lambda: LensRows(n=1000), description="which rows all models read")
    outliers: int = Field(
        3, ge=1, description="dimensions of greatest variance that are left out of the third CKA: 1 or more"
    )
    rsa_rows: int = Field(300, ge=4, description="rows of RSA, the first of a random order: 4 or more")


def against_others(lens: LensConfig, arm: str, compared: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return a lens's options where several checkpoints are compared: each is held against the others.

    Args:
        lens: Any lens; only ``other_models`` without named models gets some.
        arm: The checkpoint that is looked at.
        compared: ``name`` and ``path`` of every checkpoint.
    """
    if lens.lens != "other_models" or lens.options.get("models"):
        return lens.options
    others = {str(one["name"]): str(one["path"]) for one in compared if one["name"] != arm}
    return {**lens.options, "models": others}


def run(subject: Subject, options: OtherModelOptions) -> tuple[pl.DataFrame, None]:
    """Compare base and tuned with every other model.

    Raises:
        LensError: No model is named, the texts of the rows are not known, there are fewer than 4 rows, or an
            activation is not finite.
        ModelError: Another model cannot be read.
    """
    if not options.models:
        raise LensError(
            f"{subject.arm}: other_models has no model to compare with.",
            hint="Name some, such as models: {qnli: runs/qnli/arms/full/seed-0/model}, or compare several checkpoints.",
        )
    tokens = subject.draw(options.rows, labelled=False)
    kept = KeptRows(len(tokens))
    read_pass(subject, tokens, [kept])
    places = [
        (which, site, depth(site, model))
        for which, model in (("base", subject.base), ("tuned", subject.tuned))
        for site in stream_sites(model)
    ]
    features = {f"{which}:{site}": kept.features(which, site) for which, site, _ in places}
    records: list[Record] = []
    for name, path in options.models.items():
        other = load_trunk(path, labels=subject.tuned.labels, device=subject.tuned.device)
        theirs, note = _read(subject, other, tokens, name)
        mine = [("other", site, depth(site, other)) for site in stream_sites(other)]
        say_pairs(subject, "other_models", len(places) + len(mine), len(tokens))
        about = {"arm": subject.arm, "seed": subject.seed, "other": name, "note": note}
        both = features | {f"other:{site}": theirs.features("base", site) for _, site, _ in mine}
        records += [
            {**about, **one} for one in _compared([*places, *mine], both, options, subject.sampling_seed)
        ]
        if other.width == subject.tuned.width:
            records += [{**about, **one} for one in _shared(places, mine, both, len(tokens))]
    return result_table(records), None


def _read(subject: Subject, other: Classifier, tokens: Tokens, name: str) -> tuple[KeptRows, str | None]:
    """Read the same texts with another model; return what it keeps and what to know of it."""
    if subject.texts is None:
        raise LensError(f"other_models: the texts of the rows are not known, so {name} cannot read them.")
    frame = pl.DataFrame({"row_id": tokens.row_ids}).join(
        subject.texts, on="row_id", how="left", maintain_order="left"
    )
    if frame["text"].null_count():
        raise LensError(f"other_models: {frame['text'].null_count()} of the rows have no known text.")
    labelled = frame.with_columns(label=pl.lit(None, dtype=pl.Int64))
    limit = min(
        other.max_length, int(tokens.kept.max()) if _same_tokens(subject, other) else other.max_length
    )
    own = tokenize(Rows(labelled, subject.tuned.labels, {}), other.tokenizer, limit).first_windows()
    theirs = KeptRows(len(own))
    with subject.progress.task(f"{subject.arm}: reading {name}", len(own), "rows") as task:
        read_model("base", other, own, [theirs], task)
    said = []
    if not _same_tokens(subject, other):
        said.append("another tokenizer: texts are compared as wholes, each pooled by its own model")
    if own.truncated.any():
        said.append(f"{int(own.truncated.sum())} texts are cut for {name}")
    return theirs, "; ".join(said) or None


def _same_tokens(subject: Subject, other: Classifier) -> bool:
    return bool(subject.tuned.tokenizer.get_vocab() == other.tokenizer.get_vocab())


def _compared(
    places: Sequence[tuple[str, Site, int]], features: Mapping[str, np.ndarray], options: OtherModelOptions, seed: int
) -> Iterator[Record]:  # fmt: skip
    """Yield CKA in three variants and RSA, of base and tuned with the other model at every pair of sites."""
    names = [f"{which}:{site}" for which, site, _ in places]
    rows = len(next(iter(features.values())))
    for variant in ("raw", "standardised", "without_outliers"):
        state = BlockHSIC(names, rows, permutation_seed=seed)
        state.update(
            np.arange(rows), {name: _varied(features[name], variant, options.outliers) for name in names}
        )
        yield from _cells(places, state.matrix(), METRICS[variant])
    few = min(options.rsa_rows, rows)
    pairs = RankedPairs([dissimilarity(features[name][:few], "correlation") for name in names])
    found = pairs.resampled(RSA_RESAMPLES, RSA_RESAMPLES - 1, seed)
    values = pairs.correlations()
    for i, j, about in _pairs(places):
        reasons = [pairs.undefined[k] for k in (i, j) if pairs.undefined[k]]
        yield {
            **about, "metric": "rsa_correlation", "value": float(values[i, j]), "low": float(found.low[i, j]),
            "high": float(found.high[i, j]), "p": float(found.p[i, j]), "n": few,
            "control": float(found.control[i, j]), **({"note": "; ".join(map(str, reasons))} if reasons else {}),
        }  # fmt: skip


def _pairs(places: Sequence[tuple[str, Site, int]]) -> Iterator[tuple[int, int, Record]]:
    for i, (which, site, layer) in enumerate(places):
        for j, (other, site_other, layer_other) in enumerate(places):
            if other == "other" and which != "other":
                yield i, j, {
                    "model": f"{which}_other", "site": site.name, "layer": layer, "site_other": site_other.name,
                    "layer_other": layer_other,
                }  # fmt: skip


def _cells(places: Sequence[tuple[str, Site, int]], matrix: CKAMatrix, metric: str) -> Iterator[Record]:
    index = {(one["first"], one["second"]): one for one in matrix.records()}
    for i, j, about in _pairs(places):
        one = index[f"{places[i][0]}:{places[i][1]}", f"{places[j][0]}:{places[j][1]}"]
        numbers = {key: one[key] for key in ("value", "low", "high", "control", "n", "method")}
        yield {**about, "metric": metric, **numbers, **({"note": one["note"]} if one["note"] else {})}


def _varied(values: np.ndarray, variant: str, outliers: int) -> np.ndarray:
    deviation = values.std(axis=0, dtype=np.float64)
    if variant == "raw":
        return values
    if variant == "standardised":
        return (values - values.mean(axis=0, dtype=np.float64)) / np.where(deviation > 0, deviation, 1.0)
    order = np.argsort(-deviation, kind="stable")
    return values[:, np.sort(order[min(outliers, len(order) - 1) :])]


def _shared(
    places: Sequence[tuple[str, Site, int]], mine: Sequence[tuple[str, Site, int]],
    features: Mapping[str, np.ndarray], rows: int,
) -> Iterator[Record]:  # fmt: skip
    """Yield how many of the top dimensions two models of one width share at the same place, beside chance."""
    there = {site: layer for _, site, layer in mine}
    for which, site, layer in places:
        if site not in there:
            continue
        ours, theirs = (features[f"{one}:{site}"].var(axis=0, dtype=np.float64) for one in (which, "other"))
        top = min(TOP, len(ours))
        first, second = (
            set(np.argsort(-variance, kind="stable")[:top].tolist()) for variance in (ours, theirs)
        )
        constant = not (ours.max() > 0 and theirs.max() > 0)
        yield {
            "model": f"{which}_other", "metric": "shared_top_dimensions", "site": site.name, "layer": layer,
            "site_other": site.name, "layer_other": there[site], "n": rows, "top": top,
            "value": None if constant else float(len(first & second)), "control": top * top / len(ours),
            **({"note": "every state is the same vector"} if constant else {}),
        }  # fmt: skip


def findings(table: pl.DataFrame, subject: Subject) -> Sequence[Finding]:
    """Say, for each other model, whether tuning brought the last place nearer to it or took it away."""
    own = table.filter((pl.col("arm") == subject.arm) & pl.col("seed").eq_missing(pl.lit(subject.seed)))
    found = []
    for name in own["other"].unique(maintain_order=True):
        rows = own.filter(
            (pl.col("other") == name) & (pl.col("metric") == "cka") & pl.col("value").is_not_null()
        )
        last = rows.filter(
            (pl.col("layer") == pl.col("layer").max())
            & (pl.col("layer_other") == pl.col("layer_other").max())
        )
        known = {row["model"]: row for row in last.iter_rows(named=True)}
        if not {"tuned_other", "base_other"} <= set(known):
            continue
        tuned, base = known["tuned_other"], known["base_other"]
        apart = None not in (tuned["low"], base["low"]) and (
            tuned["high"] < base["low"] or tuned["low"] > base["high"]
        )
        top = own.filter(
            (pl.col("other") == name)
            & (pl.col("metric") == "shared_top_dimensions")
            & (pl.col("layer") == tuned["layer"])
        )
        counts = {row["model"]: row for row in top.iter_rows(named=True) if row["value"] is not None}
        shared = ""
        if len(counts) == 2:
            shared = (
                f"; of their {counts['tuned_other']['top']} dimensions of greatest variance they share "
                f"{counts['tuned_other']['value']:.0f}, the base shares {counts['base_other']['value']:.0f} "
                f"(by chance {counts['tuned_other']['control']:.1f})"
            )
        sentence = (
            f"At {site_name(tuned['site'], tuned['layer'])} the tuned model and {name} have CKA {_said(tuned)}, the "
            f"base and {name} {_said(base)}{shared}."
        )
        found.append(
            Finding(
                lens="other_models", arm=subject.arm, sentence=sentence, metric="cka", value=tuned["value"],
                low=tuned["low"], high=tuned["high"], n=tuned["n"], test="jackknife intervals that do not overlap",
                control=f"the base: {base['value']:.3f}; rows shuffled: {tuned['control'] or 0:.3f}",
                rows=f"{tuned['n']} rows",
                verdict="task not learned" if subject.learned is False else ("found" if apart else "undecided"),
            )
        )  # fmt: skip
    return found


def _said(row: Mapping[str, Any]) -> str:
    return f"{row['value']:.2f}" + ("" if row["low"] is None else f" [{row['low']:.2f}, {row['high']:.2f}]")
