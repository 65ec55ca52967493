"""WordNet's own files: a small database written by the manual, and the real one where it is installed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tunescope.errors import DataError
from tunescope.rewriting import frequent_synonyms, wordnet_lexicon
from tunescope.rewriting.wordnet_files import FILES, WordNetFolder

INSTALLED = Path("/usr/share/wordnet")
real = pytest.mark.skipif(
    not (INSTALLED / "data.noun").is_file(), reason="WordNet (wordnet-base) is not installed"
)


@pytest.fixture
def folder(tmp_path):
    """Two senses of glad (the second a satellite of bright), one of happy, and feel with its past felt.

    The list of counts has the numbers of senses of another release, and a key that no sense has.
    """
    for name in FILES:
        (tmp_path / name).write_text("")
    licence = "  1 This software and database is provided as is  \n"
    lines = [
        "{:08d} 00 a 01 bright a 000 | not dark  \n",
        "{:08d} 00 a 02 glad 0 happy(ip) 0 000 | pleased  \n",
        "{:08d} 00 s 02 glad 1 beaming 0 002 + 00000000 n 0101 & {:08d} a 0000 | shining  \n",
    ]
    offsets, data = [], licence
    for line in lines:
        offsets.append(len(data))
        data += line.format(len(data), offsets[0])
    (tmp_path / "data.adj").write_text(data)
    _, first, second = (f"{offset:08d}" for offset in offsets)
    (tmp_path / "index.adj").write_text(
        f"{licence}beaming a 1 0 1 0 {second}\nglad a 2 1 & 2 2 {first} {second}\nhappy a 1 0 1 1 {first}\n"
    )
    (tmp_path / "data.verb").write_text(
        licence + f"{len(licence):08d} 29 v 01 feel 0 000 01 + 02 00 | sense  \n"
    )
    (tmp_path / "index.verb").write_text(f"{licence}feel v 1 0 1 1 {len(licence):08d}\n")
    (tmp_path / "verb.exc").write_text("felt feel\n")
    (tmp_path / "cntlist.rev").write_text(
        "glad%3:00:00:: 2 9\nglad%5:00:01:bright:10 1 4\nglad%3:00:07:: 2 50\nhappy%3:00:00:: 1 7\n"
        "feel%2:29:00:: 1 30\n"
    )
    return tmp_path


def counts(senses):
    return [[(lemma.name(), lemma.count()) for lemma in sense.lemmas()] for sense in senses]


def test_a_small_database_is_read_as_its_manual_says(folder):
    source = WordNetFolder(folder)
    assert counts(source.synsets("Glad", "a")) == [[("glad", 9), ("happy", 7)], [("glad", 4), ("beaming", 0)]]
    assert counts(source.synsets("felt", "v")) == counts(source.synsets("feeling", "v")) == [[("feel", 30)]]
    assert source.synsets("glad", "n") == []
    assert wordnet_lexicon([("glad", "adjective")], reader=source).entries["glad"].targets == ("happy",)


def test_forms_of_other_words_are_passed_over(folder):
    texts = ["felt glad", "felt glad", "happy " * 5]
    assert set(frequent_synonyms(texts, reader=WordNetFolder(folder)).entries) == {"glad"}


def test_the_folder_that_is_named_is_read(folder, monkeypatch):
    monkeypatch.setenv("WNSEARCHDIR", str(folder))
    assert wordnet_lexicon([("glad", "adjective")]).entries["glad"].targets == ("happy",)


def test_a_folder_that_lacks_a_file_or_mixes_releases_is_refused(folder):
    (folder / "data.adj").write_text("x" * 500 + "\n")
    with pytest.raises(DataError, match=r"data\.adj: expected the sense \d{8} at byte \d+; came 'x+'"):
        WordNetFolder(folder).synsets("glad", "a")
    (folder / "cntlist.rev").unlink()
    (folder / "verb.exc").unlink()
    with pytest.raises(
        DataError, match=r"no whole WordNet database: it lacks cntlist\.rev, verb\.exc"
    ) as caught:
        WordNetFolder(folder)
    assert "apt install wordnet-base" in caught.value.hint


@real
def test_the_real_database_gives_synonyms_of_the_commonest_sense():
    source = WordNetFolder(INSTALLED)
    words = [("glad", "adjective"), ("begin", "verb"), ("child", "noun"), ("often", "adverb")]
    found = wordnet_lexicon(words, smallest_share=0.2, reader=source).entries
    assert {word: entry.targets[0] for word, entry in found.items()} == {
        "begin": "start", "child": "kid", "often": "frequently",
    }  # fmt: skip


@real
@pytest.mark.slow
def test_the_real_database_reads_as_nltk_reads_it(monkeypatch):
    pytest.importorskip("nltk")
    from nltk_wordnet import nltk_reader

    theirs, ours = nltk_reader(monkeypatch), WordNetFolder(INSTALLED)
    rng = random.Random(0)
    words = {"thought", "went", "feeling", "better", "men", "running", "glad", "ice_cream"}
    words |= set(rng.sample(sorted(ours.index("n")), 150)) | set(rng.sample(sorted(ours.index("a")), 150))
    for word in sorted(words):
        for pos in "nvar":
            once = dict.fromkeys(theirs.synsets(word, pos))  # nltk tells a sense of "good" and "well" twice
            assert counts(ours.synsets(word, pos)) == counts(once), (word, pos)
