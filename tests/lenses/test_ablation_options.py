"""What the ablation lens can be asked for beyond its defaults: sets, curves, samples, metrics, corrections."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from scipy import special, stats
from subjects import make_rows, make_subject

from tiny import tiny_folder
from tunescope.capture import Edit, Site, editing
from tunescope.errors import LensError
from tunescope.evaluation.metrics import margin
from tunescope.evaluation.predict import logits_of
from tunescope.lenses.ablation import findings as ablation_findings
from tunescope.lenses.ablation import lens as ablation
from tunescope.lenses.ablation import table as ablation_table
from tunescope.lenses.ablation.directions import Direction, directions_of
from tunescope.lenses.ablation.lens import AblationOptions
from tunescope.lenses.ablation.samples import Sample, sample_rows
from tunescope.lenses.subject import LensRows, clusters
from tunescope.models import fit_probe, load
from tunescope.stats.maximum import max_t_p

FAST = {
    "rows": LensRows(n=16),
    "reference_rows": 16,
    "edits": ("zero",),
    "components": (),
    "random_control": False,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(str(tiny_folder("gpt2", tmp_path_factory.mktemp("model"))))


def subject_of(model, rows=None, **options):
    return make_subject(model, model, rows, base_head="none", **options)


def shown(table, component, metric="margin_change", edit="zero"):
    found = table.filter(
        (pl.col("component") == component) & (pl.col("metric") == metric) & pl.col("class").is_null()
        & (pl.col("edit") == edit) & (pl.col("control") == "none")
    )  # fmt: skip
    assert found.height == 1, (component, found)
    return found.row(0, named=True)


def test_every_metric_equals_what_the_logits_say(model):
    subject = subject_of(model)
    metrics = (
        "margin_change",
        "probability_change",
        "predicted_margin_change",
        "kl",
        "flip",
        "class_probability_change",
    )
    options = AblationOptions(**{**FAST, "also": ("L1.mlp",), "metrics": metrics})
    table, examples = ablation.run(subject, options)
    tokens = subject.draw(options.rows)
    before = logits_of(model, tokens)
    with editing(model, [Edit(Site("mlp_out", 1), lambda old: old * 0)]):
        after = logits_of(model, tokens)
    p, r = special.softmax(before, 1), special.softmax(after, 1)
    mine = examples.filter(pl.col("component") == "L1.mlp")
    predicted = before.argmax(1)
    expected = {
        "margin_change": margin(after, tokens.labels) - margin(before, tokens.labels),
        "predicted_margin_change": margin(after, predicted) - margin(before, predicted),
        "kl": stats.entropy(p, r, axis=1),
        "flip": (after.argmax(1) != predicted).astype(float),
        "probability_change": np.take_along_axis(r - p, tokens.labels[:, None], 1)[:, 0],
        **{f"probability_change_{name}": (r - p)[:, c] for c, name in enumerate(model.labels.names)},
    }
    for name, values in expected.items():
        np.testing.assert_allclose(mine[name], values, atol=2e-5, err_msg=name)
    assert 0 < expected["flip"].sum() < len(tokens)
    assert shown(table, "L1.mlp", "kl")["value"] == pytest.approx(float(expected["kl"].mean()), abs=1e-5)
    assert shown(table, "L1.mlp", "kl")["p"] is None
    per_class = table.filter((pl.col("metric") == "class_probability_change") & pl.col("class").is_null())
    assert per_class.filter(pl.col("control") == "none")["of"].to_list() == list(model.labels.names)
    assert per_class.filter(pl.col("control") == "none")["value"].sum() == pytest.approx(0, abs=1e-6)


def test_all_but_one_groups_and_places_stand_in_the_table_under_their_names(model):
    options = AblationOptions(
        **{
            **FAST,
            "all_but_one": ("attention",),
            "also": ("L0N0-9", "L2D3", "T-1", "T-1"),
            "groups": {"mine": ("L0H1", "L2.mlp")},
        }
    )
    table, _ = ablation.run(subject_of(model), options)
    names = set(table.filter(pl.col("control") == "none")["component"])
    assert names == {
        "all but L0.attention",
        "all but L1.attention",
        "all but L2.attention",
        "L0N0-9",
        "L2D3",
        "T-1",
        "mine",
    }
    kept = table.filter(pl.col("scope") == "all_but_one")
    assert set(kept["site"]) == {"all_but_one:attn_out"}
    assert sorted(set(kept["layer"])) == [0, 1, 2]
    with pytest.raises(LensError, match="layer 7 is outside the model; its layers are 0 to 2"):
        ablation.run(subject_of(model), AblationOptions(**{**FAST, "also": ("L7H0",)}))


def test_a_removal_curve_ends_where_everything_is_gone_and_begins_with_its_order(model):
    subject = subject_of(model, make_rows(120))
    removal = {
        "of": "heads",
        "orders": ["strongest_first", "weakest_first", "random"],
        "steps": 4,
        "random_orders": 2,
    }
    options = AblationOptions.model_validate(
        {
            **FAST,
            "rows": LensRows(n=40),
            "components": ("heads",),
            "removal": removal,
            "metrics": ("margin_change", "flip"),
        }
    )
    table, examples = ablation.run(subject, options)
    curves = table.filter(
        (pl.col("scope") == "removal") & pl.col("class").is_null() & (pl.col("metric") == "margin_change")
    )
    assert set(curves["order"]) == {"strongest_first", "weakest_first", "random 0", "random 1"}
    assert set(curves["site"]) == {"removal:head_out"}
    steps = dict(curves.group_by("order").agg(pl.col("step").sort()).iter_rows())
    assert all(found == [1, 5, 8, 12] for found in steps.values())
    last = curves.filter(pl.col("step") == 12)["value"]
    assert last.max() - last.min() < 1e-5  # all heads are gone, in whatever order
    tokens = subject.draw(options.rows)
    first, second = ablation_table.halves(tokens, 0)
    assert curves["n"].unique().to_list() == [len(second)]
    picked_on = [tokens.row_ids[i] for i in first]
    ranked = (
        examples.filter(pl.col("row_id").is_in(picked_on)).group_by("component").agg(pl.col("margin_change").mean())
        .sort("margin_change")["component"]
    )  # fmt: skip
    for order, name in (("strongest_first", ranked[0]), ("weakest_first", ranked[-1])):
        one = examples.filter(
            (pl.col("component") == name) & pl.col("row_id").is_in([tokens.row_ids[i] for i in second])
        )
        begin = curves.filter((pl.col("order") == order) & (pl.col("step") == 1))["value"][0]
        assert begin == pytest.approx(one["margin_change"].mean(), abs=1e-5)


def test_halves_share_no_text_and_do_not_depend_on_the_order(model):
    rows = make_rows(120)
    tokens = subject_of(model, rows).draw(LensRows(n=60))
    doubled = tokens.take(np.concatenate([np.arange(len(tokens)), np.arange(10)]))
    first, second = ablation_table.halves(doubled, 3)
    assert sorted([*first, *second]) == list(range(len(doubled)))
    texts = clusters(doubled)
    assert not set(texts[first]) & set(texts[second])
    assert abs(len(set(texts[first])) - len(set(texts[second]))) <= 1
    turned, _ = ablation_table.halves(doubled.take(np.arange(len(doubled))[::-1].copy()), 3)
    assert {len(doubled) - 1 - i for i in turned} == set(first)


def test_the_pick_on_one_half_is_not_inflated_on_the_other():
    """Of 200 components of pure noise the strongest looks strong where it was picked, and like nothing elsewhere."""
    from tunescope.lenses.ablation.components import single
    from tunescope.lenses.ablation.effects import empty_effects

    generator = np.random.default_rng(0)
    picked_there, shown_here = [], []
    for _ in range(40):
        effects = empty_effects([single("head_out", 0, head, "zero") for head in range(200)], 60, 2)
        effects.margin_change[:] = generator.normal(size=(60, 200))
        best = ablation_table._pick(effects.margin_change[:30], effects.variants, ("head_out",), "zero")
        picked_there.append(effects.margin_change[:30, best.head].mean())
        shown_here.append(effects.margin_change[30:, best.head].mean())
    assert np.mean(picked_there) < -0.4  # the largest of 200 means of 30: about 2.75 / sqrt(30) = 0.5
    assert abs(np.mean(shown_here)) < 3 / np.sqrt(30 * 40)


def test_findings_show_the_other_half(tmp_path):
    base, tuned = (load(str(tiny_folder("bert", tmp_path / str(s), seed=s))) for s in (0, 1))
    subject = make_subject(base, tuned, make_rows(120))
    subject.base = fit_probe(base, subject.splits["train"])
    options = AblationOptions(rows=LensRows(n=40), reference_rows=20)
    table, examples = ablation.run(subject, options)
    tokens = subject.draw(options.rows)
    _, second = ablation_table.halves(tokens, 0)
    ids = [tokens.row_ids[i] for i in second]
    found = ablation_findings.findings(table, subject)
    assert len(found) == 3
    for finding in found:
        assert "picked on one half of the rows and is shown on the other" in finding.test
        assert finding.n == len(second)
    best = table.filter(
        (pl.col("pick") == "strongest head") & (pl.col("model") == "tuned") & (pl.col("edit") == "zero")
    )
    assert set(best["control"]) == {"split_half", "split_half_random"}
    name = best["component"][0]
    mine = examples.filter(
        (pl.col("component") == name) & (pl.col("edit") == "zero") & (pl.col("model") == "tuned")
        & pl.col("row_id").is_in(ids)
    )  # fmt: skip
    assert found[0].value == pytest.approx(mine["margin_change"].mean(), abs=1e-5)
    whole, _ = ablation.run(subject, options.model_copy(update={"split_half": False}))
    assert "pick" not in whole.columns
    told = ablation_findings.findings(whole, subject)
    assert "so its size is flattering" in told[0].test


def test_max_t_keeps_the_chance_of_any_false_call_and_finds_what_is_there():
    generator = np.random.default_rng(1)
    false = 0
    for draw in range(100):
        shared = generator.normal(size=(30, 1))
        values = shared + 0.5 * generator.normal(size=(30, 20))  # strongly correlated columns
        false += bool((max_t_p(values, permutations=199, seed=draw) <= 0.05).any())
    assert false <= 12  # 5 expected; 12 or more has probability 0.004
    values = generator.normal(size=(40, 10))
    values[:, 3] += 1.2
    values[:, 5] = 0.0
    p = max_t_p(values, permutations=999)
    assert p[3] < 0.01
    assert p[5] == 1.0
    assert (np.delete(p, 3) > 0.05).all()
    # Against a plain loop, with t itself.
    plain = np.random.default_rng(0)
    t = np.abs(stats.ttest_1samp(np.delete(values, 5, 1), 0).statistic)
    flips = 1.0 - 2.0 * plain.integers(0, 2, (999, 40), dtype=np.int8)
    largest = [
        np.abs(stats.ttest_1samp(np.delete(values, 5, 1) * f[:, None], 0).statistic).max() for f in flips
    ]
    np.testing.assert_allclose(
        np.delete(p, 5), [(sum(x >= one for x in largest) + 1) / 1000 for one in t], atol=0.0021
    )


def test_max_t_is_an_option(model):
    base = {**FAST, "components": ("heads",), "metrics": ("margin_change",)}
    plain, _ = ablation.run(subject_of(model), AblationOptions(**base))
    other, _ = ablation.run(subject_of(model), AblationOptions(**base, correction="max_t"))
    one, two = (
        t.filter((pl.col("scope") == "one") & (pl.col("control") == "none") & pl.col("class").is_null())
        for t in (plain, other)
    )
    assert (two["q"] >= one["p"] - 0.02).all()
    assert not one["q"].equals(two["q"])


def test_samples(model, tmp_path):
    subject = subject_of(model, make_rows(240))
    tokens = subject.tokens("validation")
    chances = special.softmax(logits_of(model, tokens), 1)
    predicted = chances.argmax(1)

    picked, note = sample_rows(subject, LensRows(n=40), Sample(kind="most_confident", per_class=7))
    assert "a selection, not a random sample" in note
    place = {row: i for i, row in enumerate(tokens.row_ids)}
    index = np.array([place[row] for row in picked.row_ids])
    for c in np.unique(predicted):
        own = index[predicted[index] == c]
        assert len(own) == min(7, (predicted == c).sum())
        left = np.setdiff1d(np.flatnonzero(predicted == c), own)
        texts = {tokens.input_ids[i].tobytes() for i in own}
        fresh = [i for i in left if tokens.input_ids[i].tobytes() not in texts]
        if fresh:
            assert chances[own].max(1).min() >= chances[fresh].max(1).max() - 1e-9

    binned, note = sample_rows(subject, LensRows(n=40), Sample(kind="confidence_bins", bins=4))
    assert len(binned) == 40
    assert "bins of confidence" in note
    ranks = np.argsort(np.argsort(chances.max(1), kind="stable"))
    bins = np.bincount(ranks[[place[row] for row in binned.row_ids]] * 4 // len(tokens), minlength=4)
    assert bins.tolist() == [10, 10, 10, 10]

    (tmp_path / "ids.txt").write_text("\n".join(tokens.row_ids[3:9]) + "\n")
    listed, _ = sample_rows(subject, LensRows(), Sample(kind="ids", ids=tmp_path / "ids.txt"))
    assert listed.row_ids == tokens.row_ids[3:9]
    (tmp_path / "ids.txt").write_text("nobody\n")
    with pytest.raises(LensError, match="1 of 1 ids are not in the validation split, the first is 'nobody'"):
        sample_rows(subject, LensRows(), Sample(kind="ids", ids=tmp_path / "ids.txt"))
    with pytest.raises(ValidationError, match="needs the key ids"):
        Sample(kind="ids")

    options = AblationOptions(
        **{**FAST, "also": ("L0H0",), "sample": Sample(kind="most_confident", per_class=5)}
    )
    ablation.run(subject, options)
    assert any("a selection" in text for text in subject.notes)


def test_removing_directions(model, tmp_path):
    subject = subject_of(model, make_rows(120))
    reference = subject.draw(LensRows(split="train", n=16), labelled=False)
    basis = directions_of(Direction(layer=1, classes=True), model, reference)
    assert basis.shape == (2, model.width)  # three classes: their differences span a plane
    np.testing.assert_allclose(basis @ basis.T, np.eye(2), atol=1e-6)
    np.save(
        tmp_path / "plane.npy", 3 * basis.numpy() + np.array([[0], [1]]) * basis[0].numpy()
    )  # same span, not orthonormal
    options = AblationOptions(**{
        **FAST, "edits": ("zero", "mean"),
        "directions": {
            "classes": Direction(layer=1, classes=True), "file": Direction(layer=1, file=tmp_path / "plane.npy"),
        },
    })  # fmt: skip
    table, examples = ablation.run(subject, options)
    tokens = subject.draw(options.rows)
    before = margin(logits_of(model, tokens), tokens.labels)
    with editing(model, [Edit(Site("resid_post", 1), lambda old: old - old @ basis.T @ basis)]):
        after = margin(logits_of(model, tokens), tokens.labels)
    for name in ("classes", "file"):
        mine = examples.filter((pl.col("component") == name) & (pl.col("edit") == "zero"))
        np.testing.assert_allclose(mine["margin_change"], after - before, atol=3e-5)
    assert shown(table, "classes", edit="mean")["value"] != pytest.approx(
        shown(table, "classes")["value"], abs=1e-4
    )
    with pytest.raises(LensError, match="names layer 5; the model's layers are 0 to 2"):
        ablation.run(
            subject, AblationOptions(**{**FAST, "directions": {"far": Direction(layer=5, classes=True)}})
        )
    np.save(tmp_path / "plane.npy", np.ones(5))
    with pytest.raises(LensError, match=r"expected finite directions of shape \[K, 32\], came \(1, 5\)"):
        directions_of(Direction(layer=1, file=tmp_path / "plane.npy"), model, reference)
    with pytest.raises(ValidationError, match="either a file or classes: true"):
        Direction(layer=0)


def test_edits_are_reported_beside_one_another(model):
    edits = ("zero", "mean", "position_mean", "resample", "resample_other_class", "noise")
    options = AblationOptions(
        **{**FAST, "components": ("heads",), "edits": edits, "metrics": ("margin_change",)}
    )
    table, _ = ablation.run(subject_of(model), options)
    heads = table.filter(
        (pl.col("site") == "head_out") & (pl.col("control") == "none") & pl.col("class").is_null()
    )
    wide = heads.pivot("edit", index="component", values="value")
    assert wide.height == 12
    assert set(edits) < set(wide.columns)
    for one in edits:
        for other in edits:
            if one < other:
                assert not np.allclose(wide[one], wide[other], atol=1e-4), (one, other)


def test_a_sweep_that_does_not_fit_is_refused_with_its_plan(model):
    options = AblationOptions(**{**FAST, "components": ("heads",), "memory_gb": 1e-6})
    with pytest.raises(
        LensError, match=r"sweep of 15 changes on 16 rows would hold .* more than memory_gb: 1e-06"
    ) as caught:
        ablation.run(subject_of(model), options)
    assert "memory_gb above" in str(caught.value.hint)
