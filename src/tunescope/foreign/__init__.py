"""Checkpoints that were trained elsewhere: what lies in their folders, and what can be said of them."""

from __future__ import annotations

from tunescope.foreign.layouts import Kind, SentenceEncoder, is_sentence_export, kind_of, sentence_encoder
from tunescope.foreign.names import arm_names
from tunescope.foreign.records import label_doubt, logged_metrics, same_weights
from tunescope.foreign.targets import Checkpoint, Pair, Pairs, pairs_of

__all__ = [
    "Checkpoint", "Kind", "Pair", "Pairs", "SentenceEncoder", "arm_names", "is_sentence_export", "kind_of",
    "label_doubt", "logged_metrics", "pairs_of", "same_weights", "sentence_encoder",
]  # fmt: skip
