"""Synonyms out of WordNet's data files as they lie on the disk (wndb(5WN)); nothing is downloaded.

Debian's ``wordnet-base`` holds these files, but neither ``lexnames`` nor ``index.sense``, without which nltk's reader
does not start; synonyms need neither. Inflected words are led back to their base forms by WordNet's own rules
(morphy(7WN)): a list of exceptions a part of speech, and endings that are replaced once.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from tunescope.errors import DataError, MissingDependencyError
from tunescope.rewriting.wordnet_files import PARTS, base_forms, read_exceptions, read_index, read_sense

SPEECH = tuple(PARTS.values())
FILES = tuple(name for part in SPEECH for name in (f"index.{part}", f"data.{part}", f"{part}.exc"))
USUAL = ("/usr/share/wordnet", "/usr/local/WordNet-3.0/dict", "/usr/local/share/wordnet")
_VERSION = re.compile(rb"WordNet (\d+(?:\.\d+)*) Copyright")


class WordNet:
    """WordNet's words and sets of synonyms; call it with a word for its synonyms.

    Args:
        files: The content of every file of :data:`FILES`.
        where: Where they lie, for messages.
    """

    def __init__(self, files: Mapping[str, bytes], where: str) -> None:
        self.where = where
        found = _VERSION.search(files["data.noun"][:4000])
        self.version = found.group(1).decode() if found else "of an unnamed version"
        self._data = {part: files[f"data.{part}"] for part in SPEECH}
        self._index = {part: read_index(_lines(files[f"index.{part}"])) for part in SPEECH}
        self._exceptions = {part: read_exceptions(_lines(files[f"{part}.exc"])) for part in SPEECH}
        self._known: dict[str, frozenset[str]] = {}

    def __call__(self, word: str) -> frozenset[str]:
        """Return all single words, in lower case, that share a set of synonyms with any sense of a word.

        Raises:
            DataError: The data files do not belong together.
        """
        word = word.lower()
        if word not in self._known:
            self._known[word] = frozenset(
                name
                for part in SPEECH
                for form in self.base_forms(word, part)
                for offset in self._index[part][form]
                for name in self._names(part, offset)
                if "_" not in name
            )
        return self._known[word]

    def base_forms(self, word: str, part: str) -> list[str]:
        """Return a word and the forms it may be an inflection of, as far as WordNet has them as this part of speech."""
        return base_forms(word, part, self._exceptions[part], self._index[part])

    def _names(self, part: str, offset: int) -> list[str]:
        data = self._data[part]
        sense = read_sense(data[offset : data.find(b"\n", offset)].decode("utf-8", "replace"), offset)
        if sense is None:
            raise DataError(
                f"WordNet's data.{part} in {self.where} has no set of synonyms at {offset:08d}, where its index says.",
                hint="Install the data again; all files must be of one version.",
            )
        return [name.lower() for name in sense.names]


def _lines(content: bytes) -> list[str]:
    return content.decode("utf-8").splitlines()


def places() -> list[Path]:
    """Return where WordNet is looked for: WordNet's own variables, usual folders, and nltk's data."""
    found = [Path(os.environ["WNSEARCHDIR"])] if os.environ.get("WNSEARCHDIR") else []
    found += [Path(os.environ["WNHOME"]) / "dict"] if os.environ.get("WNHOME") else []
    found += [Path(one) for one in USUAL]
    try:
        from nltk.data import path as folders
    except ImportError:
        folders = []
    for folder in folders:
        found += [Path(folder) / "corpora" / "wordnet", Path(folder) / "corpora" / "wordnet.zip"]
    return found


def wordnet() -> WordNet:
    """Return WordNet out of the first place that has it; it is read once.

    Raises:
        MissingDependencyError: No place has it, or one lacks some of its files.
    """
    for place in places():
        if place.is_file() or (place / "index.noun").is_file():
            return _opened(place)
    raise MissingDependencyError(
        "METEOR with synonyms needs WordNet's data, and it is not installed.",
        hint="apt-get install wordnet-base (Debian, Ubuntu), or python -m nltk.downloader wordnet; where it lies "
        "elsewhere, name the folder of index.noun in the variable WNSEARCHDIR. Or set summarise.meteor to stem.",
    )


@lru_cache(maxsize=2)
def _opened(place: Path) -> WordNet:
    if place.is_dir():
        files = {name: (place / name).read_bytes() for name in FILES if (place / name).is_file()}
    else:
        with zipfile.ZipFile(place) as archive:
            there = set(archive.namelist())
            files = {name: archive.read(f"wordnet/{name}") for name in FILES if f"wordnet/{name}" in there}
    missing = [name for name in FILES if name not in files]
    if missing:
        raise MissingDependencyError(
            f"WordNet's data in {place} is not complete: {', '.join(missing)} not found.",
            hint="Install it again: apt-get install --reinstall wordnet-base, or python -m nltk.downloader wordnet.",
        )
    return WordNet(files, str(place))
