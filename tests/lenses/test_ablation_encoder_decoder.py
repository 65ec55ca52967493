"""Ablation options on T5 and BART: study 000's table, the screen by gradients, and going on after an interruption."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
import torch
from interrupting import check_sweep_goes_on
from scipy import special
from subjects import make_rows, make_subject

from tiny import NAMES
from tiny_encoder_decoder import folder_of
from tunescope.errors import LensError
from tunescope.evaluation.predict import logits_of
from tunescope.lenses import LENSES, LensRows, look
from tunescope.lenses.ablation import lens as ablation
from tunescope.lenses.ablation import screen as ablation_screen
from tunescope.lenses.ablation import sweep_encoder_decoder as sweeping
from tunescope.lenses.ablation.components import every, parse, projection_bias
from tunescope.lenses.ablation.options import AblationOptions
from tunescope.lenses.ablation.replacement import Statistics, stored_site
from tunescope.lenses.ablation.sweep_encoder_decoder import StackSweep
from tunescope.models import load
from tunescope.progress import SILENT

FAST = {
    "rows": {"n": 10},
    "reference_rows": 10,
    "random_control": False,
    "split_half": False,
    "edits": ("zero",),
}


@pytest.fixture(params=("t5_gated", "bart"), scope="module")
def model(request, tmp_path_factory):
    return load(str(folder_of(request.param, tmp_path_factory.mktemp(request.param), names=list(NAMES))))


@pytest.fixture(scope="module")
def bart(tmp_path_factory):
    return load(str(folder_of("bart", tmp_path_factory.mktemp("bart"), names=list(NAMES))))


def subject_of(model, **options):
    return make_subject(model, model, make_rows(40), base_head="none", **options)


BIASES = {
    "encoder.L1.bias": [(1, "encoder", False)], "decoder.L0.bias": [(0, "decoder", False)],
    "cross.L1.bias": [(1, "decoder", True)],
}  # fmt: skip


def test_as_published_equals_zeroing_the_parameter_and_reading_one_class(bart):
    subject, read = subject_of(bart), bart.labels.names[1]
    options = AblationOptions(**FAST, components=("mlp",), as_published=read)
    table, _ = ablation.run(subject, options)
    tokens = subject.draw(options.rows)
    before = special.softmax(logits_of(bart, tokens), 1)
    predicted = before.argmax(1)
    places = [(layer, "encoder", False) for layer in range(3)]
    places += [(layer, "decoder", cross) for layer in range(2) for cross in (False, True)]
    cases = {**BIASES, "all but encoder.L0.bias": [one for one in places if one != (0, "encoder", False)]}
    for name, changed in cases.items():
        kept = [projection_bias(bart, *one).detach().clone() for one in changed]
        for one in changed:
            projection_bias(bart, *one).data.zero_()
        after = special.softmax(logits_of(bart, tokens), 1)
        for one, bias in zip(changed, kept, strict=True):
            projection_bias(bart, *one).data.copy_(bias)
        mine = table.filter(pl.col("component") == name)
        assert np.abs(after - before).max() > 1e-5, name
        for label in np.unique(predicted):
            for metric, column in (
                ("published_probability_change", 1),
                ("predicted_probability_change", label),
            ):
                one = mine.filter(
                    (pl.col("metric") == metric) & (pl.col("class") == bart.labels.names[label])
                )
                expected = (after - before)[predicted == label, column].mean()
                assert one["value"].item() == pytest.approx(expected, abs=2e-6), name
    true = set(table.filter(pl.col("metric") == "predicted_probability_change")["site"])
    assert {"attn_out", "cross_attn_out", "head_out", "cross_head_out", "cross_attention_bias"} <= true
    assert parse(bart, "cross.L1.bias").parts == every(bart, ("attention_bias",), "zero")[-1].parts


def test_a_model_without_biases_is_refused_with_the_reason(tmp_path):
    t5 = load(str(folder_of("t5", tmp_path, names=list(NAMES))))
    options = AblationOptions(**FAST, as_published=t5.labels.names[0])
    with pytest.raises(LensError, match="projection of block 0 has no bias in T5, so none can be zeroed"):
        ablation.run(subject_of(t5), options)
    with pytest.raises(LensError, match="has no bias in T5"):
        parse(t5, "cross.L1.bias")


def margins(logits, labels):
    z = logits.double().numpy()
    own = np.take_along_axis(z, np.broadcast_to(labels[..., None], (*z.shape[:-1], 1)), -1)[..., 0]
    others = np.where(np.arange(z.shape[-1]) == labels[..., None], -np.inf, z)
    return own - special.logsumexp(others, -1)


def test_the_screens_estimates_are_exact_to_first_order(model):
    """A change scaled down to nothing has the effect that its gradient says."""
    tokens = subject_of(model).draw(LensRows(n=5))
    variants = every(model, ("heads", "attention", "mlp", "block"), "noise")
    variants += [parse(model, text, "noise") for text in ("encoder.L1N3-9", "decoder.T1", "decoder.L0D2-5")]
    known = Statistics(deviation={})
    for variant in variants:
        for part in variant.parts:
            known.deviation[stored_site(part)] = torch.tensor(1e-3)
    sweep = StackSweep(model, variants, known, 3)
    with SILENT.task("", 1) as task:
        found = ablation_screen.estimates(sweep, tokens, task)
        exact = np.empty((len(tokens), len(variants)))
        for index, clean, changed in sweep.run(tokens, task):
            labels = tokens.labels[index]
            exact[index] = margins(changed, labels).T - margins(clean, labels)[:, None]
    scale = np.abs(exact).max()
    assert scale > 1e-4
    np.testing.assert_allclose(found[0], exact, atol=0.03 * scale)
    assert len(found) == 1 + 5  # three blocks of the encoder and two of the decoder can be dropped
    assert np.abs(found[1:] - found[:1]).max() > 0.05 * scale
    for number, (stack, layer) in enumerate([("encoder", 0), ("encoder", 1), ("encoder", 2), ("decoder", 0)]):
        own = [
            index for index, one in enumerate(variants)
            if (one.stack, one.layer) == (stack, layer) and one.site in ("head_out", "cross_head_out", "mlp_out")
        ]  # fmt: skip
        assert np.abs(found[1 + number][:, own]).max() == 0  # the block that is dropped gives nothing
    early = [index for index, one in enumerate(variants) if (one.stack, one.layer) == ("encoder", 0)]
    later = [index for index, one in enumerate(variants) if one.stack == "decoder"]
    # Without the encoder's block 1 what lies before it loses a way to the answer, and the decoder's parts lose none.
    assert np.abs(found[2][:, early] - found[0][:, early]).max() > 0.01 * scale
    np.testing.assert_array_equal(found[2][:, later], found[0][:, later])


def test_a_screen_passes_on_what_it_ranks_first(model):
    options = {**FAST, "components": ["heads", "attention"]}
    (whole,) = look(subject_of(model), [("ablation", options)], LENSES)
    (output,) = look(
        subject_of(model), [("ablation", {**options, "screen": {"verify": 5, "check": True}})], LENSES
    )
    (few,) = look(subject_of(model), [("ablation", {**options, "screen": {"verify": 5}})], LENSES)
    said = {row["metric"]: row["value"] for row in output.table.filter(pl.col("by") == "graddrop").to_dicts()}
    assert said["screen_rank_correlation"] > 0
    shown = [
        one.table.filter(
            (pl.col("metric") == "margin_change") & pl.col("class").is_null()
            & (pl.col("model") == "tuned") & (pl.col("control") == "none")
        )
        for one in (few, whole)
    ]  # fmt: skip
    assert shown[0].height == 5
    effects = dict(shown[1].select("component", "value").iter_rows())
    assert all(effects[name] == pytest.approx(value, abs=1e-6)
               for name, value in shown[0].select("component", "value").iter_rows())  # fmt: skip
    worst = max(abs(value) for name, value in effects.items() if name not in set(shown[0]["component"]))
    assert abs(said["screen_worst_miss"]) == pytest.approx(worst, abs=1e-6)
    assert any("screened" in note for note in few.provenance["notes"])


def test_an_interrupted_sweep_goes_on_where_it_was(model, tmp_path, monkeypatch):
    options = AblationOptions(**FAST, components=("heads",), tokens_at_once=64)
    check_sweep_goes_on(
        monkeypatch,
        sweeping,
        lambda folder: ablation.run(dataclasses.replace(subject_of(model), unfinished=folder), options)[0],
        tmp_path / "unfinished",
        name="trace_stacks",
    )
