"""Lenses on T5 and BART: the sweep against full passes with edits, readings against plain forward passes."""

from __future__ import annotations

import copy

import numpy as np
import polars as pl
import pytest
import torch
from subjects import make_rows, make_subject, splits_of

from tiny import NAMES, tiny_folder
from tiny_encoder_decoder import two_models
from tunescope.capture import Edit, Site, editing, read
from tunescope.capture.shared import shared_depth
from tunescope.capture.sites import locate
from tunescope.capture.stack_attention import attentions_of
from tunescope.data.batches import collate
from tunescope.errors import LensError
from tunescope.lenses import LENSES, look
from tunescope.lenses.ablation.components import all_but_one, every, group, pairs, parse, removals
from tunescope.lenses.ablation.components_encoder_decoder import no_ops_in_stacks
from tunescope.lenses.ablation.directions import Direction, directions_of
from tunescope.lenses.ablation.replacement import (
    Donors,
    Statistics,
    needs_statistics,
    statistics,
    stored_site,
)
from tunescope.lenses.ablation.sweep_encoder_decoder import StackSweep
from tunescope.lenses.geometry.pooled import stream_sites
from tunescope.models import load
from tunescope.progress import SILENT

PLACES = ["encoder.L0H2", "encoder.L2H1-3", "encoder.L1.attention", "encoder.L2.mlp", "encoder.L1.block",
          "encoder.L1N3-9", "encoder.L2D4-6", "encoder.T0", "encoder.T-1", "decoder.L0H2", "decoder.L1.attention",
          "decoder.L0.mlp", "decoder.L1.block", "decoder.L0N5", "decoder.L1D0", "decoder.T1", "cross.L0H0",
          "cross.L1H1-2", "cross.L0.attention"]  # fmt: skip
SETS = {
    "both stacks": ("encoder.L2H2", "decoder.L0H1", "cross.L1H3"),
    "overlap": ("cross.L1H1", "cross.L1.attention", "decoder.L1H1"),
    "all kinds": ("encoder.L0.mlp", "decoder.T0", "decoder.L0D3", "cross.L0H1", "decoder.L1N4-8"),
}  # fmt: skip
EDITS = ("zero", "mean", "position_mean", "resample", "resample_other_class", "noise")


@pytest.fixture(params=("t5_gated", "bart"), scope="module")
def models(request, tmp_path_factory):
    return two_models(request.param, tmp_path_factory.mktemp)


@pytest.fixture
def subject(models):
    return make_subject(*models)


def swept(model, tokens, variants, reference, **options):
    with SILENT.task("", 1) as task:
        known = statistics(model, reference, needs_statistics(variants), True, task)
        sweep = StackSweep(model, variants, known, 5, donors=reference, **options)
        out, clean = torch.empty(len(variants), len(tokens), 3), torch.empty(len(tokens), 3)
        for index, before, after in sweep.run(tokens, task):
            out[:, index], clean[index] = after, before
    return clean, out, known


def naive(model, tokens, index, variant, known, reference):
    """One row, one full forward pass with tunescope's public edits; values are worked out here once more."""
    inputs = collate(tokens, np.array([index])).inputs()
    length = inputs["input_ids"].shape[1]
    edits = []
    for part in variant.parts:
        site, values = stored_site(part), None
        if variant.edit in ("resample", "resample_other_class"):
            chosen = Donors(reference, 5).choose(tokens, index, variant.edit == "resample_other_class")
            values = read(model, [site], collate(reference, np.array([chosen])).inputs())[site][0]

        def change(old, part=part, site=site, values=values):
            new = torch.zeros_like(old)
            if variant.edit == "mean":
                new = known.mean[site].expand_as(old)
            elif variant.edit == "position_mean":
                table = known.by_position[site]
                rows = [table[t] if t < len(table) else known.mean[site] for t in range(length)]
                new = torch.stack(rows)[None]
            elif values is not None:
                shift = len(values) - length
                new = torch.stack([values[min(max(t + shift, 0), len(values) - 1)] for t in range(length)])[
                    None
                ]
            out = old.clone()
            places = range(length) if part.positions is None else [p % length for p in part.positions]
            for place in places:
                if part.units is None:
                    out[:, place] = new[:, place]
                else:
                    units = list(part.units)
                    out[:, place, units] = new[:, place, units]
            return out

        edits.append(Edit(site, change))
    with torch.no_grad(), editing(model, edits):
        return model(**inputs)[0]


