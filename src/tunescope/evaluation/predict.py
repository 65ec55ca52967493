"""Predictions of a classifier, row by row, in the order the rows came in."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl
import torch

from tunescope import processes
from tunescope.data.batches import Batch
from tunescope.data.packed import PackedBatch
from tunescope.data.tokens import Tokens
from tunescope.errors import DataError
from tunescope.models import Classifier
from tunescope.models.activations import fast_activations
from tunescope.models.packed import model_batches
from tunescope.models.prefix import pooled_from
from tunescope.models.stored import StoredStates
from tunescope.progress import SILENT, Progress


def logits_of(
    classifier: Classifier,
    tokens: Tokens,
    progress: Progress = SILENT,
    states: StoredStates | None = None,
) -> np.ndarray:
    """Return the logits of every row, [N, C] float64, in the order of ``tokens``.

    Rows run without padding where the model can, else in batches of about equal length; each batch carries its
    row ids, and every id must come back at the place it started from. Several processes share the batches.

    Args:
        classifier: Any classifier; its mode is left as it was.
        tokens: Rows, with or without labels.
        progress: Where to report.
        states: Stored states of these rows before one of the blocks, or their pooled vectors, from
            :meth:`tunescope.models.store.ActivationStore.serve`; the model then runs from there on.

    Raises:
        DataError: A row came back at another place, twice or not at all (an internal check).
    """
    out = np.full((len(tokens), len(classifier.labels)), np.nan)
    seen = np.zeros(len(tokens), dtype=np.int64)
    shares = len(tokens) if states is None else 0  # stored states stay where they are
    with (
        progress.task("predicting", len(tokens), "rows") as task,
        processes.shared(shares, [classifier], _help, classifier, tokens) as team,
    ):
        for batch, logits in _each_batch(classifier, tokens, states, team):
            out[batch.index] = logits
            seen[batch.index] += 1
            task.advance(len(batch.row_ids))
    if not (seen == 1).all():
        raise DataError(
            f"Internal check failed: {int((seen != 1).sum())} rows were not predicted exactly once."
        )
    return out


def _each_batch(
    classifier: Classifier, tokens: Tokens, states: StoredStates | None, team: processes.Team | None
) -> Iterator[tuple[Batch | PackedBatch, np.ndarray]]:
    """Yield every batch with its logits; several processes compute them in turns."""

    def logits_of_batch(batch: Batch | PackedBatch) -> np.ndarray:
        if [tokens.row_ids[position] for position in batch.index] != list(batch.row_ids):
            raise DataError("Internal check failed: rows of a batch are not where their ids say.")
        if states is None:
            logits = classifier(**batch.to(classifier.device).inputs())
        else:
            hidden, lengths = states.read(batch.index)
            hidden = hidden.to(classifier.device)
            whole = states.depth == classifier.n_layers  # pooled vectors, one a row
            pooled = hidden[0] if whole else pooled_from(classifier, states.depth, hidden, lengths)
            logits = classifier.head(pooled)
        found: np.ndarray = logits.double().cpu().numpy()
        return found

    was_training = classifier.training
    classifier.eval()
    try:
        with torch.inference_mode(), fast_activations(classifier):
            yield from processes.in_turns(model_batches(classifier, tokens), logits_of_batch, team)
    finally:
        classifier.train(was_training)


def _help(team: processes.Team, classifier: Classifier, tokens: Tokens) -> None:
    """Compute this process's batches for the leader."""
    for _ in _each_batch(classifier, tokens, None, team):
        pass


def probabilities_of(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of logits [N, C]."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def predict(
    classifier: Classifier,
    tokens: Tokens,
    progress: Progress = SILENT,
    states: StoredStates | None = None,
) -> pl.DataFrame:
    """Predict the class of every row.

    Args:
        classifier: Any classifier; its mode is left as it was.
        tokens: Rows, with or without labels.
        progress: Where to report.
        states: Stored states of these rows, as for :func:`logits_of`.

    Returns:
        One line per row, in the order of ``tokens``: ``row_id``, ``prediction`` (class index),
        ``logit_<label>`` and ``probability_<label>`` for every class, ``tokens`` (before truncation) and ``truncated``.
    """
    logits = logits_of(classifier, tokens, progress, states)
    probabilities = probabilities_of(logits)
    names = classifier.labels.names
    columns: dict[str, pl.Series] = {
        "row_id": pl.Series(list(tokens.row_ids), dtype=pl.String),
        "prediction": pl.Series(logits.argmax(axis=1) if len(logits) else [], dtype=pl.Int64),
        **{f"logit_{name}": pl.Series(logits[:, index]) for index, name in enumerate(names)},
        **{f"probability_{name}": pl.Series(probabilities[:, index]) for index, name in enumerate(names)},
        "tokens": pl.Series(tokens.lengths, dtype=pl.Int64),
        "truncated": pl.Series(tokens.truncated, dtype=pl.Boolean),
    }
    return pl.DataFrame(columns)
