"""The probes lens: a task that becomes readable where it was made readable, its controls, and bad input."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import polars as pl
import pytest
import torch
from subjects import WORDS, make_rows, make_subject

from tiny import DECODERS, FAMILIES, tiny_folder
from tunescope.data.batches import batches
from tunescope.errors import LensError
from tunescope.lenses import LENSES, look, reading
from tunescope.lenses.probes.lens import token_type
from tunescope.models import load
from tunescope.models.untrained import untrained

ROWS = {"split": "validation", "n": 300}
OPTIONS = {"rows": ROWS, "train_rows": 150, "control": "last", "strength": 1.0}


def first_word_rows(n=450):
    """Rows whose label is their first word, good or sad; it is nowhere else in the text."""
    rows = make_rows(n, classes=2)
    others = [word for word in WORDS if word not in ("good", "sad")]
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 2, n)
    texts = [
        " ".join([("sad", "good")[label], *generator.choice(others, size=generator.integers(3, 7))])
        for label in labels
    ]
    frame = rows.frame.with_columns(text=pl.Series(texts), label=pl.Series(labels))
    return dataclasses.replace(rows, frame=frame)


def deaf_until(model, layer):
    """Return a copy whose attention is silent before a layer: the last token cannot know the first until then."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for block in changed.trunk.h[:layer]:
            block.attn.c_proj.weight.zero_()
            block.attn.c_proj.bias.zero_()
    return changed


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    model = load(str(tiny_folder("gpt2", tmp_path_factory.mktemp("m"), n_labels=2)))
    subject = make_subject(deaf_until(model, 2), deaf_until(model, 1), first_word_rows())
    return subject, look(subject, [("probes", OPTIONS)], LENSES)[0]


def pick(table, **wanted):
    for column, value in wanted.items():
        table = table.filter(pl.col(column) == value)
    return table.sort("layer")


def test_the_task_becomes_readable_where_attention_first_carries_it(planted):
    _, output = planted
    for which, first in (("base", 2), ("tuned", 1)):
        rows = pick(output.table, metric="probe_accuracy", model=which)
        assert rows["layer"].to_list() == [-1, 0, 1, 2, 3]
        for row in rows.iter_rows(named=True):
            readable = row["q"] <= 0.05 and row["value"] > row["control"]
            assert readable == (row["layer"] >= first), row
            if row["layer"] >= first:
                assert row["value"] > 0.6
    sentence = output.findings[0].sentence
    assert "first at layer 2 in the base and first at layer 1 in the tuned model" in sentence
    assert "tuning adds most at the final norm's output: 0.63 to 0.78" in sentence
    assert output.findings[0].verdict == "found"


def test_differences_are_those_of_the_accuracies_and_lie_in_their_intervals(planted):
    _, output = planted
    wide = {
        (row["metric"], row["model"], row["site"], row["layer"]): row
        for row in output.table.iter_rows(named=True)
    }
    for (metric, model, *place), row in wide.items():
        if metric == "majority_accuracy":
            continue
        at = {name: wide["probe_accuracy", name, *place]["value"] for name in ("base", "tuned", "untrained")}
        if metric == "selectivity" and model != "tuned_minus_base":
            control = wide["control_accuracy", model, *place]["value"]
            assert row["value"] == pytest.approx(at[model] - control)
        elif metric == "over_untrained":
            assert row["value"] == pytest.approx(at[model] - at["untrained"])
        elif metric == "probe_accuracy" and model == "tuned_minus_base":
            assert row["value"] == pytest.approx(at["tuned"] - at["base"])
        assert row["low"] <= row["value"] <= row["high"]
        assert (row["p"] is None) == (row["q"] is None)


def test_the_control_task_is_readable_where_its_token_stands(planted):
    _, output = planted
    control = pick(output.table, metric="control_accuracy", model="tuned")
    assert control["value"].to_list()[0] > 0.85  # the last token's embedding names the last token
    assert control["seen"].to_list() == [1.0] * 5
    assert set(control["types"]) == {18}  # of 19 words, one never ends a train row
    selectivity = pick(output.table, metric="selectivity", model="tuned")["value"].to_list()
    assert selectivity[0] < -0.3
    assert selectivity[3] > selectivity[0] + 0.3


