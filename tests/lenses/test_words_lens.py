"""Words: leaving out is the planted closed form, integrated gradients add up, and both find the planted words."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from subjects import make_rows, make_subject
from test_planted_head import planted_rows

from tiny import DECODERS, families, tiny_folder
from tunescope.data.batches import collate
from tunescope.errors import LensError
from tunescope.evaluation.margins import margin
from tunescope.evaluation.words import left_out, plain_word
from tunescope.lenses import LENSES, LensRows, look
from tunescope.lenses.planted import predictor
from tunescope.lenses.words.effects import integrated_gradients, rank_correlation, worded
from tunescope.models import load
from tunescope.planted.decisive import BAD, GOOD, planted_head_model

ROWS = {"rows": {"split": "validation", "n": 30}, "gradient_rows": 6, "at_least": 3}


def subject_of(base, tuned, rows, **options):
    subject = make_subject(base, tuned, rows, **options)
    subject.texts = rows.frame.select("row_id", "text")
    return subject


def lens_of(subject, **options):
    return look(subject, [("words", {**ROWS, **options})], LENSES)[0]


@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_leaving_a_planted_word_out_is_its_closed_form_and_planted_words_lead(family, tmp_path):
    truth = planted_head_model(family, 1, 2, tmp_path)
    model, rows = load(str(tmp_path)), planted_rows()
    output = lens_of(subject_of(model, model, rows, base_head="none"))
    texts = {
        row: (text, label) for row, text, label in rows.frame.select("row_id", "text", "label").iter_rows()
    }
    for row in output.examples.iter_rows(named=True):
        text, label = texts[row["row_id"]]
        expected = truth.margin(text, label) - truth.margin(left_out(text)[row["place"]], label)
        assert row["left_out"] == pytest.approx(expected, abs=2e-4)
    effects = output.table.filter((pl.col("metric") == "word_effect") & (pl.col("by") == "left_out"))
    for name, planted in (("positive", GOOD), ("negative", BAD)):
        own = effects.filter(pl.col("class") == name).sort("low", descending=True)
        leading = own["word"].to_list()[: len(set(planted) & set(own["word"]))]
        assert set(leading) <= set(planted)
        assert len(leading) >= 2
        sentence = next(one for one in output.findings if f"most surely for {name} is" in one.sentence)
        assert repr(leading[0]) in sentence.sentence
        assert sentence.verdict == "found"
    best = effects.filter(pl.col("class") == "positive").sort("value")[-1]
    assert best["value"][0] > best["control"][0]
    failed = output.table.filter(pl.col("metric") == "incomplete_rows")
    assert failed["value"].to_list() == [0.0]
    weights = output.examples.filter(pl.col("gradient").is_not_null())
    decisive = pl.col("word").is_in([*GOOD, *BAD])
    assert (
        weights.filter(decisive)["gradient"].abs().min()
        > 3 * weights.filter(~decisive)["gradient"].abs().mean()
    )


@pytest.mark.parametrize("kind", families("gpt2", "bert", "llama"))
def test_integrated_gradients_add_up_and_failing_rows_are_counted(kind, tmp_path):
    model = load(str(tiny_folder(kind, tmp_path, scale=0.15)))
    subject = subject_of(model, model, make_rows(40), base_head="none")
    tokens = subject.draw(LensRows(n=4))
    texts = dict(subject.texts.iter_rows())
    for index in range(4):
        ids, label = np.asarray(tokens.input_ids[index]), int(tokens.labels[index])
        row = worded(model, tokens.row_ids[index], texts[tokens.row_ids[index]], ids, np.arange(1))
        inputs = collate(tokens, [index]).inputs()
        found = integrated_gradients(model, row, inputs, label, 1024)
        assert found.complete
        assert abs(found.words.sum() - found.total) <= max(0.011 * abs(found.total), 2e-4)
        # The difference is that from the text with neutral embeddings to the model's own margin.
        with torch.no_grad():
            own = float(margin(model(**inputs), tokens.labels[[index]])[0])
            table = model.trunk.get_input_embeddings()
            mask = model.tokenizer.mask_token_id
            neutral = table.weight[mask] if mask is not None else table.weight[: len(model.tokenizer)].mean(0)
            start = table(inputs["input_ids"]).clone()
            start[0, row.word_of >= 0] = neutral
            handle = table.register_forward_hook(lambda _m, _g, _o, start=start: start)
            empty = float(margin(model(**inputs), tokens.labels[[index]])[0])
            handle.remove()
        assert found.total == pytest.approx(own - empty, abs=1e-4)
    assert not table._forward_hooks


def test_rows_whose_gradients_do_not_add_up_are_counted_and_left_out(tmp_path):
    model = load(str(tiny_folder("gpt2", tmp_path, scale=1.5)))
    output = lens_of(subject_of(model, model, make_rows(40), base_head="none"), most_steps=16)
    failed = output.table.filter(pl.col("metric") == "incomplete_rows").row(0, named=True)
    assert failed["n"] == 6
    assert failed["value"] >= 1
    rows = output.examples.filter(pl.col("gradient").is_not_null())["row_id"].n_unique()
    assert rows == 6 - failed["value"]


@pytest.mark.parametrize("kind", families("gpt2", "bert", "gpt_neox"))
def test_effects_are_those_of_single_texts_whatever_runs_beside_them(kind, tmp_path):
    model = load(str(tiny_folder(kind, tmp_path)))
    output = lens_of(subject_of(model, model, make_rows(60)), gradient_rows=0)
    rows = {
        row: (text, label)
        for row, text, label in make_rows(60).frame.select("row_id", "text", "label").iter_rows()
    }
    predict = predictor(model)
    for record in output.examples.filter(pl.col("model") == "tuned")[[0, 17, 40]].iter_rows(named=True):
        text, label = rows[record["row_id"]]
        words = text.split()
        shorter = " ".join(words[: record["place"]] + words[record["place"] + 1 :])
        one, other = (margin(predict([some]), np.array([label]))[0] for some in (text, shorter))
        assert record["left_out"] == pytest.approx(one - other, abs=1e-5)
        assert (record["masked"] is None) == (kind in DECODERS)
    change = output.table.filter(pl.col("model") == "tuned_minus_base")
    assert change.height > 20
    assert set(change["value"]) == {0.0}
    same = output.table.filter(pl.col("model") == "base_tuned").row(0, named=True)
    assert same["value"] == pytest.approx(1.0)


def test_a_mask_hides_the_words_tokens_and_nothing_else(tmp_path):
    model = load(str(tiny_folder("bert", tmp_path)))
    output = lens_of(subject_of(model, model, make_rows(60), base_head="none"), gradient_rows=0)
    rows = {
        row: (text, label)
        for row, text, label in make_rows(60).frame.select("row_id", "text", "label").iter_rows()
    }
    record = output.examples.row(11, named=True)
    text, label = rows[record["row_id"]]
    words = text.split()
    words[record["place"]] = "[MASK]"
    logits = [
        model(**model.tokenizer(some, return_tensors="pt")).detach() for some in (text, " ".join(words))
    ]
    one, other = (float(margin(some, np.array([label]))[0]) for some in logits)
    assert record["masked"] == pytest.approx(one - other, abs=1e-5)


def test_the_control_is_another_word_of_the_same_rows_and_words_are_counted_by_rows(tmp_path):
    base, tuned = (load(str(tiny_folder("bert", tmp_path / str(s), seed=s))) for s in (0, 1))
    output = lens_of(subject_of(base, tuned, make_rows(90)), gradient_rows=0)
    mine = output.examples.filter(pl.col("model") == "tuned")
    record = output.table.filter(
        (pl.col("metric") == "word_effect") & (pl.col("model") == "tuned") & (pl.col("by") == "left_out")
        & (pl.col("word") == "rain") & pl.col("class").is_null()
    ).row(0, named=True)  # fmt: skip
    own = mine.filter(pl.col("word") == "rain")
    assert record["value"] == pytest.approx(own["left_out"].mean())
    assert (record["n"], record["rows"]) == (own.height, own["row_id"].n_unique())
    rest = [
        mine.filter((pl.col("row_id") == row) & (pl.col("place") != place))["left_out"].mean()
        for row, place in own.select("row_id", "place").iter_rows()
    ]
    assert record["control"] == pytest.approx(np.mean(rest))
    change = output.table.filter((pl.col("model") == "tuned_minus_base") & (pl.col("word") == "rain"))
    before = output.examples.filter((pl.col("model") == "base") & (pl.col("word") == "rain"))[
        "left_out"
    ].mean()
    one = change.filter((pl.col("by") == "left_out") & pl.col("class").is_null())
    assert one["value"][0] == pytest.approx(record["value"] - before)


def test_long_rows_are_sampled_and_cut_rows_left_out_with_a_word(tmp_path):
    model = load(str(tiny_folder("bert", tmp_path)))
    rows = make_rows(60)
    longer = pl.when(pl.col("row_id") == "row-1").then(pl.lit("cat " * 200)).otherwise(pl.col("text"))
    rows = type(rows)(rows.frame.with_columns(text=longer), rows.labels, {})
    output = lens_of(
        subject_of(model, model, rows, base_head="none"), most_words=3, rows={"n": 40}, gradient_rows=0
    )
    assert "row-1" not in output.examples["row_id"].to_list()
    assert output.examples.group_by("row_id").agg(pl.col("left_out").count())["left_out"].max() == 3
    notes = " ".join(output.provenance["notes"])
    assert "1 of 40 rows are longer than the model reads" in notes
    assert "only 3 words, drawn at random" in notes


def test_bad_input_is_refused(tmp_path):
    model, rows = load(str(tiny_folder("gpt2", tmp_path))), make_rows(30)
    with pytest.raises(LensError, match="the texts of these rows are not known"):
        lens_of(make_subject(model, model, rows))
    subject = subject_of(model, model, rows)
    subject.texts = subject.texts.with_columns(text=pl.col("text") + " indeed")
    with pytest.raises(LensError, match=r"Row row-\d+: its text gives other tokens than the row has"):
        lens_of(subject)
    subject.texts = subject.texts.head(0)
    with pytest.raises(LensError, match=r"20 of 20 rows have no text, the first is row row-\d+"):
        lens_of(subject)
    single = type(rows)(rows.frame.with_columns(text=pl.lit("rain")), rows.labels, {})
    with pytest.raises(
        LensError, match=r"No row can be taken apart: of 20 rows 0 are longer .* 20 have fewer"
    ):
        lens_of(subject_of(model, model, single))
    subject = subject_of(model, model, rows)
    subject.splits["validation"].labels[:] = -1
    with pytest.raises(LensError, match="No validation row has a label"):
        lens_of(subject)
    with torch.no_grad():
        model.trunk.h[1].mlp.c_proj.bias[3] = float("nan")
    with pytest.raises(
        LensError, match=r"The logits are NaN or infinite in 20 of 20 rows, the first is row row-\d+"
    ):
        lens_of(subject_of(model, model, rows))


def test_words_and_texts_without_them():
    assert left_out("Not good.\n\nAt all") == [
        "good.\n\nAt all",
        "Not.\n\nAt all",
        "Not good. all",
        "Not good.\n\nAt",
    ]
    assert [plain_word(piece) for piece in ("(Good!)", "don't", "...", "#Tag")] == [
        "good",
        "don't",
        "...",
        "tag",
    ]


def test_rank_correlation_is_spearmans():
    from scipy.stats import spearmanr

    one, other = np.array([3.0, 1.0, 2.0, 2.0, 9.0]), np.array([1.0, 0.0, 4.0, 3.0, 3.0])
    assert rank_correlation(one, other) == pytest.approx(spearmanr(one, other).statistic)
    assert np.isnan(rank_correlation(one, np.ones(5)))
    assert np.isnan(rank_correlation(one[:2], other[:2]))
