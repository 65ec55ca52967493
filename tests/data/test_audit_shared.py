"""The audit of real data against what is published or was counted by hand about them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tunescope.data.audit import AuditOptions, audit

pytestmark = pytest.mark.shared


@pytest.fixture
def audited(shared, load):
    def audited(name, options=None, parts=("train", "test"), **data):
        folder = shared / "data" / name
        path = {part: str(folder / f"{part}.parquet") for part in parts} if parts else str(folder)
        return audit(load(path, **{"validation": 0, "test": 0, **data}), options)

    return audited


@pytest.fixture
def di725(audited):
    def di725(**data):
        return audited("di725", text="conversation", label="customer_sentiment", **data)

    return di725


def test_di725_the_sub_category_determines_the_label(di725):
    found = di725()
    columns = {record["column"]: record for record in found.parts["columns"]}
    sub = columns["issue_sub_category"]
    assert (sub["pure_values"], sub["values"], sub["seen_once"]) == (109, 109, 0)
    assert (sub["leave_one_out"]["right"], sub["leave_one_out"]["rows"]) == (970, 970)
    assert (sub["test"]["right"], sub["test"]["rows"], sub["test"]["unseen"]) == (30, 30, 0)
    category, area = columns["issue_category"], columns["issue_area"]
    assert round(category["leave_one_out"]["accuracy"], 3) == 0.771
    assert round(category["test"]["accuracy"], 3) == 0.667
    assert round(area["leave_one_out"]["accuracy"], 3) == 0.636
    assert round(area["test"]["accuracy"], 3) == 0.333
    red = [finding for finding in found.findings if finding.severity == "red"]
    assert {finding.evidence["column"] for finding in red} == {
        "issue_sub_category",
        "issue_category_sub_category",
    }
    assert "109 of 109 values have one label only" in red[0].sentence
    assert "data.group_by: issue_" in red[0].advice


def test_di725_is_unbalanced_in_train_only_and_shares_no_text(di725):
    found = di725()
    rare = next(finding for finding in found.findings if finding.kind == "rare_label")
    assert rare.sentence.startswith("The label 'positive' is rare: 17 of 970 train rows (1.75 %)")
    shift = next(finding for finding in found.findings if finding.kind == "label_shift")
    assert "'positive' 1.75 % to 33 %" in shift.sentence
    for kind in ("exact", "normalised", "near"):
        assert found.parts["duplicates"][kind]["across"]["train/test"]["rows"] == {"train": 0, "test": 0}
    assert found.parts["duplicates"]["exact"]["within"] == {"train": 2, "test": 0}
    words = found.parts["lengths"]["words"]["train"]["all"]
    assert (round(words["mean"]), words["max"]) == (371, 992)


def test_di725_customer_turns(di725):
    found = di725(clean=[{"step": "speaker_turns", "keep": "customer", "join": "merged"}])
    words = found.parts["lengths"]["words"]["train"]["all"]
    assert words["rows"] == 967
    assert round(words["mean"]) == 101
    train = found.rows["cleaning"][0]
    assert train["emptied"] == {"rows": 3, "positions": [191, 286, 750]}
    assert found.rows["left_out"] == {"train": {"empty_after_cleaning": 3}}


def test_imdb_repeats_and_shared_texts(audited):
    found = audited("imdb")
    exact = found.parts["duplicates"]["exact"]
    assert exact["repeats"] == 418
    assert exact["within"] == {"train": 96, "test": 199}
    assert exact["across"]["train/test"] == {"texts": 123, "rows": {"train": 123, "test": 123}}
    near = found.parts["duplicates"]["near"]
    assert near["bounded"] == 0
    assert near["repeats"] >= found.parts["duplicates"]["normalised"]["repeats"] >= 418
    rating = found.parts["columns"][0]
    assert (rating["column"], rating["pure_values"], rating["values"]) == ("rating", 8, 8)


def test_emotion_and_sst2_shared_texts(audited):
    found = audited("emotion", parts=())
    assert found.parts["duplicates"]["exact"]["across"]["train/test"]["texts"] == 11
    assert found.parts["duplicates"]["exact"]["within"] == {"train": 31, "validation": 2, "test": 0}
    sst2 = audited("sst2", AuditOptions(near=False), parts=())
    assert sst2.parts["duplicates"]["exact"]["across"]["train/validation"]["texts"] == 0
    assert sst2.parts["duplicates"]["exact"]["repeats"] == 371


def test_emotion_partial_texts_of_two_labels(audited):
    found = audited("emotion_partial", AuditOptions(near=False), parts=())
    conflict = found.parts["conflicts"]["exact"]
    assert (conflict["texts"], conflict["rows"]) == (1_801, 3_602)
    assert conflict["ceiling"] == pytest.approx(76_766 / 78_567)


def test_tokens_of_real_texts_by_real_tokenizers(shared):
    from transformers import AutoTokenizer

    from tunescope.data.audit.token_counts import count_tokens

    texts = pl.read_parquet(shared / "data" / "imdb" / "test.parquet")["text"].head(500)
    for name in ("gpt2", "bert-base-uncased"):
        tokenizer = AutoTokenizer.from_pretrained(shared / "tokenizers" / name)
        expected = [
            len(ids) for ids in tokenizer(texts.to_list(), truncation=False, verbose=False)["input_ids"]
        ]
        assert np.array_equal(count_tokens(texts, tokenizer), expected)


def test_near_duplicates_of_real_texts_are_those_of_brute_force(shared):
    from tunescope.data.audit import corpus_of, near_pairs

    texts = pl.read_parquet(shared / "data" / "sst2" / "train.parquet")["text"].head(2_000)
    found = near_pairs(corpus_of(texts), None, 3, 0.7)
    corpus = corpus_of(texts)
    plain = [text.split(" ") for text in corpus.normalised]
    sets = [{tuple(row[i : i + 3]) for i in range(max(len(row) - 2, 1))} for row in plain]
    expected = {
        (i, j)
        for i in range(len(sets))
        for j in range(i + 1, len(sets))
        if sets[i] & sets[j] and len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= 0.7
    }
    assert set(zip(found.first.tolist(), found.second.tolist(), strict=True)) == expected
    assert len(expected) > 40
