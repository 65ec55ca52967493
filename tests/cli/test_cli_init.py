"""`tunescope init` looks at data, says why, and writes a study that loads."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from config.studies import LENSES, METHODS
from tunescope.cli import app
from tunescope.config import load_study
from tunescope.errors import DataError
from tunescope.init import draft_study, look_at

ROWS = {
    "id": [f"r{n}" for n in range(12)],
    "author": ["ann", "bob", "cyn"] * 4,
    "review": [f"A rather long text about film number {n}, with words." for n in range(11)] + ["short"],
    "stars": [1, 5] * 6,
    "score": [0.25, 0.5] * 6,
}


@pytest.fixture
def reviews(tmp_path) -> Path:
    pl.DataFrame(ROWS).write_parquet(tmp_path / "reviews.parquet")
    return tmp_path / "reviews.parquet"


def init(*arguments: str):
    return CliRunner().invoke(app, ["init", *arguments])


def test_it_writes_a_commented_study_that_loads(reviews, tmp_path):
    answer = init(str(reviews), "-o", str(tmp_path / "study.yaml"))
    assert answer.exit_code == 0, answer.output
    assert "'review' has the longest texts" in answer.output
    assert "'stars' is named like a label and has 2 different values" in answer.output
    text = (tmp_path / "study.yaml").read_text()
    assert yaml.safe_load(text)["data"] == {
        "path": "reviews.parquet", "text": "review", "label": "stars", "validation": 0.1, "test": 0.1,
    }  # fmt: skip
    assert "# Rows per label: '1' 6, '5' 6." in text or "# Rows per label: '5' 6, '1' 6." in text
    study = load_study(tmp_path / "study.yaml", methods=METHODS, lenses=LENSES)
    assert study.data.path == str(reviews)
    assert [lens.lens for lens in study.lenses] == ["cka", "ablation"]
    assert study.name == "reviews-study"


def test_an_existing_file_is_never_overwritten(reviews, tmp_path):
    (tmp_path / "study.yaml").write_text("mine")
    answer = init(str(reviews), "-o", str(tmp_path / "study.yaml"))
    assert answer.exit_code == 2
    assert "exists already and is never overwritten" in answer.stderr
    assert "Next: Choose another name with -o" in answer.stderr
    assert (tmp_path / "study.yaml").read_text() == "mine"


def test_columns_can_be_said(reviews, tmp_path):
    answer = init(str(reviews), "--text", "author", "--text", "review", "--label", "score", "-o", "-")
    data = yaml.safe_load(answer.stdout)["data"]
    assert (data["text"], data["label"]) == ({"first": "author", "second": "review"}, "score")
    answer = init(str(reviews), "--label", "star", "-o", "-")
    assert answer.exit_code == 3
    assert "unknown column 'star'; did you mean 'stars'?" in answer.stderr


def test_the_model_that_was_asked_for(reviews):
    assert "model: my/model, method: full" in init(str(reviews), "--model", "my/model", "-o", "-").stdout


def test_offline_the_first_model_needs_no_download(reviews, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert yaml.safe_load(init(str(reviews), "-o", "-").stdout)["arms"][0]["model"] == "scratch"
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert yaml.safe_load(init(str(reviews), "-o", "-").stdout)["arms"][0]["model"] == "gpt2"


def test_pairs_of_texts_are_known_by_their_names(tmp_path):
    frame = pl.DataFrame(
        {"premise": ["It rains now."] * 4, "hypothesis": ["It is wet."] * 4, "label": [0, 1, 0, 1]}
    )
    frame.write_csv(tmp_path / "pairs.csv")
    look = look_at(str(tmp_path / "pairs.csv"))
    assert look.text == ("premise", "hypothesis")
    assert "are a pair of texts" in look.text_reason


def test_splits_beside_a_file_and_within_it_are_told(tmp_path):
    folder = tmp_path / "tweets"
    folder.mkdir()
    frame = pl.DataFrame({"text": [f"some words {n}" for n in range(6)], "label": [0, 1] * 3})
    frame.write_csv(folder / "train.csv")
    frame.write_csv(folder / "test.csv")
    text = draft_study(look_at(str(folder / "train.csv")), folder=tmp_path)
    assert f"# Beside this file: test.csv; `path: {folder}` takes them as splits." in text
    assert yaml.safe_load(text)["name"] == "tweets-study"
    assert "# Splits of the data: " in draft_study(look_at(str(folder)), folder=tmp_path)
    frame.with_columns(fold=pl.Series(["train", "train", "train", "train", "dev", "test"])).write_csv(
        tmp_path / "one.csv"
    )
    text = draft_study(look_at(str(tmp_path / "one.csv")), folder=tmp_path)
    assert yaml.safe_load(text)["data"]["split_column"] == "fold"


def test_what_a_reader_should_know_is_noted(tmp_path):
    labels = ["a"] * 7 + ["b"] * 3 + ["c", None]
    texts = ["the same text again", "the same text again", *[f"another text number {n}" for n in range(10)]]
    frame = pl.DataFrame(
        {"text": texts, "label": labels, "title": [f"a rather long heading {n}" for n in range(12)]}
    )
    frame.write_parquet(tmp_path / "a.parquet")
    notes = " ".join(look_at(str(tmp_path / "a.parquet"), text=["text"]).notes)
    assert "Always saying 'a' would be right for 63.6%." in notes
    assert "Labels with fewer than 3 rows, too few for three splits: 'c'." in notes
    assert "Rows without a label: 1." in notes
    assert "Rows that repeat the text of another: 1;" in notes
    assert "Other columns of text: 'title'" in notes


def test_names_that_are_no_plain_yaml_are_quoted(tmp_path):
    frame = pl.DataFrame({"no": [f"words: {n} # <b>" for n in range(6)], "a: b #\n{": ["x", "y"] * 3})
    frame.write_parquet(tmp_path / "it's, odd.parquet")
    text = draft_study(look_at(str(tmp_path / "it's, odd.parquet")), folder=tmp_path)
    data = yaml.safe_load(text)["data"]
    assert (data["path"], data["text"], data["label"]) == ("it's, odd.parquet", "no", "a: b #\n{")


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"a": [1, 2, 3, 4], "b": [1, 1, 2, 2]}, "no column holds text; columns: a, b"),
        ({"a": ["x", "y", "z", "u"], "b": [0.1, 0.2, 0.1, 0.2]}, "no column looks like a label: 2 to 100"),
        ({"a": ["x", "y", "z", "u"], "b": [1, 1, 1, 1]}, "no column looks like a label"),
    ],
)
def test_data_without_a_text_or_label_is_refused(tmp_path, columns, text):
    pl.DataFrame(columns).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=text):
        look_at(str(tmp_path / "a.parquet"))


def test_a_missing_file_and_no_file():
    answer = init("nowhere.csv")
    assert answer.exit_code == 3
    assert "nowhere.csv" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert init().exit_code == 2


def test_the_schema_is_printed(monkeypatch):
    import sys
    import types

    fake = types.SimpleNamespace(METHODS=METHODS, LENSES=LENSES)
    monkeypatch.setitem(sys.modules, "tunescope.study", fake)
    monkeypatch.setattr("tunescope.study", fake, raising=False)
    schema = json.loads(init("--schema").stdout)
    assert schema["title"] == "A tunescope study"


def test_the_commented_arms_and_expectations_are_valid_when_they_are_uncommented(tmp_path):
    """With the real methods: what init suggests must be what a study may say."""
    from tunescope.study import LENSES as REAL_LENSES
    from tunescope.study import METHODS as REAL_METHODS

    file = tmp_path / "reviews.csv"
    file.write_text("review,stars\n" + "".join(f"text number {i},{i % 2}\n" for i in range(20)))
    text = draft_study(look_at(str(file)), folder=tmp_path, model="gpt2")
    for mark in ("# - {", "# expect"):
        assert mark in text
        text = text.replace(mark, mark[2:])
    text = text.replace("  #    verbalizers", "     verbalizers")
    (tmp_path / "study.yaml").write_text(text)
    study = load_study(tmp_path / "study.yaml", methods=REAL_METHODS, lenses=REAL_LENSES)
    assert [arm.method for arm in study.arms] == ["full", "head_only", "last_k", "lora", "zero_shot"]
    assert study.arms[-1].options["verbalizers"] == {"0": " 0", "1": " 1"}
    assert study.expect[0].lower == 0.9
