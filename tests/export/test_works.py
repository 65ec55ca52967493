"""The bibliography: every citation has an entry, every entry is cited, and BibTeX can read them."""

from __future__ import annotations

import re

import pytest

from tunescope.lenses import LENSES
from tunescope.lenses.works import (
    OF_ARCHITECTURE,
    OF_LENS,
    OF_METHOD,
    OF_STATISTIC,
    WORKS,
    Ran,
    bibtex,
    of_lens,
)
from tunescope.tuning import METHODS

CITED = {
    *(cite.key for cites in (*OF_LENS.values(), *OF_METHOD.values()) for cite in cites),
    *(cite.key for _, cite in OF_STATISTIC),
    *(cite.key for cite in OF_ARCHITECTURE.values()),
    *("loshchilov2019", "menon2021", "wolf2020"),  # cited by the methods section itself
}


def parse(text: str) -> dict[str, dict[str, str]]:
    """Read BibTeX as strictly as the oldest programs do: balanced braces, ASCII, one field a line."""
    assert text.isascii()
    entries = {}
    for kind, key, body in re.findall(r"@(\w+)\{(\w+),\n(.*?)\n\}\n", text, re.DOTALL):
        assert kind in ("article", "inproceedings", "misc")
        fields = dict(re.findall(r"^  (\w+) = \{(.*)\},$", body, re.MULTILINE))
        assert len(fields) == body.count("\n") + 1
        for value in fields.values():
            depth = 0
            for sign in re.sub(r"\\.", "", value):
                depth += {"{": 1, "}": -1}.get(sign, 0)
                assert depth >= 0
            assert depth == 0
        assert key not in entries
        entries[key] = fields
    assert len(entries) == text.count("@") - text.count("\\@")
    return entries


def test_every_lens_says_what_it_cites():
    assert set(LENSES) <= set(OF_LENS)
    assert set(OF_METHOD) <= set(METHODS)


def test_citations_and_entries_are_the_same_set():
    assert set(WORKS) == CITED


def test_all_entries_are_bibtex():
    entries = parse(bibtex(WORKS, WORKS))
    assert set(entries) == set(WORKS)
    for key, fields in entries.items():
        assert fields["year"] == str(WORKS[key].year) == re.search(r"\d{4}$", key)[0]
        assert re.fullmatch(r"\d{4}\.\d{4,5}", fields.get("eprint", "1234.5678"))
        assert len(fields["title"]) > 8
        family = re.sub(r"[^a-z]", "", WORKS[key].families[0].lower().replace("ö", "o").replace("á", "a"))
        assert family.endswith(re.sub(r"\d", "", key)) or family.startswith(re.sub(r"\d", "", key))


def test_accents_and_capitals_survive():
    text = bibtex(["schonemann1966", "kramar2024", "devlin2019"], WORKS)
    assert r"Sch{\"o}nemann, Peter H." in text
    assert r"Kram{\'a}r" in text
    assert "{BERT:}" in text


@pytest.mark.parametrize(
    ("lens", "ran", "cited", "not_cited"),
    [
        ("maps", Ran({"methods": ["pca"]}, ["movement"]), "schonemann1966", "vandermaaten2008"),
        ("maps", Ran({"methods": ["pca", "tsne"]}), "vandermaaten2008", "mcinnes2018"),
        ("cka", Ran({"full_below": 1024}, ["cka"], rows=500), "kornblith2019", "nguyen2021"),
        ("cka", Ran({"full_below": 1024}, ["cka"], rows=5000), "nguyen2021", "gretton2005"),
        (
            "weights",
            Ran({"vectors": 10}, ["relative_change", "effective_rank"]),
            "roy2007",
            "shuttleworth2024",
        ),
        ("ablation", Ran({"screen": None, "edits": ["zero"]}), "michel2019", "nanda2023"),
        ("words", Ran({"gradient_rows": 0, "rows": {}}), "li2016", "sundararajan2017"),
        ("behaviour", Ran({"suites": [{"suite": "gender"}]}), "ribeiro2020", "kiritchenko2018"),
    ],
)
def test_only_what_was_run_is_cited(lens, ran, cited, not_cited):
    keys = [cite.key for cite in of_lens(lens, ran)]
    assert cited in keys
    assert not_cited not in keys
    assert not_cited in [cite.key for cite in of_lens(lens)] or lens == "maps"
