"""Figures find their numbers by the names of the axes, never by the order of the table."""

from __future__ import annotations

import copy

import numpy as np
import polars as pl
import pytest
from report_results import HEADS, LAYERS, ablation_records, cka_records

from tunescope.report.figures import ablation, depth, lanes, similarity, style, training
from tunescope.report.figures.select import only
from tunescope.stats.results import result_table

ARMS, LABELS, SEEDS = ("full", "head-only"), ("joy", "fear"), (0,)


@pytest.fixture(scope="module")
def cka_table():
    return result_table(cka_records(np.random.default_rng(0), ARMS, SEEDS))


@pytest.fixture(scope="module")
def ablation_table():
    return result_table(ablation_records(np.random.default_rng(0), ARMS, LABELS, SEEDS))


def every_figure(cka_table, ablation_table):
    arm_cka, arm = only(cka_table, arm="full"), only(ablation_table, arm="full")
    made = [
        lanes.cka_lane(cka_table, ARMS),
        lanes.sublayer_lane(ablation_table, ARMS, "attn_out", "attention", "zero"),
        lanes.sublayer_lane(ablation_table, ARMS, "mlp_out", "MLP", "zero"),
        lanes.head_lane(ablation_table, ARMS, "zero"),
    ]
    return {
        "cka": similarity.cka_panels(arm_cka),
        "heads": ablation.head_panels(arm, "margin_change"),
        "bars": ablation.sublayer_panels(arm, "margin_change", "#0072b2"),
        "classes": ablation.class_panels(arm, LABELS, "zero"),
        "depth": depth.depth_strip([lane for lane in made if lane]),
    }


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_the_tables_rows_changes_nothing(cka_table, ablation_table, seed):
    shuffled = [table.sample(fraction=1, shuffle=True, seed=seed) for table in (cka_table, ablation_table)]
    assert every_figure(*shuffled) == every_figure(cka_table, ablation_table)


def test_a_head_map_shows_each_value_in_the_cell_that_its_axes_name(ablation_table):
    panels, limit = ablation.head_panels(only(ablation_table, arm="full"), "margin_change")
    trace = panels[0].figure["data"][0]
    axes = panels[0].figure["layout"]
    assert panels[0].title == "tuned, head set to zero"
    wanted = only(
        ablation_table, arm="full", model="tuned", edit="zero", control="none", site="head_out",
        metric="margin_change", **{"class": None},
    )  # fmt: skip
    assert wanted.height == LAYERS * HEADS
    for row in wanted.iter_rows(named=True):
        y = axes["yaxis"]["ticktext"].index(str(row["layer"]))
        x = axes["xaxis"]["ticktext"].index(str(row["head"]))
        assert trace["z"][y][x] == row["value"]
        assert f"L{row['layer']}H{row['head']}" in trace["hovertext"][y][x]
        assert (trace["text"][y][x] == "•") == (row["q"] <= 0.05)
    assert limit == max(abs(v) for panel in panels for line in panel.figure["data"][0]["z"] for v in line)
    assert all(panel.figure["data"][0]["zmax"] == limit for panel in panels)


def test_base_against_tuned_has_the_base_down_and_the_tuned_across(cka_table):
    rows = only(cka_table, arm="full").with_columns(
        value=pl.when((pl.col("layer") == 1) & (pl.col("layer_other") == 4))
        .then(0.123)
        .otherwise(pl.col("value"))
    )  # fmt: skip
    panel = similarity.cka_panel(rows, "base_tuned", "base", "tuned")
    axes, trace = panel.figure["layout"], panel.figure["data"][0]
    assert axes["yaxis"]["title"]["text"] == "base, layer"
    assert axes["xaxis"]["title"]["text"] == "tuned, layer"
    assert axes["xaxis"]["ticktext"] == ["emb", "L0", "L1", "L2", "L3", "L4", "L5", "norm"]
    y, x = axes["yaxis"]["ticktext"].index("L1"), axes["xaxis"]["ticktext"].index("L4")
    assert trace["z"][y][x] == 0.123
    assert trace["z"][x][y] != 0.123


def test_one_triangle_of_a_symmetric_map_is_mirrored(cka_table):
    rows = only(cka_table, arm="full", model="base")
    triangle = rows.filter(pl.col("layer") <= pl.col("layer_other"))
    z = similarity.cka_panel(triangle, "base", "base", "base").figure["data"][0]["z"]
    assert all(value is not None for line in z for value in line)
    assert z == [list(column) for column in zip(*z, strict=True)]


def test_an_undefined_value_is_a_gap_and_says_why(cka_table):
    where = (pl.col("layer") == 2) & (pl.col("layer_other") == 2)
    rows = only(cka_table, arm="full", model="base").with_columns(
        value=pl.when(where).then(None).otherwise("value"),
        note=pl.when(where).then(pl.lit("no variation <over> rows")).otherwise(None),
    )
    trace = similarity.cka_panel(rows, "base", "base", "base").figure["data"][0]
    assert trace["z"][3][3] is None
    assert "undefined: no variation &lt;over&gt; rows" in trace["hovertext"][3][3]


