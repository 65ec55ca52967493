"""Weight grafts between encoder-decoders: by hand, by laws, and where one changed head is planted."""

from __future__ import annotations

import copy

import numpy as np
import polars as pl
import pytest
import torch
from subjects import make_rows, make_subject

from tiny_encoder_decoder import two_models
from tunescope.capture.graft_parts import GraftPart, names_of, parts_of
from tunescope.capture.patch_models import trunk_state, tuned_readout
from tunescope.capture.sites import Site, locate
from tunescope.errors import SiteError
from tunescope.lenses import LENSES, LensRows, look
from tunescope.lenses.grafting.lens import GraftOptions, run, single_parts
from tunescope.lenses.grafting.runs import Run
from tunescope.lenses.grafting.runs_encoder_decoder import StackGrafts
from tunescope.progress import SILENT

ROWS = LensRows(n=12)


@pytest.fixture(params=("t5_gated", "bart"), scope="module")
def models(request, tmp_path_factory):
    return two_models(request.param, tmp_path_factory.mktemp)


def grafts_of(base, tuned):
    found = StackGrafts(base, tuned, make_subject(base, tuned, make_rows(20)).draw(ROWS), 0)
    with SILENT.task("x", 1, "rows") as task:
        found.prepare(task)
    return found


def margins(model, tuned, tokens):
    """Run every row alone under the tuned readout."""
    found = []
    with torch.no_grad(), tuned_readout(model, tuned):
        for ids, label in zip(tokens.input_ids, tokens.labels, strict=True):
            row = torch.tensor(np.asarray(ids, dtype=np.int64))[None]
            logits = model(input_ids=row, attention_mask=torch.ones_like(row))[0].double()
            others = torch.cat([logits[:label], logits[label + 1 :]])
            found.append(float(logits[label] - others.logsumexp(0)))
    return np.array(found)


def copied_with(base, tuned, names):
    copied = copy.deepcopy(base)
    own, theirs = dict(copied.trunk.named_parameters()), dict(tuned.trunk.named_parameters())
    with torch.no_grad():
        for name in names:
            own[name].copy_(theirs[name])
    return copied


def test_parts_share_out_every_weight(models):
    base, _ = models
    blocks, sublayers = (
        [name for part in parts_of(base, ("embeddings", *kinds)) for name in names_of(base, part)]
        for kinds in (("block",), ("attention", "mlp"))
    )
    assert len(blocks) == len(set(blocks))
    assert len(sublayers) == len(set(sublayers))
    assert set(blocks) == set(sublayers) == set(trunk_state(base))
    cross = names_of(base, GraftPart("attention", 1, "cross"))
    assert f"{base.family.cross_attention_norm.format(layer=1)}.weight" in cross
    assert not set(cross) & set(names_of(base, GraftPart("attention", 1, "decoder")))
    with pytest.raises(
        SiteError, match=r"encoder.L3.mlp: layer 3 is outside the model; its layers are 0 to 2"
    ):
        names_of(base, GraftPart("mlp", 3, "encoder"))
    with pytest.raises(SiteError, match=r"has an encoder and a decoder; write for example encoder\.L0\.mlp"):
        names_of(base, GraftPart("mlp", 0))


def test_every_kind_of_graft_equals_a_copied_model(models):
    base, tuned = models
    found = grafts_of(base, tuned)
    both = (GraftPart("attention", 1, "cross"), GraftPart("mlp", 2, "encoder"))
    runs = [
        *(one for one in single_parts(base, ("embeddings", "block", "attention", "mlp"))),
        Run("up_to_here", "block", 1, place="encoder"), Run("up_to_here", "block", 0, place="decoder"),
        Run("from_here", "block", 2, place="encoder"), Run("greedy", "set", parts=both, step=2),
    ]  # fmt: skip
    answers = found.answers(runs)
    for column, one in enumerate(runs):
        names = {name for part in found.parts_in(one) for name in names_of(base, part)}
        expected = margins(copied_with(base, tuned, names), tuned, found.tokens)
        np.testing.assert_allclose(answers.margin[:, column], expected, atol=5e-5, err_msg=one.name)
    assert np.ptp(answers.margin, axis=1).min() > 1e-3
    lost = found.answers([Run("one", "mlp", 1, place="decoder", direction="base_into_tuned")]).margin[:, 0]
    back = copied_with(tuned, base, names_of(base, GraftPart("mlp", 1, "decoder")))
    np.testing.assert_allclose(lost, margins(back, tuned, found.tokens), atol=5e-5)


def test_all_weights_give_the_tuned_model_and_ones_own_change_nothing(models):
    base, tuned = models
    found = grafts_of(base, tuned)
    everything = tuple(parts_of(base, ("embeddings", "block")))
    runs = [
        Run("up_to_here", "block", 1, place="decoder"), Run("greedy", "set", parts=everything),
        Run("one", "block", 0, control="no_op", place="encoder"),
        Run("one", "head", 1, 2, control="no_op", place="cross"),
    ]  # fmt: skip
    answers = found.answers(runs)
    before, after = found.ends.margin.T
    for column, expected in enumerate((after, after, before, before)):
        np.testing.assert_allclose(answers.margin[:, column], expected, atol=5e-5, err_msg=runs[column].name)


