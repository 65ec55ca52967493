"""What the stages of a study do; each reads the run folder and writes its declared outputs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tunescope.config import ArmConfig
from tunescope.data.load import load_rows
from tunescope.data.tokens import Tokens, length_summary, truncation_by_label
from tunescope.errors import RunError
from tunescope.evaluation import classification_metrics, confusion_matrix, predict
from tunescope.files import atomic_path, read_json, write_atomic, write_json
from tunescope.folders import remove
from tunescope.runs import Stage
from tunescope.seeds import derive_seed
from tunescope.study.context import ROWS, Context, stage_name
from tunescope.study.inputs import PLANTED_FOLDER, planted_name, scratch_key
from tunescope.training import TrainOptions, train
from tunescope.tuning import METHODS


def make_data(context: Context) -> None:
    """Read, split and identify the rows; generate them first where the study's data is planted."""
    data = context.study.data
    name = planted_name(context.study)
    if name is not None:
        from tunescope.planted.corpus import write_planted

        folder = context.path / PLANTED_FOLDER
        write_planted(name, folder, data.seed)
        paths = {split: str(folder / f"{split}.parquet") for split in ("train", "validation", "test")}
        data = data.model_copy(update={"path": paths})
    rows = load_rows(data, data.seed, context.progress)
    rows.save(context.path / ROWS)
    context.forget_rows()


def make_scratch(context: Context, arm: ArmConfig) -> dict[str, Any]:
    """Train a small model from nothing; stopped, it continues from its own checkpoint."""
    from tunescope.training.scratch import pretrain

    assert arm.scratch is not None
    folder = context.path / "scratch" / scratch_key(context.study, arm.scratch)
    corpus = Path(arm.scratch.corpus) if arm.scratch.corpus else context.path / PLANTED_FOLDER / "corpus.txt"
    if not arm.scratch.corpus and planted_name(context.study) is None:
        corpus = folder / "corpus.txt"
        texts = context.rows().split("train").frame["text"].to_list()
        write_atomic(corpus, "".join(" ".join(text.split()) + "\n" for text in texts))
    record = pretrain(corpus, arm.scratch, folder / "work", context.study.seeds[0], context.progress)
    os.replace(folder / "work", folder / "model")
    return {"heldout_loss": record["heldout_loss"], "unigram_loss": record["unigram_loss"]}


def make_summary(context: Context) -> None:
    """Count rows, labels, tokens and truncation, per arm, split and class."""
    truncated: dict[str, Any] = {}
    lengths: dict[str, Any] = {}
    for arm in context.study.arms:
        classifier = context.base(arm, context.study.seeds[0])
        parts = context.splits(arm, classifier)
        labels = context.rows().labels
        truncated[arm.name] = {name: truncation_by_label(tokens, labels) for name, tokens in parts.items()}
        lengths[arm.name] = {name: length_summary(tokens) for name, tokens in parts.items()}
    summary = {**context.rows().summary(), "truncated": truncated, "tokens": lengths}
    write_json(context.path / "data" / "summary.json", summary)


def make_training(context: Context, arm: ArmConfig, seed: int, stage: Stage) -> dict[str, Any]:
    """Tune one arm with one seed, or continue where it was stopped."""
    method = METHODS[arm.method]
    classifier = context.base(arm, seed)
    method.prepare(classifier, method.options.model_validate(arm.options))
    splits = context.splits(arm, classifier)
    if "train" not in splits:
        raise RunError("There are no train rows.", hint="Look at the splits of the data section.")
    options = TrainOptions(
        training=context.study.training_of(arm),
        seed=seed,
        device=context.device,
        frozen_trunk=method.frozen_trunk,
        keep_checkpoints=context.keep_checkpoints,
        fingerprint=context.run.fingerprint(stage),
        record={
            "arm": arm.name,
            "method": arm.method,
            "base": arm.model,
            "revision": classifier.record.get("revision"),
            "head": classifier.record.get("head"),
            "template": context.rows().provenance.get("template"),
        },
    )
    rows, validation = _labelled(splits["train"]), _labelled(splits.get("validation"))
    if rows is None:
        raise RunError("No train row has a label.", hint="Look at the label column of the data section.")
    log = train(classifier, rows, validation, context.arm_folder(arm, seed), options, context.progress)
    return {
        "seconds": log.seconds,
        "steps": log.steps,
        "parameters": log.parameters,
        "trainable_parameters": log.trainable_parameters,
        "seeds": log.seeds,
        "best_step": log.best_step,
    }


def _labelled(tokens: Tokens | None) -> Tokens | None:
    """Return the rows that have a label, or None where there are none."""
    if tokens is None or not (tokens.labels >= 0).any():
        return None
    return tokens.take(np.flatnonzero(tokens.labels >= 0))


def make_evaluation(context: Context, arm: ArmConfig, seed: int) -> None:
    """Predict every row and measure every split that has labels."""
    classifier = context.tuned(arm, seed)
    rows = context.rows()
    names = rows.labels.names
    tables, records, confusion, majority = [], [], {}, {}
    for split, tokens in context.splits(arm, classifier).items():
        table = predict(classifier, tokens, context.progress)
        labels = tokens.labels
        known = labels >= 0
        tables.append(_with_labels(table, split, labels))
        if known.any():
            logits = table.select([f"logit_{name}" for name in names]).to_numpy()[known]
            measured = classification_metrics(
                labels[known], logits, names, split, derive_seed(seed, "metrics")
            )
            records += measured
            confusion[split] = confusion_matrix(labels[known], logits.argmax(axis=1), len(names))
            own = next(record for record in measured if record["metric"] == "majority_accuracy")
            majority[split] = {"accuracy": own["value"]}
    folder = context.arm_folder(arm, seed)
    _write_predictions(tables, rows.frame["row_id"], folder / "predictions.parquet")
    notes = context.run.notes(stage_name("train", arm, seed))
    content = {
        "arm": arm.name, "seed": seed, "method": arm.method, "model": arm.model, "records": records,
        "confusion": confusion, "majority": majority, "seconds": notes.get("seconds"),
        "trainable_parameters": notes.get("trainable_parameters"), "parameters": notes.get("parameters"),
    }  # fmt: skip
    write_json(folder / "metrics.json", content)


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


def clear_scratch_work(context: Context) -> None:
    """Remove unfinished from-scratch work of other settings."""
    keys = {scratch_key(context.study, arm.scratch) for arm in context.study.arms if arm.scratch is not None}
    for folder in (context.path / "scratch").glob("*"):
        if folder.name not in keys and not (folder / "model").exists():
            remove(folder)


def metrics_of(context: Context, arm: ArmConfig, seed: int) -> dict[str, Any]:
    """Return the metrics of a finished training."""
    return read_json(context.arm_folder(arm, seed) / "metrics.json")
