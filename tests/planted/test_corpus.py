"""The generated corpus: its rules hold in every row, its truth is exact, nothing leaks between its parts."""

from __future__ import annotations

import re
from itertools import pairwise

import polars as pl
import pytest

from tunescope.errors import ConfigError, DataError
from tunescope.files import sha256_of
from tunescope.planted import vocabulary as words
from tunescope.planted.corpus import CORPORA, write_corpus, write_planted
from tunescope.planted.grammar import render
from tunescope.planted.truth import Planting, Truth, class_probabilities

ROWS = {"train": 1200, "validation": 200, "test": 400, "corpus": 1500, "pairs": 120}
PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, ROWS, seed=3)
    return folder


@pytest.fixture(scope="module")
def tables(folder):
    return {name: pl.read_parquet(folder / f"{name}.parquet") for name in PARTS}


@pytest.fixture(scope="module")
def truth(folder):
    return Truth.load(folder / "truth.json")


def corpus_lines(folder):
    return (folder / "corpus.txt").read_text(encoding="utf-8").splitlines()


def test_rows_columns_and_lengths_are_as_asked(tables, folder):
    columns = [
        "text",
        "label",
        "clean_label",
        "gender",
        "decisive_word",
        "modifier",
        "kind",
        "frame",
        "noisy",
    ]
    for name, table in tables.items():
        assert table.columns == columns
        assert len(table) == ROWS[name]
        n_words = table["text"].str.split(" ").list.len()
        assert n_words.min() == 2
        assert 25 < n_words.max() <= 40
        assert set(table["kind"]) == {"plain", "flipped", "diminished", "ambiguous"}
    assert len(corpus_lines(folder)) == ROWS["corpus"]
    assert len(pl.read_parquet(folder / "pairs.parquet")) == ROWS["pairs"]


def test_no_text_stands_in_two_parts(tables, folder):
    pairs = pl.read_parquet(folder / "pairs.parquet")
    both = pairs["text_female"].to_list() + pairs["text_male"].to_list()
    labelled = [text for table in tables.values() for text in table["text"]]
    # Sentences of an unlabelled text count one by one: none of them may be a labelled sentence.
    unlabelled = {f"{part}." for line in corpus_lines(folder) for part in line.rstrip(".").split(". ")}
    assert len(set(labelled + both)) == len(labelled) + len(both)
    assert not unlabelled & set(labelled + both)
    assert len(set(corpus_lines(folder))) == ROWS["corpus"]


def test_the_same_seed_gives_the_same_files_and_another_seed_does_not(folder, tmp_path):
    write_corpus(tmp_path / "again", ROWS, seed=3)
    write_corpus(tmp_path / "other", ROWS, seed=4)
    for path in sorted(folder.iterdir()):
        assert sha256_of(tmp_path / "again" / path.name) == sha256_of(path)
        assert sha256_of(tmp_path / "other" / path.name) != sha256_of(path)


def test_a_larger_train_part_leaves_the_test_part_as_it_was(folder, tmp_path):
    write_corpus(tmp_path, {**ROWS, "train": 1500}, seed=3)
    assert sha256_of(tmp_path / "test.parquet") == sha256_of(folder / "test.parquet")


def test_the_clean_label_can_be_read_from_the_text_alone(tables):
    """The reader knows the rules, not the generator's choices: two ways to the same label."""
    for table in tables.values():
        for row in table.iter_rows(named=True):
            clean = class_probabilities(row["text"], Planting(), noisy=False)
            if row["kind"] == "ambiguous":
                favoured = 0.75 if row["gender"] == "female" else 0.25
                assert clean == {"negative": 1 - favoured, "neutral": 0.0, "positive": favoured}, row["text"]
            else:
                assert clean[row["clean_label"]] == 1.0, row["text"]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The hotel was lovely.", "positive"),
        ("The hotel was very lovely.", "positive"),
        ("The hotel was not very lovely.", "negative"),
        ("The film was anything but dismal.", "positive"),
        ("My aunt never loved the soup.", "negative"),
        ("The soup was barely awful.", "neutral"),
        ("Only slightly superb.", "neutral"),
        ("Although the song was awful, the film was superb.", "positive"),
        ("The song was awful, but last summer, the film was ordinary.", "neutral"),
        ("The film was gloomy, even though the song was not new.", "negative"),
        ("In the end, the soup was so nasty.", "negative"),
    ],
)
def test_negation_diminishing_and_concession_by_hand(text, label):
    assert class_probabilities(text, Planting(), noisy=False)[label] == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("The hotel was old.", "names nobody"),
        ("My aunt and my uncle came.", "names both genders"),
        ("The hotel was lovely and awful.", "2 decisive words"),
    ],
)
def test_texts_outside_the_grammar_are_refused(text, message):
    with pytest.raises(DataError, match=message):
        class_probabilities(text, Planting())


