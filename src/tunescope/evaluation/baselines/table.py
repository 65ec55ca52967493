"""Baselines as tables of predictions with metrics, in the format of an arm's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import polars as pl

from tunescope.data.rows import Rows
from tunescope.errors import DataError
from tunescope.evaluation.baselines.rules import (
    as_logits,
    class_shares,
    fit_lookup,
    leave_one_out,
    possible_columns,
    values_of,
)
from tunescope.evaluation.baselines.words import fit_words
from tunescope.evaluation.metrics import classification_metrics
from tunescope.evaluation.predict import predict, probabilities_of
from tunescope.progress import SILENT, Progress
from tunescope.seeds import derive_seed

if TYPE_CHECKING:
    from tunescope.data.tokens import Tokens
    from tunescope.models.classifier import Classifier
    from tunescope.models.store import ActivationStore


class Baseline(TypedDict):
    """What a baseline gives.

    Attributes:
        predictions: The columns of an arm's ``predictions.parquet``; ``tokens`` and ``truncated`` are null where
            no tokenizer was at work.
        records: The metrics of every split that has labels.
        about: What it is and what it was fitted on, in words.
    """

    predictions: pl.DataFrame
    records: list[dict[str, Any]]
    about: str


def majority(rows: Rows, seed: int = 0) -> Baseline:
    """Return the baseline that always says the most frequent class of train.

    Its logits are the logarithms of the classes' shares in train, so that its log loss is that of knowing these
    shares and nothing else.

    Raises:
        DataError: No train row has a label.
    """
    labels = _train_labels(rows)
    shares = class_shares(labels, len(rows.labels.names))
    logits = np.tile(as_logits(shares[None]), (len(rows), 1))
    best = int(shares.argmax())
    about = (
        f"always {rows.labels.names[best]!r}: {int((labels == best).sum()):,} of {len(labels):,} train rows"
    )
    return _baseline(rows, logits, about, seed)


def lookup(rows: Rows, seed: int = 0) -> Baseline:
    """Return the baseline that looks the label up by one other column, without reading the text.

    The column is chosen on train alone, by leave-one-out accuracy. Train rows are predicted with themselves
    left out; values that train does not have get train's most frequent class.

    Raises:
        DataError: No train row has a label, or there is no other column.
    """
    train = _train(rows)
    columns = possible_columns(rows.frame)
    if not columns:
        raise DataError("The look-up baseline needs a column beside text and label; there is none.")
    classes = len(rows.labels.names)
    labels = train["label"].to_numpy().astype(np.int64)
    found = fit_lookup(train, labels, classes, columns)
    logits = found.logits(values_of(rows.frame, found.column))
    inside = rows.frame["row_id"].is_in(train["row_id"].implode()).to_numpy()
    logits[inside] = leave_one_out(values_of(train, found.column), labels, classes)
    elsewhere = rows.frame.filter(pl.col("split") != "train")
    unseen = found.unseen(values_of(elsewhere, found.column))
    about = (
        f"the most frequent label of the value in {found.column!r} ({len(found.table):,} values; leave-one-out on "
        f"train {found.right:,} of {found.rows:,} right, the best of {len(columns)} columns); {unseen:,} of "
        f"{elsewhere.height:,} other rows have a value that train has not"
    )
    return _baseline(rows, logits, about, seed)


def tfidf(rows: Rows, seed: int = 0) -> Baseline:
    """Return TF-IDF of words and pairs of words with logistic regression, fitted on train.

    The strength of the penalty is chosen by cross-validation on train rows. Train rows are predicted by the
    model that was fitted on them, as an arm predicts its own.

    Raises:
        DataError: Train has fewer than two labels, or its texts hold no word.
    """
    train = _train(rows)
    labels = train["label"].to_numpy().astype(np.int64)
    model = fit_words(train["text"].to_list(), labels, len(rows.labels.names), seed)
    return _baseline(rows, model.logits(rows.frame["text"].to_list()), f"TF-IDF: {model.about}", seed)


def probe(
    base: Classifier,
    parts: dict[str, Tokens],
    rows: Rows,
    seed: int = 0,
    progress: Progress = SILENT,
    store: ActivationStore | None = None,
) -> Baseline:
    """Return a logistic regression on the frozen base's pooled features, fitted on train rows.

    Args:
        base: The base model.
        parts: Tokens of every split, ``train`` among them.
        rows: The same rows.
        seed: Seeds the probe's folds.
        progress: Where to report.
        store: Where features are looked for and kept: every row's are computed once, for the fit, for the
            predictions, and for whoever needs this base's features later.

    Raises:
        DataError: There are no train tokens.
        ModelError: Train has fewer than two labels.
    """
    from tunescope.models import features, fit_probe

    if "train" not in parts:
        raise DataError("The probe baseline is fitted on train rows; there are none.")
    for tokens in parts.values():
        if store is not None and store.can_serve(base, tokens) and store.has_room(base, tokens, "pooled"):
            features(base, tokens, progress, store)
    fitted = fit_probe(base, parts["train"], seed=derive_seed(seed, "probe"), progress=progress, store=store)
    tables = [
        predict(fitted, tokens, progress, None if store is None else store.serve(fitted, tokens))
        for tokens in parts.values()
    ]
    known = rows.frame.select("row_id", "split", "label")
    joined = known.join(pl.concat(tables), on="row_id", how="left", maintain_order="left")
    if joined.height != len(rows) or joined["prediction"].null_count():
        raise DataError("Internal check failed: predictions of the probe and rows do not match by id.")
    return Baseline(
        predictions=joined, records=_records(joined, rows, seed), about=str(fitted.record["head"])
    )


def cheap(
    rows: Rows, seed: int = 0, progress: Progress = SILENT
) -> tuple[dict[str, Baseline], dict[str, str]]:
    """Return the baselines that need no model, by name, and why any of them could not be made.

    Raises:
        DataError: No train row has a label.
    """
    _train_labels(rows)
    found: dict[str, Baseline] = {}
    left_out: dict[str, str] = {}
    makers = {"majority": majority, "lookup": lookup, "tfidf": tfidf}
    with progress.task("baselines", len(makers), "baselines") as task:
        for name, make in makers.items():
            try:
                found[name] = make(rows, seed)
            except DataError as error:
                left_out[name] = error.message
            task.advance()
    return found, left_out


def _train(rows: Rows) -> pl.DataFrame:
    """Return labelled train rows.

    Raises:
        DataError: There are none.
    """
    train = rows.frame.filter((pl.col("split") == "train") & pl.col("label").is_not_null())
    if train.is_empty():
        raise DataError(
            "Baselines are fitted on labelled train rows; there are none.",
            hint="Look at the splits and the label column of the data section.",
        )
    return train


def _train_labels(rows: Rows) -> np.ndarray:
    labels: np.ndarray = _train(rows)["label"].to_numpy().astype(np.int64)
    return labels


def _baseline(rows: Rows, logits: np.ndarray, about: str, seed: int) -> Baseline:
    names = rows.labels.names
    probabilities = probabilities_of(logits)
    nothing = {"tokens": pl.Int64, "truncated": pl.Boolean}
    frame = rows.frame.select("row_id", "split", "label").with_columns(
        pl.Series("prediction", logits.argmax(axis=1), dtype=pl.Int64),
        *(pl.Series(f"logit_{name}", logits[:, i]) for i, name in enumerate(names)),
        *(pl.Series(f"probability_{name}", probabilities[:, i]) for i, name in enumerate(names)),
        *(pl.lit(None, dtype=kind).alias(name) for name, kind in nothing.items()),
    )
    return Baseline(predictions=frame, records=_records(frame, rows, seed), about=about)


def _records(frame: pl.DataFrame, rows: Rows, seed: int) -> list[dict[str, Any]]:
    """Return the metrics of every split that has labels."""
    names, records = list(rows.labels.names), []
    for split in rows.splits:
        own = frame.filter((pl.col("split") == split) & pl.col("label").is_not_null())
        if own.is_empty():
            continue
        logits = own.select([f"logit_{name}" for name in names]).to_numpy()
        labels = own["label"].to_numpy().astype(np.int64)
        records += classification_metrics(labels, logits, names, split, derive_seed(seed, "metrics"))
    return records
