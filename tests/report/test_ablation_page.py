"""The ablation section shows what the lens measured: curves, picks, sets, seeds, and study 000's table."""

from __future__ import annotations

import polars as pl
import pytest
from report_run import Recipe, make_run

from tunescope.report.ablation import ablation_groups
from tunescope.report.figures import ablation_more as more
from tunescope.report.read import read_run
from tunescope.stats.results import Result

LABELS = ("sadness", "joy")


def record(component, site, value, **axes):
    return {
        "arm": "full", "seed": 0, "model": "tuned", "base_head": "tuned", "site": site, "layer": None, "head": None,
        "class": None, "metric": "margin_change", "value": value, "low": value - 0.1, "high": value + 0.1, "n": 40,
        "p": 0.01, "q": 0.02, "edit": "zero", "control": "none", "note": None, "component": component, "scope": "one",
        "step": None, "order": None, "of": None, "pick": None, "seed_other": None, "by": None, **axes,
    }  # fmt: skip


RECORDS = [
    *(
        record(
            f"{order}, first {step}",
            "removal:head_out",
            -step * slope,
            scope="removal",
            step=step,
            order=order,
        )
        for order, slope in (("strongest_first", 1.0), ("weakest_first", 0.1), ("random 0", 0.5))
        for step in (1, 4)
    ),
    record("L1H2", "head_out", -2.5, layer=1, head=2, control="split_half", pick="strongest head"),
    record("L1H2", "head_out", -0.25, layer=1, head=2, control="split_half_random", pick="strongest head"),
    record("L1H2", "head_out", -2.75, layer=1, head=2),
    record("L0H0+L0H1", "set", -1.5, layer=0, scope="pair"),
    record("mine", "set", -1.25, scope="group"),
    record("L0N0-9", "mlp_neurons", -0.75, layer=0),
    record("all but L0H1", "all_but_one:head_out", -3.5, layer=0, head=1, scope="all_but_one"),
    record("L1H2", "head_out", 0.75, layer=1, head=2, model="tuned_seeds", seed_other=1),
    record(None, None, 0.75, metric="screen_rank_correlation", by="graddrop", step=20, p=None, q=None),
    record("L1H1", "head_out", -0.5, metric="screen_worst_miss", by="graddrop", step=20),
    record("L1H1", "head_out", 7.0, metric="screen_worst_miss_rank", by="graddrop", step=20),
    record(None, "head_out", 0.625, model="tuned_seeds", metric="seed_rank_correlation", seed_other=1),
    record(
        None,
        "head_out",
        0.125,
        model="tuned_seeds",
        metric="seed_rank_correlation",
        seed_other=1,
        control="base",
    ),
    *(
        record(name, site, value, layer=layer, metric=metric, of=of, **{"class": label})
        for label in LABELS
        for name, site, layer, metric, of, value in (
            ("L0.bias", "attention_bias", 0, "published_probability_change", "sadness", -0.375),
            (
                "all but L0.bias",
                "all_but_one:attention_bias",
                0,
                "published_probability_change",
                "sadness",
                -0.0625,
            ),
            ("L0.bias", "attention_bias", 0, "predicted_probability_change", label, -0.3125),
            ("L0.attention", "attn_out", 0, "predicted_probability_change", label, -0.6875),
            ("L0H0", "head_out", 0, "predicted_probability_change", label, -0.1875),
            ("L0H1", "head_out", 0, "predicted_probability_change", label, -0.4375),
        )
    ),
]


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    folder = make_run(
        tmp_path_factory.mktemp("run"), Recipe(arms=("full",), labels=LABELS, accuracy=(0.9,), seeds=(0, 1))
    )
    table = pl.DataFrame(RECORDS, infer_schema_length=None)
    about = {
        "what": "w",
        "rows": {"split": "validation", "n": 40},
        "notes": [],
        "options": {"correction": "max_t"},
    }
    Result("ablation", table, about).save(folder / "results")
    (group, *_) = ablation_groups(read_run(folder))
    return {figure.key.partition("-0")[0]: figure for figure in group.figures}


def traces(figure, panel=0):
    return figure.panels[panel].figure["data"]


def test_removal_curves_show_every_order_with_its_interval(figures):
    found = {one["name"]: one for one in traces(figures["removal"])}
    assert set(found) == {"strongest first", "least important first", "random 0"}
    assert found["strongest first"]["y"] == [0.0, -1.0, -4.0]
    assert found["random 0"]["error_y"]["array"] == pytest.approx([0.0, 0.1, 0.1])
    assert "random orders" in figures["removal"].caption
    assert "on 40 rows" in figures["removal"].caption


def test_a_pick_stands_beside_its_random_direction(figures):
    found = {one["name"]: one for one in traces(figures["picks"])}
    assert found["tuned"]["x"] == [-2.5]
    assert found["random"]["x"] == [-0.25]
    assert "strongest head: L1H2" in found["tuned"]["text"][0]


def test_sets_pairs_and_places_are_listed_and_heads_are_not(figures):
    said = " ".join(text for panel in range(len(figures["sets"].panels)) for one in traces(figures["sets"], panel)
                    for text in one["text"])  # fmt: skip
    for name in ("mine", "L0N0-9", "L0H0+L0H1"):
        assert f"{name}, tuned" in said
    assert "L1H2" not in said
    assert "all but" not in said
    assert traces(figures["all-but-one"])[0]["z"] == [[-3.5]]
    assert "largest |t|" in figures["sets"].caption  # the correction that was asked for


def test_another_seed_is_drawn_where_its_effect_is(figures):
    points = traces(figures["seeds"])[1]
    assert (points["x"], points["y"]) == ([-2.75], [-2.0])
    assert points["marker"]["symbol"] == ["circle"]
    assert "heads against seed 1 0.625" in figures["seeds"].caption
    assert "heads against its own base 0.125" in figures["seeds"].caption


def test_study_000_stands_as_published_and_as_it_was_meant(figures):
    panels = figures["published"].panels
    assert "P(sadness) in every column" in panels[0].title
    published = panels[0].figure["data"][0]
    assert published["z"] == [[-0.375] * 2, [-0.0625] * 2]  # all but the first block's last
    assert panels[1].figure["data"][0]["z"] == [[-0.3125] * 2]
    assert panels[2].figure["data"][0]["z"] == [[-0.6875] * 2]
    strongest = panels[3].figure
    assert strongest["data"][0]["z"] == [[-0.4375] * 2]
    assert strongest["layout"]["yaxis"]["ticktext"] == ["L0H1"]


def test_the_screen_says_how_well_it_ranked_and_what_it_missed(figures):
    screen = figures["screen"]
    assert traces(screen)[0]["x"] == [0.75]
    assert "passed on the 20 best components" in screen.caption
    assert "worst miss is L1H1, −0.500 [−0.600, −0.400] logits of margin, number 7 of all" in screen.caption


def test_long_lists_keep_the_largest():
    rows = pl.DataFrame(
        [record(f"L0D{i}", "resid_post", -float(i), layer=0) for i in range(40)], infer_schema_length=None
    )
    (entries,) = more.others(rows, "zero", "margin_change").values()
    assert [name for name, _ in entries][:2] == ["L0D39", "L0D38"]
    assert len(entries) == more.SHOWN
