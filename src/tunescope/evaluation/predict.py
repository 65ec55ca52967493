"""Predictions of a classifier, row by row, in the order the rows came in."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch

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
    row ids, and every id must come back at the place it started from.

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
    was_training = classifier.training
    classifier.eval()
    try:
        with (
            torch.inference_mode(),
            fast_activations(classifier),
            progress.task("predicting", len(tokens), "rows") as task,
        ):
            for batch in model_batches(classifier, tokens):
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
                out[batch.index] = logits.double().cpu().numpy()
                seen[batch.index] += 1
                task.advance(len(batch.row_ids))
    finally:
        classifier.train(was_training)
    if not (seen == 1).all():
        raise DataError(
            f"Internal check failed: {int((seen != 1).sum())} rows were not predicted exactly once."
        )
    return out


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
