"""Two seeds of an encoder-decoder: the band of CKA and the comparison of ablations keep the stacks apart."""

from __future__ import annotations

import polars as pl
import pytest
from subjects import make_rows, make_subject

from tiny import NAMES
from tiny_encoder_decoder import folder_of
from tunescope.lenses import LENSES, look, seed_band_findings
from tunescope.lenses.geometry.pooled import stream_sites
from tunescope.lenses.geometry.seed_band import seed_band
from tunescope.models import load


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    root = tmp_path_factory.mktemp("seeds")
    models = [load(str(folder_of("t5", root / str(seed), names=list(NAMES), seed=seed))) for seed in range(3)]
    made = [make_subject(models[0], model, make_rows(60)) for model in models[1:]]
    for seed, one in enumerate(made):
        one.seed = seed
    return made


def test_the_band_has_every_place_of_both_stacks_once(subjects):
    options = {"rows": {"n": 20}, "variants": ["raw"]}
    band = seed_band(subjects, options)
    same = band.filter(
        (pl.col("layer") == pl.col("layer_other")) & (pl.col("site") == pl.col("site_other"))
        & (pl.col("stack") == pl.col("stack_other"))
    )  # fmt: skip
    assert same.height == len(stream_sites(subjects[0].tuned))
    tables = [look(one, [("cka", options)], LENSES)[0].table for one in subjects]
    (finding,) = seed_band_findings(pl.concat(tables), band, "arm")
    assert f"of {same.drop_nulls('value').height} places" in finding.sentence
    assert "coder" in finding.sentence
