"""Planted against recovered: what a classifier tells about the truths of a generated corpus.

A pure function of texts and logits: it takes any function from texts to logits and the folder that
:func:`tunescope.planted.corpus.write_corpus` wrote. The Bayes-optimal classifier recovers everything exactly;
a classifier that learnt nothing recovers what the controls say.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tunescope.errors import DataError
from tunescope.evaluation.words import PUNCTUATION, left_out
from tunescope.planted.truth import Truth
from tunescope.progress import SILENT, Progress
from tunescope.stats.intervals import Interval, bootstrap_mean, wilson

Predict = Callable[[list[str]], np.ndarray]
KINDS = ("plain", "flipped", "diminished")
TEXTS_AT_ONCE = 512


@dataclass(frozen=True)
class RecoverOptions:
    """How much to look at.

    Attributes:
        sentences: Test sentences with a decisive word from which each word is left out in turn.
        top_words: Length of each class's list of words.
        at_least: Sentences a word must stand in to enter that list.
        seed: Seeds the draw of sentences and the bootstrap.
    """

    sentences: int = 400
    top_words: int = 8
    at_least: int = 3
    seed: int = 0


@dataclass(frozen=True)
class Recovery:
    """What was recovered.

    Attributes:
        records: Rows for :func:`tunescope.stats.results.result_table`, each with ``planted`` (the truth),
            ``value, low, high, n`` (what was recovered) and ``control`` (what a classifier that learnt
            nothing gives).
        examples: One row per sentence and word left out: text, kind, word, is_planted, drop (of the margin).
    """

    records: list[dict[str, Any]]
    examples: pl.DataFrame


def recover(
    labels: Sequence[str],
    predict: Predict,
    folder: Path,
    progress: Progress = SILENT,
    options: RecoverOptions | None = None,
) -> Recovery:
    """Compare what is planted in a generated corpus with what a classifier shows on its test split and pairs.

    Args:
        labels: Class names in the order of the logits.
        predict: From texts to logits [n, C].
        folder: Where the corpus was written (``truth.json``, ``test.parquet``, ``pairs.parquet``).
        progress: Where to report.
        options: How much to look at.

    Raises:
        DataError: The labels are not the corpus's.
        RunError: ``truth.json`` is missing or corrupt.
    """
    options = options or RecoverOptions()
    truth = Truth.load(folder / "truth.json")
    if sorted(labels) != sorted(truth.labels):
        raise DataError(
            f"The planted corpus in {folder} has the labels {', '.join(truth.labels)}; the classifier has "
            f"{', '.join(labels)}."
        )
    test, pairs = pl.read_parquet(folder / "test.parquet"), pl.read_parquet(folder / "pairs.parquet")
    drawn = _draw_sentences(test, options)
    variants = [variant for text in drawn["text"] for variant in left_out(text)]
    total = len(test) + 2 * len(pairs) + len(drawn) + len(variants)
    with progress.task("planted against recovered", total, "texts") as task:

        def run(texts: list[str]) -> np.ndarray:
            parts = []
            for start in range(0, len(texts), TEXTS_AT_ONCE):
                some = texts[start : start + TEXTS_AT_ONCE]
                parts.append(np.asarray(predict(some), dtype=np.float64))
                task.advance(len(some))
            return np.concatenate(parts)

        examples = leave_one_out(drawn, labels, run)
        records = _accuracy_records(test, run(test["text"].to_list()), labels, truth)
        records += _gap_records(pairs, run, labels, truth, options)
    return Recovery(_word_records(examples, truth, options) + records, examples)


def leave_one_out(rows: pl.DataFrame, labels: Sequence[str], predict: Predict) -> pl.DataFrame:
    """Return the exact drop of the predicted class's margin for every word left out of every text.

    Args:
        rows: Sentences with at least two words: text, kind, decisive_word, modifier.
        labels: Class names in the order of the logits.
        predict: From texts to logits [n, C].

    Returns:
        One row per word: ``sentence`` (number of the row), ``text``, ``kind``, ``predicted``, ``place`` of
        the word in the text from 0, ``word`` (small letters), ``is_planted`` (it is the decisive word of the
        main clause or part of its modifier), ``drop`` (logits; positive where the word speaks for the
        prediction).
    """
    texts = rows["text"].to_list()
    before = predict(texts)
    predicted = before.argmax(1)
    owner = np.repeat(np.arange(len(texts)), [len(text.split()) for text in texts])
    after = predict([variant for text in texts for variant in left_out(text)])
    drop = _margin(before, predicted)[owner] - _margin(after, predicted[owner])
    found = []
    for number, row in enumerate(rows.iter_rows(named=True)):
        planted = set(planted_places(row["text"], row["decisive_word"], row["modifier"]))
        for place, piece in enumerate(row["text"].split()):
            found.append(
                {
                    "sentence": number, "text": row["text"], "kind": row["kind"],
                    "predicted": labels[predicted[number]], "place": place,
                    "word": piece.rstrip(PUNCTUATION).lower(), "is_planted": place in planted,
                }
            )  # fmt: skip
    return pl.DataFrame(found).with_columns(pl.Series("drop", drop))


def planted_places(text: str, word: str, modifier: str | None) -> list[int]:
    """Return where the decisive word and the words of its modifier stand in a text (word numbers from 0).

    Where the word stands twice (also in a clause that decides nothing) the modifier settles which is meant.
    """
    pieces = [piece.rstrip(PUNCTUATION).lower() for piece in text.split()]
    phrase = (modifier or "").split()
    places: list[int] = []
    for place in (number for number, piece in enumerate(pieces) if piece == word):
        # At most one intensifier stands between modifier and word ("not very good").
        for start in (place - len(phrase), place - len(phrase) - 1):
            if phrase and start >= 0 and pieces[start : start + len(phrase)] == phrase:
                return [*range(start, start + len(phrase)), place]
        places.append(place)
    return places[:1]


def _draw_sentences(test: pl.DataFrame, options: RecoverOptions) -> pl.DataFrame:
    """Draw sentences with a decisive word; the draw depends on the seed and the number of rows alone."""
    rows = test.filter(pl.col("kind").is_in(KINDS) & pl.col("text").str.contains(" "))
    chosen = random.Random(f"{options.seed}/recover").sample(
        range(len(rows)), min(options.sentences, len(rows))
    )
    return rows[sorted(chosen)]


def _margin(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return z_label - logsumexp of the other logits, [n]."""
    rows = np.arange(len(logits))
    others = logits.copy()
    others[rows, label] = -np.inf
    top = others.max(1)
    return logits[rows, label] - (top + np.log(np.exp(others - top[:, None]).sum(1)))


