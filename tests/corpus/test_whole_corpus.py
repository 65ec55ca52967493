"""A corpus in shards: the same numbers as row by row, resumed, and held against what is counted by hand."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
from scipy import stats
from typer.testing import CliRunner

from tunescope.corpus import CorpusRequest, run_corpus
from tunescope.corpus import run as corpus_run
from tunescope.corpus.estimates import GroupedMean, rate_ratio
from tunescope.data.rows import rows_of_texts
from tunescope.data.tokens import tokenize
from tunescope.errors import ConfigError, DataError, RunError
from tunescope.evaluation import predict
from tunescope.models.load import load
from tunescope.rewriting import load_lexicon, rewrite_rows

pytestmark = pytest.mark.usefixtures("one_thread")
NOUNS = ("cat", "house", "film", "rain", "night")


def corpus_rows(n: int = 23) -> pl.DataFrame:
    """Rows in which class a says good, b bad, and every third holds a pronoun."""
    texts = []
    for row in range(n):
        who = ("he", "she", "they")[row % 3]
        said = "good" if row % 2 == 0 else "bad"
        texts.append(f"{who} saw the {said} {NOUNS[row % 5]} {'very ' * (row % 4)}well")
    return pl.DataFrame({"body": texts, "kind": [("LABEL_0", "LABEL_1")[row % 2] for row in range(n)]})


@pytest.fixture(scope="module")
def asked(tmp_path_factory, gpt2_folder):
    folder = tmp_path_factory.mktemp("corpus")
    corpus_rows().write_parquet(folder / "rows.parquet")
    request = CorpusRequest(
        str(gpt2_folder), folder / "rows.parquet", "body", folder / "out", "kind", shard_rows=5, top=4, words=3,
        device="cpu",
    )  # fmt: skip
    run_corpus(request)
    return request


def predictions(request) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in sorted(request.shards.glob("*.parquet"))])


def test_every_row_is_predicted_as_without_shards(asked):
    classifier = load(asked.model)
    texts = corpus_rows()["body"].to_list()
    rows = rows_of_texts(texts, classifier.labels)
    whole = predict(classifier, tokenize(rows, classifier.tokenizer, classifier.max_length))
    found = predictions(asked)
    assert found["text"].to_list() == texts
    assert found["position"].to_list() == list(range(23))
    assert len(list(asked.shards.glob("*.parquet"))) == 5
    for name in whole.columns[1:]:
        np.testing.assert_array_equal(found[name].to_numpy(), whole[name].to_numpy(), err_msg=name)


def test_flips_are_the_rewrites_and_their_own_predictions(asked):
    found = predictions(asked).filter(pl.col("rewritten").is_not_null())
    frame = corpus_rows().with_row_index("row_id").with_columns(pl.col("row_id").cast(pl.String), text="body")
    pairs = rewrite_rows(frame.select("row_id", "text"), load_lexicon("gender")).pairs
    assert pairs.height == 16  # two of three rows hold a pronoun
    assert found["rewritten"].to_list() == pairs["rewritten"].to_list()
    classifier = load(asked.model)
    rows = rows_of_texts(pairs["rewritten"].to_list(), classifier.labels)
    own = predict(classifier, tokenize(rows, classifier.tokenizer, classifier.max_length))
    for name in classifier.labels.names:
        np.testing.assert_array_equal(found[f"rewritten_logit_{name}"], own[f"logit_{name}"])
    flips = pl.read_parquet(asked.folder / "flips.parquet")
    share = flips.filter(
        (pl.col("class") == "all") & (pl.col("direction") == "all") & (pl.col("metric") == "share_flipped")
    )
    assert share["value"].item() == np.mean(own["prediction"].to_numpy() != found["prediction"].to_numpy())
    assert share["n"].item() == 16


def test_top_rows_are_the_surest_of_each_predicted_class(asked):
    found = predictions(asked)
    top = pl.read_parquet(asked.folder / "top.parquet")
    for (name,), own in found.group_by("label_predicted"):
        expected = own.sort(f"probability_{name}", descending=True).head(4)["row_id"].to_list()
        assert top.filter(pl.col("label_predicted") == name)["row_id"].to_list() == expected
    assert top["margin"].to_numpy() == pytest.approx(special_logit(top["confidence"].to_numpy()), abs=1e-6)


def special_logit(p: np.ndarray) -> np.ndarray:
    return np.log(p) - np.log1p(-p)


def test_words_are_those_that_stand_in_most_rows_of_the_true_class(asked):
    words = pl.read_parquet(asked.folder / "words.parquet")
    first = words.group_by("class", maintain_order=True).first()
    assert dict(first.select("class", "word").iter_rows()) == {"LABEL_0": "good", "LABEL_1": "bad"}
    assert "the" not in words["word"].to_list()
    good = first.row(0, named=True)
    assert (good["rows"], good["n"], good["share"], good["other_share"]) == (12, 12, 1.0, 0.0)
    assert good["ratio"] == pytest.approx((12.5 / 12.5) / (0.5 / 11.5))


def test_function_words_count_on_request(asked, tmp_path):
    request = dataclasses.replace(asked, folder=tmp_path / "out", stop_words=True, flip="none")
    run_corpus(request)
    assert "the" in pl.read_parquet(request.folder / "words.parquet")["word"].to_list()
    assert not (request.folder / "flips.parquet").exists()


def test_an_interrupted_corpus_goes_on_with_what_is_missing(asked, tmp_path, monkeypatch):
    request = dataclasses.replace(asked, folder=tmp_path / "out")
    calls = []

    def counted(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args)

    original = corpus_run.predicted_shard
    monkeypatch.setattr(corpus_run, "predicted_shard", counted)
    with pytest.raises(KeyboardInterrupt):
        run_corpus(request)
    assert len(list(request.shards.iterdir())) == 2
    run_corpus(request)
    assert len(calls) == 6  # the third failed, then three of five
    assert predictions(request).equals(predictions(asked))


def test_a_folder_of_another_corpus_is_refused(asked):
    with pytest.raises(RunError, match="holds another corpus: max_length: unset -> 4"):
        run_corpus(dataclasses.replace(asked, max_length=4))


def test_rows_without_text_and_unknown_classes_are_named(asked, tmp_path):
    corpus_rows().with_columns(
        body=pl.when(pl.col("kind") == "LABEL_1").then(None).otherwise("body")
    ).write_parquet(tmp_path / "bad.parquet")
    with pytest.raises(DataError, match=r"2 of 5 rows have no text: rows 2, 4 \(from 1\)"):
        run_corpus(dataclasses.replace(asked, data=tmp_path / "bad.parquet", folder=tmp_path / "a"))
    corpus_rows().with_columns(kind=pl.lit("joy")).write_parquet(tmp_path / "other.parquet")
    with pytest.raises(DataError, match="'joy', which the model does not know; its classes are: LABEL_0"):
        run_corpus(dataclasses.replace(asked, data=tmp_path / "other.parquet", folder=tmp_path / "b"))
    with pytest.raises(ConfigError, match="--shard-rows expected at least 1; came 0"):
        run_corpus(dataclasses.replace(asked, shard_rows=0))


def test_the_ratio_of_rates_covers_what_it_should():
    generator = np.random.default_rng(0)
    a, b = generator.binomial(400, 0.06, 2000), generator.binomial(900, 0.03, 2000)
    found = [rate_ratio(int(x), 400, int(y), 900) for x, y in zip(a, b, strict=True)]
    assert 0.93 <= np.mean([one.low <= 2.0 <= one.high for one in found]) <= 0.975
    assert rate_ratio(0, 10, 0, 10).value == 1.0
    assert rate_ratio(3, 3, 0, 0).note == "one side has no rows"


def test_the_grouped_mean_is_student_of_independent_rows_and_counts_copies_once():
    values = np.random.default_rng(1).normal(2.0, 1.0, 30)
    one = GroupedMean()
    one.update(values, np.arange(30))
    expected = stats.t.interval(0.95, 29, values.mean(), stats.sem(values))
    found = one.interval()
    assert (found.low, found.high) == pytest.approx(expected)
    first, second = GroupedMean(), GroupedMean()
    first.update(np.tile(values[:10], 7), np.tile(np.arange(10), 7))  # seven copies of every text
    second.update(np.tile(values[10:], 7), np.tile(np.arange(10, 30), 7))
    first.merge(second)
    copied = first.interval()
    assert copied.n == 210
    assert (copied.low, copied.high) == pytest.approx(expected)
    hits = GroupedMean()
    hits.update(np.repeat([1.0, 0.0], 50), np.arange(100))
    plain = stats.binomtest(50, 100).proportion_ci(0.95, "wilson")
    assert hits.interval(share=True).low == pytest.approx(plain.low, abs=0.002)


def test_the_command_says_what_it_found(asked, monkeypatch):
    from tunescope.cli import app

    arguments = ["corpus", asked.model, "--data", str(asked.data), "--text", "body", "--label", "kind"]
    arguments += ["--output", str(asked.folder), "--shard-rows", "5", "--top", "4", "--words", "3"]
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 0, said.output
    assert "23 rows predicted:" in said.output
    assert "Words of LABEL_0: good" in said.output
    assert "16 rows hold words of the lexicon gender; exchanged:" in said.output
    as_json = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(as_json.output)["rows"] == 23
