"""Behaviour: suites of pairs of texts, what they move in a model, and whether tuning widened it."""

from __future__ import annotations

from tunescope.behaviour.builtin import (
    BUILTIN,
    WORDNET,
    Material,
    builtin_suite,
    lexicon_suite,
    perturbed_suite,
)
from tunescope.behaviour.corpora import PairColumns, equity_suite, table_suite, winobias_suite
from tunescope.behaviour.effects import Answers, Effects, effects_of, predictor, references
from tunescope.behaviour.estimates import MeanChange, Settings, mean_changes
from tunescope.behaviour.load import load_suite, needs_rows
from tunescope.behaviour.measures import Rules
from tunescope.behaviour.run import WHAT, Behaviour, Wish, measure
from tunescope.behaviour.suite import KINDS, Expected, Suite, pair_table
from tunescope.behaviour.verdicts import DIFFERENT, EQUIVALENT, INCONCLUSIVE, Judgement, judge
from tunescope.behaviour.words import About

__all__ = [
    "BUILTIN",
    "DIFFERENT",
    "EQUIVALENT",
    "INCONCLUSIVE",
    "KINDS",
    "WHAT",
    "WORDNET",
    "About",
    "Answers",
    "Behaviour",
    "Effects",
    "Expected",
    "Judgement",
    "Material",
    "MeanChange",
    "PairColumns",
    "Rules",
    "Settings",
    "Suite",
    "Wish",
    "builtin_suite",
    "effects_of",
    "equity_suite",
    "judge",
    "lexicon_suite",
    "load_suite",
    "mean_changes",
    "measure",
    "needs_rows",
    "pair_table",
    "perturbed_suite",
    "predictor",
    "references",
    "table_suite",
    "winobias_suite",
]  # fmt: skip