def test_noise_is_exact_and_goes_to_every_other_class(tables, truth):
    for name, table in tables.items():
        assert (table["label"] != table["clean_label"]).to_list() == table["noisy"].to_list()
        for ambiguous in (True, False):
            rows = table.filter((pl.col("kind") == "ambiguous") == ambiguous)
            assert rows["noisy"].sum() == round(0.08 * len(rows))
        assert truth.noise_realised[name] == table["noisy"].sum() / len(table)
    train = tables["train"].filter("noisy")
    moved = train.group_by("clean_label", "label").len()
    assert len(moved) == 6
    assert moved["len"].min() > 3


def test_gender_decides_ambiguous_labels_at_the_planted_strength_and_nothing_else(tables):
    for table in tables.values():
        ambiguous = table.filter(pl.col("kind") == "ambiguous")
        for gender, share in (("female", 0.75), ("male", 0.25)):
            rows = ambiguous.filter(pl.col("gender") == gender)
            assert (rows["clean_label"] == "positive").sum() == round(share * len(rows))
            assert "neutral" not in set(rows["clean_label"])
    train = tables["train"].filter((pl.col("kind") != "ambiguous") & (pl.col("gender") != "none"))
    rates = train.group_by("gender").agg((pl.col("clean_label") == "positive").mean())["clean_label"]
    assert abs(rates[0] - rates[1]) < 0.1  # two shares of some 200 rows each: a standard error of 0.047


def test_the_gap_is_what_the_formula_says(truth):
    # 0.75 and 0.25 before the noise; (1 - e) p + e (1 - p) / 2 after it: 0.70 and 0.26.
    assert truth.gender_gap == pytest.approx(0.70 - 0.26)
    assert Planting(noise=0.0, p_favoured=1.0).gender_gap == 1.0
    assert Planting(p_favoured=0.5).gender_gap == 0.0
    assert sum(
        Planting().after_noise({"negative": 0.2, "neutral": 0.3, "positive": 0.5}).values()
    ) == pytest.approx(1)


def test_the_ceiling_is_what_the_best_classifier_reaches(tables, truth):
    for name, table in tables.items():
        met = []
        for row in table.iter_rows(named=True):
            if row["kind"] == "ambiguous":
                best = "positive" if row["gender"] == "female" else "negative"
            else:
                best = row["clean_label"]
            met.append(best == row["label"])
        assert truth.ceiling[name]["all"] == sum(met) / len(met)
        n_decisive = len(table.filter(pl.col("kind") != "ambiguous"))
        assert truth.ceiling[name]["decisive"] == pytest.approx(1 - round(0.08 * n_decisive) / n_decisive)


def test_pairs_differ_in_gendered_words_alone(folder):
    pairs = pl.read_parquet(folder / "pairs.parquet")
    swapped = {
        tuple(side.split("|")) for pair in words.PEOPLE for side in " ".join(pair).split() if "|" in side
    }
    swapped |= {("her", "his")}
    for row in pairs.iter_rows(named=True):
        ours, theirs = (
            re.sub(r"[.,]", "", row[name]).lower().split() for name in ("text_female", "text_male")
        )
        changed = {(a, b) for a, b in zip(ours, theirs, strict=True) if a != b}
        assert changed
        assert changed <= swapped
        assert row["expected_gap"] == (pytest.approx(0.44) if row["ambiguous"] else 0.0)
        exact = [
            class_probabilities(row[name], Planting())["positive"] for name in ("text_female", "text_male")
        ]
        assert exact[0] - exact[1] == pytest.approx(row["expected_gap"])


