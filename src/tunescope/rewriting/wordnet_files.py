"""WordNet's own database files, read as ``wndb(5WN)`` describes them, where they lie in a folder without nltk.

The lines of its files are read here alone; :mod:`tunescope.summaries.wordnet` reads them too, for METEOR.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tunescope.errors import DataError

PARTS = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
_KINDS = {"n": 1, "v": 2, "a": 3, "r": 4, "s": 5}  # how keys of senses (senseidx(5WN)) name parts of speech
FILES = ("cntlist.rev", *(f"{kind}.{part}" for part in PARTS.values() for kind in ("index", "data")),
         *(f"{part}.exc" for part in PARTS.values()))  # fmt: skip
# What morphy(7WN) takes off, and puts in its place, where a word is not among the exceptions.
ENDINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "noun": (
        ("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
        ("men", "man"), ("ies", "y"),
    ),
    "verb": (
        ("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""),
    ),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}  # fmt: skip


def read_index(lines: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Return the places of a word's senses in the data file, the most frequent sense first.

    Args:
        lines: Those of ``index.noun`` and its like: ``lemma pos synset_cnt p_cnt [pointer...] sense_cnt tagsense_cnt
            synset_offset...``; the licence is indented.
    """
    found = {}
    for line in lines:
        if line.strip() and not line.startswith(" "):
            lemma, _, count, *rest = line.split()
            found[lemma] = tuple(int(offset) for offset in rest[-int(count) :])
    return found


def read_exceptions(lines: Iterable[str]) -> dict[str, list[str]]:
    """Return the base forms of irregular words; ``lines`` are those of ``noun.exc`` and its like."""
    return {fields[0]: fields[1:] for fields in map(str.split, lines) if fields}


def base_forms(word: str, part: str, exceptions: Mapping[str, list[str]], index: Container[str]) -> list[str]:
    """Return a word and the forms it may be an inflection of, as far as WordNet has them (morphy(7WN)).

    Args:
        word: In lower case.
        part: ``noun``, ``verb``, ``adj`` or ``adv``.
        exceptions: From :func:`read_exceptions`; a word that stands there has no other base forms.
        index: The words that WordNet has as this part of speech.
    """
    led = exceptions.get(word)
    if led is None:
        led = [word[: -len(old)] + new for old, new in ENDINGS[part] if word.endswith(old)]
    return [form for form in dict.fromkeys([word, *led]) if form in index]


@dataclass(frozen=True)
class SenseLine:
    """One line of a data file: a sense (synset), and what the keys of its words are made of.

    Attributes:
        names: Its words, without the mark of where an adjective may stand, as ``galore(ip)`` has it.
        numbers: What tells the senses of one word in one file apart, one number a word (lex_id).
        file: The number of the file that its makers wrote it in.
        kind: ``n``, ``v``, ``a``, ``s`` (satellite adjective) or ``r``.
        head: Of a satellite: where the adjective stands that it is like; else None.
    """

    names: tuple[str, ...]
    numbers: tuple[int, ...]
    file: str
    kind: str
    head: int | None


def read_sense(line: str, offset: int) -> SenseLine | None:
    """Read one line of a data file; None where it is not the one that stands at ``offset``.

    Args:
        line: ``offset lex_filenum ss_type w_cnt word lex_id [word lex_id...] p_cnt [pointer...]``; w_cnt and lex_id are
            hexadecimal, a pointer is ``symbol offset pos source/target``.
        offset: Where the line stands in its file.
    """
    fields = line.split()
    if len(fields) < 4 or not fields[0].isdigit() or int(fields[0]) != offset:
        return None
    end = 4 + 2 * int(fields[3], 16)
    pointers = zip(fields[end + 1 :: 4], fields[end + 2 :: 4], strict=False)
    head = next((int(place) for symbol, place in pointers if symbol == "&"), None)
    return SenseLine(
        tuple(name.partition("(")[0] for name in fields[4:end:2]),
        tuple(int(number, 16) for number in fields[5:end:2]),
        fields[1],
        fields[2],
        head if fields[2] == "s" else None,
    )


@dataclass(frozen=True)
class FolderLemma:
    """One word of one sense; named and counted as nltk's lemma is."""

    _name: str
    _count: int

    def name(self) -> str:
        """Return the word, with ``_`` between the parts of a compound."""
        return self._name

    def count(self) -> int:
        """Return how often the word has this sense in the texts that WordNet's makers tagged (SemCor)."""
        return self._count


