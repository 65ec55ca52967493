"""Perturbations and controls: what they do, what they leave, and that only seed and row id decide."""

from __future__ import annotations

import difflib

import polars as pl
import pytest

from tunescope.errors import ConfigError, DataError
from tunescope.rewriting import controls, load_lexicon, perturb, rewrite_rows
from tunescope.rewriting.controls import Vocabulary
from tunescope.rewriting.perturbations import NEIGHBOURS

TEXTS = [
    "I don't know what Emily thinks, but she's happy.",
    "i am not sure what he will do tomorrow because he is late again and nobody knows",
    "ok", "", "WE ARE HERE!!", "im sure they havent seen it", "Yes, I am.", "Jack and Ryan met Lakisha.",
]  # fmt: skip


@pytest.fixture
def frame():
    return pl.DataFrame({"row_id": [str(i) for i in range(len(TEXTS))], "text": TEXTS})


def by_row(made):
    return dict(made.pairs.select("row_id", "rewritten").iter_rows())


def test_typos_touch_one_word_in_ten_and_keep_first_letters(frame):
    made = perturb(frame, "typos", seed=1)
    assert set(made.pairs["row_id"]) == {"0", "1", "4", "5", "7"}
    kinds = set()
    for row in made.pairs.iter_rows(named=True):
        assert len(row["changes"]) == max(1, len(row["original"].split()) // 10)
        for change in row["changes"]:
            old, new = change["old"], change["new"]
            assert len(old) >= 4
            assert new[0] == old[0]
            if len(new) < len(old):
                kinds.add("lost")
            elif sorted(new) == sorted(old):
                kinds.add("exchanged")
            else:
                (at,) = [i for i in range(len(old)) if old[i] != new[i]]
                assert new[at].lower() in NEIGHBOURS[old[at].lower()]
                kinds.add("neighbour")
            assert difflib.SequenceMatcher(None, old, new).ratio() > 0.5
    many = pl.DataFrame({"row_id": [str(i) for i in range(200)], "text": ["wonderful"] * 200})
    shapes = {
        (len(text), sorted(text) == sorted("wonderful"))
        for text in perturb(many, "typos", seed=0).pairs["rewritten"]
    }
    assert shapes == {(8, False), (9, True), (9, False)}
    assert by_row(perturb(frame, "typos", seed=2)) != by_row(made)
    assert by_row(perturb(frame, "typos", seed=1)) == by_row(made)


def test_neighbours_are_neighbours_both_ways():
    assert set(NEIGHBOURS["s"]) == set("adwezx")
    assert all(key in NEIGHBOURS[near] for key, nears in NEIGHBOURS.items() for near in nears)


def test_casing_changes_case_alone(frame):
    made = perturb(frame, "casing", seed=0)
    assert made.counts["touched"] == 7
    for row in made.pairs.iter_rows(named=True):
        assert row["rewritten"] != row["original"]
        assert row["rewritten"].lower() == row["original"].lower()
        assert row["direction"] in ("lower", "upper", "title", "sentence")


def test_contractions_are_expanded_or_made(frame):
    got = by_row(perturb(frame, "contractions"))
    assert got["0"] == "I do not know what Emily thinks, but she is happy."
    assert got["1"] == "im not sure what he will do tomorrow because hes late again and nobody knows"
    assert got["4"] == "WE'RE HERE!!"
    assert got["5"] == "i am sure they have not seen it"
    assert "6" not in got  # "Yes, I am." has no short form
    more = pl.DataFrame(
        {"row_id": ["a", "b", "c"], "text": ["He's gone and he'd stay", "John's hat", "I will not go."]}
    )
    got = by_row(perturb(more, "contractions"))
    assert got == {"a": "He has gone and he'd stay", "c": "I won't go."}


def test_punctuation_is_added_or_taken_off(frame):
    got = by_row(perturb(frame, "punctuation"))
    assert got["0"] == TEXTS[0][:-1]
    assert got["2"] == "ok."
    assert got["4"] == "WE ARE HERE"
    assert "3" not in got


def test_neutral_names_stay_in_their_group_and_differ_within_a_text(frame):
    names = load_lexicon("names")
    groups = {term: entry.category for term, entry in names.entries.items()}
    drawn = set()
    for seed in range(20):
        made = perturb(frame, "neutral_names", seed=seed)
        assert set(made.pairs["row_id"]) == {"0", "7"}
        for row in made.pairs.iter_rows(named=True):
            new = [change["new"].lower() for change in row["changes"]]
            assert len(set(new)) == len(new)
            for change in row["changes"]:
                assert change["new"] != change["old"]
                assert groups[change["new"].lower()] == groups[change["old"].lower()]
            drawn.add(tuple(new))
    assert len(drawn) > 10


def test_no_such_perturbation_or_control(frame):
    with pytest.raises(ConfigError, match="no perturbation 'typo'"):
        perturb(frame, "typo")
    with pytest.raises(ConfigError, match="no control 'typos'"):
        controls(frame, "typos")


def test_random_words_stand_at_the_same_places_and_are_as_frequent():
    texts = ["the wife and the husband sleep"] * 3
    rows = pl.DataFrame(
        {"row_id": ["a", "b", "c"], "text": ["My wife sleeps; my wife dreams.", "a husband", "the sky"]}
    )
    pairs = rewrite_rows(rows, load_lexicon("gender")).pairs
    train = texts + [
        f"{word} " * count for count in range(1, 40) for word in (f"q{'x' * count}", f"z{'y' * count}")
    ]
    made = controls(pairs, "random_words", seed=1, train_texts=train)
    assert made.pairs["row_id"].to_list() == ["a", "b"]
    assert made.pairs["direction"].unique().to_list() == ["control"]
    for pair, control in zip(pairs.iter_rows(named=True), made.pairs.iter_rows(named=True), strict=True):
        places = [(c["start"], c["end"]) for c in pair["changes"]]
        assert [(c["start"], c["end"]) for c in control["changes"]] == places
        assert control["original"] == pair["original"]
        assert not {c["new"].lower() for c in control["changes"]} & {"wife", "husband"}
        assert len({c["new"].lower() for c in control["changes"]}) == 1  # one word, one replacement
    assert controls(pairs, "random_words", seed=1, train_texts=train).pairs.equals(made.pairs)
    with pytest.raises(ConfigError, match="needs train texts"):
        controls(pairs, "random_words")
    with pytest.raises(DataError, match="at least two other words"):
        controls(pairs, "random_words", train_texts=["wife husband"])


def test_the_drawn_word_is_near_in_the_order_of_frequency():
    counts = {f"w{'a' * n}": n for n in range(1, 301)}
    vocabulary = Vocabulary.of([f"{word} " * n for word, n in counts.items()] + ["target " * 150])
    drawn = {vocabulary.like("target", seed, "row") for seed in range(400)}
    assert len(drawn) > 30
    assert all(124 <= vocabulary.counts[word] <= 176 for word in drawn)


def test_the_article_follows_a_random_word():
    rows = pl.DataFrame({"row_id": ["a"], "text": ["a wife"]})
    pairs = rewrite_rows(rows, load_lexicon("gender")).pairs
    made = controls(pairs, "random_words", train_texts=["apple onion"])
    assert made.pairs["rewritten"][0] in ("an apple", "an onion")
