"""Texts as ragged token ids: no padding is stored, and truncation is counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunescope.data.labels import LabelMap
from tunescope.data.rows import Rows
from tunescope.errors import DataError
from tunescope.progress import SILENT, Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK_ROWS = 1000
CHUNK_CHARACTERS = 4_000_000  # a chunk ends here too, so that long texts do not pile up in memory


@dataclass(frozen=True)
class Tokens:
    """Encoded rows, ragged, in the order of the rows they come from.

    Attributes:
        row_ids: Ids [N].
        input_ids: Token ids per row, int32, special tokens included, cut at the maximum length.
        token_type_ids: Segment ids per row, or None where the tokenizer gives none.
        labels: Class indices, int64 [N]; -1 = unlabelled.
        lengths: Tokens per row before truncation, special tokens included, int64 [N].
        pad_id: What :func:`tunescope.data.batches.collate` pads with; the mask hides it.
        padding_side: Always "right".
    """

    row_ids: list[str]
    input_ids: list[np.ndarray]
    token_type_ids: list[np.ndarray] | None
    labels: np.ndarray
    lengths: np.ndarray
    pad_id: int
    padding_side: str = "right"

    def __len__(self) -> int:
        return len(self.row_ids)

    @property
    def kept(self) -> np.ndarray:
        """Tokens per row after truncation, int64 [N]."""
        return np.fromiter((len(ids) for ids in self.input_ids), dtype=np.int64, count=len(self.input_ids))

    @property
    def truncated(self) -> np.ndarray:
        """Whether each row lost tokens, bool [N]."""
        return self.lengths > self.kept

    def take(self, index: np.ndarray) -> Tokens:
        """Return the rows at ``index`` (positions, or a mask [N]), in that order."""
        index = np.asarray(index)
        if index.dtype == bool:
            index = np.flatnonzero(index)
        index = index.astype(np.int64)
        types = self.token_type_ids
        return Tokens(
            [self.row_ids[i] for i in index],
            [self.input_ids[i] for i in index],
            None if types is None else [types[i] for i in index],
            self.labels[index],
            self.lengths[index],
            self.pad_id,
            self.padding_side,
        )


def tokenize(
    rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, progress: Progress = SILENT
) -> Tokens:
    """Encode the texts of ``rows``; what exceeds ``max_length`` is cut, and counted.

    Special tokens are those the tokenizer adds, and truncation cuts the text, never them: on the right unless
    the tokenizer's ``truncation_side`` says left. Padding and truncation stored in the tokenizer are ignored.

    Args:
        rows: Any rows.
        tokenizer: A transformers tokenizer.
        max_length: The most tokens of a row, special tokens included.
        progress: Where to report.

    Raises:
        DataError: ``max_length`` leaves no room for text, or a text has no token at all.
    """
    texts = rows.frame["text"].to_list()
    frame = _SpecialTokens.of(tokenizer)
    room = max_length - frame.before - frame.after
    if room < 1:
        raise DataError(
            f"max_length {max_length} leaves no room for text: the tokenizer adds "
            f"{frame.before + frame.after} special tokens.",
            hint="Set data.max_length higher.",
        )
    input_ids: list[np.ndarray] = []
    types: list[np.ndarray] | None = [] if "token_type_ids" in tokenizer.model_input_names else None
    lengths = np.zeros(len(texts), dtype=np.int64)
    with progress.task("tokenise", total=len(texts), unit="rows") as task:
        for start, stop in _chunks(texts):
            encoded = _encode(tokenizer, texts[start:stop])
            for row, ids in enumerate(encoded["input_ids"], start):
                lengths[row] = len(ids)
                input_ids.append(frame.cut(ids, room, tokenizer.truncation_side))
            if types is not None:
                types += [
                    frame.cut(ids, room, tokenizer.truncation_side) for ids in encoded["token_type_ids"]
                ]
            task.advance(stop - start)
    _refuse_empty(rows, lengths, frame.before + frame.after)
    pad = tokenizer.pad_token_id
    pad_id = 0 if pad is None else int(pad)
    return Tokens(rows.frame["row_id"].to_list(), input_ids, types, rows.label_array, lengths, pad_id)


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[str], **more: bool) -> Mapping[str, Any]:
    return tokenizer(texts, add_special_tokens=True, truncation=False, padding=False,
                     return_attention_mask=False, verbose=False, **more)  # fmt: skip


@dataclass(frozen=True)
class _SpecialTokens:
    """How many tokens the tokenizer puts before and after a text."""

    before: int
    after: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> _SpecialTokens:
        total = int(tokenizer.num_special_tokens_to_add(pair=False))
        if total == 0:
            return cls(0, 0)
        for text in ("a", "the", "1", "."):  # one of them has a token in every vocabulary of text
            mask = _encode(tokenizer, [text], return_special_tokens_mask=True)["special_tokens_mask"][0]
            if 0 in mask:
                before = mask.index(0)
                return cls(before, total - before)
        return cls(total, 0)

    def cut(self, ids: list[int], room: int, side: str) -> np.ndarray:
        """Return at most ``room`` tokens of text between its special tokens, as int32."""
        whole = np.asarray(ids, dtype=np.int32)
        excess = len(whole) - self.before - self.after - room
        if excess <= 0:
            return whole
        end = len(whole) - self.after
        if side == "left":
            return np.concatenate([whole[: self.before], whole[self.before + excess :]])
        return np.concatenate([whole[: end - excess], whole[end:]])


def _chunks(texts: list[str]) -> list[tuple[int, int]]:
    bounds, start, characters = [], 0, 0
    for row, text in enumerate(texts):
        if row > start and (row - start == CHUNK_ROWS or characters + len(text) > CHUNK_CHARACTERS):
            bounds.append((start, row))
            start, characters = row, 0
        characters += len(text)
    return [*bounds, (start, len(texts))] if texts else []


def _refuse_empty(rows: Rows, lengths: np.ndarray, special: int) -> None:
    empty = np.flatnonzero(lengths <= special)
    if len(empty):
        first = int(empty[0])
        raise DataError(
            f"{len(empty):,} of {len(lengths):,} texts have no token under this tokenizer; the first is row "
            f"{rows.frame['row_id'][first]}: {rows.frame['text'][first][:40]!a}.",
            hint="Take these rows out, or use a model whose vocabulary covers their characters.",
        )


def truncation_by_label(tokens: Tokens, labels: LabelMap) -> dict[str, dict[str, int]]:
    """Count rows and truncated rows per class, as ``data/summary.json`` wants them; unlabelled rows not."""
    result = {}
    for i, name in enumerate(labels.names):
        mask = tokens.labels == i
        result[name] = {"rows": int(mask.sum()), "truncated": int(tokens.truncated[mask].sum())}
    return result


def length_summary(tokens: Tokens) -> dict[str, float]:
    """Return mean, median, 95th percentile and maximum of tokens per row before truncation."""
    if not len(tokens):
        return {}
    lengths = tokens.lengths
    return {
        "mean": float(lengths.mean()),
        "median": float(np.median(lengths)),
        "p95": float(np.quantile(lengths, 0.95)),
        "max": int(lengths.max()),
    }
