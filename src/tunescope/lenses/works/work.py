"""One published work, and how BibTeX and running text name it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["article", "inproceedings", "misc"]


@dataclass(frozen=True)
class Work:
    """One published work.

    Attributes:
        kind: The BibTeX entry type.
        authors: ``Family, Given and Family, Given``; ``and others`` where the list is cut.
        title: As published.
        year: Of publication.
        where: Journal (with volume and pages), proceedings, or publisher.
        arxiv: Its number there, or empty.
        url: Where it stands, for works without a publisher.
    """

    kind: Kind
    authors: str
    title: str
    year: int
    where: str = ""
    arxiv: str = ""
    url: str = ""

    @property
    def families(self) -> list[str]:
        """Family names in order, without ``others``."""
        return [name.split(",")[0].strip() for name in self.authors.split(" and ") if name != "others"]

    @property
    def said(self) -> str:
        """The work as running text names it: ``Kornblith et al. 2019``."""
        names = self.families
        many = len(names) > 2 or self.authors.endswith(" and others")
        named = f"{names[0]} et al." if many else " and ".join(names)
        return f"{named} {self.year}"


_ACCENTS = {
    "á": r"{\'a}", "é": r"{\'e}", "ö": r'{\"o}', "ü": r'{\"u}', "ä": r'{\"a}', "&": r"\&", "%": r"\%", "_": r"\_",
    "#": r"\#", "$": r"\$",
}  # fmt: skip


def bibtex(keys: Iterable[str], works: Mapping[str, Work]) -> str:
    """Return BibTeX entries for keys, each once, in alphabetical order.

    Capitals within words of a title (``BERT``, ``GPT-2``) are braced, so that styles keep them; accents are TeX's, so
    that old programs read the file.

    Raises:
        KeyError: A key has no entry.
    """
    return "\n".join(_entry(key, works[key]) for key in sorted(set(keys)))


def _entry(key: str, work: Work) -> str:
    place = {"article": "journal", "inproceedings": "booktitle", "misc": "howpublished"}[work.kind]
    fields = {
        "author": work.authors,
        "title": " ".join(map(_kept, work.title.split())),
        "year": str(work.year),
        place: work.where,
        "eprint": work.arxiv,
        "archiveprefix": "arXiv" if work.arxiv else "",
    }
    lines = [f"  {name} = {{{_ascii(value)}}}," for name, value in fields.items() if value]
    lines += [f"  url = {{{work.url}}},"] if work.url else []
    return "\n".join([f"@{work.kind}{{{key},", *lines, "}", ""])


def _kept(word: str) -> str:
    """Return a word in braces where capitals stand inside it."""
    return f"{{{word}}}" if any(sign.isupper() for sign in word[1:]) else word


def _ascii(text: str) -> str:
    return "".join(_ACCENTS.get(sign, sign) for sign in text)
