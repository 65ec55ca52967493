"""The section on activations: every number by its name, hovers that say where, the strongest neuron on top."""

from __future__ import annotations

from types import SimpleNamespace

from tunescope.report import activations
from tunescope.report.read import LensResult
from tunescope.stats.results import result_table


def table():
    records = []
    for model, add in (("base", 0.0), ("tuned", 5.0), ("tuned_minus_base", 5.0)):
        for layer in (0, 1):
            about = {"arm": "a", "seed": 0, "model": model, "layer": layer, "n": 30, "q": 0.01}
            value = 10.0 * layer + add + 1
            ends = {"value": value, "low": value - 1, "high": value + 1}
            for site in ("resid_post", "attn_out", "mlp_out", "mlp_neurons"):
                records.append({**about, **ends, "site": site, "metric": "norm_without_first"})
            where = {"dimension": 138, "position": 0, "share_dimension": 0.9, "share_position": 1.0}
            for metric in ("largest", "largest_over_median"):
                records.append({**about, **ends, **where, "site": "resid_post", "metric": metric})
    for rank, value in enumerate((0.9, -0.5)):
        about = {
            "arm": "a",
            "seed": 0,
            "site": "mlp_neurons",
            "layer": 1,
            "neuron": 40 + rank,
            "rank": rank,
            "n": 15,
        }
        records += [
            {**about, "model": "base", "metric": "neuron_mean", "value": 0.25},
            {**about, "model": "tuned", "metric": "neuron_mean", "value": 0.25 + value},
            {**about, "model": "tuned_minus_base", "metric": "neuron_shift", "value": value, "low": value - 0.1,
             "high": value + 0.1, "q": 1e-5, "control": 0.02},
        ]  # fmt: skip
    return result_table(records).sample(fraction=1, shuffle=True, seed=2)


def test_curves_massive_activations_and_neurons_are_drawn_from_the_table_by_name():
    result = LensResult("activations", table(), {"rows": {"split": "validation", "n": 30}})
    run = SimpleNamespace(results={"activations": result}, arm_names=["a"])
    (group,) = activations.groups(run)
    sizes, massive, neurons = group.figures
    assert [panel.title for panel in sizes.panels] == [
        "stream",
        "attention's output",
        "MLP's output",
        "neurons",
    ]
    base, tuned = sizes.panels[0].figure["data"]
    assert (base["y"], tuned["y"]) == ([1.0, 11.0], [6.0, 16.0])
    assert "changed by +6, q 0.010" in tuned["text"][0]
    assert (
        "dimension 138 in 90 % of texts, position 0 in 100 %"
        in massive.panels[0].figure["data"][1]["text"][0]
    )
    shown = neurons.panels[0].figure
    assert shown["layout"]["yaxis"]["ticktext"] == ["L1N40", "L1N41"]
    assert shown["data"][-1]["x"] == [0.9, -0.5]
    assert "base 0.250, tuned 1.15" in shown["data"][-1]["text"][0]
