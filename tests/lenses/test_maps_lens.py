"""The lens of maps: one frame for base and tuned, planted clusters, and what must be refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError
from subjects import make_rows, make_subject

from tiny import tiny_folder
from tunescope.data.rows import Rows
from tunescope.errors import LensError, MissingDependencyError
from tunescope.lenses import LENSES, look
from tunescope.lenses.maps.frames import Frames, Stage
from tunescope.lenses.maps.options import MapOptions
from tunescope.models import load
from tunescope.stats.embedding import LIBRARIES

QUICK = {"clusters": {"resamples": 20, "permutations": 19, "most": 4}}
PCA = {"methods": ["pca"], "rows": {"n": 40}, **QUICK}


def maps_of(subject, **options):
    return look(subject, [("maps", {**PCA, **options})], LENSES)[0]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    return [load(str(tiny_folder("gpt2", folder / str(s), seed=s, layers=3))) for s in (0, 1)]


def side(examples, model, **wanted):
    kept = examples.filter(
        pl.col("model") == model, *(pl.col(name) == value for name, value in wanted.items())
    )
    return kept.select("x", "y", "z").to_numpy()


# UMAP draws at random for every point, so equal rows stay together only because they are one point.
@pytest.mark.parametrize("method", ["pca", "tsne", pytest.param("umap", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_identical_models_lie_on_one_another_and_nothing_is_found(kind, method, tmp_path):
    model = load(str(tiny_folder(kind, tmp_path)))
    output = maps_of(make_subject(model, model), methods=[method], axes=[2])
    np.testing.assert_array_equal(side(output.examples, "base"), side(output.examples, "tuned"))
    moved = output.table.filter((pl.col("metric") == "movement") & pl.col("value").is_not_null())
    assert set(moved["value"]) == {0.0}
    change = output.table.filter(pl.col("model") == "tuned_minus_base")
    assert set(change["value"]) == {0.0}
    assert output.findings == []


def test_blocks_that_tuning_left_alone_do_not_move(pair, tmp_path):
    tuned = load(str(tiny_folder("gpt2", tmp_path, seed=0, layers=3)))
    with torch.no_grad():
        tuned.trunk.h[2].mlp.c_proj.weight.add_(torch.randn_like(tuned.trunk.h[2].mlp.c_proj.weight))
    output = maps_of(make_subject(pair[0], tuned), methods=["pca", "tsne"], axes=[2], layers=[0, 1, 2])
    for layer, still in ((0, True), (1, True), (2, False)):
        ours, theirs = (side(output.examples, which, layer=layer) for which in ("base", "tuned"))
        assert np.array_equal(ours[:, :2], theirs[:, :2]) == still, layer
    moved = output.table.filter((pl.col("metric") == "movement") & (pl.col("method") == "full")).sort("layer")
    assert moved["value"][:2].to_list() == [0, 0]
    assert moved["low"][2] > 0


def test_the_same_rows_give_the_same_maps_in_any_order_of_the_file(pair):
    rows = make_rows(90)
    turned = Rows(rows.frame.reverse(), rows.labels, rows.provenance)
    first, again = (
        maps_of(make_subject(*pair, given), methods=["pca", "tsne"], axes=[2]) for given in (rows, turned)
    )
    assert first.examples.equals(again.examples)
    assert first.table.equals(again.table)


def test_padding_and_batches_change_nothing_but_rounding(pair, monkeypatch):
    subject = make_subject(*pair)
    first = maps_of(subject, axes=[3])
    monkeypatch.setattr("tunescope.lenses.reading.WINDOW", 7)
    again = maps_of(subject, axes=[3])
    for model in ("base", "tuned"):
        np.testing.assert_allclose(side(first.examples, model), side(again.examples, model), atol=1e-4)
    assert first.examples["kmeans"].equals(again.examples["kmeans"])


def test_coordinates_are_principal_components_of_both_models_together(pair):
    subject = make_subject(*pair)
    caught = {}
    stage_of = Frames.draw

    def keep(self, stage):
        caught[stage.about["layer"]] = stage
        return stage_of(self, stage)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Frames, "draw", keep)
        output = maps_of(subject, axes=[2], layers=[1, 3])
    stage = caught[1]
    states = stage.values[stage.place]
    centred = states - states.mean(axis=0)
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    expected = (left * lengths)[:, :2]
    found = np.vstack([side(output.examples, which, layer=1)[:, :2] for which in ("base", "tuned")])
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-6)
    share = output.table.filter((pl.col("metric") == "explained_variance") & (pl.col("layer") == 1))[
        "value"
    ].item()
    assert share == pytest.approx((lengths[:2] ** 2).sum() / (lengths**2).sum())


def test_a_layer_that_only_turns_does_not_turn_the_map():
    generator = np.random.default_rng(0)
    states = generator.normal(size=(40, 6)) * [5, 3, 1, 0.1, 0.1, 0.1]
    turn, _ = np.linalg.qr(generator.normal(size=(6, 6)))
    painter = Frames(MapOptions(methods=("pca",)), 0)
    first, second = (
        painter.draw(Stage({}, values, np.arange(40))).maps["pca", 2] for values in (states, states @ turn)
    )
    np.testing.assert_allclose(first, second, atol=1e-9)


def planted(pair, tmp_path, gap):
    """Tuned states at the final norm that lie apart by label: the label's token stands in every text."""
    base, tuned = pair[0], load(str(tiny_folder("gpt2", tmp_path, seed=0, layers=3)))
    rows = make_rows(180, classes=2)
    words = pl.Series(["love" if label else "sad" for label in rows.frame["label"]])
    rows = dataclasses.replace(rows, frame=rows.frame.with_columns(text=rows.frame["text"] + " " + words))
    subject = make_subject(base, tuned, rows)
    one, two = (subject.tuned.tokenizer(f" {word}")["input_ids"][-1] for word in ("love", "sad"))
    with torch.no_grad():
        tuned.trunk.wte.weight[one, :4] += gap
        tuned.trunk.wte.weight[two, :4] -= gap
    return subject


