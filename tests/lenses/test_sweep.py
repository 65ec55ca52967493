"""The exact sweep against full forward passes with hooks: every place, every edit, every pooling, every family."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from subjects import make_rows, splits_of

from tiny import FAMILIES, tiny_folder
from tunescope.capture import Edit, Site, editing, read
from tunescope.data.batches import collate
from tunescope.errors import LensError
from tunescope.lenses.ablation import sweep as sweeping
from tunescope.lenses.ablation.components import (
    all_but_one,
    every,
    group,
    named_groups,
    neuron_weights,
    pairs,
    parse,
    removals,
    single,
)
from tunescope.lenses.ablation.replacement import Donors, needs_statistics, statistics, stored_site
from tunescope.lenses.ablation.sweep import Sweep, equal_length_batches
from tunescope.models import load
from tunescope.progress import SILENT

PLACES = ["L0H2", "L1H0-2", "L2H3", "L0.attention", "L2.attention", "L0.mlp", "L2.mlp", "L1.block", "L2.block",
          "L0N3-9", "L2N5", "L1D4-6", "L2D0", "T0", "T-1"]  # fmt: skip
SETS = {
    "far": ("L0H1", "L2H2"), "all kinds": ("L0H1", "L1.mlp", "L1D3", "L2N4-8"), "one block": ("L1H1", "L1.mlp", "L1D5"),
    "overlap": ("L1H1", "L1.attention", "L1H1-2"), "words": ("T0", "T1", "L2D1"),
}  # fmt: skip


def all_variants(model, edits):
    found = []
    for edit in edits:
        found += [parse(model, text, edit) for text in PLACES] + named_groups(model, SETS, edit)
    heads = every(model, ("heads",), edits[0])
    return found + all_but_one(heads)[:2] + removals(heads[::-1], "x", [3, 12]) + pairs(heads[:3], True)


def swept(model, tokens, variants, reference, **options):
    known = None
    with SILENT.task("", 1) as task:
        known = statistics(model, reference, needs_statistics(variants), True, task)
        sweep = Sweep(model, variants, known, 5, donors=reference, **options)
        out = torch.empty(len(variants), len(tokens), 3)
        clean = torch.empty(len(tokens), 3)
        for index, before, after in sweep.run(tokens, task):
            out[:, index], clean[index] = after, before
    return clean, out, known


def naive(model, tokens, index, variant, known, reference):
    """One row, one full forward pass with tunescope's public edits; values are worked out here once more."""
    inputs = collate(tokens, np.array([index])).inputs()
    length = inputs["input_ids"].shape[1]
    edits = []
    for part in variant.parts:
        site = stored_site(part)

        lent = None
        if variant.edit.startswith("resample"):
            donor = Donors(reference, 5).choose(tokens, index, variant.edit == "resample_other_class")
            lent = read(model, [site], collate(reference, np.array([donor])).inputs())[site][0]

        def change(old, part=part, site=site, lent=lent):
            if variant.edit == "zero":
                new = torch.zeros_like(old)
            elif variant.edit == "mean":
                new = known.mean[site].expand_as(old)
            elif variant.edit == "position_mean":
                rows = [
                    known.by_position[site][t] if t < len(known.by_position[site]) else known.mean[site]
                    for t in range(length)
                ]
                new = torch.stack(rows)[None]
            else:
                shift = len(lent) - length if model.pooling == "last" else 0
                new = lent[[min(max(t + shift, 0), len(lent) - 1) for t in range(length)]][None]
            out = old.clone()
            units = list(range(old.shape[2])) if part.units is None else list(part.units)
            at = (
                range(length)
                if part.positions is None
                else [p % length for p in part.positions if p < length]
            )
            for t in at:
                out[:, t, units] = new[:, t, units]
            return out

        edits.append(Edit(site, change))
    with torch.no_grad(), editing(model, edits):
        return model(**inputs)[0]


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [("gpt2", "last"), ("gpt2", "mean"), ("gpt2", "first"), ("bert", "first"), ("bert", "mean"), ("bert", "last"),
     ("distilbert", "first"), ("roberta", "first"), ("distilbert", "mean"), ("roberta", "first_raw")],
)  # fmt: skip
def test_every_change_equals_a_full_pass(kind, pooling, tmp_path):
    model = load(str(tiny_folder(kind, tmp_path)), pooling=pooling)
    splits = splits_of(model, make_rows())
    tokens, reference = splits["validation"].take(np.arange(9)), splits["train"]
    every_edit = (kind, pooling) in (("gpt2", "last"), ("bert", "mean"))
    edits = (
        ("zero", "mean", "position_mean", "resample", "resample_other_class") if every_edit else ("resample",)
    )
    variants = all_variants(model, edits)
    clean, out, known = swept(model, tokens, variants, reference)
    for index in (5,):
        with torch.no_grad():
            torch.testing.assert_close(
                clean[index], model(**collate(tokens, np.array([index])).inputs())[0], atol=1e-5, rtol=1e-5
            )
        for number, variant in enumerate(variants):
            expected = naive(model, tokens, index, variant, known, reference)
            torch.testing.assert_close(
                out[number, index],
                expected,
                atol=1e-5,
                rtol=1e-5,
                msg=lambda m, v=variant: f"{v.name} {v.edit}: {m}",
            )


