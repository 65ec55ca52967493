"""Attention by part of the input: closed forms of even attention, parts of rows, and maps named by their tokens."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from subjects import make_rows, make_subject

from tiny import tiny_folder
from tunescope.errors import LensError
from tunescope.lenses import LENSES, look
from tunescope.lenses.attention.regions import Regions, regions_of, shares
from tunescope.lenses.attention.statistics import Visible
from tunescope.models import load
from tunescope.report import attention as section
from tunescope.report.read import LensResult
from tunescope.summaries.rows import PARTS, SummaryOptions, encode_summaries

ROWS = {"rows": {"split": "validation", "n": 12}}


def even(mask, causal):
    visible = Visible.of(mask, causal)
    keys = visible.keys.double()
    return visible, (keys / keys.sum(-1, keepdim=True).clamp_min(1))[:, None]


@pytest.mark.parametrize("causal", [True, False])
def test_even_attention_gives_each_region_the_share_of_its_tokens(causal):
    mask = torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]])
    codes = [np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 0, 1, 1])]
    regions = Regions(("first", "second"), codes)
    visible, pattern = even(mask, causal)
    found, expected = shares(pattern, visible, regions.masks(np.array([0, 1]), 6))
    torch.testing.assert_close(found[:, 0], expected)
    torch.testing.assert_close(found.sum(-1), torch.ones_like(found.sum(-1)))
    for row, own in enumerate(codes):
        for start in (0, 1):
            places = [q for q in np.flatnonzero(own == start) if not causal or q > 0]
            by_hand = [np.mean(own[: q + 1] == 1) if causal else np.mean(own == 1) for q in places]
            assert float(found[row, 0, start, 1]) == pytest.approx(np.mean(by_hand))


def test_special_tokens_and_two_texts_divide_where_they_stand(tmp_path):
    model = load(str(tiny_folder("bert", tmp_path)))
    rows = make_rows(24)
    frame = rows.frame.with_columns(text=pl.col("text") + pl.lit(" slowly rain day"))
    rows = replace(rows, frame=frame)
    subject = make_subject(model, model, rows, texts=frame.select("row_id", "text"))
    tokens = subject.draw(LENSES["attention"].options().rows, labelled=False)
    plain = regions_of(subject, tokens, None)
    assert plain is not None
    assert plain.names == ("text", "special tokens")
    assert all(own[0] == own[-1] == 1 and not own[1:-1].any() for own in plain.codes)
    first = {row: text.split().index("slowly") + 1 for row, text in frame.select("row_id", "text").rows()}
    two = regions_of(subject, tokens, " slowly")
    assert two is not None
    assert two.names == ("first text", "second text", "special tokens")
    for row_id, own in zip(tokens.row_ids, two.codes, strict=True):
        n = first[row_id]
        assert own[1:-1].tolist() == [0] * n + [1] * (len(own) - 2 - n)
    with pytest.raises(LensError, match=r"row row-\d+ does not hold 'nowhere'"):
        regions_of(subject, tokens, "nowhere")


def test_parts_of_a_summary_row_are_those_of_its_sequence(tmp_path):
    model = load(str(tiny_folder("gpt2", tmp_path)))
    made = encode_summaries(
        ["the cat sat on the mat"], ["a cat"], ["r"], model.tokenizer, "decoder", SummaryOptions(before="he ")
    )
    (own,) = made.parts()
    told = {
        name: model.tokenizer.decode(made.input_ids[0][own == number]) for number, name in enumerate(PARTS)
    }
    assert told["article"] == "the cat sat on the mat"
    assert told["summary"] == " a cat<|endoftext|>"
    assert told["prompt"] == "he \nTL;DR:"


def test_statistics_of_regions_average_to_those_of_the_whole(tmp_path):
    base, tuned = (load(str(tiny_folder("bert", tmp_path / str(seed), seed=seed))) for seed in (0, 1))
    table = look(make_subject(base, tuned), [("attention", ROWS)], LENSES)[0].table
    shares_of = table.filter((pl.col("metric") == "region_share") & (pl.col("model") == "tuned"))
    sums = shares_of.group_by("region", "layer", "head").agg(pl.col("value").sum(), pl.col("control").sum())
    np.testing.assert_allclose(sums["value"], 1, atol=1e-5)
    np.testing.assert_allclose(sums["control"], 1, atol=1e-5)
    change = table.filter((pl.col("metric") == "region_share") & (pl.col("model") == "tuned_minus_base"))
    assert change["q"].null_count() == 0


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_maps_carry_the_tokens_of_their_text_and_reach_the_page_by_name(kind, tmp_path):
    base, tuned = (load(str(tiny_folder(kind, tmp_path / str(seed), seed=seed))) for seed in (0, 1))
    subject = make_subject(base, tuned)
    output = look(subject, [("attention", {**ROWS, "heads": 2, "texts": 1})], LENSES)[0]
    maps = output.examples
    assert maps is not None
    assert maps.select("layer", "head").unique().height == 2
    sums = maps.group_by("model", "layer", "head", "query").agg(pl.col("value").sum())
    np.testing.assert_allclose(sums["value"], 1, atol=1e-5)
    row = maps["row_id"][0]
    place = subject.splits["validation"].row_ids.index(row)
    ids = subject.splits["validation"].input_ids[place]
    names = maps.select("query", "query_token").unique().sort("query")["query_token"].to_list()
    assert names == [
        tuned.tokenizer.decode([one]).strip() or tuned.tokenizer.decode([one]).replace(" ", "␣")
        for one in ids
    ]
    most = (
        output.table.filter(pl.col("metric") == "jensen_shannon")
        .sort("value", descending=True)
        .row(0, named=True)
    )
    assert maps.row(0, named=True)["head"] == most["head"]
    folder = tmp_path / "results" / "examples"
    folder.mkdir(parents=True)
    maps.sample(fraction=1, shuffle=True, seed=1).write_parquet(folder / "attention.parquet")
    result = LensResult("attention", output.table, {"rows": {"split": "validation", "n": 12}})
    run = SimpleNamespace(results={"attention": result}, arm_names=["arm"], folder=tmp_path, withheld=None)
    (group,) = section.groups(run)
    drawn = [one for one in group.figures if one.key.startswith("attention-map-")]
    assert len(drawn) == 2
    panel = next(one for one in drawn if one.title.startswith(f"L{most['layer']}H{most['head']} ")).panels[1]
    grid = np.array(panel.figure["data"][0]["z"])
    own = maps.filter(
        (pl.col("model") == "tuned") & (pl.col("layer") == most["layer"]) & (pl.col("head") == most["head"])
    )
    for query, key, value in own.select("query", "key", "value").rows():
        assert grid[query][key] == value
    assert panel.figure["layout"]["yaxis"]["ticktext"] == [
        name if len(name) <= 14 else None for name in names
    ]


def test_a_head_that_does_not_exist_cannot_be_kept(tmp_path):
    model = load(str(tiny_folder("gpt2", tmp_path)))
    with pytest.raises(LensError, match="of_heads names L9H0; the model has 3 layers of 4 heads"):
        look(make_subject(model, model), [("attention", {**ROWS, "of_heads": [[9, 0]]})], LENSES)
