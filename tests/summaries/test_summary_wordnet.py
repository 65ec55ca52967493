"""Synonyms out of WordNet's files: a hand-written database, Debian's against nltk's reader, and absence."""

from __future__ import annotations

import sys
import zipfile

import nltk
import numpy as np
import pytest
from nltk.stem.porter import PorterStemmer
from nltk.translate.meteor_score import single_meteor_score

from nltk_wordnet import DEBIAN, nltk_reader
from tunescope import study
from tunescope.config import load_study
from tunescope.errors import ConfigError, DataError, MissingDependencyError
from tunescope.summaries import meteor, meteor_words, score_summaries, summarise_scores, wordnet
from tunescope.summaries.metrics import MetricOptions
from tunescope.summaries.wordnet import FILES, SPEECH

SETS = {  # per part of speech: sets of synonyms, a two-word name and a marked adjective among them
    "noun": [["movie", "film", "moving_picture"], ["film", "cinema"], ["child", "kid"]],
    "verb": [["buy", "purchase"]],
    "adj": [["happy", "glad(p)"]],
    "adv": [["quickly", "fast"]],
}


def write_database(folder):
    """Write a small database in the form of wndb(5WN), its licence indented as in the real one."""
    folder.mkdir(parents=True)
    for part in SPEECH:
        data, offsets = "  1 WordNet 9.9 Copyright nobody\n", {}
        for names in SETS[part]:
            offset = f"{len(data):08d}"
            for name in names:
                offsets.setdefault(name.split("(")[0], []).append(offset)
            words = " ".join(f"{name} 0" for name in names)
            data += f"{offset} 03 {part[0]} {len(names):02x} {words} 000 | said here\n"
        (folder / f"data.{part}").write_text(data)
        lines = [
            f"{name} {part[0]} {len(own)} 1 @ {len(own)} 0 {' '.join(own)}"
            for name, own in sorted(offsets.items())
        ]
        (folder / f"index.{part}").write_text("  1 a licence\n" + "\n".join(lines) + "\n")
        (folder / f"{part}.exc").write_text("children child\n" if part == "noun" else "")
    return folder


@pytest.fixture
def small(tmp_path, monkeypatch):
    folder = write_database(tmp_path / "dict")
    monkeypatch.setenv("WNSEARCHDIR", str(folder))
    return folder


