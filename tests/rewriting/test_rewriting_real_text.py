"""Outside truth: the Equity Evaluation Corpus, WinoBias, and the him and his of real text."""

from __future__ import annotations

import re

import polars as pl
import pytest

from tunescope.rewriting import Rewrite, load_lexicon, rewrite
from tunescope.rewriting.roles import role_of_her, role_of_his
from tunescope.rewriting.words import split_words

pytestmark = pytest.mark.shared
MALE = [
    "he",
    "him",
    *(f"my {n}" for n in ["boyfriend", "brother", "dad", "father", "husband", "son", "uncle"]),
    "this boy",
    "this man",
]
FEMALE = [
    "she",
    "her",
    *(f"my {n}" for n in ["girlfriend", "sister", "mom", "mother", "wife", "daughter", "aunt"]),
    "this girl",
    "this woman",
]


def share_of(capsys, what: str, right: int, total: int) -> float:
    with capsys.disabled():
        print(f"\n  {what}: {right:,} of {total:,} ({right / total:.2%})")
    return right / total


def rewritten(text: str, lexicon) -> str | None:
    made = rewrite(text, lexicon)
    return made.rewritten if isinstance(made, Rewrite) else None


def test_each_sentence_of_the_equity_corpus_becomes_its_partner(shared, capsys):
    gender = load_lexicon("gender")
    frame = pl.read_parquet(shared / "data" / "eec" / "all.parquet").filter(pl.col("race").is_null())
    partner = dict(zip(MALE + FEMALE, FEMALE + MALE, strict=True))
    key = {(r["template"], r["emotion_word"], r["person"]): r["text"] for r in frame.iter_rows(named=True)}
    # "her" is he's object; the corpus has one row a person, template and emotion word.
    pairs = [(text, key[(template, word, partner[person])]) for (template, word, person), text in key.items()]
    assert len(pairs) == 2880
    right = sum(rewritten(text, gender) == other for text, other in pairs)
    assert share_of(capsys, "Equity Evaluation Corpus, gender", right, len(pairs)) >= 0.99


def test_names_of_the_equity_corpus_go_to_the_other_race_and_gender(shared, capsys):
    frame = pl.read_parquet(shared / "data" / "eec" / "all.parquet").filter(pl.col("race").is_not_null())
    texts = set(frame["text"])
    group = {
        r["text"]: (r["gender"], r["race"], r["template"], r["emotion_word"])
        for r in frame.iter_rows(named=True)
    }
    right, total = 0, 0
    for name in ("gender", "race"):
        lexicon = load_lexicon(name)
        for text, (gender, race, *rest) in group.items():
            made = rewritten(text, lexicon)
            total += 1
            if made in texts:
                new_gender, new_race, *new_rest = group[made]
                right += (new_gender != gender, new_race != race) == (
                    name == "gender",
                    name == "race",
                ) and rest == new_rest
    assert share_of(capsys, "Equity Evaluation Corpus, names, gender and race", right, total) >= 0.99


def test_the_pronouns_of_winobias_become_those_of_its_other_half(shared, capsys):
    """A pro-stereotyped sentence of WinoBias and its anti-stereotyped one differ in the pronouns' gender alone."""
    pronouns = load_lexicon("gender").only(categories=["pronoun"])
    right = total = 0
    for split in ("validation", "test"):
        frame = pl.read_parquet(shared / "data" / "winobias" / f"{split}.parquet")
        sides = [
            frame.filter(pl.col("stereotype") == side).with_columns(
                text=pl.col("text").str.replace_all(r"[\[\]]", "")
            )
            for side in ("pro", "anti")
        ]
        joined = sides[0].join(sides[1], on=["idx", "type"], suffix="_anti")
        for row in joined.iter_rows(named=True):
            one, other = row["text"], row["text_anti"]
            masked = [
                re.sub(r"\b(he|she|him|her|his|hers|himself|herself)\b", "@", t.lower()).split()
                for t in (one, other)
            ]
            if masked[0] != masked[1] or one == other:
                continue  # not a pair of the same sentence
            for text, partner in ((one, other), (other, one)):
                total += 1
                right += rewritten(text, pronouns) == partner
    assert total > 1000
    assert share_of(capsys, "WinoBias, both directions", right, total) >= 0.95


@pytest.mark.parametrize(
    ("source", "column", "least"), [("emotion_partial/all", "text", 0.97), ("imdb/test", "text", 0.97)]
)
def test_her_is_told_apart_as_well_as_him_and_his_say(shared, capsys, source, column, least):
    """Write her for each him and his of real text: the rules must find out which it was, or say that it is open."""
    texts = (
        pl.read_parquet(shared / "data" / f"{source}.parquet")[column]
        .unique()
        .sort()[: 12_000 if "emotion" in source else 600]
    )
    right = wrong = left_open = 0
    for text in texts:
        for match in re.finditer(r"\b(him|his)\b", text):
            around = text[max(0, match.start() - 8) : match.end() + 8]
            if re.search(r"\bher\b", around):
                continue  # he or she
            words = split_words(text[: match.start()] + "her" + text[match.end() :])
            places = [start for start, _ in words.spans]
            if match.start() not in places:
                continue
            index = places.index(match.start())
            if match.group() == "his" and role_of_his(split_words(text), index, None) == 1:
                continue  # his that stands alone is hers, not her
            answer = role_of_her(words, index, None)
            if isinstance(answer, str):
                left_open += 1
            elif answer == (match.group() == "his"):
                right += 1
            else:
                wrong += 1
    assert right + wrong > 400
    assert share_of(capsys, f"roles of her in {source}, settled", right, right + wrong) >= least
    assert share_of(capsys, f"roles of her in {source}, open", left_open, right + wrong + left_open) <= 0.08