@pytest.mark.parametrize("edit", [one for one in EDITS if one != "noise"])
def test_the_sweep_equals_a_naive_loop_of_full_passes(models, edit):
    model = models[0]
    splits = splits_of(model, make_rows(24))
    tokens, reference = splits["validation"].take(np.arange(3)), splits["train"]
    variants = [parse(model, text, edit) for text in PLACES]
    variants += [group(model, name, members, edit) for name, members in SETS.items()]
    clean, out, known = swept(model, tokens, variants, reference, tokens_at_once=64)
    moved = 0
    for v, variant in enumerate(variants):
        for index in range(len(tokens)):
            expected = naive(model, tokens, index, variant, known, reference)
            torch.testing.assert_close(out[v, index], expected, atol=3e-5, rtol=3e-5, msg=variant.name)
        moved += bool((out[v] - clean).abs().max() > 1e-3)
    assert moved >= len(variants) - 2  # (almost) every change is one


def test_attentions_that_nothing_has_changed_are_not_run_again(models):
    """A head's change costs its block's MLP and what follows: its own attention runs in the clean pass alone."""
    model = models[0]
    tokens = splits_of(model, make_rows())["validation"].take(np.arange(1))
    ran = []
    sites = attentions_of(model)
    hooks = [
        locate(model, site).module.register_forward_hook(lambda *_, site=site: ran.append(str(site)))
        for site in sites
    ]
    expected = {
        "decoder.L0H1": ["decoder.cross_attn_out[0]", "decoder.attn_out[1]", "decoder.cross_attn_out[1]"],
        "cross.L0H1": ["decoder.attn_out[1]", "decoder.cross_attn_out[1]"],
        "decoder.L1.mlp": [],
        "cross.L1.attention": [],
        "encoder.L2H0": [str(site) for site in sites if site.stack == "decoder"],
        "encoder.T0": [str(site) for site in sites],
    }
    for text, later in expected.items():
        ran.clear()
        with SILENT.task("", 1) as task:
            list(StackSweep(model, [parse(model, text)], Statistics(), 0).run(tokens, task))
        assert ran[len(sites) :] == later, text
    for hook in hooks:
        hook.remove()


def test_every_head_of_three_attentions_and_every_sublayer_is_swept(models):
    model = models[0]
    encoder, decoder = model.stacks
    found = every(model, ("heads", "attention", "mlp", "block"), "zero")
    heads = [one for one in found if one.head is not None]
    assert len(heads) == encoder.n_layers * encoder.n_heads + 2 * decoder.n_layers * decoder.n_heads
    assert sum(one.site == "cross_attn_out" for one in found) == decoder.n_layers
    assert sum(one.site == "mlp_out" for one in found) == encoder.n_layers + decoder.n_layers
    blocks = {one.name: len(one.parts) for one in found if one.site == "block"}
    assert blocks["encoder.L2.block"] == 2
    assert blocks["decoder.L1.block"] == 3
    assert len({one.name for one in found}) == len(found)
    for one in found:
        assert parse(model, one.name).parts == one.parts


def test_sets_pairs_and_removals_name_each_place_once(models):
    model = models[0]
    heads = every(model, ("heads",), "zero")
    both = pairs(heads, True)
    assert all(one.stack is not None and one.layer is not None for one in both)  # never across stacks
    kept = all_but_one(heads)[0]
    assert (kept.stack, kept.layer, kept.head, kept.site) == ("encoder", 0, 0, "all_but_one:head_out")
    whole = removals(heads, "x", [len(heads)])[0]
    assert len(whole.parts) == model.stacks[0].n_layers + 2 * model.stacks[1].n_layers
    overlap = group(model, "overlap", SETS["overlap"])
    assert {str(part.site) for part in overlap.parts} == {"decoder.cross_attn_out[1]", "decoder.head_out[1]"}


def test_a_change_of_nothing_changes_nothing_and_a_random_one_has_the_edits_size(models):
    model = models[0]
    splits = splits_of(model, make_rows(24))
    tokens = splits["validation"].take(np.arange(4))
    clean, out, _ = swept(model, tokens, no_ops_in_stacks(model, "zero"), splits["train"])
    assert len(out) == 5
    torch.testing.assert_close(out, clean.expand_as(out), atol=2e-5, rtol=2e-5)


def test_variants_and_rows_do_not_influence_one_another(models):
    model = models[0]
    splits = splits_of(model, make_rows(24))
    tokens, reference = splits["validation"], splits["train"]
    variants = [parse(model, text, "noise") for text in PLACES]
    _, together, known = swept(model, tokens, variants, reference, tokens_at_once=100_000)
    for v in (0, 7, 16):
        with SILENT.task("", 1) as task:
            alone = StackSweep(model, [variants[v]], known, 5, 1)
            parts = list(alone.run(tokens.take(np.array([3])), task))
        torch.testing.assert_close(parts[0][2][0, 0], together[v, 3], atol=3e-5, rtol=3e-5)


