"""Rewriting texts into counterparts: gender, race, synonyms, names, perturbations, and their controls.

Text in, text out: no model is loaded here. :func:`load_lexicon` reads a lexicon, :func:`rewrite` rewrites one text,
:func:`rewrite_rows` a table, :func:`rewrite_file` a file of any size.
"""

from __future__ import annotations

from tunescope.rewriting.changes import Change, Rewrite, Rewritten, Unresolved
from tunescope.rewriting.controls import CONTROLS, controls
from tunescope.rewriting.engine import rewrite
from tunescope.rewriting.frequent import frequent_words
from tunescope.rewriting.lexicon import Entry, Lexicon, load_lexicon, shipped_lexicons
from tunescope.rewriting.perturbations import PERTURBATIONS, perturb
from tunescope.rewriting.rows import mark_token_counts, rewrite_file, rewrite_rows
from tunescope.rewriting.wordnet import frequent_synonyms, nltk_tagger, wordnet_lexicon

__all__ = [
    "CONTROLS",
    "PERTURBATIONS",
    "Change",
    "Entry",
    "Lexicon",
    "Rewrite",
    "Rewritten",
    "Unresolved",
    "controls",
    "frequent_synonyms",
    "frequent_words",
    "load_lexicon",
    "mark_token_counts",
    "nltk_tagger",
    "perturb",
    "rewrite",
    "rewrite_file",
    "rewrite_rows",
    "shipped_lexicons",
    "wordnet_lexicon",
]
