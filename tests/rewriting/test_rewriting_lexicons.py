"""Lexicons: what is shipped is complete and sourced; what is wrong with a file is told with its line."""

from __future__ import annotations

import pytest

from tunescope.errors import ConfigError
from tunescope.rewriting import Rewrite, load_lexicon, rewrite, shipped_lexicons

GOOD = """
name: mine
sides: [cold, warm]
categories:
  weather: {source: own}
pairs:
  weather:
    - [snow, rain]
    - {from: frost, to: rain, side: cold}
"""


def load(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return load_lexicon(path)


def told(tmp_path, text) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    return str(caught.value)


@pytest.mark.parametrize("name", ["gender", "race", "names", "synonyms", "synonyms-published"])
def test_every_entry_of_a_shipped_lexicon_has_a_source(name):
    lexicon = load_lexicon(name)
    assert name in shipped_lexicons()
    assert lexicon.terms
    assert all(entry.source for entry in lexicon.entries.values())
    assert {entry.category for entry in lexicon.entries.values()} == set(lexicon.categories)


def test_the_60_pairs_of_study_000_are_there():
    published = load_lexicon("synonyms-published")
    pairs = [(label, e.term, e.targets[0]) for e in published.entries.values() for label in e.labels]
    assert len(pairs) == len(set(pairs)) == 60
    assert ("surprise", "overwhelmed", "swamped") in pairs
    assert ("fear", "scared", "frightened") in pairs
    for label in ("sadness", "joy", "love", "anger", "fear", "surprise"):
        assert sum(one == label for one, _, _ in pairs) == 10
    assert set(load_lexicon("synonyms").entries) == set(published.entries)


def test_a_users_lexicon_swaps_both_ways_and_one_way(tmp_path):
    mine = load(tmp_path, GOOD)
    for text, expected in (("Snow fell.", "Rain fell."), ("RAIN", "SNOW"), ("frost", "rain")):
        made = rewrite(text, mine)
        assert isinstance(made, Rewrite)
        assert made.rewritten == expected
    assert rewrite("snow", mine).direction == "cold_to_warm"
    assert rewrite("snow and rain", mine).direction == "mixed"


def test_fewer_entries_on_request(tmp_path):
    gender = load_lexicon("gender").only(categories=["pronoun"])
    assert rewrite("her mother", gender).rewritten == "his mother"
    joy = load_lexicon("synonyms-published").only(label="joy")
    assert "much" in joy.entries
    assert "angry" not in joy.entries
    with pytest.raises(ConfigError, match=r"no category 'pronouns'.*\nNext: Did you mean 'pronoun'"):
        load_lexicon("gender").only(categories=["pronouns"])
    with pytest.raises(ConfigError, match="nothing is left"):
        load_lexicon("gender").only(categories=["title"], terms=["he"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "    - [snow, rain]\n", "    - [snow, rain]\n    - [snow, heat]\n",
            "mine.yaml:9: pairs.weather.1: duplicate term 'snow'; it was given on line 8",
        ),
        (
            "  weather:\n    -", "  wether:\n    -",
            "mine.yaml:7: pairs.wether: unknown category 'wether'; did you mean 'weather'",
        ),
        ("side: cold", "side: hot", "mine.yaml:9: pairs.weather.1.side: expected cold or warm; came 'hot'"),
        ("sides: [cold, warm]", "sides: [cold]", "mine.yaml:3: sides: expected two names"),
        ("{source: own}", "{rule: always}", "expected a source: a paper, a public list, or own"),
        ("{source: own}", "{source: own, rule: guess}", "unknown rule 'guess'"),
        ("[snow, rain]", "[snow, rain, hail]", "expected two terms; came 3"),
        ("[snow, rain]", "[snow, snow]", "the term 'snow' becomes itself"),
        ("[snow, rain]", '["snow!", rain]', "expected words of letters"),
        ("to: rain, side", "too: rain, side", "unknown key 'too'; did you mean 'to'"),
        ("name: mine", "nam: mine", "mine.yaml:2: nam: unknown key 'nam'; did you mean 'name'"),
        (GOOD[GOOD.index("pairs:") :], "pairs: {}\n", "expected at least one pair or set"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_file_and_line(tmp_path, old, new, message):
    assert old in GOOD
    assert message in told(tmp_path, GOOD.replace(old, new))


def test_a_cycle_is_told_with_its_terms(tmp_path):
    head = "one_way: true\ncategories: {c: own}\npairs:\n  c:\n"
    text = head + "    - [snow, rain]\n    - [rain, hail]\n    - [hail, snow]\n"
    message = told(tmp_path, text)
    assert "the terms go in a cycle: hail -> snow -> rain -> hail" in message
    assert "mine.yaml:7" in message
    two = "one_way: true\ncategories: {c: own}\npairs:\n  c:\n    - [snow, rain]\n    - [rain, snow]\n"
    assert "cycle: rain -> snow -> rain; write the two as one pair of a two-sided lexicon" in told(
        tmp_path, two
    )


def test_a_chain_in_a_one_way_lexicon_is_no_cycle_and_is_swapped_at_once(tmp_path):
    mine = load(
        tmp_path,
        "one_way: true\ncategories: {c: own}\npairs:\n  c:\n    - [snow, rain]\n    - [rain, hail]\n",
    )
    assert rewrite("snow and rain", mine).rewritten == "rain and hail"


def test_all_problems_are_told_at_once(tmp_path):
    message = told(tmp_path, GOOD.replace("[snow, rain]", "[snow]").replace("name: mine", "nam: mine"))
    assert "it has 2 problems" in message
    assert "Next: Correct these lines" in message


def test_a_lexicon_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="no shipped lexicon 'gendr'") as caught:
        load_lexicon("gendr")
    assert caught.value.hint == "Did you mean 'gender'?"
    assert "is empty; expected a lexicon" in told(tmp_path, "  \n")


def test_the_digest_follows_what_is_rewritten(tmp_path):
    first = load(tmp_path, GOOD).digest
    assert load(tmp_path, GOOD).digest == first
    assert load(tmp_path, GOOD.replace("frost", "sleet")).digest != first