BAD = [
    ("L0H1", "not a component of an encoder-decoder"), ("encoder.L7H1", "layers are 0 to 2"),
    ("decoder.L2H0", "layers are 0 to 1"), ("encoder.L0H4", "heads are 0 to 3"), ("cross.L0.mlp", "no mlp"),
    ("cross.L0N3", "no neuron"), ("cross.T0", "no position"), ("decoder.L0D32", "dimensions are 0 to 31"),
    ("encoder.L0H3-1", "ends before it begins"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD)
def test_components_outside_the_model_are_refused(models, text, message):
    with pytest.raises(LensError, match=message):
        parse(models[0], text)


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_a_direction_is_taken_out_of_the_stack_that_is_named(models, stack, tmp_path):
    model = models[0]
    raw = np.random.default_rng(0).normal(size=(2, model.width))
    np.save(tmp_path / "two.npy", raw)
    given = Direction(layer=1, stack=stack, file=tmp_path / "two.npy")
    classes = Direction(layer=1, stack=stack, classes=True)
    tokens, reference = (splits_of(model, make_rows())[name] for name in ("validation", "train"))
    tokens = tokens.take(np.arange(2))
    names = {
        name: directions_of(one, model, reference) for name, one in (("file", given), ("classes", classes))
    }
    variants = [given.variant("file", model, "zero"), classes.variant("classes", model, "zero")]
    _, out, _ = swept(model, tokens, variants, reference, directions=names)
    basis = torch.as_tensor(np.linalg.svd(raw, full_matrices=False)[2], dtype=torch.float32)
    for number, plane in enumerate((basis, names["classes"])):
        cut = Edit(Site("resid_post", 1, stack), lambda old, plane=plane: old - old @ plane.T @ plane)
        inputs = collate(tokens, np.array([1])).inputs()
        with torch.no_grad(), editing(model, [cut]):
            expected = model(**inputs)[0]
        torch.testing.assert_close(out[number, 1], expected, atol=1e-5, rtol=1e-5)
    for one, message in (
        (Direction(layer=0, classes=True), "needs stack: encoder or decoder"),
        (Direction(layer=7, stack=stack, classes=True), f"the {stack}'s layers are 0 to"),
    ):
        with pytest.raises(LensError, match=message):
            one.variant("x", model, "zero")


def test_tuning_the_decoder_alone_reads_the_same_as_two_whole_passes(models, monkeypatch):
    """Where tuning left the encoder and a block as they were, they are run once for base and tuned."""
    base, tuned = models[0], copy.deepcopy(models[0])
    with torch.no_grad():
        for parameter in tuned.trunk.get_submodule(tuned.stacks[1].blocks()[1]).parameters():
            parameter.add_(0.05)
    assert shared_depth(base, tuned) == 1
    subject = make_subject(base, tuned)
    wanted = [("spread", {"rows": {"n": 20}})]
    (once,) = look(subject, wanted, LENSES)
    monkeypatch.setattr("tunescope.lenses.reading.shared_depth", lambda *_: 0)
    (twice,) = look(subject, wanted, LENSES)
    key = ["model", "stack", "site", "layer", "metric", "dimension"]
    first, second = (one.table.sort(key)["value"].to_numpy() for one in (once, twice))
    np.testing.assert_allclose(first, second, atol=1e-5, rtol=1e-4)


def test_the_ablation_lens_gives_every_place_its_own_row(subject):
    (output,) = look(subject, [("ablation", {"rows": {"n": 12}, "reference_rows": 12})], LENSES)
    table = output.table
    own = table.filter(
        (pl.col("metric") == "margin_change") & pl.col("class").is_null() & (pl.col("control") == "none")
        & (pl.col("model") == "tuned") & (pl.col("edit") == "zero")
    )  # fmt: skip
    places = own.select("stack", "site", "layer", "head")
    assert places.is_duplicated().sum() == 0
    assert set(own["stack"]) == {"encoder", "decoder"}
    heads = own.filter(pl.col("head").is_not_null()).height
    encoder, decoder = subject.tuned.stacks
    assert heads == encoder.n_layers * encoder.n_heads + 2 * decoder.n_layers * decoder.n_heads
    assert "stack" in output.examples.columns
    mean = output.examples.filter(
        (pl.col("model") == "tuned") & (pl.col("edit") == "zero") & (pl.col("component") == "cross.L1H2")
    )["margin_change"].mean()  # fmt: skip
    shown = own.filter(pl.col("component") == "cross.L1H2")["value"].item()
    assert mean == pytest.approx(shown, abs=1e-5)
    assert any("of the" in one.sentence or "cross." in one.sentence or "coder." in one.sentence
               for one in output.findings)  # fmt: skip


def test_reading_lenses_read_both_stacks_and_equal_a_plain_pass(subject):
    options = {"rows": {"n": 30}}
    wanted = [("cka", options), ("spread", options), ("similarity", options)]
    outputs = {one.lens: one.table for one in look(subject, wanted, LENSES)}
    sites = stream_sites(subject.tuned)
    cells = outputs["cka"].filter((pl.col("model") == "base_tuned") & (pl.col("metric") == "cka"))
    assert cells.height == len(sites) ** 2
    assert (
        cells.select("stack", "site", "layer", "stack_other", "site_other", "layer_other")
        .is_duplicated()
        .sum()
        == 0
    )
    rsa = outputs["similarity"].filter((pl.col("model") == "tuned") & (pl.col("metric") == "rsa_cosine"))
    assert rsa.height == len(sites) ** 2
    assert "bow_tie" not in outputs["cka"]["metric"].to_list()
    tokens = subject.splits["validation"]
    states = []
    for index in range(len(tokens)):
        inputs = collate(tokens, np.array([index])).inputs()
        site = Site("resid_post", 1, "encoder")
        states.append(read(subject.tuned, [site], inputs)[site][0, -1])  # the text's end token
    known = torch.stack(states).double().var(0, unbiased=True)[5].item()
    table = outputs["spread"]
    row = table.filter(
        (pl.col("model") == "tuned") & (pl.col("stack") == "encoder") & (pl.col("site") == "resid_post")
        & (pl.col("layer") == 1) & (pl.col("metric") == "variance") & (pl.col("dimension") == 5)
    )  # fmt: skip
    if len(tokens) <= 30:
        assert row["value"].item() == pytest.approx(known, rel=1e-3)


def test_the_logit_lens_reads_the_decoder_and_ends_at_the_models_own_answer(subject):
    (output,) = look(subject, [("logit_lens", {})], LENSES)
    assert output.table["stack"].unique().to_list() == ["decoder"]
    levels = output.table.filter((pl.col("metric") == "accuracy") & (pl.col("model") == "tuned")).sort(
        "layer"
    )
    assert levels.height == subject.tuned.n_layers + 1
    tokens = subject.splits["validation"]
    right = []
    for index in range(len(tokens)):
        with torch.no_grad():
            logits = subject.tuned(**collate(tokens, np.array([index])).inputs())
        right.append(int(logits.argmax()) == tokens.labels[index])
    assert levels["value"][-1] == pytest.approx(np.mean(right))
    assert any("no head reads the encoder" in note for note in output.provenance["notes"])


def test_a_model_of_one_stack_has_no_column_stack(tmp_path):
    gpt2 = load(str(tiny_folder("gpt2", tmp_path / "gpt2", names=list(NAMES))))
    options = {"rows": {"n": 12}}
    outputs = look(
        make_subject(gpt2, gpt2), [("cka", options), ("ablation", options), ("logit_lens", options)], LENSES
    )
    for output in outputs:
        assert "stack" not in output.table.columns
        assert output.examples is None or "stack" not in output.examples.columns


@pytest.mark.parametrize("name", [name for name, lens in LENSES.items() if not lens.two_stacks])
def test_a_lens_that_cannot_yet_says_so_in_one_sentence(models, name):
    subject = make_subject(*models)
    with pytest.raises(
        LensError, match=f"the lens {name} cannot yet look at an encoder-decoder such as .*can: cka"
    ):
        look(subject, [(name, {})], LENSES)


def test_identical_models_show_no_change(models):
    (output,) = look(make_subject(models[0], models[0]), [("cka", {"rows": {"n": 20}})], LENSES)
    same = output.table.filter(
        (pl.col("model") == "base_tuned") & (pl.col("metric") == "cka") & (pl.col("layer") == pl.col("layer_other"))
        & (pl.col("site") == pl.col("site_other")) & (pl.col("stack") == pl.col("stack_other"))
    )  # fmt: skip
    np.testing.assert_allclose(same["value"].drop_nulls().to_numpy(), 1.0, atol=1e-6)
    assert same.height == len(stream_sites(models[0]))
