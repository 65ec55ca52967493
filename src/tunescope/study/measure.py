"""The stages that measure one training: on validation rows for the choice among trials, or on every split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tunescope.config import ArmConfig
from tunescope.data.rows import Rows
from tunescope.data.tokens import Tokens
from tunescope.errors import RunError
from tunescope.evaluation import (
    PriorRows,
    Scored,
    classification_metrics,
    confusion_matrix,
    effective_prior,
    predict,
    prior_shift,
    reliability_curve,
    slice_metrics,
    standard_columns,
    tune_thresholds,
)
from tunescope.files import atomic_path, read_json, write_json
from tunescope.models import Classifier
from tunescope.models.stored import StoredStates
from tunescope.seeds import derive_seed
from tunescope.study.context import Context, is_prompted, seen_rows, stage_name
from tunescope.study.fit import stored_bytes

SLICED = ("validation", "test")
MOST_COLUMNS = 12  # further columns of the data that slices are made by
MOST_VALUES = 20
RESERVED = ("row_id", "position", "split", "text", "label")
NO_LENSES = "nothing was tuned: base and tuned are one model, so there is nothing for a lens to compare"


def make_trial(context: Context, arm: ArmConfig, seed: int) -> None:
    """Measure a trial of a grid on validation rows, which alone may choose."""
    if "validation" not in context.rows().splits:
        raise RunError(
            "A grid chooses its trial on validation rows, and there are none.",
            hint="Set data.validation above 0, or give a validation split.",
        )
    rows = context.rows()
    table = _predicted(context, arm, seed, ["validation"])["validation"]
    logits, labels = _scored(table, rows.split("validation"))
    records = classification_metrics(
        labels, logits, rows.labels.names, "validation", derive_seed(seed, "metrics")
    )
    content = {
        "arm": arm.name, "grid": arm.grid, "point": arm.point, "seed": seed, "records": records,
        "cost": cost(context, arm, seed),
    }  # fmt: skip
    write_json(context.arm_folder(arm, seed) / "trial.json", content)


def make_evaluation(context: Context, arm: ArmConfig, seed: int) -> None:
    """Predict every row and measure every split that has labels."""
    rows = context.rows()
    predicted = _predicted(context, arm, seed, rows.splits)
    found = _Measured(arm, seed, rows, context.groups(), context.study.data.seed)
    tables = []
    for split, table in predicted.items():
        own = rows.split(split)
        tables.append(_with_labels(table, split, own.label_array))
        found.add(split, table, own)
    folder = context.arm_folder(arm, seed)
    _write_predictions(tables, rows.frame["row_id"], folder / "predictions.parquet")
    price = cost(context, arm, seed)
    content = {
        "arm": arm.name, "seed": seed, "method": arm.method, "model": arm.model, "grid": arm.grid,
        "point": arm.point, "train_share": arm.train_share, "records": found.records,
        "confusion": found.confusion, "majority": found.majority, "seconds": price["seconds"],
        "trainable_parameters": price["trainable_parameters"], "parameters": price["parameters"],
        "cost": price, "slices": found.slices, "reliability": found.reliability,
        "threshold": found.threshold(), "truncated": found.truncated,
        "prompt": context.run.notes(stage_name("train", arm, seed)).get("prompt"),
        "prior": found.prior(context.study.prior, price["choices"]),
        "notes": [*([arm.note] if arm.note else []), *([NO_LENSES] if is_prompted(arm) else [])],
    }  # fmt: skip
    content["baseline"] = {"majority": found.majority, "learned": learned(content)}
    write_json(folder / "metrics.json", content)


def cost(context: Context, arm: ArmConfig, seed: int) -> dict[str, Any]:
    """Return what one training cost: time, steps, parameters, bytes, throughput and memory."""
    notes = context.run.notes(stage_name("train", arm, seed))
    return {
        "seconds": notes.get("seconds"),
        "steps": notes.get("steps"),
        "trainable_parameters": notes.get("trainable_parameters"),
        "parameters": notes.get("parameters"),
        "stored_bytes": stored_bytes(context.arm_folder(arm, seed) / "model"),
        "real_tokens_per_second": notes.get("tokens_per_second"),
        "padding_share": notes.get("padding_share"),
        "peak_memory_bytes": notes.get("peak_memory_bytes"),
        "memory": notes.get("memory", []),
        "devices": notes.get("devices", []),
        "stopped_early": notes.get("stopped_early", False),
        "halved": notes.get("halved", 0),
        "choices": notes.get("choices", {}),
    }


class _Measured:
    """What is measured of one training, split by split."""

    def __init__(
        self, arm: ArmConfig, seed: int, rows: Rows, groups: dict[str, str] | None, data_seed: int
    ) -> None:
        self.arm, self.seed, self.rows, self.groups = arm, derive_seed(seed, "metrics"), rows, groups
        self.data_seed = data_seed
        self.records: list[dict[str, Any]] = []
        self.slices: list[dict[str, Any]] = []
        self.confusion: dict[str, Any] = {}
        self.majority: dict[str, Any] = {}
        self.reliability: dict[str, Any] = {}
        self.truncated: dict[str, Any] = {}
        self._scored: dict[str, Scored] = {}
        self._groups: dict[str, np.ndarray | None] = {}

    def add(self, split: str, table: pl.DataFrame, rows: Rows) -> None:
        """Measure one split, in the order of its rows."""
        names = self.rows.labels.names
        self.truncated[split] = _truncated(table, rows)
        logits, labels = _scored(table, rows)
        if split == "train" and self.arm.train_share < 1:  # rows that were not seen are not train rows
            unseen = np.ones(len(labels), dtype=bool)
            unseen[seen_rows(rows, self.arm.train_share, self.data_seed)] = False
            labels = np.where(unseen, -1, labels)
        known = labels >= 0
        if not known.any():
            return
        self._scored[split] = Scored(labels, logits)
        groups = None
        if self.groups is not None:
            groups = np.array([self.groups[row] for row in rows.frame["row_id"]])
            groups = groups if len(np.unique(groups[known])) < known.sum() else None
        self._groups[split] = groups
        measured = classification_metrics(labels, logits, names, split, self.seed, groups)
        self.records += measured
        self.confusion[split] = confusion_matrix(labels[known], logits[known].argmax(axis=1), len(names))
        own = next(record for record in measured if record["metric"] == "majority_accuracy")
        self.majority[split] = {"accuracy": own["value"]}
        self.reliability[split] = reliability_curve(labels, logits)
        if split in SLICED:
            columns = {**standard_columns(table["tokens"].to_numpy(), table["truncated"].to_numpy()),
                       **slice_columns(rows)}  # fmt: skip
            self.slices += slice_metrics(labels, logits, names, columns, split, self.seed)

    def threshold(self) -> dict[str, Any] | None:
        """Return the thresholds that validation rows choose, and what they do on test rows."""
        if not {"validation", "test"} <= set(self._scored):
            return None
        validation, test = self._scored["validation"], self._scored["test"]
        return tune_thresholds(validation, test, self.rows.labels.names, seed=self.seed)

    def prior(self, asked: str | dict[str, float] | None, choices: dict[str, Any]) -> dict[str, Any] | None:
        """Return what test metrics become under other shares of the classes, or None where that is not asked."""
        if asked is None:
            return None
        if "test" not in self._scored:
            return {"done": False, "asked": asked, "reason": "there are no labelled test rows"}
        names = self.rows.labels.names
        rows = PriorRows(self._scored["test"], names, self._groups.get("test"))
        return prior_shift(asked, effective_prior(choices, names), rows, self.seed)


def slice_columns(rows: Rows) -> dict[str, np.ndarray]:
    """Return the data's further columns that can be sliced by: a few values that come again."""
    found: dict[str, np.ndarray] = {}
    for name in rows.frame.columns:
        column = rows.frame[name]
        if name in RESERVED or column.dtype.is_nested() or len(found) == MOST_COLUMNS:
            continue
        if 2 <= column.n_unique() <= min(MOST_VALUES, max(2, len(column) // 2)):
            found[name] = np.array(column.cast(pl.String).to_list(), dtype=object)
    return found


def learned(metrics: dict[str, Any]) -> bool | None:
    """Whether accuracy clears the majority baseline on test, else validation, rows; None if not measured."""
    for split in ("test", "validation"):
        for record in metrics["records"]:
            if record["split"] == split and record["metric"] == "accuracy" and record["low"] is not None:
                return bool(record["low"] > metrics["majority"][split]["accuracy"])
    return None


def metrics_of(context: Context, arm: ArmConfig, seed: int) -> dict[str, Any]:
    """Return the metrics of a finished training."""
    return read_json(context.arm_folder(arm, seed) / "metrics.json")


def _predicted(context: Context, arm: ArmConfig, seed: int, splits: list[str]) -> dict[str, pl.DataFrame]:
    """Return the predictions of whole splits, each in the order of its rows."""
    if is_prompted(arm):
        from tunescope.prompting import ZeroShot

        asked = ZeroShot.load(context.arm_folder(arm, seed) / "model", context.device)
        return {split: asked.predict(context.rows().split(split), context.progress) for split in splits}
    classifier = context.tuned(arm, seed)
    parts = {split: context.tokens(arm, classifier, split) for split in splits}
    known = _stored(context, arm, classifier, parts)
    return {
        split: predict(classifier, tokens, context.progress, known.get(split))
        for split, tokens in parts.items()
    }


def _stored(
    context: Context, arm: ArmConfig, classifier: Classifier, parts: dict[str, Tokens]
) -> dict[str, StoredStates | None]:
    """Return what the activation store holds of each split, for blocks that tuning left alone.

    A training leaves there what its frozen blocks give for train and validation rows. Rows of the other splits are
    added where that pays: where further seeds of the arm will predict the same rows.
    """
    store = context.store(arm)
    if store is None:
        return {}
    known = {split: store.serve(classifier, tokens) for split, tokens in parts.items()}
    found = [states.depth for states in known.values() if states is not None]
    if found and max(found) < classifier.n_layers and len(context.study.seeds) > 1:
        for split, states in known.items():
            if states is None and store.has_room(classifier, parts[split]):
                known[split] = store.obtain(classifier, parts[split], max(found))
    return known


def _scored(table: pl.DataFrame, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return logits `[N, C]` and labels `[N]`, -1 where there is none."""
    return table.select([f"logit_{name}" for name in rows.labels.names]).to_numpy(), rows.label_array


def _truncated(table: pl.DataFrame, rows: Rows) -> dict[str, dict[str, int]]:
    """Return, per label, how many rows there are and how many lost tokens."""
    labels, cut = rows.label_array, table["truncated"].to_numpy()
    return {
        name: {"rows": int((labels == index).sum()), "truncated": int(cut[labels == index].sum())}
        for index, name in enumerate(rows.labels.names)
    }


def _with_labels(table: pl.DataFrame, split: str, labels: np.ndarray) -> pl.DataFrame:
    own = pl.Series("label", [None if label < 0 else int(label) for label in labels], dtype=pl.Int64)
    first = table.select("row_id").with_columns(pl.lit(split).alias("split"), own)
    return pl.concat([first, table.drop("row_id")], how="horizontal")


def _write_predictions(tables: list[pl.DataFrame], row_ids: pl.Series, path: Path) -> None:
    """Write predictions in the order in which the rows came in, one for each.

    Raises:
        RunError: A row has no prediction or two (an internal check that must never fail).
    """
    joined = pl.DataFrame({"row_id": row_ids}).join(
        pl.concat(tables), on="row_id", how="left", maintain_order="left"
    )
    if joined.height != len(row_ids) or joined["prediction"].null_count():
        raise RunError("Internal check failed: predictions and rows do not match by id.")
    with atomic_path(path) as temporary:
        joined.write_parquet(temporary)
