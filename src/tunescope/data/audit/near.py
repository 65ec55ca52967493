"""Near-duplicate texts: MinHash finds the candidates, and their true Jaccard similarity decides.

A text is its set of shingles: every run of ``shingle`` words (a shorter text is one shingle). MinHash (Broder
1997; the signatures come from the library rensa) with locality-sensitive hashing (bands of a signature, Leskovec
et al., Mining of Massive Datasets, ch. 3) proposes pairs; each is then measured on the sets themselves, so no
reported pair is below the threshold. What can be missed: a pair of Jaccard similarity J is proposed with
probability ``1 - (1 - J**4)**32``, which is .9998 at J = .7 and 1 to six digits at .8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunescope.data.audit.words import Corpus
from tunescope.errors import MissingDependencyError
from tunescope.progress import SILENT, Progress

BANDS, ROWS_OF_BAND = 32, 4
CHUNK_WORDS = 1_000_000
CHUNK_TEXTS = 10_000
LARGEST_BUCKET = 64  # a bucket of more texts is compared along a chain, not each with each
CHAIN = 16
PAIRS_AT_ONCE = 50_000
SEED = 1  # of the hash functions; part of the method, not of a study

_A, _B = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)


@dataclass(frozen=True)
class NearPairs:
    """Pairs of texts at or above a Jaccard similarity.

    Attributes:
        first: Index of one text, int64 [P].
        second: Index of the other, above ``first``, int64 [P].
        jaccard: Their similarity, float64 [P].
        candidates: How many pairs were measured.
        bounded: How many buckets were too large to compare each text with each; texts of such a bucket were
            compared with its first and with their next neighbours.
    """

    first: np.ndarray
    second: np.ndarray
    jaccard: np.ndarray
    candidates: int
    bounded: int


def near_pairs(
    corpus: Corpus,
    rows: np.ndarray | None = None,
    shingle: int = 3,
    threshold: float = 0.7,
    progress: Progress = SILENT,
) -> NearPairs:
    """Find the pairs of texts whose shingle sets have at least this Jaccard similarity.

    Args:
        corpus: The texts' words.
        rows: Indices of the texts to compare, ascending; None means all. Leave out all but one of equal texts.
        shingle: Words in a shingle.
        threshold: The least Jaccard similarity, in (0, 1].
        progress: Where to report.

    Raises:
        MissingDependencyError: rensa is not installed.
        ValueError: ``shingle`` is below 1, or ``threshold`` is not in (0, 1].
    """
    if shingle < 1 or not 0 < threshold <= 1:
        raise ValueError(
            f"expected a shingle of 1 or more words and 0 < threshold <= 1: {shingle}, {threshold}"
        )
    rows = np.arange(len(corpus)) if rows is None else np.asarray(rows)
    rows = rows[corpus.lengths[rows] > 0]
    hashes = corpus.word_hashes()
    bands = np.empty((BANDS, len(rows)), dtype=np.uint64)
    with progress.task("find near duplicates", total=len(rows), unit="rows") as task:
        for start, stop in _chunks(corpus, rows):
            flat, offsets = shingles(corpus, hashes, rows[start:stop], shingle)
            bands[:, start:stop] = _bands(flat, offsets)
            task.advance(stop - start)
    low, high, bounded = _candidates(bands)
    similarity = jaccards(corpus, hashes, rows[low], rows[high], shingle)
    kept = similarity >= threshold
    return NearPairs(rows[low[kept]], rows[high[kept]], similarity[kept], len(low), bounded)


def _chunks(corpus: Corpus, rows: np.ndarray) -> list[tuple[int, int]]:
    ends = np.cumsum(corpus.lengths[rows])
    bounds, start = [], 0
    while start < len(rows):
        before = ends[start - 1] if start else 0
        stop = int(np.searchsorted(ends, before + CHUNK_WORDS, side="right"))
        stop = min(max(stop, start + 1), start + CHUNK_TEXTS, len(rows))
        bounds.append((start, stop))
        start = stop
    return bounds


def shingles(
    corpus: Corpus, hashes: np.ndarray, rows: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the shingles of some texts, repeats included, as 64-bit hashes.

    Args:
        corpus: The texts' words.
        hashes: ``corpus.word_hashes()``.
        rows: Indices of the texts [R].
        size: Words in a shingle; a text with fewer is one shingle of all its words.

    Returns:
        Hashes, uint64 [S], and where each text's begin and the last one's end, int64 [R + 1].
    """
    lengths = corpus.lengths[rows]
    many = np.where(lengths > 0, np.maximum(lengths - size + 1, 1), 0)
    offsets = np.concatenate([[0], np.cumsum(many)])
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], many)
    first = np.repeat(corpus.offsets[rows], many) + within
    words = np.minimum(np.repeat(lengths, many), size)
    flat = words.astype(np.uint64) * _A
    for step in range(int(words.max(initial=0))):
        there = words > step
        at = np.minimum(first + step, max(len(corpus.codes) - 1, 0))
        mixed = (flat ^ (flat >> np.uint64(29))) * _B + hashes[corpus.codes[at]]
        flat = np.where(there, mixed ^ (mixed >> np.uint64(32)), flat)
    return flat, offsets


