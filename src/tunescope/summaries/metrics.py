"""How good summaries are, row by row and with intervals; nothing is downloaded.

ROUGE (Lin 2004) through the reference implementation rouge-score, F1, without stemming unless it is asked for. Its
Lsum is the union of longest common subsequences over sentences and equals L for texts without newlines; so sentences
are put on lines of their own first. Copy rate is Grusky et al.'s (2018) fragment coverage: the share of the summary's
words that lie in greedily matched shared fragments of at least two words with the article.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from tunescope.config.summaries import MeteorVariant
from tunescope.errors import DataError, MissingDependencyError
from tunescope.stats.intervals import bootstrap_means
from tunescope.summaries.meteor import meteor, meteor_variant, meteor_words
from tunescope.summaries.sentences import split_sentences
from tunescope.summaries.wordnet import wordnet

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
SHORTEST_FRAGMENT = 2
METRICS = (
    *ROUGE, "meteor", "words", "compression", "copy_rate", "novel_1grams", "novel_2grams", "novel_3grams", "repetition",
)  # fmt: skip


@dataclass(frozen=True)
class MetricOptions:
    """How summaries are measured.

    Attributes:
        rouge_stems: Whether ROUGE compares Porter stems of words of more than three letters.
        meteor: What METEOR matches: ``exact`` words, also ``stem``, or also ``synonym`` by WordNet's data.
        resamples: Bootstrap samples of rows.
        seed: Seeds them.
    """

    rouge_stems: bool = False
    meteor: MeteorVariant = "stem"
    resamples: int = 2000
    seed: int = 0


def score_summaries(
    predictions: Sequence[str],
    references: Sequence[str],
    articles: Sequence[str],
    row_ids: Sequence[str],
    options: MetricOptions | None = None,
) -> pl.DataFrame:
    """Measure every summary; one row each with ``row_id`` and the columns :data:`METRICS`.

    ``words`` counts the summary's words, ``compression`` is words of the article over words of the summary,
    ``novel_Ngrams`` the share of the summary's distinct n-grams that the article does not hold, ``repetition`` the
    share of its trigrams that stood in it before. What an empty or too short summary leaves undefined is null; its
    ROUGE and METEOR are 0.

    Raises:
        DataError: The numbers of texts differ, or a reference or an article is empty.
        MissingDependencyError: rouge-score (or nltk) is not installed, or synonyms are asked for without WordNet.
    """
    chosen = options or MetricOptions()
    counts = {len(predictions), len(references), len(articles), len(row_ids)}
    if len(counts) > 1:
        raise DataError(
            f"Every row needs a prediction, a reference and an article; came {len(predictions)}, {len(references)} and "
            f"{len(articles)} for {len(row_ids)} rows."
        )
    scorer, stages = _rouge(chosen.rouge_stems), _stages(chosen.meteor)
    records = []
    for row_id, prediction, reference, article in zip(
        row_ids, predictions, references, articles, strict=True
    ):
        for name, text in (("reference summary", reference), ("article", article)):
            if not text.strip():
                raise DataError(f"Row {row_id} has an empty {name}, so nothing can be measured against it.",
                                hint="Take the row out.")  # fmt: skip
        lines = "\n".join(split_sentences(reference)), "\n".join(split_sentences(prediction))
        rouge = {name: float(score.fmeasure) for name, score in scorer.score(*lines).items()}
        score = meteor(meteor_words(prediction), meteor_words(reference), **stages)
        records.append({"row_id": row_id, **rouge, "meteor": score, **describe(prediction, article)})
    kinds: dict[str, Any] = {"row_id": pl.String(), **dict.fromkeys(METRICS, pl.Float64())}
    return pl.DataFrame(records, schema=kinds)


def describe(prediction: str, article: str) -> dict[str, float | None]:
    """Return what a summary is like beside its article, without a reference: length, copying, repetition."""
    ours, source = words_of(prediction), words_of(article)
    found: dict[str, float | None] = {
        "words": float(len(ours)),
        "compression": len(source) / len(ours) if ours else None,
        "copy_rate": copied_words(ours, source) / len(ours) if ours else None,
    }
    for n in (1, 2, 3):
        own = set(_ngrams(ours, n))
        found[f"novel_{n}grams"] = len(own - set(_ngrams(source, n))) / len(own) if own else None
    triples = _ngrams(ours, 3)
    found["repetition"] = 1 - len(set(triples)) / len(triples) if triples else None
    return found


def words_of(text: str) -> list[str]:
    """Return a text's words and numbers in lower case, as ROUGE counts them, but of every script."""
    kept = "".join(letter if letter.isalnum() else " " for letter in text.lower())
    return kept.split()


def copied_words(summary: Sequence[str], article: Sequence[str], shortest: int = SHORTEST_FRAGMENT) -> int:
    """Count the summary's words that lie in fragments shared with the article (greedy, longest first from the left)."""
    starts: dict[str, list[int]] = {}
    for place, word in enumerate(article):
        starts.setdefault(word, []).append(place)
    copied, place = 0, 0
    while place < len(summary):
        longest = 0
        for start in starts.get(summary[place], ()):
            length = 0
            while (
                place + length < len(summary)
                and start + length < len(article)
                and summary[place + length] == article[start + length]
            ):
                length += 1
            longest = max(longest, length)
        copied += longest if longest >= shortest else 0
        place += max(longest, 1)
    return copied


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[place : place + n]) for place in range(len(words) - n + 1)]


def summarise_scores(scores: pl.DataFrame, options: MetricOptions | None = None) -> list[dict[str, Any]]:
    """Return the mean of every metric with a bootstrap interval over rows, as records of a result.

    Rows where a metric is undefined are left out of it, and ``n`` says how many remain; the record of METEOR says its
    variant in ``method``.
    """
    chosen = options or MetricOptions()
    records = []
    for metric in METRICS:
        values = scores[metric].drop_nulls().to_numpy()
        interval = bootstrap_means(values[:, None], resamples=chosen.resamples, seed=chosen.seed)[0]
        record = {"metric": metric, **interval.record()}
        if metric == "meteor":
            record["method"] = f"{_variant(chosen.meteor)}; {record['method']}"
        records.append(record)
    return records


def _stages(variant: MeteorVariant) -> dict[str, Any]:
    return {"stems": variant != "exact", "synonyms": wordnet() if variant == "synonym" else None}


def _variant(variant: MeteorVariant) -> str:
    """Return a variant's name for tables, with the version of WordNet."""
    name = meteor_variant(**_stages(variant))
    return f"{name} (WordNet {wordnet().version})" if variant == "synonym" else name


def _rouge(stems: bool) -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise MissingDependencyError(
            "ROUGE is computed by rouge-score, which is not installed.",
            hint="pip install 'tunescope[summaries]'",
        ) from error
    return RougeScorer(list(ROUGE), use_stemmer=stems)
