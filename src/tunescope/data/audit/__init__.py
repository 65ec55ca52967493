"""What to know about labelled rows before believing a number measured on them.

``audit`` counts duplicates and leaks, tests every column against the label, measures classes, lengths and
words, and ranks what it finds in sentences.
"""

from __future__ import annotations

from tunescope.data.audit.columns import chi_square
from tunescope.data.audit.findings import Finding
from tunescope.data.audit.lookup import LookupTable
from tunescope.data.audit.near import NearPairs, jaccards, near_pairs
from tunescope.data.audit.parts import FORMAT_VERSION, Audit, AuditOptions, audit
from tunescope.data.audit.typical import is_stop_word, log_odds
from tunescope.data.audit.words import Corpus, corpus_of

__all__ = [
    "FORMAT_VERSION",
    "Audit",
    "AuditOptions",
    "Corpus",
    "Finding",
    "LookupTable",
    "NearPairs",
    "audit",
    "chi_square",
    "corpus_of",
    "is_stop_word",
    "jaccards",
    "log_odds",
    "near_pairs",
]
