"""WordNet's own database files, read as ``wndb(5WN)`` describes them, where they lie in a folder without nltk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tunescope.errors import DataError

PARTS = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
_KINDS = {
    "1": "n",
    "2": "v",
    "3": "a",
    "4": "r",
    "5": "a",
}  # 5: satellite adjectives, which stand in the adjectives' file
FILES = ("cntlist.rev", *(f"{kind}.{part}" for part in PARTS.values() for kind in ("index", "data")),
         *(f"{part}.exc" for part in PARTS.values()))  # fmt: skip
# What morphy(7WN) takes off, and puts in its place, where a word is not among the exceptions.
_ENDINGS = {
    "n": "s: ses:s ves:f xes:x zes:z ches:ch shes:sh men:man ies:y", "v": "s: ies:y es:e es: ed:e ed: ing:e ing:",
    "a": "er: est: er:e est:e", "r": "",
}  # fmt: skip


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
        offsets = [offset for stem in self._stems(form, pos) for offset in self._offsets(stem, pos)]
        return [self._sense(offset, pos) for offset in dict.fromkeys(offsets)]

    def _stems(self, form: str, pos: str) -> list[str]:
        if pos not in self._exceptions:
            with (self.folder / f"{PARTS[pos]}.exc").open(encoding="utf-8") as lines:
                self._exceptions[pos] = {first: rest for first, *rest in map(str.split, lines)}
        if form in self._exceptions[pos]:
            return [form, *self._exceptions[pos][form]]
        pairs = [one.split(":") for one in _ENDINGS[pos].split()]
        return [form, *(form.removesuffix(end) + stem for end, stem in pairs if form.endswith(end))]

    def _offsets(self, word: str, pos: str) -> tuple[int, ...]:
        if pos not in self._index:
            self._index[pos] = self._read_index(pos)
        return self._index[pos].get(word, ())

    def _read_index(self, pos: str) -> dict[str, tuple[int, ...]]:
        """Read ``lemma pos synset_cnt p_cnt [pointer...] sense_cnt tagsense_cnt synset_offset...``."""
        found = {}
        with (self.folder / f"index.{PARTS[pos]}").open(encoding="utf-8") as lines:
            for line in lines:
                if not line.startswith("  "):  # the licence stands in lines that begin with two blanks
                    lemma, _, count, *rest = line.split()
                    found[lemma] = tuple(int(offset) for offset in rest[-int(count) :])
        return found

    def _sense(self, offset: int, pos: str) -> FolderSense:
        """Read ``offset lex_filenum ss_type w_cnt word lex_id [word lex_id...]``; w_cnt is hexadecimal."""
        path = self.folder / f"data.{PARTS[pos]}"
        with path.open("rb") as data:
            data.seek(offset)
            fields = data.readline().decode("utf-8").split()
        if len(fields) < 4 or not fields[0].isdigit() or int(fields[0]) != offset:
            raise DataError(
                f"{path}: expected the sense {offset:08d} at byte {offset}; came "
                f"{fields[0] if fields else 'nothing'!r}.",
                hint="Index and data files are of different releases; install them together.",
            )
        count = int(fields[3], 16)
        names = [
            name.partition("(")[0] for name in fields[4 : 4 + 2 * count : 2]
        ]  # galore(ip): where it may stand
        return FolderSense(tuple(FolderLemma(name, self._count(name, offset, pos)) for name in names))

    def _count(self, name: str, offset: int, pos: str) -> int:
        offsets = self._offsets(name.lower(), pos)
        number = offsets.index(offset) + 1 if offset in offsets else 0
        return self._counts.get((name.lower(), pos, number), 0)

    @cached_property
    def _counts(self) -> dict[tuple[str, str, int], int]:
        """Tagged uses by word, part of speech and number of the sense: ``sense_key sense_number tag_cnt``."""
        found = {}
        with (self.folder / "cntlist.rev").open(encoding="utf-8") as lines:
            for line in lines:
                key, number, count = line.split()
                lemma, _, rest = key.partition("%")
                found[lemma, _KINDS[rest[0]], int(number)] = int(count)
        return found
