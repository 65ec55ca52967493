"""Study 000 as published, the screen by attribution, interrupted sweeps, and seeds as controls."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
from interrupting import check_sweep_goes_on
from scipy import special, stats
from subjects import make_rows, make_subject

from tiny import tiny_folder
from tunescope.capture import Edit, Site, editing
from tunescope.errors import LensError
from tunescope.evaluation.predict import logits_of
from tunescope.lenses.ablation import lens as ablation
from tunescope.lenses.ablation import screen as ablation_screen
from tunescope.lenses.ablation import seeds as ablation_seeds
from tunescope.lenses.ablation import sweep as sweep_module
from tunescope.lenses.ablation.components import every, joint, parse, projection_bias, single
from tunescope.lenses.ablation.lens import AblationOptions
from tunescope.lenses.ablation.replacement import Statistics
from tunescope.lenses.ablation.sweep import Sweep
from tunescope.lenses.subject import LensRows
from tunescope.models import load
from tunescope.progress import SILENT

FAST = {
    "rows": LensRows(n=16), "reference_rows": 16, "edits": ("zero",), "components": (), "random_control": False,
    "metrics": ("margin_change",), "split_half": False,
}  # fmt: skip


@pytest.fixture(scope="module", params=["gpt2", "bert"])
def model(request, tmp_path_factory):
    return load(str(tiny_folder(request.param, tmp_path_factory.mktemp("model"))))


def subject_of(model, rows=None, **options):
    return make_subject(model, model, rows, base_head="none", **options)


def without_biases(model, layers):
    """Set the biases themselves to zero, as the published code did to its parameters; returns what undoes it."""
    before = {layer: projection_bias(model, layer).detach().clone() for layer in layers}
    for layer in layers:
        projection_bias(model, layer).data.zero_()
    return before


def test_as_published_equals_zeroing_the_parameter_and_reading_one_class(model):
    with_biases = [projection_bias(model, layer).data.normal_(0, 0.5) for layer in range(model.n_layers)]
    assert all(float(bias.abs().max()) > 0 for bias in with_biases)
    subject = subject_of(model)
    read = model.labels.names[1]
    options = AblationOptions(**{**FAST, "as_published": read})
    table, _ = ablation.run(subject, options)
    tokens = subject.draw(options.rows)
    before = special.softmax(logits_of(model, tokens), 1)
    predicted = before.argmax(1)
    cases = {f"L{layer}.bias": [layer] for layer in range(model.n_layers)}
    cases["all but L0.bias"] = list(range(1, model.n_layers))
    for name, layers in cases.items():
        kept = without_biases(model, layers)
        after = special.softmax(logits_of(model, tokens), 1)
        for layer, bias in kept.items():
            projection_bias(model, layer).data.copy_(bias)
        mine = table.filter(pl.col("component") == name)
        for label in np.unique(predicted):
            rows, column = predicted == label, model.labels.names[label]
            for metric, place in (
                ("published_probability_change", 1),
                ("predicted_probability_change", label),
            ):
                one = mine.filter((pl.col("metric") == metric) & (pl.col("class") == column)).row(
                    0, named=True
                )
                assert one["value"] == pytest.approx((after - before)[rows, place].mean(), abs=2e-6)
                assert (one["n"], one["of"]) == (rows.sum(), model.labels.names[place])
    with editing(model, [Edit(Site("attn_out", 1), lambda old: old * 0)]):
        true = special.softmax(logits_of(model, tokens), 1) - before
    label = int(predicted[0])
    one = table.filter(
        (pl.col("component") == "L1.attention") & (pl.col("metric") == "predicted_probability_change")
        & (pl.col("class") == model.labels.names[label])
    )  # fmt: skip
    assert one["value"][0] == pytest.approx(true[predicted == label, label].mean(), abs=2e-6)
    with pytest.raises(LensError, match="as_published names the class 'glee'; the classes are"):
        ablation.run(subject, AblationOptions(**{**FAST, "as_published": "glee"}))


def test_a_bias_goes_with_its_sublayer_and_has_only_one_edit(model):
    both = joint([parse(model, "L1.bias"), parse(model, "L1.attention")], "both", "zero")
    assert both.parts == single("attn_out", 1, None, "zero").parts
    apart = joint([parse(model, "L1.bias"), parse(model, "L1H0")], "apart", "zero")
    assert len(apart.parts) == 2
    assert every(model, ("attention_bias",), "mean") == []


def test_a_model_without_biases_is_refused(tmp_path):
    llama = load(str(tiny_folder("llama", tmp_path)))
    with pytest.raises(LensError, match="has no bias in Llama, so none can be zeroed"):
        every(llama, ("attention_bias",), "zero")


def test_estimates_are_exact_to_first_order(model):
    """A change scaled down to nothing has the effect that its gradient says."""
    subject = subject_of(model)
    tokens = subject.draw(LensRows(n=8))
    variants = every(model, ("heads", "attention", "mlp"), "noise")
    size = 1e-3
    known = Statistics(deviation={})
    for variant in variants:
        for part in variant.parts:
            site = ablation_screen.stored_site(part)
            shape = (model.n_heads, model.width // model.n_heads) if site.name == "head_z" else (model.width,)
            known.deviation[site] = size * np_ones(shape)
    sweep = Sweep(model, variants, known, 3)
    with SILENT.task("", 1) as task:
        found = ablation_screen.estimates(sweep, tokens, task)
        exact = np.empty((len(tokens), len(variants)))
        for index, clean, changed in sweep.run(tokens, task):
            exact[index] = (
                margins(changed, tokens.labels[index]).T - margins(clean, tokens.labels[index])[:, None]
            )
    scale = np.abs(exact).max()
    assert scale > 1e-4
    np.testing.assert_allclose(found[0], exact, atol=0.02 * scale)
    assert np.abs(found[1:] - found[:1]).max() > 0.05 * scale  # a dropped block takes something away
    own = [index for index, one in enumerate(variants) if one.layer == 1]
    assert np.abs(found[2][:, own]).max() == 0  # the block whose gradient is dropped gives nothing


def np_ones(shape):
    import torch

    return torch.ones(shape)


def margins(logits, labels):
    """The margin of the true class, by the definition, in numpy."""
    z = logits.double().numpy()
    own = np.take_along_axis(z, np.broadcast_to(labels[..., None], (*z.shape[:-1], 1)), -1)[..., 0]
    others = np.where(np.arange(z.shape[-1]) == labels[..., None], -np.inf, z)
    return own - special.logsumexp(others, -1)


def test_a_screen_passes_on_what_it_ranks_first_and_says_what_it_missed(model):
    options = {**FAST, "components": ("heads", "mlp"), "random_control": True}
    whole, _ = ablation.run(subject_of(model), AblationOptions(**options))
    subject = subject_of(model)
    few, _ = ablation.run(subject, AblationOptions.model_validate({**options, "screen": {"verify": 4}}))
    assert "only the 4 best were run exactly" in subject.notes[-1]
    is_effect = (
        (pl.col("metric") == "margin_change") & (pl.col("control") == "none") & pl.col("class").is_null()
    )
    own, every_one = few.filter(is_effect), whole.filter(is_effect)
    assert own.height == 4 < every_one.height
    same = own.join(every_one, on="component", suffix="_all")
    np.testing.assert_allclose(same["value"], same["value_all"], atol=1e-6)
    assert set(few.filter(pl.col("control") == "random")["component"]) == set(own["component"])
    checked, _ = ablation.run(
        subject_of(model), AblationOptions.model_validate({**options, "screen": {"verify": 4, "check": True}})
    )
    assert checked.filter(is_effect).height == every_one.height
    sizes = dict(zip(every_one["component"], np.abs(every_one["value"]), strict=True))
    missed = max((name for name in sizes if name not in set(own["component"])), key=lambda name: sizes[name])
    worst = checked.filter(pl.col("metric") == "screen_worst_miss").row(0, named=True)
    assert (worst["component"], abs(worst["value"])) == (missed, pytest.approx(sizes[missed], abs=1e-6))
    rank = checked.filter(pl.col("metric") == "screen_worst_miss_rank")["value"][0]
    assert rank == 1 + sum(size > sizes[missed] for size in sizes.values())
    agreement = checked.filter(pl.col("metric") == "screen_rank_correlation").rows_by_key(
        "by", named=True, unique=True
    )
    assert set(agreement) == {"graddrop", "plain"}
    assert agreement["plain"]["low"] <= agreement["plain"]["value"] <= agreement["plain"]["high"]


def test_removal_curves_rank_every_component_also_those_that_a_screen_left_out(model):
    removal = {"of": "heads", "steps": 2, "random_orders": 1}
    options = {**FAST, "components": ("heads", "mlp"), "removal": removal}
    whole, _ = ablation.run(subject_of(model), AblationOptions.model_validate(options))
    few, _ = ablation.run(
        subject_of(model), AblationOptions.model_validate({**options, "screen": {"verify": 2}})
    )
    curve = (pl.col("scope") == "removal") & (pl.col("metric") == "margin_change")
    assert whole.filter(curve).height == few.filter(curve).height > 0
    np.testing.assert_allclose(few.filter(curve)["value"], whole.filter(curve)["value"], atol=1e-6)


def test_an_interrupted_sweep_goes_on_where_it_was(model, tmp_path, monkeypatch):
    options = AblationOptions(**{**FAST, "components": ("heads",), "tokens_at_once": 64})
    check_sweep_goes_on(
        monkeypatch,
        sweep_module,
        lambda folder: ablation.run(dataclasses.replace(subject_of(model), unfinished=folder), options)[0],
        tmp_path / "unfinished",
    )


def test_another_sweep_does_not_read_what_was_kept(model, tmp_path):
    subject = dataclasses.replace(subject_of(model), unfinished=tmp_path)
    tokens, reference = subject.draw(LensRows(n=8)), subject.draw(LensRows(n=8, split="train"))
    keys = []
    for change in ({}, {"edits": ("mean",)}, {"components": ("mlp",)}):
        options = AblationOptions(**{**FAST, "components": ("heads",), **change})
        store = ablation.sweep_store(
            tmp_path, model, ablation.planned(model, options), (tokens, reference), options, 0
        )
        keys.append(store.key)
    head = model.head.state_dict()
    name = next(iter(head))
    before = head[name].clone()
    head[name] += 1e-3
    options = AblationOptions(**{**FAST, "components": ("heads",)})
    keys.append(
        ablation.sweep_store(
            tmp_path, model, ablation.planned(model, options), (tokens, reference), options, 0
        ).key
    )
    head[name].copy_(before)
    fewer = (tokens.take(np.arange(6)), reference)
    keys.append(
        ablation.sweep_store(tmp_path, model, ablation.planned(model, options), fewer, options, 0).key
    )
    assert len(set(keys)) == len(keys)
    store = ablation.sweep_store(tmp_path, model, ablation.planned(model, options), fewer, options, 0)
    assert store.key == keys[-1]
    (store.folder / store.key).mkdir(parents=True)
    store._path(np.arange(2)).write_bytes(b"cut short")
    assert store.get(np.arange(2)) is None


def test_a_sweep_that_does_not_fit_names_the_flag_and_the_rows_that_would(model):
    options = AblationOptions(**{**FAST, "components": ("heads",), "memory_gb": 1e-5})
    with pytest.raises(LensError, match=r"more than memory_gb: 1e-05 allows") as error:
        ablation.run(subject_of(model), options)
    assert "memory_gb above" in str(error.value.hint)


def test_seeds_are_compared_component_by_component_and_their_maps_by_rank():
    generator = np.random.default_rng(0)
    shared = generator.normal(size=40)
    noise = 0.05 * generator.normal(size=(2, 60, 40))
    groups = np.repeat(np.arange(30), 2)
    pair = ablation_seeds.Pair(shared + noise[0], 2 * shared + noise[1], [], groups)
    found = ablation_seeds.rank_correlation(pair, 0)
    expected = stats.spearmanr(pair.first.mean(0), pair.second.mean(0)).statistic
    assert found["value"] == pytest.approx(expected)
    assert found["low"] <= found["value"] <= found["high"]
    assert found["p"] == pytest.approx(1 / 2000)
    other = ablation_seeds.Pair(pair.first, generator.normal(size=(60, 40)), [], groups)
    assert ablation_seeds.rank_correlation(other, 0)["p"] > 0.01


def test_two_seeds_of_one_arm(tmp_path):
    from tunescope.lenses import LENSES, SeveralSeeds, look

    rows, subjects = make_rows(90), {}
    base = load(str(tiny_folder("gpt2", tmp_path / "base", seed=9)))
    for seed in (0, 1):
        tuned = load(str(tiny_folder("gpt2", tmp_path / str(seed), seed=seed)))
        subjects[seed] = dataclasses.replace(make_subject(base, tuned, rows, base_head="tuned"), seed=seed)
    options = {"rows": {"n": 20}, "reference_rows": 16, "components": ["heads"], "random_control": False}
    outputs = [look(subject, [("ablation", options)], LENSES)[0] for subject in subjects.values()]
    several = SeveralSeeds(
        "arm", [0, 1], subjects.__getitem__, pl.concat([one.table for one in outputs]),
        pl.concat([one.examples for one in outputs]),
    )  # fmt: skip
    found = ablation_seeds.across_seeds(several, AblationOptions.model_validate(options))
    apart = found.table.filter(pl.col("metric") == "margin_change")
    own = [
        one.table.filter(
            (pl.col("metric") == "margin_change") & (pl.col("model") == "tuned") & (pl.col("edit") == "zero")
            & pl.col("class").is_null() & (pl.col("control") == "none")
        ).rows_by_key("component", named=True, unique=True)
        for one in outputs
    ]  # fmt: skip
    assert apart.height == len(own[0]) == 12
    for row in apart.iter_rows(named=True):
        expected = own[1][row["component"]]["value"] - own[0][row["component"]]["value"]
        assert row["value"] == pytest.approx(expected, abs=1e-5)
        assert row["low"] <= row["value"] <= row["high"]
    ranks = found.table.filter(pl.col("metric") == ablation_seeds.CORRELATION)
    assert sorted(ranks["control"]) == ["base", "none"]
    assert ranks["seed_other"].to_list() == [1, 1]
    assert "the rank correlation of the ablation maps is" in found.findings[0].sentence
