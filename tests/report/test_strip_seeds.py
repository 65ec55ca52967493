"""The grey along every line of the depth strip: the lowest to the highest value of single seeds."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from report_results import LAYERS, ablation_records, cka_records

from tunescope.report.figures import depth, lanes, style
from tunescope.report.figures.select import only
from tunescope.stats.results import result_table

SEEDS = (0, 1, 2)
SHIFT = {0: 0.0, 1: 0.02, 2: -0.05}


def shifted(table):
    """Move each seed's values by its own known amount, so that the span of the seeds is known too."""
    return table.with_columns(
        value=pl.col("value") + pl.col("seed").replace_strict(SHIFT, return_dtype=pl.Float64)
    )


def plain_records(seeds, **more):
    return [
        {"arm": "full", "seed": seed, "layer": layer, "value": 0.4 + 0.05 * layer, "n": 100, **more}
        for seed in seeds
        for layer in range(LAYERS)
    ]


def every_lane(seeds):
    generator = np.random.default_rng(0)
    effects = shifted(result_table(ablation_records(generator, ("full",), ("joy", "fear"), (0,))))
    parts = [effects.with_columns(seed=pl.lit(seed, effects.schema["seed"])) for seed in seeds]
    effects = shifted(pl.concat(parts))
    one = result_table(cka_records(generator, ("full",), (0,)))
    cka = shifted(pl.concat([one.with_columns(seed=pl.lit(seed, one.schema["seed"])) for seed in seeds]))
    weights = plain_records(seeds, site="block", metric="relative_frobenius", model="tuned_minus_base")
    probes = plain_records(seeds, site="resid_post", metric="probe_accuracy", model="tuned")
    grafts = plain_records(
        seeds, site="block", metric="recovered_accuracy", scope="up_to_here", control="none", model="base"
    )
    arms = ("full",)
    return {
        "weights": lanes.weight_lane(shifted(result_table(weights)), arms),
        "cka": lanes.cka_lane(cka, arms),
        "probes": lanes.reading_lane(
            shifted(result_table(probes)), arms, "probe_accuracy", "probes", "probe"
        ),
        "attention": lanes.sublayer_lane(effects, arms, "attn_out", "attention", "zero"),
        "mlp": lanes.sublayer_lane(effects, arms, "mlp_out", "MLP", "zero"),
        "heads": lanes.head_lane(effects, arms, "zero"),
        "grafting": lanes.graft_lane(shifted(result_table(grafts)), arms),
    }


@pytest.mark.parametrize("name", ["weights", "cka", "probes", "attention", "mlp", "heads", "grafting"])
def test_each_lane_knows_how_far_its_seeds_lie_apart(name):
    lane = every_lane(SEEDS)[name]
    (line,) = [one for one in lane.lines if not one.base]
    assert set(line.seeds) == set(line.points)
    for low, high in line.seeds.values():
        assert high - low == pytest.approx(0.07)
    grey = style.faded(style.BASE_COLOUR, 0.28)
    drawn = [one for one in depth.depth_strip([lane]).figure["data"] if one.get("fillcolor") == grey]
    ends = [(low, high) for low, high in line.seeds.values()]
    assert any(
        one["y"] == [*(high for _, high in ends), *(low for low, _ in reversed(ends))] for one in drawn
    )


@pytest.mark.parametrize("name", ["weights", "cka", "probes", "attention", "mlp", "heads", "grafting"])
def test_one_seed_has_no_span(name):
    assert all(not line.seeds for line in every_lane((0,))[name].lines)


def test_the_base_of_several_seeds_has_no_span_of_its_own():
    lane = every_lane(SEEDS)["attention"]
    assert [bool(line.seeds) for line in lane.lines if line.base] == [False]


def test_seeds_are_told_apart_whatever_order_the_rows_have():
    table = shifted(
        result_table(plain_records(SEEDS, site="block", metric="relative_frobenius", model="tuned"))
    )
    mixed = table.sample(fraction=1, shuffle=True, seed=3)
    first, second = (lanes.weight_lane(one, ("full",)).lines[0].seeds for one in (table, mixed))
    assert first == second
    low, high = first[0]
    values = only(table, layer=0)["value"]
    assert (low, high) == (values.min(), values.max())