def head_slices(model, site, head):
    """Return the slices of the weights that are one head's: what it reads with, and what it writes with."""
    place = locate(model, site)
    attention = locate(
        model, Site(site.name.replace("head_out", "attn_pattern"), site.layer, site.stack)
    ).module
    width = model.stacks[0 if site.stack == "encoder" else 1].head_width
    own = slice(head * width, (head + 1) * width)
    short = model.family.name == "T5"
    reading = [
        getattr(attention, name) for name in (("q", "k", "v") if short else ("q_proj", "k_proj", "v_proj"))
    ]
    return reading, place.module, own


def graft_head(target, source, site, head):
    reads, writes, own = head_slices(target, site, head)
    theirs, other, _ = head_slices(source, site, head)
    with torch.no_grad():
        for mine, lent in zip(reads, theirs, strict=True):
            mine.weight[own] = lent.weight[own]
            if mine.bias is not None:
                mine.bias[own] = lent.bias[own]
        writes.weight[:, own] = other.weight[:, own]


HEADS = [
    ("encoder", Site("head_out", 0, "encoder"), 2), ("encoder", Site("head_out", 2, "encoder"), 1),
    ("decoder", Site("head_out", 1, "decoder"), 3), ("cross", Site("cross_head_out", 0), 0),
    ("cross", Site("cross_head_out", 1), 2),
]  # fmt: skip


def test_a_heads_graft_is_its_slices_of_the_weights(models):
    base, tuned = models
    found = grafts_of(base, tuned)
    answers = found.answers(
        [Run("one", "head", site.layer, head, place=place) for place, site, head in HEADS]
    )
    for column, (_, site, head) in enumerate(HEADS):
        copied = copy.deepcopy(base)
        graft_head(copied, tuned, site, head)
        expected = margins(copied, tuned, found.tokens)
        np.testing.assert_allclose(answers.margin[:, column], expected, atol=5e-5, err_msg=str(site))
        assert np.abs(expected - found.ends.margin[:, 0]).max() > 1e-3


@pytest.mark.parametrize("number", [1, 3])
def test_the_one_changed_head_is_found_and_nothing_else_carries_anything(models, number):
    place, site, head = HEADS[number]
    base = models[0]
    tuned = copy.deepcopy(base)
    graft_head(tuned, models[1], site, head)
    subject = make_subject(base, tuned, make_rows(40), base_head="tuned")
    table, _ = run(subject, GraftOptions(rows=LensRows(n=20), weight_rows=(1.0,)))
    real = table.filter((pl.col("control") == "none") & (pl.col("metric") == "recovered_margin"))
    single = real.filter(pl.col("scope") == "one")
    name = f"{place}.L{site.layer}H{head}"
    inside = {name, f"{place}.L{site.layer}.attention", f"{site.stack}.L{site.layer}.block"}
    for row in single.iter_rows(named=True):
        expected = pytest.approx(1, abs=1e-3) if row["component"] in inside else pytest.approx(0, abs=1e-4)
        assert row["value"] == expected, row["component"]
        certain = "everything" if row["component"] in inside - {name} else "nothing"
        own = row["component"].split("H")[0] == name.split("H")[0]
        assert row["by_construction"] == (None if own and row["head"] is not None else certain), row[
            "component"
        ]
    heads = sum((2 if one.name == "decoder" else 1) * one.n_layers * one.n_heads for one in base.stacks)
    assert single.filter(pl.col("head").is_not_null()).height == heads
    assert set(single["stack"]) == {"encoder", "decoder"}
    curve = {
        row["component"]: row["value"] for row in real.filter(pl.col("scope") == "up_to_here").to_dicts()
    }
    order = [f"up to here: {part}" for part in parts_of(base, ("embeddings", "block"))]
    own = order.index(f"up to here: {site.stack}.L{site.layer}.block")
    assert [round(curve[one], 3) for one in order] == [0] * own + [1] * (len(order) - own)


def test_the_lens_runs_through_look_and_finds_no_trivial_thing(models):
    (output,) = look(make_subject(*models), [("grafting", {"rows": {"n": 16}})], LENSES)
    table = output.table
    assert {"encoder", "decoder"} <= set(table["stack"].drop_nulls())
    last = table.filter(
        (pl.col("component") == "up to here: decoder.L1.block") & (pl.col("control") == "none")
    )
    assert set(last["by_construction"]) == {"everything"}
    assert table.filter((pl.col("pick").is_not_null()) & pl.col("by_construction").is_not_null()).is_empty()


def test_identical_models_have_nothing_to_graft(models):
    (output,) = look(make_subject(models[0], models[0]), [("grafting", {"rows": {"n": 12}})], LENSES)
    own = output.table.filter(pl.col("metric") == "gain_margin")
    assert own["value"].item() == 0
    assert not output.findings