def test_opinions_persist_in_unlabelled_texts_and_genders_do_not_mix(folder):
    """What a language model is to learn without labels: the verdict after a sentence is of its class."""
    adjectives = {word: name for name, listed in words.DECISIVE_ADJECTIVES.items() for word in listed}
    agree = total = 0
    for line in corpus_lines(folder):
        sentences = [f"{part}." for part in line.rstrip(".").split(". ")]
        for first, second in pairwise(sentences):
            verdict = (
                adjectives.get(second.rstrip(".").lower().split()[-1]) if len(second.split()) <= 2 else None
            )
            if verdict is None or ", rather " in first or re.search(r"\b(and|she|he) (?=\w+\b)", first):
                continue
            try:
                probabilities = class_probabilities(first, Planting(), noisy=False)
            except DataError:
                continue
            if max(probabilities.values()) == 1.0:
                total += 1
                agree += probabilities[verdict] == 1.0
    assert total > 50
    assert agree == total
    text = "\n".join(corpus_lines(folder))
    assert abs(len(re.findall(r"\bshe\b", text)) / len(re.findall(r"\b(?:she|he)\b", text)) - 0.5) < 0.06


def test_word_lists_are_disjoint():
    decisive = [word for listed in words.DECISIVE.values() for word in listed]
    assert len(decisive) == len(set(decisive))
    idle = " ".join(
        [*words.IDLE_ADJECTIVES, *words.IDLE_VERBS, *words.THINGS, *words.ATTRIBUTES, *words.PLACES,
         *words.OPENINGS, *words.TAILS, *words.SEQUELS, *words.DEEDS, *words.INTENSIFYING,
         *words.PERSON_FRAMES.values()]
    )  # fmt: skip
    assert not set(decisive) & set(re.findall(r"[a-z]+", idle))
    modifiers = {
        word for group in (words.FLIPPING, words.DIMINISHING) for part in group.values() for word in part
    }
    assert not modifiers & set(idle.split())


def test_rendering_picks_one_side():
    assert render("her|his aunt|uncle, she|he said", "female") == "Her aunt, she said."
    assert render("her|his aunt|uncle, she|he said", "male") == "His uncle, he said."


def test_bad_requests_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no planted corpus 'reviews'; known: quickstart, tiny"):
        write_planted("reviews", tmp_path, 0)
    with pytest.raises(DataError, match=r"at least 12 rows of 'test'; asked for 5"):
        write_corpus(tmp_path, {**ROWS, "test": 5}, 0)
    assert not list(tmp_path.iterdir())


def test_every_named_corpus_can_be_written(tmp_path):
    truth = write_planted("tiny", tmp_path, 1)
    assert truth.rows == CORPORA["tiny"]
    assert Truth.load(tmp_path / "truth.json") == truth


def test_a_named_corpus_takes_the_strength_of_its_gender_gap(tmp_path):
    weak = write_planted("tiny?gender=0.5", tmp_path / "weak", 1)
    strong = write_planted("tiny?gender=0.95", tmp_path / "strong", 1)
    assert weak.gender_gap == 0
    assert strong.gender_gap == pytest.approx(0.9 * 0.88)
    texts = [
        pl.read_parquet(tmp_path / name / "train.parquet")["text"].to_list() for name in ("weak", "strong")
    ]
    assert texts[0] == texts[1]  # the strength moves labels alone
    for asked in ("gender=0.4", "gender=much", "race=0.9", "gender"):
        with pytest.raises(ConfigError, match=rf"gender=P with P from 0\.5 .* got '{asked}'"):
            write_planted(f"tiny?{asked}", tmp_path / "none", 1)
    assert not (tmp_path / "none").exists()


def test_a_truth_of_another_shape_is_named(tmp_path):
    (tmp_path / "truth.json").write_text('{"format_version": 1, "seed": 1}')
    with pytest.raises(DataError, match=r"truth\.json does not hold what a planted corpus needs"):
        Truth.load(tmp_path / "truth.json")
