"""General text as documents, cut into windows in which every counted token is predicted exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunescope.errors import DataError
from tunescope.evaluation.elsewhere.heads import Kind
from tunescope.seeds import derive_seed

IGNORED = -100


def read_documents(path: str | Path, column: str = "text", most: int = 200) -> list[str]:
    """Read documents of a file: rows of a parquet or JSON-lines column, or blocks of a text between blank lines.

    Of more than ``most``, that many are taken at even distances, so that all parts of the file are in it.

    Args:
        path: A .parquet, .jsonl or text file.
        column: The column that holds the text.
        most: The most documents.

    Raises:
        DataError: The file cannot be read, lacks the column, or holds no text.
    """
    import polars as pl

    path = Path(path)
    if not path.is_file():
        raise DataError(f"elsewhere.text: there is no file {path}.", hint="Give a file of general text.")
    if path.suffix in (".parquet", ".jsonl"):
        try:
            frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_ndjson(path)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(f"elsewhere.text: {path} cannot be read ({error}).") from error
        if column not in frame.columns:
            raise DataError(
                f"elsewhere.text: {path} has no column {column!r}; columns: {', '.join(frame.columns)}.",
                hint="Set elsewhere.text_column.",
            )
        texts = [text for text in frame[column].cast(pl.String).to_list() if text and text.strip()]
    else:
        try:
            whole = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"elsewhere.text: {path} is not UTF-8 text ({error}).") from error
        texts = [block.strip() for block in whole.replace("\r\n", "\n").split("\n\n") if block.strip()]
    if not texts:
        raise DataError(f"elsewhere.text: {path} holds no text.")
    if len(texts) > most:
        texts = [texts[i] for i in np.linspace(0, len(texts) - 1, most).round().astype(int)]
    return texts


@dataclass(frozen=True)
class Documents:
    """Windows of documents, the same for every model of a tokenizer.

    Attributes:
        input_ids: Token ids per window, with the mask token where a token is to be told.
        targets: The id to be told at each position, or -100, per window. For causal models the target of a
            position is the *next* token.
        owner: `[W]`, the document of each window.
        sizes: `[documents]`, the UTF-8 bytes of the counted tokens.
        counted: `[documents]`, how many tokens are counted.
        kind: "causal" or "masked".
        note: What was left out, or None.
    """

    input_ids: list[np.ndarray]
    targets: list[np.ndarray]
    owner: np.ndarray
    sizes: np.ndarray
    counted: np.ndarray
    kind: Kind
    note: str | None = None


@dataclass(frozen=True)
class WindowRule:
    """How documents are cut.

    Attributes:
        window: Tokens in a window, special ones included.
        windows: The most windows of a document.
        mask_share: The share of tokens that a masked model has to tell.
        seed: Seeds the masks.
    """

    window: int = 128
    windows: int = 2
    mask_share: float = 0.15
    seed: int = 0


def encode_documents(
    texts: Sequence[str], tokenizer: Any, kind: Kind, rule: WindowRule = WindowRule()
) -> Documents:
    """Cut documents into windows.

    Causal: neighbouring windows share one token, so that every token but a document's first is predicted once,
    from what precedes it in its window. Masked: windows do not overlap; at each, ``mask_share`` of the tokens (at
    least one) are replaced by the mask token, chosen by seed and document alone.

    Raises:
        DataError: The tokenizer cannot say where tokens stand in the text, has no mask token, or no document
            has two tokens.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise DataError(
            "The tokenizer does not say where its tokens stand in the text, which bits per byte need."
        )
    if kind == "masked" and tokenizer.mask_token_id is None:
        raise DataError("The tokenizer has no mask token, so no masked loss can be measured.")
    parts: list[tuple[np.ndarray, np.ndarray, int]] = []
    sizes: list[int] = []
    counted: list[int] = []
    for text in texts:
        encoded = tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
        )
        ids, offsets = np.array(encoded["input_ids"], dtype=np.int64), encoded["offset_mapping"]
        cut = _causal(ids, rule) if kind == "causal" else _masked(ids, rule, tokenizer, len(sizes))
        told = np.concatenate([place for _, _, place in cut]) if cut else np.zeros(0, dtype=np.int64)
        if not len(told):
            continue
        parts += [(window, target, len(sizes)) for window, target, _ in cut]
        sizes.append(_bytes_of(text, offsets, told))
        counted.append(len(told))
    if not sizes:
        raise DataError("No document of the general text has two tokens.")
    lost = len(texts) - len(sizes)
    return Documents(
        input_ids=[window for window, _, _ in parts],
        targets=[target for _, target, _ in parts],
        owner=np.array([owner for _, _, owner in parts]),
        sizes=np.array(sizes, dtype=np.float64),
        counted=np.array(counted, dtype=np.int64),
        kind=kind,
        note=f"{lost} documents of fewer than two tokens were left out" if lost else None,
    )


def _bytes_of(text: str, offsets: Sequence[tuple[int, int]], told: np.ndarray) -> int:
    """Return the UTF-8 bytes between the start of each told token and the start of the next.

    The blank before a word belongs to whichever token's stretch it falls into, so that all stretches make up the
    text, also where a tokenizer drops blanks or splits a character.
    """
    starts = np.array([start for start, _ in offsets] + [len(text)])
    at = np.concatenate([[0], np.cumsum([len(character.encode()) for character in text])])
    return int((at[starts[told + 1]] - at[starts[told]]).sum())


def _causal(ids: np.ndarray, rule: WindowRule) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return windows, targets, and the places of the told tokens in the document."""
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    step = rule.window - 1
    for start in range(0, len(ids) - 1, step):
        if len(found) == rule.windows:
            break
        window = ids[start : start + rule.window]
        target = np.append(window[1:], IGNORED)
        found.append((window, target, np.arange(start + 1, start + len(window))))
    return found


def _masked(
    ids: np.ndarray, rule: WindowRule, tokenizer: Any, document: int
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    before = [tokenizer.cls_token_id] if tokenizer.cls_token_id is not None else []
    after = [tokenizer.sep_token_id] if tokenizer.sep_token_id is not None else []
    room = rule.window - len(before) - len(after)
    generator = np.random.default_rng(derive_seed(rule.seed, "masks", document))
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for start in range(0, len(ids), room):
        if len(found) == rule.windows:
            break
        own = ids[start : start + room]
        many = max(1, round(rule.mask_share * len(own)))
        chosen = np.sort(generator.choice(len(own), size=many, replace=False))
        target = np.full(len(own), IGNORED)
        target[chosen] = own[chosen]
        shown = own.copy()
        shown[chosen] = tokenizer.mask_token_id
        ends = np.full(len(before), IGNORED), np.full(len(after), IGNORED)
        window = np.concatenate([before, shown, after]).astype(np.int64)
        found.append((window, np.concatenate([ends[0], target, ends[1]]).astype(np.int64), start + chosen))
    return found
