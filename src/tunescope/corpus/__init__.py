"""A whole corpus through one classifier: predictions, most confident rows, frequent words, exchanged words.

Rows go by in shards of fixed size, so memory does not grow with the data, and finished shards are never computed
again. The engine changes no number: a shard is always predicted whole and alone.
"""

from __future__ import annotations

from tunescope.corpus.request import ENGINES, NO_FLIPS, CorpusRequest
from tunescope.corpus.run import run_corpus

__all__ = ["ENGINES", "NO_FLIPS", "CorpusRequest", "run_corpus"]
