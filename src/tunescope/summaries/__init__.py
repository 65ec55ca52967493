"""Summarisation: articles and summaries as tokens, writing summaries, measuring them, and baselines beside them."""

from __future__ import annotations

from tunescope.summaries.baselines import lead, oracle, random_sentences
from tunescope.summaries.meteor import meteor, meteor_variant, meteor_words
from tunescope.summaries.metrics import METRICS, MetricOptions, score_summaries, summarise_scores
from tunescope.summaries.rows import SummaryOptions, SummaryTokens, collate_summaries, encode_summaries
from tunescope.summaries.sentences import split_sentences
from tunescope.summaries.wordnet import WordNet, wordnet

__all__ = [
    "METRICS", "MetricOptions", "SummaryOptions", "SummaryTokens", "WordNet", "collate_summaries", "encode_summaries",
    "lead", "meteor", "meteor_variant", "meteor_words", "oracle", "random_sentences", "score_summaries",
    "split_sentences", "summarise_scores", "wordnet",
]  # fmt: skip
