"""The logit lens, direct attribution and words on the page: real results of tiny models, escaped text."""

from __future__ import annotations

import json
import re

import polars as pl
from subjects import make_rows, make_subject

from tiny import tiny_folder
from tunescope.lenses import LENSES, look, save_outputs
from tunescope.models import load
from tunescope.report.page import render
from tunescope.report.read import read_run


def run_of(tmp_path, rows):
    base, tuned = (load(str(tiny_folder("bert", tmp_path / str(s), seed=s))) for s in (0, 1))
    subject = make_subject(base, tuned, rows)
    subject.texts = rows.frame.select("row_id", "text")
    some = {"rows": {"split": "validation", "n": 60}}
    wanted = [
        ("logit_lens", some), ("attribution_direct", some),
        ("words", {**some, "gradient_rows": 3, "at_least": 3, "examples": 2}),
    ]  # fmt: skip
    outputs = look(subject, wanted, LENSES)
    save_outputs(outputs, tmp_path / "run" / "results", {"seeds": [0], "command": "test"})
    return outputs, read_run(tmp_path / "run")


def figure(page, key):
    found = re.search(rf'<script type="application/json" id="{key}">(.*?)</script>', page)
    return json.loads(found.group(1))


def test_the_page_draws_the_three_lenses_with_their_numbers_and_escapes_words(tmp_path):
    rows = make_rows(120)
    hostile = pl.col("text") + " <b>&rain"
    rows = type(rows)(rows.frame.with_columns(text=hostile), rows.labels, {})
    outputs, run = run_of(tmp_path, rows)
    page = render(run)
    for key in ("logit-lens-0-3", "direct-0-3", "direct-classes-0-3", "words-0-3"):
        assert f'data-figure="{key}"' in page, key
    tables = {output.lens: output.table for output in outputs}

    curve = figure(page, "logit-lens-0-1")["data"][-1]
    expected = tables["logit_lens"].filter((pl.col("metric") == "accuracy") & (pl.col("model") == "tuned"))
    assert curve["y"] == [float(f"{value:.5g}") for value in expected.sort("layer")["value"]]

    cells = figure(page, "direct-0-1")["data"][0]["z"]
    own = tables["attribution_direct"].filter(
        (pl.col("metric") == "contrast") & (pl.col("model") == "tuned") & pl.col("class").is_null()
        & (pl.col("control") == "none") & (pl.col("component") == "L1H2")
    )  # fmt: skip
    assert cells[1][2] == float(f"{own['value'][0]:.5g}")

    assert "<b>&rain" not in page
    shown = tables["words"].filter((pl.col("metric") == "example") & (pl.col("word") == "<b>&rain"))
    assert shown.height == 4
    assert page.count('">&lt;b&gt;&amp;rain</bdi>') == shown.height
    assert "Rank correlation over the words of a row, left out and masked (tuned)" in page
    assert 'class="shade-for-4"' in page or 'class="shade-against-4"' in page
    notes = {output.lens: " ".join(output.provenance["notes"]) for output in outputs}
    assert (
        "ends every block with a norm" in notes["logit_lens"]
    )  # each lens has its own notes, and no other's
    assert "nonlinearity" in notes["attribution_direct"]
    assert "nonlinearity" not in notes["logit_lens"] + notes["words"]
    assert 'id="lens-1"' not in page  # none is shown a second time as a plain table


def test_without_the_lenses_the_page_has_no_empty_sections(tmp_path):
    (tmp_path / "run").mkdir()
    page = render(read_run(tmp_path / "run"))
    for section in ("logit-lens", "direct", "words"):
        assert f'id="{section}"' not in page