def test_planted_clusters_are_found_and_shuffled_labels_are_not(pair, tmp_path):
    subject = planted(pair, tmp_path, gap=3.0)
    options = {"rows": {"n": 100}, "axes": [2], "layers": [-1], "clusters": {"most": 4}}
    output = maps_of(subject, **options)
    rand = output.table.filter((pl.col("metric") == "adjusted_rand") & (pl.col("method") == "kmeans"))
    by = {row["model"]: row for row in rand.iter_rows(named=True)}
    assert by["tuned"]["value"] > 0.95
    assert by["tuned"]["q"] < 0.05
    assert by["tuned_minus_base"]["value"] == pytest.approx(by["tuned"]["value"] - by["base"]["value"])
    tokens = subject.splits["validation"]
    labels = np.random.default_rng(0).permutation(tokens.labels)
    subject.splits["validation"] = dataclasses.replace(tokens, labels=labels)
    shuffled = maps_of(subject, **options).table
    value = shuffled.filter(
        (pl.col("metric") == "adjusted_rand") & (pl.col("model") == "tuned") & (pl.col("method") == "kmeans")
    )["value"].item()
    assert abs(value) < 0.1


def test_the_default_layers_are_the_first_middle_and_last_block_and_the_final_norm(pair, tmp_path):
    layers = maps_of(make_subject(*pair)).examples.select("layer", "site").unique().sort("layer")
    assert layers["layer"].to_list() == [0, 1, 2, 3]
    assert layers["site"].to_list() == ["resid_post"] * 3 + ["final_norm_out"]
    bert = load(str(tiny_folder("bert", tmp_path, layers=2)))
    assert set(maps_of(make_subject(bert, bert)).examples["layer"]) == {0, 1}
    with pytest.raises(LensError, match=r"no layer 9; the model has -1 \(embeddings\) to 3"):
        maps_of(make_subject(*pair), layers=[9])


def test_the_base_without_a_head_has_no_predictions(pair):
    examples = maps_of(make_subject(*pair, base_head="none"), axes=[2]).examples
    assert examples.filter(pl.col("model") == "base")["prediction"].null_count() == examples.height // 2
    tuned = examples.filter(pl.col("model") == "tuned")
    assert (tuned["error"] == (tuned["label"] != tuned["prediction"])).all()


