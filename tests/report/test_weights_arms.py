"""Full tuning and LoRA on one axis: every arm's numbers by its name, medians over matrices, controls dashed."""

from __future__ import annotations

from types import SimpleNamespace

from tunescope.report import weights
from tunescope.report.read import LensResult
from tunescope.stats.results import result_table


def rows(arm, rank):
    about = {"arm": arm, "seed": 0, "model": "base_tuned"}
    found = []
    for layer in (0, 1):
        found.append(
            {**about, "site": "block", "layer": layer, "metric": "relative_frobenius", "value": rank / 100}
        )
        for matrix, add in (("query", 0.0), ("key", 1.0), ("value", 5.0)):
            for metric in ("stable_rank", "effective_rank"):
                found.append({
                    **about, "site": matrix, "layer": layer, "metric": metric, "value": rank + add + layer,
                    "control": 50.0,
                })  # fmt: skip
            for threshold in (0.3, 0.6):
                found.append({
                    **about, "site": matrix, "layer": layer, "metric": "intruder_dimensions", "threshold": threshold,
                    "value": rank * threshold, "control": 1.0,
                })  # fmt: skip
    return found


def test_all_arms_stand_in_one_figure_with_their_own_numbers():
    table = result_table([*rows("lora", 2.0), *rows("full", 20.0)]).sample(fraction=1, shuffle=True, seed=3)
    run = SimpleNamespace(
        results={"weights": LensResult("weights", table, {})}, arm_names=["full", "lora"], withheld=None
    )
    together = weights.groups(run)[0]
    assert together.title == "All arms"
    size, stable, _effective, intruders = together.figures[0].panels
    by_name = {trace["name"]: trace for trace in stable.figure["data"]}
    assert by_name["lora"]["y"] == [3.0, 4.0]  # the median of rank, rank + 1 and rank + 5 in layers 0 and 1
    assert by_name["full"]["y"] == [21.0, 22.0]
    assert by_name["lora, without structure"]["y"] == [50.0, 50.0]
    assert {trace["name"]: trace["y"] for trace in size.figure["data"]} == {
        "full": [0.2, 0.2],
        "lora": [0.02, 0.02],
    }
    curve = next(trace for trace in intruders.figure["data"] if trace["name"] == "full")
    assert curve["x"] == [0.3, 0.6]
    assert [round(one, 6) for one in curve["y"]] == [6 * 6.0, 6 * 12.0]


def test_one_arm_alone_has_no_figure_of_all():
    run = SimpleNamespace(
        results={"weights": LensResult("weights", result_table(rows("full", 20.0)), {})},
        arm_names=["full"],
        withheld=None,
    )
    assert [group.title for group in weights.groups(run)] == ["full"]
