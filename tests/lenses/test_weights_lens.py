"""The weight lens: every family's matrices in one orientation, heads named by construction, planted updates."""

from __future__ import annotations

import copy

import numpy as np
import polars as pl
import pytest
import torch
from scipy.linalg import subspace_angles
from subjects import make_subject

from tiny import FAMILIES, tiny_folder
from tunescope.errors import LensError
from tunescope.lenses import LENSES, look
from tunescope.models import load
from tunescope.models.matrices import matrices

CURVES = ("principal_angle", "intruder_dimensions")


def weights_of(base, tuned, **options):
    return look(make_subject(base, tuned), [("weights", options)], LENSES)[0]


@pytest.fixture(params=FAMILIES)
def model(request, tmp_path):
    return load(str(tiny_folder(request.param, tmp_path)))


def test_every_matrix_of_a_block_is_there_once_and_heads_share_it_out(model):
    found = [one for one in matrices(model) if one.layer == 0 and one.stack in (None, "decoder")]
    parts = [one.part for one in found]
    assert len(parts) == len(set(parts))
    assert {"query", "key", "value", "attn_projection", "mlp_projection"} <= set(parts)
    block = next(path for path in (model.family.path("block", 0),))
    entries = sum(p.numel() for p in model.trunk.get_submodule(block).parameters() if p.ndim == 2)
    assert sum(one.weight.numel() for one in found) == entries
    for one in found:
        if one.heads:
            together = torch.cat(one.heads).tolist()
            assert together == list(range(one.weight.shape[0 if one.by_row else 1]))


def test_identical_models_moved_nowhere_and_say_nothing(model):
    output = weights_of(model, model)
    assert set(output.table.filter(pl.col("metric") == "relative_frobenius")["value"]) == {0.0}
    assert output.table.filter(pl.col("metric") == "intruder_dimensions").is_empty()
    assert output.findings == []


def test_a_planted_change_of_one_heads_columns_is_found_at_that_head_alone(model):
    tuned = copy.deepcopy(model)
    changed = next(one for one in matrices(tuned) if one.layer == 1 and one.part == "attn_projection")
    with torch.no_grad():
        changed.weight[:, changed.heads[1]] *= 1.5  # a view of the model's own weight
    table = weights_of(model, tuned).table
    size = table.filter(pl.col("metric") == "relative_frobenius")
    heads = size.filter(pl.col("head").is_not_null() & (pl.col("value") > 0))
    assert heads.select("site", "layer", "head").rows() == [("attn_projection", 1, 1)]
    assert heads["value"][0] == pytest.approx(0.5, abs=1e-6)
    whole = size.filter((pl.col("site") == "attn_projection") & pl.col("head").is_null())
    assert whole.filter(pl.col("value") > 0)["layer"].to_list() == [1]
    moved = size.filter((pl.col("site") == "block") & (pl.col("value") > 0))
    assert moved["layer"].to_list() == [1]


def test_a_planted_rank_two_update_reports_rank_two_whatever_the_orientation(model):
    tuned = copy.deepcopy(model)
    changed = next(one for one in matrices(tuned) if one.layer == 0 and one.part == "mlp_projection")
    generator = torch.Generator().manual_seed(5)
    rows, columns = changed.weight.shape
    update = torch.randn(rows, 2, generator=generator) @ torch.randn(2, columns, generator=generator)
    with torch.no_grad():
        changed.weight.add_(0.01 * update)
    table = weights_of(model, tuned, vectors=3).table
    own = table.filter((pl.col("site") == "mlp_projection") & (pl.col("layer") == 0))
    values = {row["metric"]: row for row in own.iter_rows(named=True)}
    assert values["rank"]["value"] == 2.0
    assert 1.0 <= values["stable_rank"]["value"] <= 2.0 < values["stable_rank"]["control"]
    np.testing.assert_allclose(
        values["relative_frobenius"]["value"],
        float(
            0.01 * update.norm() / next(m for m in matrices(model) if m.part == changed.part).weight.norm()
        ),
        rtol=1e-4,
    )


def test_a_planted_rank_two_update_of_one_head_is_told_by_all_measures_of_its_slice(model):
    tuned = copy.deepcopy(model)
    changed = next(one for one in matrices(tuned) if one.layer == 1 and one.part == "attn_projection")
    own = changed.of_head(1)
    before = own.double().numpy().copy()
    generator = torch.Generator().manual_seed(3)
    left, _ = torch.linalg.qr(torch.randn(own.shape[0], 2, generator=generator))
    right, _ = torch.linalg.qr(torch.randn(own.shape[1], 2, generator=generator))
    with torch.no_grad():
        changed.weight[:, changed.heads[1]] += (
            40 * left @ right.T
        )  # two equal singular values, far above those before
    of_heads = weights_of(model, tuned).table.filter(pl.col("head").is_not_null())
    told = of_heads.filter(
        (pl.col("site") == "attn_projection") & (pl.col("layer") == 1) & (pl.col("head") == 1)
    )
    value = {
        metric: number for metric, number in told.select("metric", "value").rows() if metric not in CURVES
    }
    assert value["stable_rank"] == pytest.approx(2, abs=1e-4)
    assert value["effective_rank"] == pytest.approx(2, abs=0.05)
    assert value["relative_spectral"] == pytest.approx(40 / np.linalg.norm(before, 2), rel=1e-4)
    assert value["relative_frobenius"] == pytest.approx(40 * 2**0.5 / np.linalg.norm(before), rel=1e-4)
    after = changed.of_head(1).double().numpy()
    k = told.filter(pl.col("metric") == "principal_angle").height
    expected = subspace_angles(*(np.linalg.svd(one)[0][:, :k] for one in (before, after)))
    angles = told.filter(pl.col("metric") == "principal_angle").sort("index")["value"].to_numpy()
    assert np.allclose(np.sort(angles), np.sort(expected), atol=1e-5)
    curve = told.filter(pl.col("metric") == "intruder_dimensions").sort("threshold")["value"].to_list()
    assert curve == sorted(curve)
    others = of_heads.filter((pl.col("metric") == "relative_spectral") & (pl.col("value") > 0))
    assert others.select("site", "layer", "head").rows() == [("attn_projection", 1, 1)]


def test_the_sentence_names_the_block_that_moved(tmp_path):
    model = load(str(tiny_folder("gpt2", tmp_path)))
    tuned = copy.deepcopy(model)
    with torch.no_grad():
        tuned.trunk.h[1].mlp.c_fc.weight += 0.1
    finding = weights_of(model, tuned).findings[0]
    assert finding.sentence.startswith("Tuning moved block 1 most")
    assert "without structure" in finding.sentence


def test_models_of_another_shape_and_wrong_thresholds_are_refused(tmp_path):
    model = load(str(tiny_folder("gpt2", tmp_path / "a")))
    other = load(str(tiny_folder("gpt2", tmp_path / "b")))
    other.model.transformer.h[0].mlp.c_proj.weight = torch.nn.Parameter(torch.ones(5, 4))
    with pytest.raises(LensError, match="mlp_projection of block 0 is"):
        weights_of(model, other)
    with pytest.raises(LensError, match="cosines above 0 and below 1 that rise"):
        weights_of(model, model, thresholds=[0.5, 0.2])
