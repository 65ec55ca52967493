"""How well the models of a pair do on the rows that are looked at, and what stands out before any lens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tunescope.data.tokens import length_summary, truncation_by_label
from tunescope.evaluation.metrics import classification_metrics, confusion_matrix
from tunescope.evaluation.predict import predict
from tunescope.files import atomic_path, write_json
from tunescope.foreign import Pair, label_doubt, logged_metrics
from tunescope.lenses import Subject
from tunescope.lenses.language.language import is_language
from tunescope.lenses.language.subject import loss_per_token
from tunescope.models import Classifier
from tunescope.progress import Progress

LOOKED_AT = "validation"


def measure_pair(subject: Subject, pair: Pair, folder: Path, progress: Progress) -> dict[str, Any]:
    """Write a tuned model's metrics and predictions, and return what the comparison says of it.

    Args:
        subject: The pair, loaded.
        pair: Where it came from.
        folder: ``arms/ARM/seed-N`` of the run.
        progress: Where to report.

    Returns:
        ``notes``, ``assumed``, ``logged``, ``accuracy``, ``learned``, ``tokens``, ``truncated`` and ``same_trunk``.
    """
    said = (
        _language(subject, pair, folder)
        if is_language(subject)
        else _classified(subject, pair, folder, progress)
    )
    parts = {name: tokens for name, tokens in subject.splits.items() if len(tokens)}
    labels = subject.tuned.labels
    return {
        **said,
        "notes": [*said["notes"], *same_notes(subject, pair.name)],
        "assumed": [f"{pair.name}: {item}" for item in _assumed(subject)],
        "logged": logged_metrics(pair.tuned.path),
        "tokens": {name: length_summary(tokens) for name, tokens in parts.items()},
        "truncated": {name: truncation_by_label(tokens, labels) for name, tokens in parts.items()},
    }


def _assumed(subject: Subject) -> list[str]:
    if is_language(subject):
        return ["template: texts go in as they stand"]
    ours = [
        f"base's {item}" for item in subject.base.record.get("assumed", []) if item.startswith("tokenizer")
    ]
    return [*subject.tuned.record.get("assumed", []), *ours]


def same_notes(subject: Subject, name: str) -> list[str]:
    """Say so where there is nothing to find."""
    same = "base and tuned are one and the same model; there is no change to find."
    if not subject.identical:
        same = "every weight of the trunk equals the base's; tuning changed the head at most."
    return [f"{name}: {same}"] if subject.identical or subject.same_trunk else []


def _language(subject: Subject, pair: Pair, folder: Path) -> dict[str, Any]:
    records, said = loss_per_token(subject)
    write_json(folder / "metrics.json", {**_about(subject, pair), "records": records, "confusion": {}})
    return {"notes": [said], "accuracy": None, "learned": None}


def _classified(subject: Subject, pair: Pair, folder: Path, progress: Progress) -> dict[str, Any]:
    names = list(subject.tuned.labels.names)
    tokens = subject.splits[LOOKED_AT]
    known = tokens.labels >= 0
    notes: list[str] = []
    numbers: dict[str, dict[str, Any]] = {}
    for which, model in subject.models_with_logits():
        table = predict(model, tokens, progress)
        logits = table.select([f"logit_{name}" for name in names]).to_numpy()
        metrics = classification_metrics(
            tokens.labels[known], logits[known], names, LOOKED_AT, subject.sampling_seed
        )
        numbers[which] = {record["metric"]: record for record in metrics if record["class"] is None}
        if which == "tuned":
            matrix = confusion_matrix(tokens.labels[known], table["prediction"].to_numpy()[known], len(names))
            confusion = {LOOKED_AT: np.asarray(matrix).tolist()}
            write_json(
                folder / "metrics.json", {**_about(subject, pair), "records": metrics, "confusion": confusion}
            )
            _write_predictions(table, known, tokens.labels, folder)
            doubt = label_doubt(tokens.labels[known], logits[known].argmax(1), names)
            notes += [f"{pair.name}: {doubt}"] if doubt else []
    tuned = numbers["tuned"]["accuracy"]
    beside = (
        f"; the base under its {subject.base_head} head {_said(numbers['base']['accuracy'])}"
        if "base" in numbers
        else ""
    )
    notes.append(f"{pair.name}: accuracy {_said(tuned)}{beside}, on the same {tuned['n']} rows.")
    majority = numbers["tuned"].get("majority_accuracy", {}).get("value") or 0.0
    return {"notes": notes, "accuracy": tuned["value"], "learned": bool((tuned["low"] or 0.0) > majority)}


def _said(record: Mapping[str, Any]) -> str:
    return f"{record['value']:.3f} [{record['low']:.3f}, {record['high']:.3f}]"


def _about(subject: Subject, pair: Pair) -> dict[str, Any]:
    model: Classifier = subject.tuned
    return {
        "arm": subject.arm, "seed": subject.seed, "method": "trained elsewhere", "model": pair.tuned.path,
        "seconds": None, "trainable_parameters": None,
        "parameters": sum(parameter.numel() for parameter in model.model.parameters()),
    }  # fmt: skip


def _write_predictions(table: pl.DataFrame, known: np.ndarray, labels: np.ndarray, folder: Path) -> None:
    label = pl.Series("label", np.where(known, labels, 0)).set(pl.Series(~known), None)
    table.insert_column(1, pl.lit(LOOKED_AT).alias("split")).insert_column(2, label)
    with atomic_path(folder / "predictions.parquet") as temporary:
        table.write_parquet(temporary)