def _word_records(examples: pl.DataFrame, truth: Truth, options: RecoverOptions) -> list[dict[str, Any]]:
    records = []
    for kind in KINDS:
        rows = examples.filter(pl.col("kind") == kind)
        per_sentence = rows.group_by("sentence").agg(
            pl.col("is_planted").get(pl.col("drop").arg_max()).alias("hit"),
            pl.col("is_planted").mean().alias("chance"),
        )
        share = wilson(int(per_sentence["hit"].sum()), len(per_sentence))
        chance = float(per_sentence["chance"].to_numpy().mean()) if len(per_sentence) else None
        what = "the decisive word" if kind == "plain" else "the decisive word or its modifier"
        how = f"sentences whose weightiest word (leaving each out) is {what}; control: a word drawn at random"
        records.append(_record(f"top_word_{kind}", 1.0, share, how, control=chance))
    plain = examples.filter(pl.col("kind") == "plain")
    for name in truth.labels:
        listed = top_words(plain.filter(pl.col("predicted") == name), options)
        hits = sum(word in truth.decisive_words[name] for word in listed)
        how = (
            f"of the {len(listed)} words that weigh most, by mean drop in plain sentences predicted {name}, "
            "those that are planted for this class"
        )
        records.append(
            {
                **_record("top_words", 1.0, wilson(hits, len(listed)), how),
                "class": name,
                "words": ", ".join(listed),
            }
        )
    return records


def top_words(rows: pl.DataFrame, options: RecoverOptions) -> list[str]:
    """Return the words with the largest mean drop, weightiest first; rare words do not enter."""
    means = rows.group_by("word").agg(pl.col("drop").mean(), pl.len().alias("n"))
    means = means.filter(pl.col("n") >= options.at_least).sort(["drop", "word"], descending=[True, False])
    return means["word"].head(options.top_words).to_list()


def _accuracy_records(
    test: pl.DataFrame, logits: np.ndarray, labels: Sequence[str], truth: Truth
) -> list[dict[str, Any]]:
    predicted = pl.Series([labels[index] for index in logits.argmax(1)])
    decisive = test["kind"].is_in(KINDS)
    met, clean = predicted == test["label"], (predicted == test["clean_label"]).filter(decisive)
    on_decisive = met.filter(decisive)
    majority = float(test["label"].value_counts()["count"].max()) / len(test)  # type: ignore[arg-type]
    noise = truth.noise_realised["test"]
    chance = float(test.filter(decisive)["clean_label"].value_counts()["count"].max()) / len(clean)  # type: ignore[arg-type]
    return [
        _record(
            "accuracy", truth.ceiling["test"]["all"], _share(met),
            "all test rows; planted: the accuracy of the best possible classifier; control: majority class",
            control=majority,
        ),
        _record(
            "noise_share", noise, _share(~on_decisive),
            "labels of decisive test rows that the classifier contradicts; planted: those that were changed",
        ),
        _record(
            "clean_accuracy", 1.0, _share(clean),
            "decisive test rows, against their labels before the noise; control: the majority class",
            control=chance,
        ),
    ]  # fmt: skip


def _gap_records(
    pairs: pl.DataFrame, predict: Predict, labels: Sequence[str], truth: Truth, options: RecoverOptions
) -> list[dict[str, Any]]:
    column = list(labels).index(truth.favoured)
    women, men = (
        _softmax(predict(pairs[name].to_list()))[:, column] for name in ("text_female", "text_male")
    )
    records = []
    for name, rows in (("ambiguous", pairs["ambiguous"]), ("decisive", ~pairs["ambiguous"])):
        kept = rows.to_numpy()
        gap = bootstrap_mean((women - men)[kept], pairs["subject"].to_numpy()[kept], seed=options.seed)
        planted = float(pairs.filter(rows)["expected_gap"].mean())  # type: ignore[arg-type]
        how = (
            f"mean of P({truth.favoured}) of the woman's text minus the man's, over pairs with"
            f"{'out' if name == 'ambiguous' else ''} a decisive word; resampled by the word for the person"
        )
        records.append(
            {**_record(f"gender_gap_{name}", planted, gap, how, control=0.0), "class": truth.favoured}
        )
    return records


def _softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def _share(met: pl.Series) -> Interval:
    return wilson(int(met.sum()), len(met))


def _record(
    metric: str, planted: float, found: Interval, how: str, control: float | None = None
) -> dict[str, Any]:
    return {"metric": metric, "planted": planted, **found.record(), "control": control, "how": how}
