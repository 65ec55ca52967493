"""Patches in T5 and BART: against full passes with edits, between texts and across models, and one planted head."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import polars as pl
import pytest
import torch
from subjects import make_rows, make_subject, splits_of
from test_grafting_encoder_decoder import HEADS, graft_head

from tiny_encoder_decoder import two_models
from tunescope.capture import Edit, Site, editing, read
from tunescope.capture.patch import PatchPlace, check_places, passed, patched_logits, patcher_of
from tunescope.capture.patch_models import tuned_readout
from tunescope.capture.patch_stacks import stack_sites
from tunescope.capture.patch_tokens import changed_tokens
from tunescope.errors import SiteError
from tunescope.lenses import LENSES, look
from tunescope.lenses.patching.construction import EVERYTHING, NOTHING, by_construction
from tunescope.lenses.patching.cross import CrossOptions, run
from tunescope.lenses.patching.lens import PatchingOptions, places_of
from tunescope.lenses.patching.runs import PatchRequest, pair_margins
from tunescope.lenses.subject import LensRows

PLACES = [
    ("encoder", "attn_out", 1, None, "at"), ("encoder", "head_out", 2, (1,), "all"),
    ("encoder", "resid_pre", 0, None, "at"), ("encoder", "resid_post", 2, None, "all"),
    ("encoder", "mlp_out", 0, None, -2), ("decoder", "resid_post", 1, None, "all"),
    ("decoder", "cross_head_out", 0, (2,), "after"), ("decoder", "cross_attn_out", 1, None, "pooled"),
    ("decoder", "mlp_out", 0, None, "at"), ("decoder", "resid_pre", 1, None, "before"),
    ("decoder", "head_out", 1, (0, 3), "all"), ("decoder", "embeddings", None, None, "at"),
]  # fmt: skip


@pytest.fixture(params=("t5_gated", "bart"), scope="module")
def models(request, tmp_path_factory):
    return two_models(request.param, tmp_path_factory.mktemp)


def two_texts():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randint(5, 40, (3, 9), generator=generator) for _ in range(2))
    second[:, :3], second[:, 6:] = first[:, :3], first[:, 6:]
    return [{"input_ids": ids, "attention_mask": torch.ones_like(ids)} for ids in (first, second)]


def chosen(place, changed):
    """Which tokens a place replaces, worked out here once more; the decoder reads every token one place later."""
    mask = torch.zeros_like(changed)
    for row in range(len(changed)):
        shift = 1 if place.site.stack == "decoder" else 0
        spots = [spot + shift for spot in changed[row].nonzero().flatten().tolist() if spot + shift < 9]
        known = {"all": range(9), "at": spots, "before": range(spots[0]), "after": range(spots[-1] + 1, 9)}
        own = known.get(place.positions, [8 if place.positions == "pooled" else place.positions])
        mask[row, list(own)] = True
    return mask


def test_every_patch_equals_a_full_pass_with_an_edit(models):
    model = models[0]
    ours, theirs = two_texts()
    places = [
        PatchPlace(Site(name, layer, stack), heads, where) for stack, name, layer, heads, where in PLACES
    ]
    clean, donor, found = patched_logits(model, ours, theirs, places)
    changed = changed_tokens(ours["input_ids"], theirs["input_ids"])
    for index, place in enumerate(places):
        values, mask = read(model, [place.site], theirs)[place.site], chosen(place, changed)

        def change(old, values=values, mask=mask, place=place):
            new = values if place.heads is None else values[:, :, list(place.heads)]
            return torch.where(mask.view(3, 9, *([1] * (old.dim() - 2))), new, old)

        with torch.no_grad(), editing(model, [Edit(place.site, change, place.heads)]):
            expected = model(**ours)
        torch.testing.assert_close(found[index], expected, atol=2e-5, rtol=2e-5, msg=str(place))
        assert (found[index] - clean).abs().max() > 1e-4, place
    whole = [str(place) for place in places].index("decoder.resid_post[1]@all")
    torch.testing.assert_close(found[whole], donor, atol=1e-5, rtol=1e-5)  # all that the head reads
    patcher = patcher_of(model, passed(model, ours), passed(model, theirs))
    torch.testing.assert_close(patcher.everything(), donor, atol=1e-5, rtol=1e-5)


BAD = [
    (Site("attn_out", 3, "encoder"), None, "all", "layer 3 is outside the model; its layers are 0 to 2"),
    (Site("cross_head_out", 0), (9,), "all", r"heads \[9\] are outside the model; its heads are 0 to"),
    (Site("attn_out", 0, "encoder"), None, "pooled", "no token of the encoder is the pooled one"),
    (Site("attn_out", 0), None, "all", r"write encoder.attn_out\[0\] or"),
]  # fmt: skip


@pytest.mark.parametrize(("site", "heads", "where", "message"), BAD)
def test_places_outside_the_model_are_refused(models, site, heads, where, message):
    with pytest.raises(SiteError, match=message):
        check_places(models[0], [PatchPlace(site, heads, where)])


def test_what_is_said_of_a_place_is_what_running_it_gives(models):
    model = models[0]
    clean = splits_of(model, make_rows())["validation"].take(np.arange(5))
    swapped = []
    for ids in clean.input_ids:
        other = np.array(ids)
        other[2 % (len(ids) - 1)] = 11 if other[2 % (len(ids) - 1)] != 11 else 12
        swapped.append(other)
    corrupt = dataclasses.replace(clean, input_ids=swapped)
    places = [
        PatchPlace(site, None, where)
        for site in stack_sites(model, ("resid_pre", "attn_out", "mlp_out", "resid_post"))
        for where in ("before", "at", "after", "pooled", 1, -1) if not (where == "pooled" and site.stack == "encoder")
    ]  # fmt: skip
    told = by_construction(model, places, clean, corrupt)
    found = pair_margins(model, corrupt, clean, clean.labels, PatchRequest(places, unrelated=False))
    np.testing.assert_allclose(found.no_op, found.recipient, atol=2e-5)
    np.testing.assert_allclose(found.everything, found.donor, atol=2e-5)
    shares = (found.patched - found.recipient[:, None]) / found.gap[:, None]
    for place, one, share in zip(places, told, shares.T, strict=True):
        if one is None:
            assert max(np.abs(share - 1).max(), 1e-6) > 1e-6, place
            assert np.abs(share).max() > 1e-6, place
        else:
            np.testing.assert_allclose(share, {EVERYTHING: 1, NOTHING: 0}[one], atol=5e-3, err_msg=str(place))
    names = {str(place): one for place, one in zip(places, told, strict=True)}
    assert names["decoder.resid_post[1]@pooled"] == EVERYTHING
    assert names["encoder.resid_pre[0]@at"] is None  # the decoder reads the text too
    assert names["encoder.resid_pre[0]@before"] == names["decoder.mlp_out[1]@1"] == NOTHING


def test_across_models_a_patch_is_an_edit_with_the_other_models_values(models):
    base, tuned = models
    subject = make_subject(base, tuned, make_rows(20))
    inputs = two_texts()[0]
    with tuned_readout(base, tuned):
        passes = [passed(model, inputs) for model in (base, tuned)]
        for site in (
            Site("resid_pre", 1, "encoder"),
            Site("cross_attn_out", 0),
            Site("mlp_out", 1, "decoder"),
        ):
            found = patcher_of(base, *passes).logits([PatchPlace(site)])[0]
            values = read(tuned, [site], inputs)[site]
            with torch.no_grad(), editing(base, [Edit(site, lambda old, values=values: values)]):
                torch.testing.assert_close(found, base(**inputs), atol=2e-5, rtol=2e-5)
    table, _ = run(subject, CrossOptions(rows=LensRows(n=6), sites=("resid_post",), random_control=False))
    own = table.filter((pl.col("metric") == "recovered_margin") & (pl.col("control") == "none"))
    last = own.filter((pl.col("stack") == "decoder") & (pl.col("layer") == 1))
    assert last["value"].item() == pytest.approx(1, abs=1e-4)
    assert last["by_construction"].item() == EVERYTHING
    assert own.filter(pl.col("by_construction").is_null()).height == 4


def gaining(base, tuned, tokens):
    """Give every row the class that tuning made likelier most, so that there is a gain."""
    labels = []
    for ids in tokens.input_ids:
        row = torch.tensor(np.asarray(ids, dtype=np.int64))[None]
        with torch.no_grad():
            before, after = (
                model(input_ids=row, attention_mask=torch.ones_like(row))[0] for model in (base, tuned)
            )
        labels.append(int((after - before).argmax()))
    return dataclasses.replace(tokens, labels=np.array(labels))


@pytest.mark.parametrize("number", [0, 4])
def test_across_models_the_one_changed_head_is_found(models, number):
    place, site, head = HEADS[number]
    base = models[0]
    tuned = copy.deepcopy(base)
    graft_head(tuned, models[1], site, head)
    options = {"rows": {"n": 16}, "sites": ["head_out", "attn_out", "mlp_out"]}
    subject = make_subject(base, tuned, make_rows(40), base_head="tuned")
    subject.splits["validation"] = gaining(base, tuned, subject.splits["validation"])
    (output,) = look(subject, [("patching_cross", options)], LENSES)
    own = output.table.filter((pl.col("metric") == "recovered_margin") & (pl.col("control") == "none"))
    heads = own.filter(
        pl.col("head").is_not_null() & (pl.col("layer") == site.layer) & (pl.col("site") == site.name)
    )
    for row in heads.filter(pl.col("stack") == site.stack).iter_rows(named=True):
        assert row["value"] == pytest.approx(1.0 if row["head"] == head else 0.0, abs=1e-3), row
    attention = Site(site.name.replace("head_out", "attn_out"), site.layer, site.stack)
    whole = own.filter(
        (pl.col("site") == attention.name) & (pl.col("layer") == site.layer) & (pl.col("stack") == site.stack)
    )
    assert whole["value"].item() == pytest.approx(1, abs=1e-3)
    assert whole["by_construction"].item() == EVERYTHING
    nothing = own.filter(pl.col("by_construction") == NOTHING)
    assert (nothing["value"] == 0).all()
    if site.stack == "decoder":  # all of the encoder, and the decoder before it, have the same weights
        assert set(nothing["stack"]) == {"encoder", "decoder"}
    assert f"head {place}.L{site.layer}H{head} " in output.findings[0].sentence


def test_between_texts_the_lens_names_stacks_and_keeps_its_laws(models):
    model = models[0]
    rows = make_rows(40)
    subject = make_subject(model, model, rows, base_head="none", texts=rows.frame.select("row_id", "text"))
    options = {
        "rows": {"n": 12},
        "pairs": {"kind": "rows"},
        "positions": ["all", "at", "pooled"],
        "floor": 0.01,
    }
    (output,) = look(subject, [("patching", options)], LENSES)
    ratio = output.table.filter(pl.col("estimator") == "ratio_of_sums")
    ratio = ratio.filter(pl.col("pick").is_null()) if "pick" in ratio.columns else ratio
    for control, value in (("no_op", 0), ("everything", 1)):
        own = ratio.filter(pl.col("control") == control)["value"].drop_nulls().to_list()
        assert own == pytest.approx([value] * len(own), abs=1e-3)
    places = ratio.filter((pl.col("control") == "none") & (pl.col("direction") == "denoising"))
    asked = places_of(model, PatchingOptions(positions=("all", "at", "pooled")))
    assert places.height == len(asked)
    encoder = places.filter((pl.col("stack") == "encoder") & (pl.col("site") == "resid_pre"))
    assert encoder.filter(pl.col("position") == "all")["layer"].to_list() == [0]
    assert "pooled" not in encoder["position"].to_list()
    assert {"cross_attn_out", "cross_head_out"} <= set(places["site"])
