"""Patching, patching across models and grafts on the page: the planted head's numbers, and the depth strip's lane."""

from __future__ import annotations

import json
import re

import polars as pl
from subjects import make_subject
from test_planted_head import planted_rows

from tunescope.lenses import LENSES, look, save_outputs
from tunescope.models import load
from tunescope.planted.changed import changed_head_models
from tunescope.report.page import render
from tunescope.report.read import read_run


def figure(page, key):
    found = re.search(rf'<script type="application/json" id="{key}">(.*?)</script>', page)
    return json.loads(found.group(1))


def test_the_page_draws_the_planted_head_and_where_grafting_finds_the_task(tmp_path):
    changed_head_models("gpt2", 1, 2, tmp_path)
    base, tuned = load(str(tmp_path / "base")), load(str(tmp_path / "tuned"))
    rows = planted_rows()
    subject = make_subject(base, tuned, rows, base_head="tuned", texts=rows.frame.select("row_id", "text"))
    some = {"rows": {"split": "validation", "n": 40}}
    names = ("patching", "patching_cross", "grafting")
    outputs = look(subject, [(name, some) for name in names], LENSES)
    save_outputs(outputs, tmp_path / "run" / "results", {"seeds": [0], "command": "test"})
    page = render(read_run(tmp_path / "run"))
    for title in ("Patching between texts", "Patching across models", "Weight grafts"):
        assert f"<h2>{title}</h2>" in page
    heads = figure(page, "patching-0-denoising-heads-2")["data"][0]["z"]
    assert heads == [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    across = figure(page, "cross-0-1")["data"][0]["z"]
    assert [[round(cell, 4) for cell in line] for line in across][1] == [0, 1, 0, 0, 0, 1, 0]
    curve = figure(page, "graft-curve-0-1")["data"][-1]
    assert curve["x"] == [-1, 0, 1, 2]
    assert [round(value, 4) for value in curve["y"]] == [0, 0, 1, 1]
    lane = figure(page, "depth-1")
    assert any("grafted up to here" in note["text"] for note in lane["layout"]["annotations"])
    sentences = {output.lens: [one.sentence for one in output.findings] for output in outputs}
    # All that tuning changed lies in block 1, so that where the curve rises was known before: no sentence says it.
    assert "Of all heads, the tuned weights of head L1H2 alone" in sentences["grafting"][0]
    assert not any("(1 part) suffice" in one or "Tuning put" in one for one in sentences["grafting"])
    assert not any(
        "Of all sublayers" in one for one in sentences["grafting"]
    )  # one holds everything, the rest nothing
    assert [output.findings[0].verdict for output in outputs[1:]] == ["found", "found"]
    sets = outputs[2].table.filter((pl.col("scope") == "greedy") & (pl.col("metric") == "recovered_accuracy"))
    assert sets.select("component", "by_construction").rows() == [("L1.attention", "everything")]
    full = outputs[2].table.filter(
        (pl.col("scope") == "rows") & (pl.col("share") == 1) & (pl.col("metric") == "recovered_accuracy")
    )
    assert [round(value, 5) for value in full["value"]] == [
        1,
        1,
    ]  # all rows are all rows, drawn at random or not
