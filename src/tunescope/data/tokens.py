"""Texts as ragged token ids: no padding is stored, and what is cut is counted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tunescope.config.window import WindowConfig
from tunescope.data.frame import SpecialTokens, encode
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
        input_ids: Token ids per row, int32, special tokens included: the whole text, or what the window keeps
            of it; with sliding windows the first of them.
        token_type_ids: Segment ids per row, or None where the tokenizer gives none.
        labels: Class indices, int64 [N]; -1 = unlabelled.
        lengths: Tokens per row before anything was cut, special tokens included, int64 [N].
        pad_id: What :func:`tunescope.data.batches.collate` pads with; the mask hides it.
        padding_side: Always "right".
        windows: All windows of every row, the first included, where they slide; else None.
        window_types: Segment ids of all windows of every row, or None.
        covered: Tokens per row that some window holds, int64 [N], where they slide; else None.
        parts: Per row the part of the input that each token belongs to, a number of ``part_names``; None where
            texts have no parts.
        part_names: What the parts are called, such as article and summary.
    """

    row_ids: list[str]
    input_ids: list[np.ndarray]
    token_type_ids: list[np.ndarray] | None
    labels: np.ndarray
    lengths: np.ndarray
    pad_id: int
    padding_side: str = "right"
    windows: list[list[np.ndarray]] | None = None
    window_types: list[list[np.ndarray]] | None = None
    covered: np.ndarray | None = None
    parts: list[np.ndarray] | None = None
    part_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.row_ids)

    @property
    def kept(self) -> np.ndarray:
        """Tokens per row in ``input_ids``, which of sliding windows holds the first alone, int64 [N]."""
        return np.fromiter((len(ids) for ids in self.input_ids), dtype=np.int64, count=len(self.input_ids))

    @property
    def seen(self) -> np.ndarray:
        """Tokens per row that the model reads, int64 [N]; what two windows share counts twice."""
        if self.windows is None:
            return self.kept
        return np.asarray([sum(map(len, windows)) for windows in self.windows], dtype=np.int64)

    @property
    def n_windows(self) -> np.ndarray:
        """Windows per row, int64 [N]: 1 unless they slide."""
        if self.windows is None:
            return np.ones(len(self), dtype=np.int64)
        return np.asarray([len(windows) for windows in self.windows], dtype=np.int64)

    @property
    def truncated(self) -> np.ndarray:
        """Whether each row lost tokens, bool [N]: tokens that no window holds."""
        return self.lengths > (self.kept if self.covered is None else self.covered)

    def first_windows(self) -> Tokens:
        """Return the rows with their first windows alone, as the lenses look at them."""
        return replace(self, windows=None, window_types=None, covered=None)

    def each_window(self) -> tuple[Tokens, np.ndarray]:
        """Return every window as a row of its own, and the position of the row it belongs to, int64 [W]."""
        row_of = np.repeat(np.arange(len(self)), self.n_windows)
        if self.windows is None:
            return self, row_of
        ids = [window for windows in self.windows for window in windows]
        types = None
        if self.window_types is not None:
            types = [window for windows in self.window_types for window in windows]
        names = [f"{row_id}+{n}" for row_id, count in zip(self.row_ids, self.n_windows, strict=True)
                 for n in range(count)]  # fmt: skip
        return Tokens(names, ids, types, self.labels[row_of], self.lengths[row_of], self.pad_id), row_of

    def take(self, index: np.ndarray) -> Tokens:
        """Return the rows at ``index`` (positions, or a mask [N]), in that order."""
        index = np.asarray(index)
        if index.dtype == bool:
            index = np.flatnonzero(index)
        index = index.astype(np.int64)
        return Tokens(
            [self.row_ids[i] for i in index],
            [self.input_ids[i] for i in index],
            _taken(self.token_type_ids, index),
            self.labels[index],
            self.lengths[index],
            self.pad_id,
            self.padding_side,
            _taken(self.windows, index),
            _taken(self.window_types, index),
            None if self.covered is None else self.covered[index],
            _taken(self.parts, index),
            self.part_names,
        )


def _taken(items: list[Any] | None, index: np.ndarray) -> list[Any] | None:
    return None if items is None else [items[i] for i in index]


def tokenize(
    rows: Rows,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    progress: Progress = SILENT,
    window: WindowConfig | None = None,
) -> Tokens:
    """Encode the texts of ``rows``; of what exceeds ``max_length`` the window's part is kept, the rest counted.

    Special tokens are those the tokenizer adds, and cutting takes text, never them: every window has them all.
    Padding and truncation stored in the tokenizer are ignored.

    Sliding windows start every ``stride`` tokens of text; the last is moved back to end with the text, so that
    every window is full. A text that needs more than ``most`` windows loses what comes after them.

    Args:
        rows: Any rows.
        tokenizer: A transformers tokenizer.
        max_length: The most tokens of a window, special tokens included.
        progress: Where to report.
        window: What is kept; None follows the tokenizer's ``truncation_side``, which is the head unless it says
            left.

    Raises:
        DataError: ``max_length`` leaves no room for text, windows would leave gaps, or a text has no token.
    """
    texts = rows.frame["text"].to_list()
    frame = SpecialTokens.of(tokenizer)
    if window is None:
        window = WindowConfig.model_validate("tail" if tokenizer.truncation_side == "left" else "head")
    room = _room(max_length, frame, window)
    input_ids: list[list[np.ndarray]] = []
    types: list[list[np.ndarray]] | None = [] if "token_type_ids" in tokenizer.model_input_names else None
    lengths = np.zeros(len(texts), dtype=np.int64)
    with progress.task("tokenise", total=len(texts), unit="rows") as task:
        for start, stop in _chunks(texts):
            encoded = encode(tokenizer, texts[start:stop])
            for row, ids in enumerate(encoded["input_ids"], start):
                lengths[row] = len(ids)
                input_ids.append(frame.cut(ids, room, window))
            if types is not None:
                types += [frame.cut(ids, room, window) for ids in encoded["token_type_ids"]]
            task.advance(stop - start)
    special = frame.before + frame.after
    _refuse_empty(rows, lengths, special)
    pad = tokenizer.pad_token_id
    tokens = Tokens(
        rows.frame["row_id"].to_list(),
        [windows[0] for windows in input_ids],
        None if types is None else [windows[0] for windows in types],
        rows.label_array,
        lengths,
        0 if pad is None else int(pad),
    )
    if window.keep != "sliding":
        return tokens
    step = window.stride or max(1, room // 2)
    # The windows of a row reach to the end of its text, or as far as their number allows.
    reach = special + room + (window.most_windows - 1) * step
    return replace(tokens, windows=input_ids, window_types=types, covered=np.minimum(lengths, reach))


def _room(max_length: int, frame: SpecialTokens, window: WindowConfig) -> int:
    """Return how many tokens of text fit into one window."""
    room = max_length - frame.before - frame.after
    if room < 1:
        raise DataError(
            f"max_length {max_length} leaves no room for text: the tokenizer adds "
            f"{frame.before + frame.after} special tokens.",
            hint="Set data.max_length higher.",
        )
    if window.stride is not None and window.stride > room:
        raise DataError(
            f"Sliding windows of {room} tokens of text every {window.stride} tokens leave gaps between them.",
            hint=f"Set data.window.stride to at most {room}.",
        )
    return room


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
