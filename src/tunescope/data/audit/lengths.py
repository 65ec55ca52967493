"""How long texts are, in words and in a model's tokens, and what cutting them takes away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tunescope.data.audit.token_counts import count_tokens
from tunescope.data.rows import Rows
from tunescope.progress import SILENT, Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_TOKENS = 512  # what a study takes where it names no max_length and the model allows more


def audit_lengths(
    rows: Rows,
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_length: int | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Measure texts per split and class.

    Args:
        rows: Any rows.
        tokenizer: Of the model that is to read them; None measures words only.
        max_length: The most tokens of a text, special tokens included; None means the tokenizer's limit, at
            most 512.
        progress: Where to report.

    Returns:
        ``words`` (runs of characters other than white space) and, with a tokenizer, ``tokens`` (special ones
        included): per split ``all`` and every class with ``rows, mean, median, p95, max``; tokens also with
        ``truncated`` (rows that lose tokens) and ``cut`` (the share of all tokens lost). ``max_length`` says
        what they were cut at.
    """
    words = rows.frame["text"].str.count_matches(r"\S+").to_numpy().astype(np.int64)
    found: dict[str, Any] = {"words": _by_split(rows, words, None)}
    if tokenizer is not None:
        limit = max_length or min(int(tokenizer.model_max_length), MOST_TOKENS)
        tokens = count_tokens(rows.frame["text"], tokenizer, progress)
        found |= {"tokens": _by_split(rows, tokens, limit), "max_length": limit}
    return found


def _by_split(rows: Rows, lengths: np.ndarray, limit: int | None) -> dict[str, Any]:
    splits, labels = rows.frame["split"].to_numpy(), rows.label_array
    result = {}
    for split in rows.splits:
        inside = splits == split
        result[split] = {"all": _summary(lengths[inside], limit)} | {
            name: _summary(lengths[inside & (labels == i)], limit)
            for i, name in enumerate(rows.labels.names)
            if (inside & (labels == i)).any()
        }
    return result


def _summary(lengths: np.ndarray, limit: int | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "rows": len(lengths),
        "mean": float(lengths.mean()),
        "median": float(np.median(lengths)),
        "p95": float(np.quantile(lengths, 0.95)),
        "max": int(lengths.max()),
    }
    if limit is not None:
        lost = np.maximum(lengths - limit, 0)
        found |= {"truncated": int((lost > 0).sum()), "cut": float(lost.sum() / max(lengths.sum(), 1))}
    return found