@dataclass(frozen=True)
class FolderSense:
    """One sense (synset) with its words."""

    _lemmas: tuple[FolderLemma, ...]

    def lemmas(self) -> tuple[FolderLemma, ...]:
        """Return the words that have this sense, in WordNet's order."""
        return self._lemmas


class WordNetFolder:
    """A reader of a folder with WordNet 3.0's files (Debian: ``wordnet-base``), with what synonyms need of nltk's.

    Inflected forms are led back to their stems by the lists of exceptions and, without them, by their endings.

    Args:
        folder: Where ``index.noun``, ``data.noun``, ``cntlist.rev`` and the others lie.

    Raises:
        DataError: A file is missing.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        missing = [name for name in FILES if not (self.folder / name).is_file()]
        if missing:
            raise DataError(
                f"{folder} is no whole WordNet database: it lacks {', '.join(missing)}.",
                hint="apt install wordnet-base, and let WNSEARCHDIR name the folder that has these files.",
            )
        self._index: dict[str, dict[str, tuple[int, ...]]] = {}
        self._exceptions: dict[str, dict[str, list[str]]] = {}

    def synsets(self, word: str, pos: str) -> list[FolderSense]:
        """Return the senses of a word and of what it is a form of, as one part of speech.

        WordNet's order is kept, the most frequent sense first; those of the word as it is written lead.

        Args:
            word: A word, in any case; parts of a compound parted by blanks or ``_``.
            pos: ``n``, ``v``, ``a`` or ``r``.

        Raises:
            DataError: A line of the database is not as its manual says.
        """
        form = word.lower().replace(" ", "_")
        offsets = [offset for stem in self._stems(form, pos) for offset in self.index(pos)[stem]]
        return [self._sense(offset, pos) for offset in dict.fromkeys(offsets)]

    def _stems(self, form: str, pos: str) -> list[str]:
        if pos not in self._exceptions:
            with (self.folder / f"{PARTS[pos]}.exc").open(encoding="utf-8") as lines:
                self._exceptions[pos] = read_exceptions(lines)
        return base_forms(form, PARTS[pos], self._exceptions[pos], self.index(pos))

    def index(self, pos: str) -> dict[str, tuple[int, ...]]:
        """Return the places of the senses of every word of a part of speech (``n``, ``v``, ``a`` or ``r``)."""
        if pos not in self._index:
            with (self.folder / f"index.{PARTS[pos]}").open(encoding="utf-8") as lines:
                self._index[pos] = read_index(lines)
        return self._index[pos]

    def _sense(self, offset: int, pos: str) -> FolderSense:
        line = self._line(offset, pos)
        head = "" if line.head is None else _head(self._line(line.head, pos))
        kind = _KINDS[line.kind]
        keys = [
            f"{name.lower()}%{kind}:{line.file}:{number:02d}:{head or ':'}"
            for name, number in zip(line.names, line.numbers, strict=True)
        ]
        counts = [self._counts.get(key, 0) for key in keys]
        return FolderSense(tuple(FolderLemma(*one) for one in zip(line.names, counts, strict=True)))

    def _line(self, offset: int, pos: str) -> SenseLine:
        path = self.folder / f"data.{PARTS[pos]}"
        with path.open("rb") as data:
            data.seek(offset)
            text = data.readline().decode("utf-8", "replace")
        line = read_sense(text, offset)
        if line is None:
            came = text.split()[0] if text.split() else "nothing"
            raise DataError(
                f"{path}: expected the sense {offset:08d} at byte {offset}; came {came!r}.",
                hint="Index and data files are of different releases; install them together.",
            )
        return line

    @cached_property
    def _counts(self) -> dict[str, int]:
        """Tagged uses by the key of a sense: ``sense_key sense_number tag_cnt``.

        The numbers of senses in this file are those of another release and do not fit the index; keys do.
        """
        with (self.folder / "cntlist.rev").open(encoding="utf-8") as lines:
            return {key: int(count) for key, _, count in map(str.split, lines)}


def _head(line: SenseLine) -> str:
    return f"{line.names[0].lower()}:{line.numbers[0]:02d}"
