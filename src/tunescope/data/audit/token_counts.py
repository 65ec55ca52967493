"""Counting the tokens of many texts without keeping them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tunescope.data.audit.words import chunks
from tunescope.progress import SILENT, Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Where these pre-tokenisers cut for certain, so that a text's tokens are those of its pieces. BERT drops vertical
# tabs and the like before it cuts, so only what surely stays white space may end a piece there.
PIECES = {
    "ByteLevel": r"\s*\S+|\s+$",
    "BertPreTokenizer": r"[ \t\r\n]*[^ \t\r\n]+|[ \t\r\n]+$",
}
CHECKED = 64  # texts of every data set on which the two ways of counting are held against each other


def count_tokens(
    texts: pl.Series, tokenizer: PreTrainedTokenizerBase, progress: Progress = SILENT
) -> np.ndarray:
    """Return the number of tokens of each text, special tokens included and nothing cut, int64 [N].

    Tokenizers that never join words over white space (GPT-2's, BERT's and their relatives') see every
    distinct word of a chunk once; the counts are the same, and proven so on the first texts. Others see the
    texts.

    Args:
        texts: Any texts, none null.
        tokenizer: A transformers tokenizer; its own truncation and padding are ignored.
        progress: Where to report.
    """
    backend = _backend(tokenizer)
    pattern = _pattern(backend)
    lengths = np.zeros(len(texts), dtype=np.int64)
    with progress.task("count tokens", total=len(texts), unit="rows") as task:
        for start, stop in chunks(texts):
            part = texts.slice(start, stop - start)
            if pattern is not None and start == 0:
                first = part.head(CHECKED)
                if not np.array_equal(
                    _by_pieces(first, backend, pattern), _directly(first, tokenizer, backend)
                ):
                    pattern = None
            lengths[start:stop] = (
                _directly(part, tokenizer, backend) if pattern is None else _by_pieces(part, backend, pattern)
            )
            task.advance(stop - start)
    return lengths


def _backend(tokenizer: PreTrainedTokenizerBase) -> Any:
    """Return a copy of a fast tokenizer's engine that neither cuts nor pads; None for a slow tokenizer."""
    own = getattr(tokenizer, "backend_tokenizer", None)
    if own is None:
        return None
    backend = type(own).from_str(own.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


def _pattern(backend: Any) -> str | None:
    if backend is None:
        return None
    settings = json.loads(backend.to_str())
    cutter = settings.get("pre_tokenizer") or {}
    if cutter.get("type") == "ByteLevel" and (
        cutter.get("add_prefix_space") or not cutter.get("use_regex", True)
    ):
        return None
    if (settings.get("normalizer") or {}).get("type") not in (None, "BertNormalizer"):
        return None
    for token in settings.get("added_tokens", []):
        if token.get("rstrip") or any(sign.isspace() for sign in token["content"]):
            return None
    return PIECES.get(str(cutter.get("type")))


def _directly(texts: pl.Series, tokenizer: PreTrainedTokenizerBase, backend: Any) -> np.ndarray:
    if backend is not None:
        counts = [len(one) for one in backend.encode_batch_fast(texts.to_list())]
    else:
        made = tokenizer(
            texts.to_list(), add_special_tokens=True, truncation=False, padding=False, verbose=False
        )
        counts = [len(ids) for ids in made["input_ids"]]
    return np.asarray(counts, dtype=np.int64)


def _by_pieces(texts: pl.Series, backend: Any, pattern: str) -> np.ndarray:
    pieces = texts.str.extract_all(pattern)
    flat = pieces.list.explode(empty_as_null=False).alias("piece")
    unique = flat.unique(maintain_order=True)
    encoded = backend.encode_batch_fast(unique.to_list(), add_special_tokens=False)
    table = pl.DataFrame(
        {"piece": unique, "tokens": pl.Series([len(one) for one in encoded], dtype=pl.Int64)}
    )
    tokens = flat.to_frame().join(table, on="piece", how="left", maintain_order="left")["tokens"].to_numpy()
    ends = np.cumsum(pieces.list.len().to_numpy().astype(np.int64))
    total = np.concatenate([[0], np.cumsum(tokens)])
    own = total[ends] - total[np.concatenate([[0], ends[:-1]])]
    return own + int(backend.num_special_tokens_to_add(False))
