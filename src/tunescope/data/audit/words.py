"""Texts as words: one integer a word, which is all that counting and comparing texts needs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import polars as pl

from tunescope.progress import SILENT, Progress

# letters, marks and digits, with the apostrophes inside them: "don't" is one word
WORD = r"[\p{L}\p{M}\p{N}]+(?:['’][\p{L}\p{M}\p{N}]+)*"
CHUNK_ROWS = 10_000
CHUNK_BYTES = 16_000_000


@dataclass(frozen=True)
class Corpus:
    """The words of texts, in lower case and without punctuation.

    Attributes:
        codes: The words of all texts one after another, as indices into the vocabulary, int32 [W].
        offsets: Where each text's words begin, and where the last one's end, int64 [N + 1].
        vocabulary: The words, in the order in which they were met.
        normalised: Every text as its words with single blanks between them; a text without any word (only
            signs or emoji) stands for itself, in lower case and without white space at its ends.
    """

    codes: np.ndarray
    offsets: np.ndarray
    vocabulary: list[str]
    normalised: pl.Series

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Words per text, int64 [N]."""
        return np.diff(self.offsets)

    def word_hashes(self) -> np.ndarray:
        """Return 64 bits of each word's BLAKE2b, uint64 [V]: the same in every data set and on every machine."""
        digests = b"".join(hashlib.blake2b(word.encode(), digest_size=8).digest() for word in self.vocabulary)
        return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def corpus_of(texts: pl.Series, progress: Progress = SILENT) -> Corpus:
    """Cut texts into words, a chunk at a time.

    Args:
        texts: Any texts, none null.
        progress: Where to report.
    """
    vocabulary: dict[str, int] = {}
    codes: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    normalised: list[pl.Series] = []
    with progress.task("read words", total=len(texts), unit="rows") as task:
        for start, stop in chunks(texts):
            part = texts.slice(start, stop - start).str.to_lowercase()
            words = part.str.extract_all(WORD)
            lengths.append(words.list.len().to_numpy().astype(np.int64))
            codes.append(_encoded(words.list.explode(empty_as_null=False), vocabulary))
            joined = words.list.join(" ")
            normalised.append(
                pl.select(pl.when(joined == "").then(part.str.strip_chars()).otherwise(joined)).to_series()
            )
            task.advance(stop - start)
    flat = np.concatenate([np.zeros(0, dtype=np.int32), *codes])
    offsets = np.concatenate([[0], np.cumsum(np.concatenate([np.zeros(0, dtype=np.int64), *lengths]))])
    joined = pl.concat(normalised) if normalised else pl.Series([], dtype=pl.String)
    return Corpus(flat, offsets.astype(np.int64), list(vocabulary), joined.alias("normalised"))


def chunks(texts: pl.Series) -> list[tuple[int, int]]:
    """Return row ranges that hold at most a few thousand rows and a few megabytes each."""
    ends = np.cumsum(texts.str.len_bytes().fill_null(0).to_numpy().astype(np.int64))
    bounds, start = [], 0
    while start < len(texts):
        before = ends[start - 1] if start else 0
        stop = int(np.searchsorted(ends, before + CHUNK_BYTES, side="right"))
        stop = min(max(stop, start + 1), start + CHUNK_ROWS, len(texts))
        bounds.append((start, stop))
        start = stop
    return bounds


def _encoded(words: pl.Series, vocabulary: dict[str, int]) -> np.ndarray:
    """Return the words' codes, and put new words into the vocabulary."""
    unique = words.unique(maintain_order=True)
    known = [vocabulary.setdefault(word, len(vocabulary)) for word in unique.to_list()]
    table = pl.DataFrame({"word": unique, "code": pl.Series(known, dtype=pl.Int32)})
    frame = words.alias("word").to_frame()
    return frame.join(table, on="word", how="left", maintain_order="left")["code"].to_numpy()