def _bands(flat: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return one hash for every band of every text's signature, uint64 [BANDS, R]."""
    try:
        import rensa
    except ImportError as error:
        raise MissingDependencyError(
            "Near duplicates are found with rensa, which is not installed.", hint="pip install rensa"
        ) from error
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        np.ascontiguousarray(flat), offsets.astype(np.uint64), BANDS * ROWS_OF_BAND, SEED
    )
    signatures = np.array(matrix.to_rows(), dtype=np.uint64).reshape(-1, BANDS, ROWS_OF_BAND)
    mixed = np.zeros(signatures.shape[:2], dtype=np.uint64)
    for column in range(ROWS_OF_BAND):
        mixed = (mixed ^ (mixed >> np.uint64(29))) * _B + signatures[:, :, column]
    return (mixed * _A).T


def _candidates(bands: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the pairs of columns that share a bucket in some band, low before high, and bounded buckets."""
    n = bands.shape[1]
    # neighbours in a large bucket are told by this order, which depends on the texts alone
    identity = bands[0].copy()
    for band in bands[1:]:
        identity = (identity ^ (identity >> np.uint64(29))) * _B + band
    found, bounded = [np.zeros(0, dtype=np.int64)], 0
    for band in bands:
        order = np.lexsort((identity, band))
        ordered = band[order]
        starts = (
            np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if n else np.zeros(0, int)
        )
        sizes = np.diff(np.append(starts, n))
        for size in np.unique(sizes[sizes > 1]):
            members = order[starts[sizes == size][:, None] + np.arange(size)]  # [buckets, size]
            if size <= LARGEST_BUCKET:
                left, right = np.triu_indices(size, 1)
            else:
                bounded += len(members)
                left, right = _chain(size)
            pairs = np.stack([members[:, left].ravel(), members[:, right].ravel()])
            found.append(np.unique(pairs.min(axis=0) * n + pairs.max(axis=0)))
    unique = np.unique(np.concatenate(found))
    return (*np.divmod(unique, max(n, 1)), bounded)


def _chain(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pair every place of a bucket with the first and with the next few."""
    left = [np.zeros(size - 1, dtype=np.int64)]
    right = [np.arange(1, size)]
    for step in range(1, CHAIN + 1):
        left.append(np.arange(1, size - step))
        right.append(np.arange(1 + step, size))
    return np.concatenate(left), np.concatenate(right)


def jaccards(
    corpus: Corpus, hashes: np.ndarray, first: np.ndarray, second: np.ndarray, size: int
) -> np.ndarray:
    """Return the Jaccard similarity of the shingle sets of pairs of texts, float64 [P].

    Args:
        corpus: The texts' words.
        hashes: ``corpus.word_hashes()``.
        first: Index of one text of each pair [P].
        second: Index of the other [P].
        size: Words in a shingle.
    """
    from scipy.sparse import csr_array

    result = np.zeros(len(first))
    order = np.lexsort((second, first))  # so that a chunk of pairs meets few texts
    for start in range(0, len(order), PAIRS_AT_ONCE):
        part = order[start : start + PAIRS_AT_ONCE]
        texts, place = np.unique(np.concatenate([first[part], second[part]]), return_inverse=True)
        flat, offsets = shingles(corpus, hashes, texts, size)
        unique, columns = np.unique(flat, return_inverse=True)
        sets = csr_array(
            (np.ones(len(flat), dtype=np.int32), columns, offsets), shape=(len(texts), len(unique))
        )
        sets.sum_duplicates()
        sets.data[:] = 1
        left, right = place[: len(part)], place[len(part) :]
        sizes = np.diff(sets.indptr)
        shared = np.asarray(sets[left].multiply(sets[right]).sum(axis=1)).ravel()
        result[part] = shared / np.maximum(sizes[left] + sizes[right] - shared, 1)
    return result


def components(n: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the connected component of each of ``n`` texts when pairs are links, int64 [n]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(n, n))
    return connected_components(links, directed=False)[1].astype(np.int64)