def test_results_of_a_row_do_not_depend_on_its_mates_or_on_the_chunks(tmp_path):
    model = load(str(tiny_folder("gpt2", tmp_path)))
    splits = splits_of(model, make_rows())
    variants = all_variants(model, ("resample", "noise"))
    variants += [single("head_out", 1, 2, "zero", "random"), single("mlp_out", 0, None, "mean", "random")]
    tokens = splits["validation"]
    _, whole, _ = swept(model, tokens, variants, splits["train"])
    _, small, _ = swept(model, tokens, variants, splits["train"], tokens_at_once=1)
    _, alone, _ = swept(model, tokens.take(np.array([7, 3])), variants, splits["train"])
    torch.testing.assert_close(whole, small, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole[:, [7, 3]], alone, atol=1e-5, rtol=1e-5)


def test_noise_has_the_spread_of_the_component_and_a_control_its_norm(tmp_path):
    model = load(str(tiny_folder("gpt2", tmp_path)))
    splits = splits_of(model, make_rows(600))
    tokens = splits["validation"].take(np.arange(200))
    variant = parse(model, "L2.mlp", "noise")
    with SILENT.task("", 1) as task:
        known = statistics(model, splits["train"], needs_statistics([variant]), False, task)
    site = Site("mlp_out", 2)
    seen = []
    for batch in equal_length_batches(tokens, 500):
        from tunescope.lenses.ablation.replacement import Replacer

        length = batch.input_ids.shape[1]
        replacer = Replacer(model, known, batch.row_ids, length, 0)
        current = torch.zeros(len(batch), length, model.width)
        seen.append(replacer.delta(variant, variant.parts[0], current, torch.arange(length)).flatten(0, 1))
    drawn = torch.cat(seen)
    # 200 rows of 2 to 11 tokens and more: about 1,500 draws a dimension, so a deviation is known to 2 %.
    torch.testing.assert_close(drawn.std(0), known.deviation[site], rtol=0.15, atol=0)
    assert float((drawn.mean(0) / known.deviation[site]).abs().max()) < 0.15


def test_donors_have_about_the_same_length_another_text_and_another_class(tmp_path):
    model = load(str(tiny_folder("gpt2", tmp_path)))
    splits = splits_of(model, make_rows(200))
    tokens, reference = splits["validation"], splits["train"]
    donors = Donors(reference, 1)
    lengths = {len(ids) for ids in reference.input_ids}
    for index in range(len(tokens)):
        donor = donors.choose(tokens, index, other_class=True)
        own = tokens.input_ids[index]
        assert reference.labels[donor] != tokens.labels[index]
        assert not np.array_equal(reference.input_ids[donor], own)
        if len(own) in lengths:
            assert abs(len(reference.input_ids[donor]) - len(own)) <= max(3, 0.1 * len(own))
    assert len({donors.choose(tokens, index, False) for index in range(len(tokens))}) > 20
    one = reference.take(np.array([0]))
    with pytest.raises(LensError, match=r"no reference row has another text and class.*"):
        Donors(one, 1).choose(one, 0, other_class=True)


