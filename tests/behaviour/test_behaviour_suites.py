from __future__ import annotations

import sys
from pathlib import Path

import polars as pl
import pytest

from tunescope.behaviour import Material, equity_suite, load_suite, needs_rows, winobias_suite
from tunescope.config.behaviour import BehaviourConfig, SuiteConfig
from tunescope.errors import ConfigError, DataError, MissingDependencyError
from tunescope.progress import SILENT
from tunescope.rewriting import Entry, Lexicon
from tunescope.rewriting.lexicon import ONE_WAY
from tunescope.study.suites import TestRequest, _material, _rows

GOOD = """
suite: feelings
kind: invariance
slots:
  person: {female: [she, my mother], male: [he, my father]}
  feeling: {joy: [glad, happy, merry], sadness: [sad]}
templates:
  - {text: "{person} feels {feeling}.", vary: person, label_from: feeling}
"""


def write(folder: Path, text: str, name: str = "my.yaml") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_templates_unfold_into_every_combination_with_both_directions(tmp_path):
    suite = load_suite(SuiteConfig(suite=write(tmp_path, GOOD)), None)
    assert (suite.name, len(suite), suite.orientation) == ("feelings", 2 * 2 * 4, ("male", "female"))
    first = suite.pairs.row(0, named=True)
    assert (first["original"], first["rewritten"], first["label"]) == (
        "she feels glad.",
        "he feels glad.",
        "joy",
    )
    groups = suite.cluster_columns()
    assert len(set(groups["text"])) == 4  # both directions and both persons of one filling belong together
    assert len(set(groups["name"])) == 2
    assert needs_rows(SuiteConfig(suite=write(tmp_path, GOOD))) is False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("{person} feels {feeling}", "{persn} feels {feeling}"),
         r"my.yaml:8: templates.0.text: unknown slot 'persn'; did you mean 'person'\?"),
        (("[he, my father]", "[he]"), "0.vary: the groups of 'person' need equally many texts.*female 2, male 1"),
        (("vary: person, ", ""), "templates.0: a template of invariance makes pairs"),
        (("vary: person", "vary: persons"), "templates.0.vary: the slot 'persons' has no groups"),
        (("kind: invariance", "kind: invariant"), "my.yaml:3: kind: expected minimum_functionality, invariance or"),
        (("kind: invariance", "kind: directional"), "'expect' belongs to directional suites, and they need it"),
        (("suite: feelings", "lexicon: gender"), "exactly one of templates, pairs, lexicon, perturb; came templ"),
        (("slots:", "slot:"), "unknown key 'slot'; did you mean 'slots'"),
        (("feels {feeling}.", "feels {feeling.x}."), "0.text: not a template: the slot {feeling.x} is not a plain"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_suite_file_is_told_with_file_and_key(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        load_suite(SuiteConfig(suite=write(tmp_path, GOOD.replace(*change))), None)


def test_minimum_functionality_needs_labels_and_directional_suites_read_their_expectation(tmp_path):
    text = "kind: minimum_functionality\ntemplates: [{text: fine day}]\n"
    with pytest.raises(
        ConfigError, match=r"templates.0: a minimum functionality template has 'text', and 'label'"
    ):
        load_suite(SuiteConfig(suite=write(tmp_path, text)), None)
    text = """
kind: directional
templates: [{original: "i am glad", rewritten: "i am not glad", label: joy}]
expect: {change: down, by: 0.2, of: probability}
"""
    suite = load_suite(SuiteConfig(suite=write(tmp_path, text)), None)
    assert suite.name == "my"
    assert (suite.expected.change, suite.expected.by, suite.expected.of) == ("down", 0.2, "probability")


def test_unknown_suites_missing_files_and_missing_rows_are_said(tmp_path):
    with pytest.raises(
        ConfigError, match="There is no suite 'gendre': unknown suite 'gendre'; did you mean 'gender'"
    ):
        load_suite(SuiteConfig(suite="gendre"), None)
    with pytest.raises(ConfigError, match="There is no suite file"):
        load_suite(SuiteConfig(suite=str(tmp_path / "none.yaml")), None)
    with pytest.raises(ConfigError, match="'gender' rewrites rows, and there are none"):
        load_suite(SuiteConfig(suite="gender"), None)


def test_the_section_refuses_a_bound_without_reason_and_two_suites_of_one_name():
    with pytest.raises(ValueError, match=r"a bound of 0.3 needs its reason"):
        BehaviourConfig.model_validate({"suites": ["gender"], "bound": 0.3})
    with pytest.raises(ValueError, match="two suites are named 'gender'"):
        BehaviourConfig.model_validate({"suites": ["gender", {"suite": "gender"}]})
    with pytest.raises(ValueError, match="'corpus' and 'path' belong together"):
        BehaviourConfig.model_validate({"suites": [{"suite": "eec", "path": "x"}]})
    assert "0.525" in BehaviourConfig.model_validate({"suites": ["gender"]}).reason


def test_a_table_of_pairs_keeps_labels_terms_and_clusters_and_counts_what_it_leaves_out(tmp_path):
    pl.DataFrame({
        "a": ["x one", "x two", "same", None], "b": ["y one", "y two", "same", "z"], "mood": ["1", "2", "1", "1"],
        "word": ["x", "x", "s", "z"], "sheet": ["s1", "s1", "s2", "s2"],
    }).write_csv(tmp_path / "p.csv")  # fmt: skip
    config = SuiteConfig(suite="mine", corpus="pairs", path=str(tmp_path / "p.csv"), original="a", rewritten="b",
                         label="mood", term="word", clusters=["sheet"], label_map={"1": "glad"})  # fmt: skip
    suite = load_suite(config, None)
    assert suite.pairs.select("original", "label", "text").rows() == [
        ("x one", "glad", "s1"),
        ("x two", "2", "s1"),
    ]
    assert suite.pairs["terms"].to_list() == [["x"], ["x"]]
    assert (suite.counts["without one of the texts"], suite.counts["with two equal texts"]) == (1, 1)
    with pytest.raises(DataError, match="unknown column 'moods'; did you mean 'mood'"):
        load_suite(config.model_copy(update={"label": "moods"}), None)


def test_equity_sentences_pair_by_template_word_and_person(tmp_path):
    rows = []
    for gender, race, people in (("female", None, ["She", "My mom", "My mother"]),
                                 ("male", None, ["He", "My dad", "My father"]),
                                 ("female", "European", ["Amanda", "Betsy"]), ("male", "European", ["Adam", "Alan"]),
                                 ("female", "African-American", ["Ebony", "Jasmine"])):  # fmt: skip
        for person in people:
            for word, emotion in (("sad", "sadness"), ("glad", "joy")):
                named = person if race else person[0].lower() + person[1:]
                rows.append({"text": f"{person} feels {word}.", "template": "<p> feels <w>.", "person": named,
                             "gender": gender, "race": race, "emotion": emotion, "emotion_word": word})  # fmt: skip
    path = str(tmp_path / "eec.csv")
    pl.DataFrame(rows).write_csv(path)
    suite = equity_suite(path, "eec", "gender", {"sadness": "down"})
    pairs = dict(suite.pairs.select("original", "rewritten").iter_rows())
    assert pairs["My mom feels sad."] == "My dad feels sad."
    assert pairs["Alan feels glad."] == "Betsy feels glad."
    assert "Ebony feels sad." not in pairs  # no male name of that race in this small table
    assert dict(suite.pairs.select("original", "label").iter_rows())["He feels sad."] == "down"
    neutral = dict(suite.controls.select("original", "rewritten").iter_rows())
    assert neutral["Amanda feels sad."] == "Betsy feels sad."
    assert "She feels sad." not in neutral  # a pronoun has no neutral partner
    race = equity_suite(path, "eec", "race", {})
    assert (
        dict(race.pairs.select("original", "rewritten").iter_rows())["Ebony feels sad."]
        == "Amanda feels sad."
    )
    assert race.orientation == ("European", "African-American")


def test_winobias_pairs_differ_in_the_pronoun_alone(tmp_path):
    pl.DataFrame({
        "idx": [1, 1, 2, 2], "type": [1, 1, 1, 1], "stereotype": ["pro", "anti", "pro", "anti"],
        "text": ["[The clerk] said [she] won.", "[The clerk] said [he] won.",
                 "[The clerk] paid because [she] won.", "[A cook] paid because [he] won."],
    }).write_csv(tmp_path / "w.csv")  # fmt: skip
    suite = winobias_suite(str(tmp_path / "w.csv"), "w")
    assert suite.pairs.select("original", "rewritten", "direction").rows() == [
        ("The clerk said she won.", "The clerk said he won.", "female to male"),
        ("The clerk said he won.", "The clerk said she won.", "male to female"),
    ]
    assert suite.counts["that differ in more than a pronoun"] == 2


@pytest.mark.shared
def test_the_real_corpora_pair_whole(shared):
    path = str(shared / "data" / "eec" / "all.parquet")
    assert len(equity_suite(path, "eec", "gender", {})) == 8640
    assert len(equity_suite(path, "eec", "race", {})) == 5760
    assert len(winobias_suite(str(shared / "data" / "winobias" / "validation.parquet"), "w")) == 1566


@pytest.mark.parametrize(("name", "kind", "cases"), [
    ("emotion-words", "minimum_functionality", 144), ("negated-feelings", "directional", 24),
])  # fmt: skip
def test_the_suites_of_the_docs_are_valid(name, kind, cases):
    suite = load_suite(
        SuiteConfig(suite=str(Path(__file__).parents[2] / "docs" / "suites" / f"{name}.yaml")), None
    )
    assert (suite.name, suite.kind, len(suite)) == (name, kind, cases)


@pytest.mark.shared
def test_the_study_of_the_docs_is_valid(shared):
    from tunescope.config import load_study
    from tunescope.study import LENSES, METHODS
    from tunescope.study.check import check_study

    file = Path(__file__).parents[2] / "docs" / "studies" / "behaviour-emotion.yaml"
    study = load_study(file, methods=METHODS, lenses=LENSES)
    check_study(study)
    for one in study.behaviour.suites:
        assert one.path is None or Path(one.path).is_file()
        needs_rows(one)


def test_the_wordnet_suite_tells_the_install_command_where_nltk_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk", None)
    monkeypatch.delenv("WNSEARCHDIR", raising=False)
    monkeypatch.setattr("tunescope.rewriting.wordnet.DEBIAN", Path("/nowhere"))
    rows = pl.DataFrame({"row_id": ["1"], "text": ["i feel glad"], "label": ["joy"]})
    with pytest.raises(MissingDependencyError, match=r"nltk is not installed") as caught:
        load_suite(SuiteConfig(suite="wordnet"), Material(rows, ["i feel glad"]))
    assert caught.value.hint.startswith(
        "pip install nltk, then python -m nltk.downloader wordnet; or apt install"
    )


def test_the_wordnet_suite_replaces_frequent_words_of_train_by_their_synonyms(monkeypatch):
    entry = Entry(
        "glad", ("happy",), "synonym", ONE_WAY[0], "part_of_speech", "test", part_of_speech="adjective"
    )
    seen = []

    def made(texts, labels, most):
        seen.append((texts, labels, most))
        return Lexicon("wordnet", ONE_WAY, {"synonym": "test"}, {"glad": entry})

    monkeypatch.setattr("tunescope.rewriting.frequent_synonyms", made)
    rows = pl.DataFrame(
        {"row_id": ["1", "2"], "text": ["i feel glad", "i feel sad"], "label": ["joy", "sadness"]}
    )
    suite = load_suite(SuiteConfig(suite="wordnet"), Material(rows, ["so glad today"], controls=False))
    assert seen == [(["so glad today"], None, 300)]
    named = Material(rows, ["so glad today"], controls=False, train_labels=["joy"])
    load_suite(SuiteConfig(suite="wordnet"), named)
    assert seen[1:] == [(["so glad today"], ["joy"], 300)]
    assert suite.pairs.select("original", "rewritten").rows() == [("i feel glad", "i feel happy")]


@pytest.mark.parametrize("label", ["label", None])
def test_the_words_of_the_wordnet_suite_are_picked_on_other_rows(tmp_path, label):
    texts = [f"i feel glad about the number {number // 2}" for number in range(400)]
    table = pl.DataFrame(
        {"text": texts, "label": [("joy", "fear")[number // 2 % 2] for number in range(400)]}
    )
    table.write_parquet(tmp_path / "rows.parquet")

    def made(*suites):
        config = BehaviourConfig.model_validate({"suites": list(suites)})
        request = TestRequest("model", config, tmp_path, data=str(tmp_path / "rows.parquet"), label=label)
        return _material(request, _rows(request, SILENT))

    apart = made("wordnet", "gender")
    assert not set(apart.rows["text"]) & set(apart.train_texts)
    assert 0.3 < len(apart.train_texts) / 400 < 0.5
    assert apart.rows.height + len(apart.train_texts) == 400
    assert (apart.train_labels is None) == (label is None)
    assert made("gender").rows.height == 400


def test_drawn_rows_are_the_same_however_the_rows_lie_and_all_touched_rows_are_counted(monkeypatch):
    texts = [f"she is w{n} and he is glad today" if n % 3 else f"nothing w{n}" for n in range(300)]
    rows = pl.DataFrame(
        {"row_id": [f"r{n}" for n in range(300)], "text": texts, "label": ["joy", "fear"] * 150}
    )
    rows = rows.sort(pl.col("row_id").hash(3))
    whole = load_suite(SuiteConfig(suite="gender"), Material(rows, texts, most=20, controls=False))
    sizes, concat = [], pl.concat

    def counted(*parts, **more):
        made = concat(*parts, **more)
        sizes.append(made.height)
        return made

    monkeypatch.setattr("tunescope.rewriting.rows.CHUNK", 25)
    monkeypatch.setattr("tunescope.rewriting.rows.pl.concat", counted)
    pieces = load_suite(SuiteConfig(suite="gender"), Material(rows, texts, most=20, controls=False))
    assert pieces.pairs.equals(whole.pairs)
    assert pieces.pairs.height == 20
    assert pieces.counts == whole.counts
    assert pieces.counts["touched"] == 200
    assert max(sizes) <= 20 + 25  # never more pairs than those wanted and one chunk's
    assert pieces.notes == ("20 of 200 touched rows, drawn by row id",)
