"""Rows in prompts and positions: what the model reads is the prompt, and what is pooled is the asked token."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError
from subjects import make_rows, make_subject

from tiny import tiny_folder
from tunescope.errors import LensError
from tunescope.lenses import LENSES, look, read_pass
from tunescope.lenses.geometry.pooled import KeptRows, stream_sites
from tunescope.lenses.geometry.prompted_rows import PromptedRows
from tunescope.models import load

ROWS = make_rows(60)
TEXTS = ROWS.frame.select("row_id", "text")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(str(tiny_folder("gpt2", tmp_path_factory.mktemp("model"))))


def subject_of(model, **more):
    return make_subject(model, model, ROWS, texts=TEXTS, **more)


def said(model, tokens):
    return [model.tokenizer.decode(ids) for ids in tokens.input_ids]


def test_texts_stand_in_the_template_and_the_same_rows_are_drawn(model):
    subject = subject_of(model)
    plain = subject.draw(PromptedRows(n=12), labelled=False)
    prompted = subject.draw(PromptedRows(n=12, template="he said {text} very good"), labelled=False)
    assert prompted.row_ids == plain.row_ids
    np.testing.assert_array_equal(prompted.labels, plain.labels)
    texts = dict(TEXTS.iter_rows())
    encode = model.tokenizer.encode
    for row_id, ids in zip(prompted.row_ids, prompted.input_ids, strict=True):
        assert list(ids)[-len(encode(" very good")) :] == encode(" very good")
        assert len(ids) == len(encode(f"he said {texts[row_id]} very good"))


def test_examples_are_train_rows_with_their_labels_the_same_for_all_and_seeded(model):
    subject = subject_of(model)
    rows = PromptedRows(n=4, template="{text}:", examples=3)
    shown = rows._shown(subject)
    assert len(shown) == 3
    assert sorted(one.rpartition(" ")[2] for one in shown) == [
        "LABEL_0",
        "LABEL_1",
        "LABEL_2",
    ]  # classes in turn
    train = set(ROWS.split("train").frame["text"])
    assert all(one.rpartition(":")[0] in train for one in shown)
    assert rows._shown(subject_of(model)) == shown
    assert rows._shown(subject_of(model, sampling_seed=5)) != shown


def test_a_prompt_that_is_too_long_keeps_its_end_and_says_so(model):
    subject = subject_of(model)
    rows = PromptedRows(n=6, template="{text} end", examples=20)
    tokens = subject.draw(rows, labelled=False)
    assert tokens.truncated.all()
    assert (tokens.kept == model.max_length).all()
    ends = model.tokenizer.encode(" end")
    assert all(list(ids)[-len(ends) :] == ends for ids in tokens.input_ids)
    assert any("6 of 6 prompts are longer" in note for note in subject.notes)


def test_lenses_look_at_the_prompts(model):
    options = {"rows": {"n": 16, "template": "he said {text} very good"}, "variants": ["raw"]}
    plain = look(subject_of(model), [("cka", {"rows": {"n": 16}, "variants": ["raw"]})], LENSES)[0].table
    output = look(subject_of(model), [("cka", options)], LENSES)[0]
    assert output.provenance["rows"]["template"] == "he said {text} very good"
    assert not np.allclose(plain["value"].drop_nulls()[5:9], output.table["value"].drop_nulls()[5:9])


def test_bad_prompts_are_refused(model):
    with pytest.raises(ValidationError, match=r"it must hold \{text\} once; it holds it 0 times"):
        PromptedRows(template="no place")
    with pytest.raises(LensError, match=r"rows\.examples needs rows\.template"):
        subject_of(model).draw(PromptedRows(examples=1))
    with pytest.raises(LensError, match="the texts of the rows are not known"):
        make_subject(model, model, ROWS).draw(PromptedRows(template="{text}!"))
    with pytest.raises(LensError, match="There are 20 labelled train rows for 900 examples"):
        subject_of(model).draw(PromptedRows(template="{text}!", examples=900))


def test_positions_are_counted_over_real_tokens(model):
    subject = subject_of(model)
    tokens = subject.draw(PromptedRows(n=20), labelled=False)
    kept = {position: KeptRows(len(tokens), position) for position in (None, "last", "mean", 0, -1, 1)}
    read_pass(subject, tokens, list(kept.values()))
    site = stream_sites(model)[1]
    state = {position: one.features("base", site) for position, one in kept.items()}
    np.testing.assert_array_equal(state[-1], state["last"])
    np.testing.assert_array_equal(state[None], state[-1])  # GPT-2 pools the last real token
    assert not np.allclose(state[0], state[1])
    with torch.no_grad():  # one row by itself, without padding
        hidden = model.model(
            torch.tensor(tokens.input_ids[3][None].astype(np.int64)), output_hidden_states=True
        )
    alone = hidden.hidden_states[1][0].numpy()
    np.testing.assert_allclose(state[1][3], alone[1], atol=1e-5)
    np.testing.assert_allclose(state["mean"][3], alone.mean(axis=0), atol=1e-5)


def test_a_position_that_a_row_lacks_is_refused(model):
    with pytest.raises(LensError, match="and so no position 40"):
        look(subject_of(model), [("cka", {"rows": {"n": 16}, "position": 40})], LENSES)
    table = look(subject_of(model), [("spread", {"rows": {"n": 16}, "position": "first"})], LENSES)[0].table
    assert table.filter(pl.col("metric") == "mean_cosine")["value"].null_count() == 0