@pytest.fixture
def nowhere(monkeypatch):
    for name in ("WNSEARCHDIR", "WNHOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys.modules["tunescope.summaries.wordnet"], "USUAL", ())
    monkeypatch.setattr(nltk.data, "path", [])


def test_words_find_those_that_share_a_meaning(small):
    found = wordnet()
    assert found.version == "9.9"
    assert found("movie") == {"movie", "film"}  # a name of two words can match no single one
    assert found("Films") == {"film", "movie", "cinema"}  # both of its meanings, from the plural
    assert found("children") == {"child", "kid"}  # by the list of exceptions
    assert found("buying") == found("bought") | {"buy", "purchase"}
    assert found("happy") == {"happy", "glad"}  # without the mark of where it may stand
    assert found("nothing") == frozenset()


def test_meteor_matches_synonyms_and_says_so(small):
    ours, theirs = "A glad child buys movies", "A happy kid purchases films"
    first = meteor_words(ours), meteor_words(theirs)
    # "purchases" and "films" are inflected: as words they are no synonyms of "buys" and "movies".
    matched = {"a", "glad", "child"}
    expected = 3 / 5 * (1 - 0.5 * (1 / len(matched)) ** 3)
    assert meteor(*first, synonyms=wordnet()) == pytest.approx(expected)
    options = MetricOptions(meteor="synonym")
    table = score_summaries([ours], [theirs], ["An article."], ["r"], options)
    assert table["meteor"][0] == pytest.approx(expected)
    assert score_summaries([ours], [theirs], ["An article."], ["r"])["meteor"][0] < expected
    record = next(one for one in summarise_scores(table, options) if one["metric"] == "meteor")
    assert record["method"].startswith("exact+stem+synonym (WordNet 9.9); ")


def test_a_zip_of_nltks_is_read_too(small, nowhere, tmp_path, monkeypatch):
    (tmp_path / "corpora").mkdir()
    with zipfile.ZipFile(tmp_path / "corpora" / "wordnet.zip", "w") as archive:
        for name in FILES:
            archive.write(small / name, f"wordnet/{name}")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    assert wordnet()("movie") == {"movie", "film"}


def test_what_is_absent_says_how_to_install_it(small, nowhere, monkeypatch):
    with pytest.raises(MissingDependencyError, match="it is not installed") as caught:
        wordnet()
    for said in (
        "apt-get install wordnet-base",
        "nltk.downloader wordnet",
        "WNSEARCHDIR",
        "summarise.meteor",
    ):
        assert said in caught.value.hint
    monkeypatch.setenv("WNSEARCHDIR", str(small))
    (small / "verb.exc").unlink()
    with pytest.raises(MissingDependencyError, match=r"not complete: verb\.exc not found"):
        wordnet()


def test_files_of_two_versions_are_refused(small):
    path = small / "data.noun"
    path.write_text("  1 WordNet 9.9 Copyright nobody, and more\n" + path.read_text().split("\n", 1)[1])
    with pytest.raises(DataError, match=r"data\.noun .* has no set of synonyms at 000000"):
        wordnet()("movie")


def raw(**how):
    return {
        "name": "s", "task": "summarise", "data": {"path": "rows.parquet", "text": "article", "summary": "highlights"},
        "summarise": {"meteor": "synonym"}, "arms": [{"name": "a", "model": "m", "method": "full", **how}],
        "lenses": [],
    }  # fmt: skip


def loaded(given):
    return load_study(given, methods=study.METHODS, lenses=study.LENSES, refused=study.REFUSED_METHODS)


def test_a_study_that_asks_for_it_stops_before_anything_is_computed(nowhere, tmp_path):
    with pytest.raises(MissingDependencyError, match="needs WordNet's data"):
        study.run(loaded(raw()), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run" / "arms").exists()


def test_an_arm_has_no_meteor_of_its_own():
    for name, value in (("meteor", "stem"), ("baselines", False)):
        with pytest.raises(ConfigError, match=rf"summarise\.{name} is one for all arms"):
            loaded(raw(summarise={name: value}))


# ---- Debian's data, read by two programs ----

debian = pytest.mark.skipif(
    not (DEBIAN / "index.noun").is_file(), reason="Debian's wordnet-base is not installed"
)


class ExactAlone(PorterStemmer):
    """Makes nltk's stage of stems do nothing, so that words reach its stage of synonyms as they are."""

    def stem(self, word, to_lowercase=True):
        return word


@pytest.fixture(scope="module")
def both():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WNSEARCHDIR", str(DEBIAN))
        yield wordnet(), nltk_reader(patch)


@debian
def test_synonyms_are_those_of_nltks_reader(both):
    ours, theirs = both
    generator = np.random.default_rng(0)
    words = sorted({word for part in SPEECH for word in ours._index[part] if word.isalpha()})
    drawn = [str(word) for word in generator.choice(words, 150, replace=False)]
    drawn += [
        "movies",
        "children",
        "bought",
        "running",
        "happier",
        "men",
        "quickly",
        "leaves",
        "axes",
        "notaword",
    ]
    rich = 0
    for word in drawn:
        names = {name for one in theirs.synsets(word) for name in one.lemma_names() if "_" not in name}
        assert ours(word) == {name.lower() for name in names}, word
        rich += len(names) > 1
    assert rich > 50


@debian
def test_meteor_with_synonyms_is_nltks_where_it_sees_words(both):
    ours, theirs = both
    words = [
        "movie",
        "film",
        "buy",
        "purchase",
        "happy",
        "glad",
        "quickly",
        "fast",
        "child",
        "kid",
        "the",
        "of",
    ]
    generator = np.random.default_rng(1)
    larger = 0
    for _ in range(100):
        first, second = (list(map(str, generator.choice(words, generator.integers(1, 9)))) for _ in range(2))
        expected = single_meteor_score(second, first, stemmer=ExactAlone(), wordnet=theirs)
        assert meteor(first, second, stems=False, synonyms=ours) == pytest.approx(expected, abs=1e-12)
        larger += expected > meteor(first, second, stems=False)
    assert larger > 25
    # Behind nltk's stemmer the same words find nothing ("movi"); here they still do.
    assert single_meteor_score(["movie"], ["film"], wordnet=theirs) <= meteor(
        ["film"], ["movie"], synonyms=ours
    )
    assert meteor(["happy"], ["glad"], synonyms=ours) == 0.5
    assert single_meteor_score(["glad"], ["happy"], wordnet=theirs) == 0.0
