"""The lens around the recovery: base beside tuned, sentences, and a refusal where nothing was planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from tiny import tiny_folder
from tunescope.capture import verify
from tunescope.errors import LensError
from tunescope.lenses import planted
from tunescope.lenses.subject import Subject
from tunescope.models import load
from tunescope.planted.corpus import write_corpus
from tunescope.planted.decisive import planted_head_model, planted_head_rows
from tunescope.stats.results import COLUMNS

ROWS = {"train": 50, "validation": 50, "test": 120, "corpus": 5, "pairs": 40}
OPTIONS = planted.PlantedOptions(sentences=30)
METRICS = {
    "top_word_plain", "top_word_flipped", "top_word_diminished", "top_words", "accuracy", "noise_share",
    "clean_accuracy", "gender_gap_ambiguous", "gender_gap_decisive",
}  # fmt: skip


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lens")
    write_corpus(folder / "planted", ROWS, seed=0)
    names = ["negative", "neutral", "positive"]
    base, tuned = (
        load(str(tiny_folder("gpt2", folder / str(seed), seed=seed, names=names))) for seed in (0, 1)
    )
    return Subject("arm", 3, base, tuned, "probe", {}, planted=folder / "planted")


@pytest.fixture(scope="module")
def table(subject):
    return planted.run(subject, OPTIONS)[0]


def test_base_and_tuned_stand_side_by_side_with_the_truth(table):
    assert table.columns[: len(COLUMNS)] == list(COLUMNS)
    for model, head in (("base", "probe"), ("tuned", None)):
        mine = table.filter(pl.col("model") == model)
        assert set(mine["metric"]) == METRICS
        assert set(mine["base_head"]) == {head}
        assert set(mine["arm"]) == {"arm"}
        assert mine["planted"].null_count() == 0
    rows = table.filter(pl.col("metric") == "noise_share")
    assert set(rows["planted"]) == {round(0.08 * 90) / 120 + round(0.08 * 30) / 120}


def test_every_word_left_out_is_kept_as_an_example(subject):
    examples = planted.run(subject, OPTIONS)[1]
    assert set(examples["model"]) == {"base", "tuned"}
    assert examples.filter(pl.col("model") == "tuned")["sentence"].n_unique() == 30


def test_a_base_without_a_head_is_left_out(subject):
    table, _ = planted.run(replace(subject, base_head="none"), OPTIONS)
    assert set(table["model"]) == {"tuned"}


def test_logits_do_not_depend_on_what_is_asked_together(subject):
    predict = planted.predictor(subject.tuned)
    texts = ["Very good.", "It was a very long and cold night in the old house near the river.", "Rain."]
    alone = np.concatenate([predict([text]) for text in texts])
    assert np.abs(predict(texts) - alone).max() < 1e-5


def test_real_data_is_refused(subject):
    with pytest.raises(LensError, match=r"needs a generated corpus; this study's data is not one"):
        planted.run(replace(subject, planted=None), OPTIONS)


def test_findings_hold_the_numbers_of_the_table_and_do_not_claim_what_is_not_there(table, subject):
    found = planted.findings(table, subject)
    assert [finding.metric for finding in found] == ["top_word_plain", "gender_gap_ambiguous", "noise_share"]
    rows = {row["metric"]: row for row in table.filter(pl.col("model") == "tuned").iter_rows(named=True)}
    for finding in found:
        row = rows[finding.metric]
        assert (finding.value, finding.low, finding.high, finding.n) == tuple(
            row[k] for k in ("value", "low", "high", "n")
        )
    noise = found[2]
    assert f"{noise.value:.1%}" in noise.sentence
    assert noise.verdict == "undecided"  # an untrained model contradicts most labels
    unlearned = planted.findings(table, replace(subject, learned=False))
    assert {finding.verdict for finding in unlearned} == {"task not learned"}


@pytest.mark.parametrize("verdict", ["found", "undecided"])
def test_a_finding_is_found_where_the_interval_leaves_the_control(table, subject, verdict):
    low = 0.2 if verdict == "found" else -0.2
    is_gap = pl.col("metric") == "gender_gap_ambiguous"
    shifted = table.with_columns(
        pl.when(is_gap).then(low).otherwise("low").alias("low"),
        pl.when(is_gap).then(0.6).otherwise("high").alias("high"),
    )
    gap = planted.findings(shifted, subject)[1]
    assert gap.verdict == verdict
    assert "planted: +0.440" in gap.sentence


@pytest.mark.parametrize("place", [("gpt2", 1, 2), ("bert", 1, 0)])
def test_planted_heads_pass_the_proof_of_their_family(place, tmp_path):
    """Nothing about a hand-set model is so odd that tunescope would refuse to look at it."""
    truth = planted_head_model(*place, tmp_path)
    classifier = verify(load(str(tmp_path)))
    texts = [text for text, _ in planted_head_rows(12, seed=0)]
    logits = planted.predictor(classifier)(texts)
    expected = [truth.margin(text, 1) for text in texts]
    assert logits[:, 1] - logits[:, 0] == pytest.approx(expected, abs=1e-4)