def test_one_row_a_batch_gives_the_same_table(planted, monkeypatch):
    subject, output = planted
    monkeypatch.setattr(reading, "_batches", lambda model, tokens, sites: batches(tokens, max_rows=1))
    again = look(subject, [("probes", OPTIONS)], LENSES)[0].table
    np.testing.assert_allclose(again["value"], output.table["value"], atol=1.01 / 300)


@pytest.mark.parametrize("kind", FAMILIES)
def test_an_equal_trunk_changes_nothing_and_says_so(kind, tmp_path):
    base = load(str(tiny_folder(kind, tmp_path)))
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        next(tuned.head.parameters()).add_(1)
    output = look(make_subject(base, tuned, make_rows(150)), [("probes", {"untrained": False})], LENSES)[0]
    table = output.table
    assert set(table["model"].drop_nulls()) == {"base", "tuned", "tuned_minus_base"}
    assert set(pick(table, model="tuned_minus_base")["value"]) == {0.0}
    constant = table.filter((pl.col("site") == "embeddings") & (pl.col("metric") == "selectivity"))
    notes = constant.filter(pl.col("model") == "base")["note"].to_list()
    assert notes == ([None] if kind in DECODERS else ["every row has the same features"])
    if not kind.startswith("roberta"):
        assert "tuning left the trunk as it was" in output.findings[0].sentence


@pytest.mark.parametrize("kind", FAMILIES)
def test_an_untrained_model_has_fresh_weights_and_leaves_the_first_alone(kind, tmp_path):
    model = load(str(tiny_folder(kind, tmp_path)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    fresh, same, other = untrained(model, 1), untrained(model, 1), untrained(model, 2)
    assert torch.equal(torch.rand(3), expected)  # the caller's stream is not touched
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    name = next(name for name, value in fresh.trunk.named_parameters() if value.ndim == 2)
    ours, theirs = fresh.trunk.get_parameter(name), model.trunk.get_parameter(name)
    assert ours.shape == theirs.shape
    assert not torch.equal(ours, theirs)
    assert torch.equal(ours, same.trunk.get_parameter(name))
    assert not torch.equal(ours, other.trunk.get_parameter(name))
    assert ours.std().item() == pytest.approx(model.model.config.initializer_range, rel=0.1)
    assert not fresh.training


def test_bad_input_is_named(tmp_path):
    model = load(str(tiny_folder("gpt2", tmp_path)))
    subject = make_subject(model, model, make_rows(60))
    with pytest.raises(LensError, match="train rows cannot score them; look at validation"):
        look(subject, [("probes", {"rows": {"split": "train"}})], LENSES)
    subject.splits["train"].labels[:] = np.arange(20) % 2
    with pytest.raises(
        LensError, match="No train row of class 'LABEL_2' was drawn, so no probe can learn it"
    ):
        look(subject, [("probes", {})], LENSES)
    del subject.splits["train"]
    with pytest.raises(LensError, match="There are no train rows to look at"):
        look(subject, [("probes", {})], LENSES)
    one = make_subject(load(str(tiny_folder("gpt2", tmp_path / "b", n_labels=2))), model, first_word_rows(90))
    for ids in one.splits["train"].input_ids:
        ids[0] = one.splits["train"].input_ids[0][0]
    one.tuned = one.base
    with pytest.raises(LensError, match="one label only: the first token of the train rows takes 1 values"):
        look(one, [("probes", {"rows": ROWS})], LENSES)


def test_the_token_of_a_text():
    ids = np.array([101, 7, 9, 9, 7, 5, 102])
    special = frozenset({101, 102})
    assert [token_type(ids, which, special) for which in ("first", "last", "most_frequent")] == [7, 5, 7]
    assert token_type(np.array([101, 102]), "first", special) == 101
