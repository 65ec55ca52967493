"""Similarity, the bow-tie and probes on the page: real results of tiny models, drawn by name."""

from __future__ import annotations

import json
import re

import polars as pl
import pytest

from tunescope.report.figures.probes import bow_tie_panels, measure_panels, probe_panels
from tunescope.report.page import render
from tunescope.report.read import read_run
from tunescope.stats.results import Result, result_table


def probe_table():
    records = [
        {"arm": "a", "seed": 0, "metric": "majority_accuracy", "value": 0.5, "low": 0.4, "high": 0.6, "n": 99}
    ]
    for place, (site, layer) in enumerate([("embeddings", -1), ("resid_post", 0), ("final_norm_out", 1)]):
        here = {"arm": "a", "seed": 0, "site": site, "layer": layer, "n": 99}
        for model, plus in (("base", 0.0), ("tuned", 0.1), ("untrained", -0.1)):
            value = 0.6 + 0.1 * place + plus
            ends = {"low": value - 0.05, "high": value + 0.05}
            records.append(
                {**here, "model": model, "metric": "probe_accuracy", "value": value, **ends, "control": 0.5}
            )
            records.append({**here, "model": model, "metric": "selectivity", "value": value - 0.5, **ends})
        records.append({
            **here, "model": "tuned_minus_base", "metric": "probe_accuracy", "value": 0.1, "low": 0.0, "high": 0.2,
            "p": 0.05, "q": 0.06,
        })  # fmt: skip
    return result_table(records)


def similarity_table():
    cells = [
        {"arm": "a", "seed": 0, "model": "base_tuned", "metric": metric, "site": "resid_post", "layer": layer,
         "site_other": "resid_post", "layer_other": other, "value": 0.9 - 0.1 * abs(layer - other) - 0.05 * layer,
         "low": 0.4, "high": 0.95, "control": 0.01, "n": 40}
        for metric in ("rsa_cosine", "procrustes") for layer in range(3) for other in range(3)
    ]  # fmt: skip
    return result_table(cells)


def tie_table():
    about = {"arm": "a", "seed": 0, "similarity": "cka", "n": 9}
    values = (("base", 0.1), ("tuned", 0.3), ("tuned_minus_base", 0.2))
    ties = [
        {**about, "model": model, "metric": "bow_tie", "value": value,
         "low": None if model == "base" else value - 0.1, "high": None if model == "base" else value + 0.1}
        for model, value in values
    ]  # fmt: skip
    return result_table([*ties, {**about, "model": "base", "metric": "bow_tie_equal_distance"}])


def test_lines_hold_the_tables_values_in_order_of_depth():
    accuracy, selectivity, change = probe_panels(probe_table(), "#0072b2")
    named = {trace["name"]: trace for trace in accuracy.figure["data"]}
    assert named["base"]["y"] == pytest.approx([0.6, 0.7, 0.8])
    assert named["tuned"]["error_y"]["arrayminus"] == pytest.approx([0.05] * 3)
    assert named["untrained"]["line"]["dash"] == "dot"
    assert named["majority"]["y"] == [0.5] * 3
    assert accuracy.figure["layout"]["xaxis"]["ticktext"] == ["emb", "0", "norm"]
    assert [trace["name"] for trace in selectivity.figure["data"]] == ["base", "tuned", "untrained"]
    assert change.figure["data"][0]["y"] == pytest.approx([0.1] * 3)
    panels = measure_panels(similarity_table(), "#0072b2")
    assert [panel.title for panel in panels] == ["RSA, cosine", "Procrustes"]
    shuffled, same = panels[0].figure["data"]
    assert (shuffled["y"], same["y"]) == (pytest.approx([0.01] * 3), pytest.approx([0.9, 0.85, 0.8]))
    (ties,) = bow_tie_panels(tie_table(), "#0072b2")  # what has no value at equal distance has no panel
    assert [trace["x"][0] for trace in ties.figure["data"]] == pytest.approx([0.2, 0.3, 0.1])
    assert ["error_x" in trace for trace in ties.figure["data"]] == [True, True, False]


def test_the_page_draws_them_and_shows_no_plain_table(tmp_path):
    folder = tmp_path / "run"
    cka = (
        similarity_table()
        .with_columns(metric=pl.lit("cka"), similarity=pl.lit(None, dtype=pl.String))
        .unique()
    )
    tables = {
        "probes": probe_table(), "similarity": similarity_table(),
        "cka": pl.concat([cka, tie_table()], how="diagonal_relaxed"),
    }  # fmt: skip
    for name, table in tables.items():
        Result(name, table, {"rows": {"split": "validation", "n": 40}, "seeds": [0]}).save(folder / "results")
    page = render(read_run(folder))
    for key, panels in (("probes-0", 3), ("measures-0", 2), ("bow-tie-0", 1)):
        assert len(re.findall(rf'data-figure="{key}-\d"', page)) == panels, key
    assert 'id="lens-1"' not in page
    for found in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.S):
        json.loads(found)
    assert 'href="#probes"' in page


def test_without_results_there_are_no_sections(tmp_path):
    (tmp_path / "run").mkdir()
    page = render(read_run(tmp_path / "run"))
    assert 'id="probes"' not in page
    assert 'id="similarity"' not in page