def test_a_model_whose_rows_are_all_alike_has_a_map_beside_the_other_but_no_clusters(pair, tmp_path):
    base = load(str(tiny_folder("gpt2", tmp_path, seed=0, layers=3)))
    with torch.no_grad():
        base.trunk.ln_f.weight.zero_()
    output = maps_of(make_subject(base, pair[1]), axes=[2], layers=[2, 3])
    assert len(np.unique(side(output.examples, "base", layer=3)[:, :2], axis=0)) == 1
    last = output.examples.filter(pl.col("layer") == 3)
    assert last.filter(pl.col("model") == "base")["kmeans"].null_count() == 40
    assert last.filter(pl.col("model") == "tuned")["kmeans"].null_count() == 0
    notes = output.table.filter((pl.col("metric") == "clusters") & pl.col("note").is_not_null())
    assert notes.select("model", "layer", "note").rows() == [
        ("base", 3, "no clusters: 1 different states; 3 are needed")
    ]


def test_layers_without_different_states_are_said_and_refused_where_nothing_is_left(pair, tmp_path):
    base, tuned = (load(str(tiny_folder("gpt2", tmp_path / str(s), seed=s, layers=3))) for s in (0, 1))
    for model in (base, tuned):
        with torch.no_grad():
            model.trunk.ln_f.weight.zero_()
    subject = make_subject(base, tuned)
    output = maps_of(subject, axes=[2], layers=[2, 3])
    assert set(output.examples["layer"]) == {2}
    said = output.table.filter((pl.col("metric") == "trustworthiness") & (pl.col("layer") == 3))
    assert said["note"].to_list() == ["no map: 2 different states; 10 are needed"]
    with pytest.raises(LensError, match="no layer has 10 different states"):
        maps_of(subject, axes=[2], layers=[3])


def test_too_few_rows_are_refused(pair):
    with pytest.raises(LensError, match="at least 10 rows; there are 6"):
        maps_of(make_subject(*pair, make_rows(9)))
    with pytest.raises(ValidationError, match="greater than or equal to 10"):
        MapOptions.model_validate({"rows": {"n": 9}})
    with pytest.raises(ValidationError, match="less than or equal to 20000"):
        MapOptions.model_validate({"rows": {"n": 20_001}})


def test_states_that_are_not_finite_name_layer_and_row(pair, tmp_path):
    tuned = load(str(tiny_folder("gpt2", tmp_path, seed=0, layers=3)))
    with torch.no_grad():
        tuned.trunk.h[1].mlp.c_proj.bias[0] = float("inf")
    said = r"tuned: resid_post\[1\] is NaN or infinite in 40 of 40 rows of a batch: row-"
    with pytest.raises(LensError, match=said):
        maps_of(make_subject(pair[0], tuned))


def test_a_missing_library_is_said_before_anything_is_read(pair, monkeypatch):
    monkeypatch.setitem(LIBRARIES, "umap", "no_such_library")
    with pytest.raises(MissingDependencyError, match=r"umap need the library no_such_library"):
        maps_of(make_subject(*pair), methods=["pca", "umap"])
    assert maps_of(make_subject(*pair)).examples.height


@pytest.mark.parametrize("method", ["tsne", pytest.param("umap", marks=pytest.mark.slow)])
def test_ten_rows_are_enough_for_every_method(pair, method):
    output = maps_of(make_subject(pair[0], pair[0]), rows={"n": 10}, methods=[method], layers=[2])
    assert np.isfinite(output.examples.select("x", "y").to_numpy()).all()
    trust = output.table.filter(pl.col("metric") == "trustworthiness")
    assert set(trust["n"]) == {10}


@pytest.mark.slow
def test_all_methods_at_once_and_trustworthiness_is_above_its_control(pair):
    output = maps_of(make_subject(*pair, make_rows(120)), methods=["pca", "tsne", "umap"], layers=[1])
    trust = output.table.filter(pl.col("metric") == "trustworthiness")
    assert trust.height == 12
    assert trust.filter(~pl.col("value").is_between(0, 1)).is_empty()
    assert (trust["value"] > trust["control"] + 0.1).all()
    assert set(output.examples.select("method", "axes").unique().rows()) == {
        (method, axes) for method in ("pca", "tsne", "umap") for axes in (2, 3)
    }
