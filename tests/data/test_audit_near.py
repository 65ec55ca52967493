"""Near duplicates against brute force over Python sets."""

from __future__ import annotations

import builtins
import itertools

import numpy as np
import polars as pl
import pytest

from tunescope.data.audit import corpus_of, jaccards, near_pairs
from tunescope.data.audit.near import BANDS, LARGEST_BUCKET, ROWS_OF_BAND, components, shingles
from tunescope.data.repeats import clusters
from tunescope.errors import MissingDependencyError


def shingle_set(text: str, size: int) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + size]) for i in range(max(len(words) - size + 1, 1))} if words else set()


def brute(texts: list[str], size: int, threshold: float) -> dict[tuple[int, int], float]:
    sets = [shingle_set(text, size) for text in texts]
    found = {}
    for i, j in itertools.combinations(range(len(texts)), 2):
        if sets[i] and sets[j]:
            similarity = len(sets[i] & sets[j]) / len(sets[i] | sets[j])
            if similarity >= threshold:
                found[i, j] = similarity
    return found


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Texts of 1 to 40 words and copies of them with 1 to 4 words changed, so that every similarity occurs."""
    generator = np.random.default_rng(3)
    words = [f"w{i}" for i in range(300)]
    made = [list(generator.choice(words, size=generator.integers(1, 41))) for _ in range(150)]
    for source in made[:150]:
        copy = list(source)
        for _ in range(generator.integers(1, 5)):
            copy[generator.integers(len(copy))] = str(generator.choice(words))
        made.append(copy)
    return [" ".join(text) for text in made] + [""]


@pytest.mark.parametrize(("size", "threshold"), [(3, 0.7), (1, 0.8), (2, 0.75), (3, 0.9)])
def test_pairs_and_similarities_are_those_of_brute_force(texts, size, threshold):
    corpus = corpus_of(pl.Series(texts))
    found = near_pairs(corpus, None, size, threshold)
    expected = brute(texts, size, threshold)
    pairs = dict(
        zip(zip(found.first.tolist(), found.second.tolist(), strict=True), found.jaccard, strict=True)
    )
    assert pairs == pytest.approx(expected)
    assert len(expected) >= 3
    assert found.candidates < 3_000  # of 45,150: the point of the method
    assert found.bounded == 0


def test_similarity_of_any_pair_is_that_of_sets(texts):
    corpus = corpus_of(pl.Series(texts))
    generator = np.random.default_rng(0)
    first, second = generator.integers(0, 300, (2, 400))
    second[:100] = first[:100] + 150 - 300 * (first[:100] >= 150)
    found = jaccards(corpus, corpus.word_hashes(), first, second, 3)
    for i, j, value in zip(first, second, found, strict=True):
        one, two = shingle_set(texts[i], 3), shingle_set(texts[j], 3)
        assert value == pytest.approx(len(one & two) / len(one | two))


def test_the_librarys_signatures_estimate_the_similarity(texts):
    import rensa

    corpus = corpus_of(pl.Series(texts))
    flat, offsets = shingles(corpus, corpus.word_hashes(), np.arange(300), 3)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets.astype(np.uint64), 128, 1)
    signatures = np.asarray(matrix.to_rows())
    assert signatures.shape == (300, BANDS * ROWS_OF_BAND)
    errors = []
    for i in range(150):
        one, two = shingle_set(texts[i], 3), shingle_set(texts[i + 150], 3)
        true = len(one & two) / len(one | two)
        errors.append((signatures[i] == signatures[i + 150]).mean() - true)
    # one pair's standard deviation is at most .044, of 128 trials
    assert abs(np.mean(errors)) < 0.01
    assert np.std(errors) < 0.05


def test_clusters_do_not_depend_on_the_order_of_the_texts(texts):
    order = np.random.default_rng(5).permutation(len(texts))
    for how in ("exact", "normalised", "near"):
        one = clusters(pl.Series(texts), how)
        two = clusters(pl.Series([texts[i] for i in order]), how)
        assert parts(one) == parts(order[two], order)


def parts(cluster, names=None) -> set[frozenset[int]]:
    names = np.arange(len(cluster)) if names is None else names
    return {frozenset(names[cluster == one].tolist()) for one in np.unique(cluster)}


def test_sameness_grows_from_exact_to_near():
    long = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    texts = ["A b!", "a  B", "a b", "a b", "😀", "😀 ", "😎", long, f"{long} sixteen", "nothing like it"]
    assert clusters(pl.Series(texts), "exact").tolist() == [0, 1, 2, 2, 4, 5, 6, 7, 8, 9]
    assert clusters(pl.Series(texts), "normalised").tolist() == [0, 0, 0, 0, 4, 4, 6, 7, 8, 9]
    assert clusters(pl.Series(texts), "near").tolist() == [0, 0, 0, 0, 4, 4, 6, 7, 7, 9]


def test_a_bucket_too_large_for_all_pairs_is_one_cluster_still_and_said():
    common = " ".join(f"c{i}" for i in range(60))
    texts = [f"{common} tail{i}" for i in range(4 * LARGEST_BUCKET)]
    corpus = corpus_of(pl.Series(texts))
    found = near_pairs(corpus)
    assert found.bounded > 0
    assert len(np.unique(components(len(texts), found.first, found.second))) == 1
    assert found.candidates < len(texts) * (len(texts) - 1) / 2


def test_without_the_library_the_way_to_get_it_is_said(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **keywords):
        if name == "rensa":
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match="rensa, which is not installed") as caught:
        near_pairs(corpus_of(pl.Series(["a b c", "d e f"])))
    assert caught.value.hint == "pip install rensa"


def test_odd_inputs():
    assert len(near_pairs(corpus_of(pl.Series([], dtype=pl.String))).first) == 0
    assert len(near_pairs(corpus_of(pl.Series(["", "😀"]))).first) == 0
    with pytest.raises(ValueError, match="0 < threshold <= 1"):
        near_pairs(corpus_of(pl.Series(["a"])), threshold=1.5)