def test_the_strip_picks_the_strongest_head_of_tuned_and_shows_the_base_of_the_same_head(ablation_table):
    lane = lanes.head_lane(ablation_table, ("full",), "zero")
    base, tuned = lane.lines
    assert (base.base, tuned.base) == (True, False)
    assert tuned.notes[4] == base.notes[4] == "L4H3"
    value = only(
        ablation_table, arm="full", model="base", edit="zero", control="none", site="head_out",
        layer=4, head=3, metric="margin_change", **{"class": None},
    )["value"].item()  # fmt: skip
    assert base.points[4].value == value
    assert tuned.points[4].value == -1.9


def test_a_base_that_all_arms_share_is_drawn_once_in_grey(ablation_table):
    lane = lanes.sublayer_lane(ablation_table, ARMS, "attn_out", "attention", "zero")
    assert [(line.name, line.base) for line in lane.lines] == [
        ("base", True),
        ("full", False),
        ("head-only", False),
    ]
    assert lane.lines[0].colour == style.BASE_COLOUR
    moved = ablation_table.with_columns(
        value=pl.when((pl.col("arm") == "full") & (pl.col("model") == "base")).then(-9.0).otherwise("value")
    )
    lane = lanes.sublayer_lane(moved, ARMS, "attn_out", "attention", "zero")
    assert [line.name for line in lane.lines if line.base] == ["base of full", "base of head-only"]


def test_several_seeds_become_a_mean_and_their_span():
    table = result_table(cka_records(np.random.default_rng(0), ("full",), (0, 1, 2)))
    table = table.with_columns(value=pl.col("value") - 0.01 * pl.col("seed"))
    point = lanes.cka_lane(table, ("full",)).lines[0].points[3]
    same = only(table, model="base_tuned", layer=3, layer_other=3)
    assert point.value == pytest.approx(same["value"].mean())
    assert (point.low, point.high) == (same["low"].min(), same["high"].max())


def test_a_second_base_head_is_not_mixed_in(ablation_table):
    wanted = {"site": "attn_out", "edit": "zero", "model": "base", "control": "none"}
    one = only(ablation_table, arm="full")
    other = one.filter(pl.col("model") == "base").with_columns(base_head=pl.lit("tuned"), value=pl.lit(99.0))
    both = ablation.effects(pl.concat([other, one]), **wanted)
    assert (
        both.sort("layer")["value"].to_list()
        == ablation.effects(one, **wanted).sort("layer")["value"].to_list()
    )


def test_a_confusion_matrix_is_normalised_by_row_and_keeps_its_counts():
    panel = training.confusion_panel([[8, 2, 0], [1, 9, 10], [0, 0, 0]], ["a", "b", "c"], "arm")
    trace, axes = panel.figure["data"][0], panel.figure["layout"]
    assert trace["z"] == [[0.8, 0.2, 0.0], [0.05, 0.45, 0.5], [None, None, None]]
    assert trace["text"][1] == ["1", "9", "10"]
    assert axes["yaxis"]["range"] == [2.5, -0.5]  # the first true class is at the top
    assert "true b<br>predicted c<br>10 rows, 50.0 % of this class" in trace["hovertext"][1]


def test_labels_that_do_not_fit_the_matrix_are_not_guessed():
    panel = training.confusion_panel([[1, 2], [3, 4]], ["a", "b", "c"], "arm")
    assert panel.figure["layout"]["xaxis"]["ticktext"] == ["class 0", "class 1"]


def test_curves_are_sorted_by_epoch_and_skip_what_was_not_logged():
    log = [
        {"epoch": 2.0, "loss": 0.5},
        {"epoch": 1.0, "loss": 0.9},
        {"epoch": 2.0, "eval_loss": float("nan")},
    ]
    panels = training.curve_panels({("full", 0): log}, ("full",))
    assert [panel.title for panel in panels] == ["training loss"]
    trace = panels[0].figure["data"][0]
    assert (trace["x"], trace["y"]) == ([1.0, 2.0], [0.9, 0.5])


def test_clean_makes_json_without_nan_and_leaves_the_figure_alone():
    figure = {"z": [[float("nan"), 0.123456789], (float("inf"), 3)], "t": "a"}
    before = copy.deepcopy(figure["t"])
    assert style.clean(figure) == {"z": [[None, 0.12346], [None, 3]], "t": "a"}
    assert figure["t"] == before


def test_an_arm_has_one_colour_everywhere_and_colours_come_round():
    many = len(style.ARM_COLOURS)
    assert len(set(style.ARM_COLOURS)) == many
    arms = [f"arm {i}" for i in range(many + 2)]
    assert (
        style.arm_colour(arms, "arm 1") == style.arm_colour(arms, f"arm {many + 1}") == style.ARM_COLOURS[1]
    )
    assert style.arm_colour(arms, "unknown") == style.BASE_COLOUR


def test_where_one_models_norm_stands_at_anothers_block_the_axis_names_both():
    shallow, deep = (
        [{"arm": arm, "model": "base_tuned", "metric": "cka", "site": site, "layer": layer, "site_other": site,
          "layer_other": layer, "value": 0.5, "low": 0.4, "high": 0.6, "n": 50, "control": 0.0}
         for site, layer in places]
        for arm, places in (
            ("shallow", [("resid_post", 0), ("final_norm_out", 1)]),
            ("deep", [("resid_post", 0), ("resid_post", 1), ("final_norm_out", 2)]),
        )
    )  # fmt: skip
    lane = lanes.cka_lane(result_table([*shallow, *deep]), ["shallow", "deep"])
    assert lane is not None
    assert lane.names == {1: "1, norm", 2: "norm"}
