"""Tables and files: columns, counts, bad input, token counts, frequent words, WordNet and taggers."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import polars as pl
import pytest

from tunescope.errors import ConfigError, DataError, MissingDependencyError
from tunescope.rewriting import (
    Rewrite,
    frequent_synonyms,
    frequent_words,
    load_lexicon,
    mark_token_counts,
    nltk_tagger,
    rewrite,
    rewrite_file,
    rewrite_rows,
    wordnet_lexicon,
)

FRAME = pl.DataFrame({
    "row_id": ["a", "b", "c", "d", "e"],
    "text": ["Mr. Fox saw her.", "nothing here", "my wife is pregnant", "he and she", None],
    "label": [0, 1, 0, 1, 1],
})  # fmt: skip


def test_a_table_of_pairs_and_its_counts():
    made = rewrite_rows(FRAME, load_lexicon("gender"))
    assert made.pairs["row_id"].to_list() == ["a", "d"]
    assert made.pairs["rewritten"].to_list() == ["Ms. Fox saw him.", "she and he"]
    assert made.pairs["direction"].to_list() == ["mixed", "mixed"]
    assert made.pairs["terms"].to_list() == [["mr", "her"], ["he", "she"]]
    assert made.pairs["categories"].to_list() == [["title", "pronoun"], ["pronoun"]]
    assert made.pairs["changes"][0][1] == {
        "start": 12, "end": 15, "old": "her", "new_start": 12, "new_end": 15, "new": "him",
        "term": "her", "category": "pronoun",
    }  # fmt: skip
    assert made.unresolved.rows() == [("c", "biology", "pregnant", 11, 19)]
    assert made.counts == {
        "rows": 5, "touched": 2, "untouched": 2, "unresolved": {"biology": 1},
        "terms": {"mr": 1, "her": 1, "he": 1, "she": 1}, "directions": {"mixed": 2}, "choices": {"mr": 1},
    }  # fmt: skip


def test_no_touched_row_gives_an_empty_table_of_the_same_form():
    made = rewrite_rows(FRAME[1:2], load_lexicon("gender"))
    assert made.pairs.schema == rewrite_rows(FRAME, load_lexicon("gender")).pairs.schema
    assert made.pairs.is_empty()


def test_bad_tables_are_refused():
    gender = load_lexicon("gender")
    with pytest.raises(
        DataError, match="Expected a column 'text' to rewrite; the table has: 'row_id', 'label'"
    ):
        rewrite_rows(FRAME.drop("text"), gender)
    with pytest.raises(DataError, match="Row ids must be unique; 1 stand more than once: 'a'"):
        rewrite_rows(pl.concat([FRAME, FRAME[:1]]), gender)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_file_gives_the_same_pairs_as_a_table(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr("tunescope.rewriting.rows.CHUNK", 7)
    frame = pl.DataFrame({"tweet": [f"{i} he saw {word}" for i in range(40) for word in ("her", "it")]})
    source = tmp_path / f"rows{suffix}"
    {".parquet": frame.write_parquet, ".csv": frame.write_csv, ".jsonl": frame.write_ndjson}[suffix](source)
    counts = rewrite_file(source, tmp_path / "pairs.parquet", load_lexicon("gender"), text="tweet")
    rows = (
        frame.rename({"tweet": "text"})
        .with_row_index("row_id")
        .with_columns(pl.col("row_id").cast(pl.String))
    )
    made = rewrite_rows(rows, load_lexicon("gender"))
    assert pl.read_parquet(tmp_path / "pairs.parquet").equals(made.pairs)
    assert counts == made.counts
    assert counts["touched"] == 80


def test_a_file_that_cannot_be_rewritten(tmp_path):
    gender = load_lexicon("gender")
    with pytest.raises(DataError, match="There is no file"):
        rewrite_file(tmp_path / "no.csv", tmp_path / "out.parquet", gender)
    (tmp_path / "a.csv").write_text("x\nhe\n", encoding="utf-8")
    with pytest.raises(DataError, match="has no column 'text'; it has: 'x'"):
        rewrite_file(tmp_path / "a.csv", tmp_path / "out.parquet", gender)
    (tmp_path / "a.txt").write_text("he", encoding="utf-8")
    with pytest.raises(DataError, match=r"Expected a .parquet, .csv"):
        rewrite_file(tmp_path / "a.txt", tmp_path / "out.parquet", gender)
    assert not (tmp_path / "out.parquet").exists()


def test_pairs_of_equal_token_counts_are_marked():
    pairs = rewrite_rows(FRAME, load_lexicon("gender")).pairs
    marked = mark_token_counts(pairs, lambda texts: (text.count("h") for text in texts))
    assert marked["original_tokens"].to_list() == [1, 2]
    assert marked["rewritten_tokens"].to_list() == [1, 2]
    assert marked["same_token_count"].to_list() == [True, True]
    marked = mark_token_counts(pairs, lambda texts: (text.index("h") for text in texts))
    assert marked["same_token_count"].to_list() == [True, False]


def test_frequent_words_are_picked_on_train_alone():
    train = pl.DataFrame({
        "text": ["i feel the sky the sky", "sky blue and blue", "i am mad mad mad"], "label": [0, 0, 1],
        "split": ["train"] * 3,
    })  # fmt: skip
    assert frequent_words(train, 0, 2) == [("sky", 3), ("blue", 2)]
    assert frequent_words(train, n=1) == [("mad", 3)]
    with pytest.raises(DataError, match="picked on train rows only; the table holds rows of: test"):
        frequent_words(train.with_columns(split=pl.Series(["train", "test", "train"])), 0)
    with pytest.raises(DataError, match="No train row is of class 7; the classes are: 0, 1"):
        frequent_words(train, 7)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("i want to know you", "i desire to understand you"),
        ("a little dog and a little sad", "a small dog and a little sad"),
        ("i even know", "i even understand"),
        ("an even number", "an equal number"),
        ("a bit of life", "a piece of existence"),
        ("a bit sad", None),
        ("i love my love", "i adore my love"),
        ("a life", "an existence"),
        ("people think", "individuals believe"),
    ],
)
def test_synonyms_respect_the_part_of_speech(text, expected):
    made = rewrite(text, load_lexicon("synonyms"))
    assert (made.rewritten if isinstance(made, Rewrite) else made) == expected


def test_a_tagger_decides_where_there_is_one():
    tags = {"know": "NN", "life": "NN"}
    lexicon = load_lexicon("synonyms").with_tagger(lambda words: [tags.get(word, "X") for word in words])
    assert rewrite("to know life", lexicon).rewritten == "to know existence"


class Lemma:
    def __init__(self, name, count):
        self._name, self._count = name, count

    def name(self):
        return self._name

    def count(self):
        return self._count


class Sense:
    def __init__(self, *lemmas):
        self._lemmas = [Lemma(*lemma) for lemma in lemmas]

    def lemmas(self):
        return self._lemmas


GLAD = (("glad", 9), ("happy", 5), ("well_pleased", 8), ("gay", 1))


class Reader:
    senses = {  # noqa: RUF012
        ("glad", "a"): [Sense(("glad", 2), ("beaming", 1)), Sense(*GLAD)],
        ("even", "r"): [Sense(("even", 10), ("yet", 3)), Sense(("even", 12), ("still", 4))],
        ("quickly", "r"): [Sense(("quickly", 9), ("rapidly", 4))],
        ("rock", "n"): [Sense(("rock", 3))],
        ("happy", "a"): [Sense(*GLAD), Sense(("happy", 1))],
        ("still", "r"): [Sense(("even", 12), ("still", 4))],
        ("rapidly", "r"): [Sense(("quickly", 9), ("rapidly", 4))],
        # "dark" is mostly no noun, "miss" mostly means something else, "blues" is "blue" with an ending
        ("night", "n"): [Sense(("night", 9), ("dark", 3))],
        ("dark", "n"): [Sense(("night", 9), ("dark", 3))],
        ("dark", "a"): [Sense(("dark", 8))],
        ("girl", "n"): [Sense(("girl", 9), ("miss", 3), ("lass", 1))],
        ("miss", "n"): [Sense(("girl", 9), ("miss", 3), ("lass", 1)), Sense(("miss", 5))],
        ("lass", "n"): [Sense(("girl", 9), ("miss", 3), ("lass", 1))],
        ("blue", "a"): [Sense(("blue", 9), ("blues", 7))],
        ("blues", "a"): [Sense(("blue", 9), ("blues", 7))],
        ("equally", "r"): [Sense(("equally", 9), ("as", 7))],
        ("as", "r"): [Sense(("equally", 9), ("as", 7))],
    }  # fmt: skip

    def synsets(self, word, pos):
        return self.senses.get((word, pos), [])


def test_wordnet_takes_the_commonest_sense_of_the_part_of_speech():
    words = [("glad", "adjective"), ("even", "adverb"), ("rock", "noun"), ("glad", "verb")]
    lexicon = wordnet_lexicon(words, smallest_share=0.6, reader=Reader())
    assert {term: entry.targets for term, entry in lexicon.entries.items()} == {"glad": ("happy",)}
    assert lexicon.entries["glad"].part_of_speech == "adjective"
    with pytest.raises(ConfigError, match="'adj' is not a part of speech"):
        wordnet_lexicon([("glad", "adj")], reader=Reader())
    with pytest.raises(ConfigError, match="no synonym for any"):
        wordnet_lexicon([("rock", "noun")], reader=Reader())


def test_a_synonym_means_the_same_seen_from_its_own_side():
    words = [
        ("night", "noun"),
        ("girl", "noun"),
        ("blue", "adjective"),
        ("equally", "adverb"),
        ("even", "adverb"),
    ]
    found = wordnet_lexicon(words, reader=Reader()).entries
    assert {term: entry.targets for term, entry in found.items()} == {
        "girl": ("lass",)
    }  # "still": function word
    with pytest.raises(ConfigError, match="no synonym for any"):
        wordnet_lexicon(words, known={"miss": 9, "dark": 9, "lass": 9, "girl": 460}, reader=Reader())


def test_frequent_words_are_looked_up_as_their_commonest_part_of_speech():
    texts = ["glad glad even quickly rock", "Glad, quickly even so", "happy " * 5, "rapidly " * 5]
    found = frequent_synonyms(
        texts, reader=Reader()
    ).entries  # even is a function word, glad and quickly are rare
    assert {term: (entry.targets, entry.part_of_speech, entry.labels) for term, entry in found.items()} == {
        "glad": (("happy",), "adjective", ()), "quickly": (("rapidly",), "adverb", ()),
    }  # fmt: skip
    assert set(frequent_synonyms(texts[:3], most=2, reader=Reader()).entries) == {"glad"}
    with pytest.raises(ConfigError, match="no synonym for any"):
        frequent_synonyms(["rock"], reader=Reader())
    with pytest.raises(ConfigError, match="no synonym for any"):
        frequent_synonyms(["glad", "happy " * 4], reader=Reader())  # a word of other texts


def test_frequent_words_of_a_class_are_replaced_in_its_rows_alone():
    texts = ["glad glad quickly", "quickly quickly girl", "happy " * 5 + "rapidly " * 5 + "lass " * 5]
    found = frequent_synonyms(texts, ["joy", "fear", None], most=1, reader=Reader()).entries
    assert {term: entry.labels for term, entry in found.items()} == {"glad": ("joy",), "quickly": ("fear",)}
    both = frequent_synonyms(texts, ["joy", "fear", None], most=3, reader=Reader()).entries
    assert {term: entry.labels for term, entry in both.items()} == {
        "glad": ("joy",), "quickly": ("fear", "joy"), "girl": ("fear",),
    }  # fmt: skip


def test_without_nltk_the_install_command_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk", None)
    monkeypatch.delenv("WNSEARCHDIR", raising=False)
    monkeypatch.setattr("tunescope.rewriting.wordnet.DEBIAN", Path("/nowhere"))
    with pytest.raises(MissingDependencyError, match=r"nltk is not installed") as caught:
        wordnet_lexicon([("glad", "adjective")])
    assert caught.value.hint == (
        "pip install nltk, then python -m nltk.downloader wordnet; or apt install wordnet-base; "
        "or let WNSEARCHDIR name WordNet's folder"
    )
    with pytest.raises(MissingDependencyError, match=r"nltk is not installed"):
        nltk_tagger()


def test_without_nltks_data_the_download_is_told_and_with_it_tags_come(monkeypatch):
    there = set()

    def find(name):
        if name not in there:
            raise LookupError(name)

    fake = types.SimpleNamespace(
        data=types.SimpleNamespace(find=find), pos_tag=lambda words: [(word, "NN") for word in words]
    )
    monkeypatch.setitem(sys.modules, "nltk", fake)
    with pytest.raises(MissingDependencyError, match="its data 'averaged_perceptron_tagger_eng' is not"):
        nltk_tagger()
    there.add("taggers/averaged_perceptron_tagger_eng.zip")
    assert nltk_tagger()(["a", "b"]) == ["NN", "NN"]


def test_counts_are_plain_values():
    counts = rewrite_rows(FRAME, load_lexicon("gender")).counts
    assert json.loads(json.dumps(counts)) == counts
