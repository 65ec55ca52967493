"""nltk's own reader of WordNet over Debian's folder, as an outside truth."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from pathlib import Path

import nltk
from nltk.corpus.reader.wordnet import WordNetCorpusReader

DEBIAN = Path("/usr/share/wordnet")


class WithoutIndexes(WordNetCorpusReader):
    """nltk's reader without the files that Debian leaves out, which synonyms do not need."""

    def open(self, file):
        return nullcontext(()) if file == "lexnames" else super().open(file)

    def map_wn(self, version="wordnet"):
        return {}

    def _scan_satellites(self):
        super()._scan_satellites()
        self._lexnames = [f"name{number}" for number in range(64)]  # keys of senses hold their places


def nltk_reader(monkeypatch) -> WithoutIndexes:
    """Return nltk's reader of Debian's folder; nltk trusts no folder that is not among its own."""
    monkeypatch.setattr(nltk.data, "path", [*nltk.data.path, str(DEBIAN)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nltk says that there is one language
        return WithoutIndexes(str(DEBIAN), None)
