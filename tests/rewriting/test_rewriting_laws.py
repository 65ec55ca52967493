"""Laws of rewriting on texts that hypothesis makes: involution, identity outside spans, true spans, whole words."""

from __future__ import annotations

import re

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tunescope.rewriting import Rewrite, Unresolved, load_lexicon, perturb, rewrite, rewrite_rows

GENDER, RACE = load_lexicon("gender"), load_lexicon("race")
# Terms whose counterpart leads back to them wherever they stand.
TWO_WAY = [
    term for term, entry in GENDER.entries.items()
    if entry.rule in ("always", "name") and len(entry.targets) == 1 and entry.length == 1
    and (back := GENDER.entries.get(entry.targets[0])) and back.targets == (term,)
    and back.rule in ("always", "name")
]  # fmt: skip
PLAIN = [
    "i",
    "the",
    "a",
    "an",
    "old",
    "apple",
    "saw",
    "and",
    "very",
    "house",
    "sheet",
    "theory",
    "mankindly",
    "his-tory",
]
words = st.lists(st.sampled_from(TWO_WAY + PLAIN), min_size=1, max_size=12)
# Two first names with nothing between would be one person's first and family name.
marks = st.sampled_from([" and ", ", ", ". ", "! ", " (", ") ", "\n", ' "', "; "])
cases = st.sampled_from([str.lower, str.capitalize, str.upper])


@st.composite
def texts(draw):
    pieces = []
    for word in draw(words):
        pieces += [draw(cases)(word), draw(marks)]
    return "".join(pieces)


def test_there_are_many_two_way_terms():
    assert len(TWO_WAY) > 300


@given(texts())
@settings(max_examples=300, deadline=None)
def test_rewriting_twice_gives_the_text_back(text):
    made = rewrite(text, GENDER)
    if isinstance(made, Rewrite) and not any(change.category == "article" for change in made.changes):
        again = rewrite(made.rewritten, GENDER)
        assert isinstance(again, Rewrite)
        assert again.rewritten == text


@given(texts())
@settings(max_examples=300, deadline=None)
def test_nothing_outside_the_spans_changes_and_spans_are_true(text):
    made = rewrite(text, GENDER)
    if not isinstance(made, Rewrite):
        return
    old = new = 0
    for change in made.changes:
        assert made.text[change.start : change.end] == change.old != change.new
        assert made.rewritten[change.new_start : change.new_end] == change.new
        assert made.text[old : change.start] == made.rewritten[new : change.new_start]
        assert change.old.isupper() == change.new.isupper() or len(change.old) == 1
        old, new = change.end, change.new_end
    assert made.text[old:] == made.rewritten[new:]


@given(
    st.sampled_from([*TWO_WAY, "black", "white"]), st.text("abcxyz_3", min_size=1, max_size=3), st.booleans()
)
@settings(max_examples=300, deadline=None)
def test_a_term_inside_a_longer_word_is_never_touched(term, more, before):
    word = f"{more}{term}" if before else f"{term}{more}"
    for lexicon in (GENDER, RACE):
        if word not in lexicon.entries and word not in lexicon.spoken_names:
            assert rewrite(f"so {word} man-{term}-made here", lexicon) is None


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_at_all_can_be_given(text):
    made = rewrite(text, GENDER)
    assert made is None or isinstance(made, Unresolved) or made.text == text


PEOPLE = [("she", "his"), ("Adam", "her"), ("the man", "their"), ("nobody", "our"), ("my wife", "my")]
ROWS = pl.DataFrame(
    {
        "row_id": [f"r{i}" for i in range(60)],
        "text": [
            f"{n} told {p} mother that Jack is late don't you think"
            for n, p in [*PEOPLE, ("a pregnant girl", "x")] * 10
        ],
        "label": list(range(60)),
    }
)


def test_order_and_sharding_of_rows_change_nothing():
    def run(frame):
        rewritten = rewrite_rows(frame, GENDER)
        names = perturb(frame, "neutral_names", seed=3)
        slips = perturb(frame, "typos", seed=3)
        return [part.pairs.sort("row_id") for part in (rewritten, names, slips)]

    whole = run(ROWS)
    shuffled = run(ROWS.sample(fraction=1.0, shuffle=True, seed=5))
    shards = zip(*(run(ROWS[i::3]) for i in range(3)), strict=True)
    for one, other, parts in zip(whole, shuffled, shards, strict=True):
        assert one.height > 20
        assert one.equals(other)
        assert one.equals(pl.concat(parts).sort("row_id"))


def test_pairs_keep_the_rows_own_order_and_columns():
    made = rewrite_rows(ROWS, GENDER)
    assert made.pairs["label"].is_sorted()
    assert made.pairs.columns[-1] == "label"
    assert re.fullmatch(r"r\d+:gender", made.pairs["pair_id"][0])
