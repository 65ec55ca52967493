"""The published works behind what tunescope runs, and who cites which."""

from __future__ import annotations

from tunescope.lenses.works.citations import (
    OF_ARCHITECTURE,
    OF_LENS,
    OF_METHOD,
    OF_STATISTIC,
    Cite,
    Ran,
    of_lens,
)
from tunescope.lenses.works.entries import WORKS
from tunescope.lenses.works.work import Work, bibtex

__all__ = [
    "OF_ARCHITECTURE",
    "OF_LENS",
    "OF_METHOD",
    "OF_STATISTIC",
    "WORKS",
    "Cite",
    "Ran",
    "Work",
    "bibtex",
    "of_lens",
]