def test_equal_length_batches_hold_every_row_once(tmp_path):
    model = load(str(tiny_folder("bert", tmp_path)))
    tokens = splits_of(model, make_rows(100))["validation"]
    seen = []
    for batch in equal_length_batches(tokens, 40):
        assert bool(batch.attention_mask.all())
        assert batch.input_ids.numel() <= 40 or len(batch) == 1
        seen += batch.index.tolist()
    assert sorted(seen) == list(range(len(tokens)))


def test_components_outside_the_model_are_refused_with_the_valid_range(tmp_path):
    model = load(str(tiny_folder("gpt2", tmp_path)))
    for text, message in {
        "L3H0": "layer 3 is outside the model; its layers are 0 to 2",
        "L0H4": "head 4 is outside the model; its heads are 0 to 3",
        "L0H2-9": "head 9 is outside the model; its heads are 0 to 3",
        "L1N128": "neuron 128 is outside the model; its neurons are 0 to 127",
        "L1D32": "dimension 32 is outside the model; its dimensions are 0 to 31",
        "H3": "'H3' is not a component",
        "L1H3-1": "ends before it begins",
    }.items():
        with pytest.raises(LensError, match=message):
            parse(model, text)
    with pytest.raises(LensError, match="The group 'none' has no member"):
        group(model, "none", ())


def test_neurons_add_up_to_the_mlp_output(tmp_path):
    for kind in FAMILIES:
        model = load(str(tiny_folder(kind, tmp_path / kind)))
        inputs = collate(splits_of(model, make_rows())["train"], np.array([0])).inputs()
        found = read(model, [Site("mlp_neurons", 1), Site("mlp_out", 1)], inputs)
        bias = model.trunk.get_submodule(model.family.path("mlp_projection", 1)).bias
        made = found[Site("mlp_neurons", 1)] @ neuron_weights(model, 1) + (0 if bias is None else bias)
        torch.testing.assert_close(made, found[Site("mlp_out", 1)], atol=1e-5, rtol=1e-5)


def test_activations_that_are_not_finite_name_layer_and_row(tmp_path):
    model = load(str(tiny_folder("gpt2", tmp_path)))
    splits = splits_of(model, make_rows())
    with torch.no_grad():
        model.trunk.h[1].mlp.c_proj.bias[0] = float("nan")
    with pytest.raises(LensError, match=r"behind block 1 is not finite for row row-\d+"):
        swept(model, splits["validation"], [single("head_out", 0, 0, "zero")], splits["train"])


def test_nothing_is_left_behind(tmp_path):
    model = load(str(tiny_folder("gpt2", tmp_path)))
    splits = splits_of(model, make_rows())
    inputs = collate(splits["train"], np.arange(3)).inputs()
    with torch.no_grad():
        before = model(**inputs)
    swept(model, splits["validation"], all_variants(model, ("zero",)), splits["train"])
    with torch.no_grad():
        assert torch.equal(model(**inputs), before)
    assert not any("forward" in vars(module) for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert model.model.config._attn_implementation == "sdpa"


def test_work_is_cut_to_the_memory_that_is_allowed(tmp_path, monkeypatch):
    model = load(str(tiny_folder("gpt2", tmp_path)))
    splits = splits_of(model, make_rows())
    variants = every(model, ("heads", "mlp"), "zero")
    _, whole, _ = swept(model, splits["validation"], variants, splits["train"])
    monkeypatch.setattr(sweeping, "STORED_BYTES", 1)
    _, alone, _ = swept(model, splits["validation"], variants, splits["train"])
    torch.testing.assert_close(whole, alone, atol=1e-5, rtol=1e-5)
