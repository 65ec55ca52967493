from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from tunescope.data.labels import LabelMap
from tunescope.data.rows import Rows
from tunescope.data.tokens import tokenize
from tunescope.errors import DataError
from tunescope.evaluation import predict as predict_function
from tunescope.models import load

NAMES = ("bad", "good", "odd")


@pytest.fixture(scope="module")
def classifier(gpt2_folder):
    model = load(str(gpt2_folder))
    model.labels = LabelMap(NAMES)
    return model


def rows_of(texts: list[str]) -> Rows:
    frame = pl.DataFrame(
        {"row_id": [f"id-{n}" for n in range(len(texts))], "text": texts, "label": [0] * len(texts)},
        schema_overrides={"label": pl.Int64},
    )
    return Rows(frame, LabelMap(NAMES), {})


def test_predictions_come_back_in_input_order_with_their_ids(classifier):
    rng = np.random.default_rng(0)
    words = ["the", "cat", "sat", "on", "warm", "mat", "rain", "night", "long", "cold"]
    texts = [" ".join(rng.choice(words, rng.integers(1, 60))) + f" {n}" for n in range(150)]
    tokens = tokenize(rows_of(texts), classifier.tokenizer, 40)
    table = predict_function(classifier, tokens)
    assert table["row_id"].to_list() == [f"id-{n}" for n in range(150)]
    assert table["truncated"].to_list() == (tokens.lengths > 40).tolist()
    assert 0 < table["truncated"].sum() < 150
    for position in range(0, 150, 7):  # one by one, without padding or batch mates
        row = torch.from_numpy(tokens.input_ids[position].astype(np.int64))[None]
        with torch.inference_mode():
            alone = classifier(row, torch.ones_like(row))[0]
        given = table.row(position, named=True)
        assert np.allclose([given[f"logit_{name}"] for name in NAMES], alone.numpy(), atol=1e-4)
        assert np.allclose(
            [given[f"probability_{name}"] for name in NAMES], alone.softmax(0).numpy(), atol=1e-5
        )
        assert given["prediction"] == int(alone.argmax())


def test_predicting_leaves_the_mode_as_it_was_and_uses_no_dropout(classifier):
    tokens = tokenize(rows_of(["the cat sat on the mat"] * 3), classifier.tokenizer, 40)
    classifier.train()
    try:
        first, second = predict_function(classifier, tokens), predict_function(classifier, tokens)
        assert classifier.training
    finally:
        classifier.eval()
    assert first.equals(second)


def test_no_rows_give_an_empty_table_with_every_column(classifier):
    tokens = tokenize(rows_of(["rain"]), classifier.tokenizer, 40).take(np.array([], dtype=np.int64))
    table = predict_function(classifier, tokens)
    assert table.height == 0
    assert table.columns[:3] == ["row_id", "prediction", "logit_bad"]


def test_rows_out_of_place_are_never_returned(classifier, monkeypatch):
    """The check that must never fail: here batches lie about their rows."""
    import sys

    from tunescope.evaluation import predict as _  # noqa: F401

    module = sys.modules["tunescope.evaluation.predict"]
    original = module.model_batches

    def lying(model, tokens):
        for batch in original(model, tokens):
            batch.row_ids.reverse()
            yield batch

    tokens = tokenize(rows_of(["rain", "the cat sat", "what a surprise"]), classifier.tokenizer, 40)
    monkeypatch.setattr(module, "model_batches", lying)
    with pytest.raises(DataError, match="rows of a batch are not where their ids say"):
        predict_function(classifier, tokens)
    monkeypatch.setattr(module, "model_batches", lambda *given: list(original(*given))[:0])
    with pytest.raises(DataError, match="3 rows were not predicted exactly once"):
        predict_function(classifier, tokens)
