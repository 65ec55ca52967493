"""Bad input to the geometry lenses: each is refused in one sentence, or its number is left empty with a reason."""

from __future__ import annotations

import polars as pl
import pytest
import torch
from subjects import make_rows, make_subject

from tiny import tiny_folder
from tunescope.data.labels import LabelMap
from tunescope.data.rows import Rows
from tunescope.errors import LensError
from tunescope.lenses import LENSES, look
from tunescope.models import load

READERS = {
    "cka": {"rows": {"n": 20}}, "similarity": {"rows": {"n": 20}}, "spread": {"rows": {"n": 20}},
    "dimensions": {"rows": {"n": 20}, "train_rows": 60, "random": 2}, "probes": {"rows": {"n": 20}, "train_rows": 20},
    "maps": {"rows": {"n": 20}, "methods": ["pca"]},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tiny_folder("gpt2", tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def broken(folder):
    """A base, a tuned model whose last block makes infinite numbers, and rows of every class."""
    base, tuned = load(folder), load(folder)
    with torch.no_grad():
        tuned.trunk.h[-1].mlp.c_proj.bias[3] = float("inf")
    return base, tuned, make_rows(180)


@pytest.mark.parametrize("lens", READERS)
def test_states_that_are_not_finite_are_refused(lens, broken):
    with pytest.raises(LensError, match=r"finite|NaN|infinite"):
        look(make_subject(*broken), [(lens, READERS[lens])], LENSES)


def of_rows(count):
    rows = make_rows(60)
    kept = rows.frame.filter(pl.col("split") == "validation").head(count)
    return Rows(pl.concat([rows.frame.filter(pl.col("split") == "train"), kept]), rows.labels, {})


def test_fewer_rows_than_cka_needs_leave_it_empty_with_the_reason(folder):
    model = load(folder)
    table = look(make_subject(model, model, of_rows(3)), [("cka", {})], LENSES)[0].table
    cells = table.filter(pl.col("metric") == "cka")
    assert cells["value"].null_count() == cells.height
    assert cells["note"].str.contains("4").all()


def test_similarity_and_maps_of_too_few_rows_are_refused(folder):
    model = load(folder)
    with pytest.raises(LensError, match="Similarity needs at least 4 rows of different texts; there are 3"):
        look(make_subject(model, model, of_rows(3)), [("similarity", {})], LENSES)
    with pytest.raises(LensError, match="A map needs at least 10 rows; there are 5"):
        look(make_subject(model, model, of_rows(5)), [("maps", {"methods": ["pca"]})], LENSES)


@pytest.mark.parametrize("lens", ["dimensions", "probes"])
def test_a_class_that_is_missing_from_train_is_named(lens, folder):
    rows = make_rows(60)
    kept = rows.frame.filter((pl.col("split") != "train") | (pl.col("label") != 1))
    model = load(folder)
    with pytest.raises(LensError, match="No train row of class 'LABEL_1' was drawn"):
        look(make_subject(model, model, Rows(kept, LabelMap(("bad", "fine", "good")), {})), [(lens, READERS[lens])],
             LENSES)  # fmt: skip


def test_constant_dimensions_are_no_matter(folder):
    """A dimension that never varies has no variance, no kurtosis, the majority's accuracy, and disturbs nothing."""
    base, tuned = load(folder), load(folder)
    with torch.no_grad():
        for model in (base, tuned):
            model.trunk.ln_f.weight[4] = 0.0
            model.trunk.ln_f.bias[4] = 2.0
    wanted = [(name, READERS[name]) for name in ("cka", "spread", "dimensions")]
    cka, spread, dimensions = (
        one.table for one in look(make_subject(base, tuned, make_rows(180)), wanted, LENSES)
    )
    assert cka.filter(pl.col("metric") == "cka_standardised")["value"].null_count() == 0
    here = (pl.col("site") == "final_norm_out") & (pl.col("dimension") == 4) & (pl.col("model") == "tuned")
    assert spread.filter(here & (pl.col("metric") == "variance"))["value"].item() == pytest.approx(
        0.0, abs=1e-9
    )
    share = dimensions.filter((pl.col("metric") == "logit_share") & (pl.col("dimension") == 4))
    assert share["value"].abs().max() < 1e-9
