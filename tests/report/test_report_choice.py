"""Which method should I pick: dominated arms against brute force, unresolved differences, bias and forgetting."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
from report_evidence import place_of
from report_run import Recipe, make_run

from tunescope.files import read_json, write_json
from tunescope.report.choice import choice
from tunescope.report.read import read_run
from tunescope.stats.results import Result, result_table


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Return a run of five arms, of which the tests set quality and costs."""
    recipe = Recipe(arms=("a", "b", "c", "d", "e"), accuracy=(0.9, 0.8, 0.7, 0.9, 0.6))
    return make_run(tmp_path_factory.mktemp("choice") / "run", recipe)


def set_arm(folder, arm, accuracy, seconds, memory, trained, **more):
    place = place_of(folder, arm, 0)
    document = read_json(place / "metrics.json")
    del document["format_version"]
    for record in document["records"]:
        if record["split"] == "test" and record["metric"] == "accuracy":
            record |= {"value": accuracy, "low": accuracy - 0.02, "high": accuracy + 0.02}
    document["records"] = [one for one in document["records"] if one["metric"] != "forgetting"]
    if "forgetting" in more:
        document["records"].append(
            {"split": "general", "metric": "forgetting", "class": None, "value": more["forgetting"], "n": 9}
        )
    document |= {"seconds": seconds, "trainable_parameters": trained, "cost": {"peak_memory_bytes": memory}}
    write_json(place / "metrics.json", document)


def test_dominated_is_what_brute_force_over_all_costs_says(many):
    generator = np.random.default_rng(3)
    for _ in range(4):
        drawn = {
            arm: (
                float(generator.choice([0.7, 0.8, 0.9])),
                *(float(one) for one in generator.choice([1, 2, 4], 3)),
            )
            for arm in "abcde"
        }
        for arm, (accuracy, seconds, memory, trained) in drawn.items():
            set_arm(many, arm, accuracy, seconds, memory * 1e9, int(trained * 1e6))
        found = {one.arm: set(one.dominated_by) for one in choice(read_run(many)).options}
        for ours, theirs in itertools.permutations("abcde", 2):
            mine, other = ((-v[0], *v[1:]) for v in (drawn[ours], drawn[theirs]))
            expected = all(o <= m for o, m in zip(other, mine, strict=True)) and other != mine
            assert (theirs in found[ours]) == expected, (drawn[ours], drawn[theirs])


def test_times_within_noise_do_not_save_an_arm_and_forgetting_does(many):
    for arm in "cde":
        set_arm(many, arm, 0.5, 900, 9e9, 9_000_000)
    set_arm(many, "a", 0.9, 100.0, 2e9, 1000)
    set_arm(many, "b", 0.8, 97.0, 1.95e9, 1000)
    found = {one.arm: one for one in choice(read_run(many)).options}
    assert found["b"].dominated_by == ("a",)
    set_arm(many, "a", 0.9, 100.0, 2e9, 1000, forgetting=0.5)
    set_arm(many, "b", 0.8, 97.0, 1.95e9, 1000, forgetting=0.1)
    chosen = choice(read_run(many))
    assert {one.arm: one.dominated_by for one in chosen.options}["b"] == ()
    assert "b (−0.100) has less forgetting" in chosen.sentence
    assert chosen.knows("forgetting")
    assert not chosen.knows("bias")
    assert "Not measured in this run: the bias gap." in chosen.notes


def test_the_bias_gap_is_of_people_and_not_of_typos(many):
    records = [
        {"arm": arm, "seed": 0, "model": model, "suite": suite, "kind": "invariance", "part": "all", "n": 50,
         "metric": "margin_change", "value": value, "low": value - 0.01, "high": value + 0.01}
        for arm in "ab" for model in ("base", "tuned")
        for suite, value in (("gender", 0.1), ("eec-race", -0.3 if arm == "a" else -0.2), ("typos", -2.0))
    ]  # fmt: skip
    Result("behaviour", result_table(records), {"what": "Suites.", "rows": {}}).save(many / "results")
    found = {one.arm: one for one in choice(read_run(many)).options}
    assert (found["a"].bias.value, found["a"].bias_suite) == (-0.3, "eec-race")
    assert found["b"].bias.value == -0.2
    assert not found["c"].bias.known


def test_unresolved_differences_are_said_and_best_comes_first(many):
    pairs = [
        {"first": "a", "second": "b", "verdict": "undecided"}, {"first": "a", "second": "c", "verdict": "found"},
    ]  # fmt: skip
    write_json(many / "comparison.json", {"done": True, "metric": "accuracy", "split": "test", "pairs": pairs,
                                          "arms": []})  # fmt: skip
    set_arm(many, "a", 0.9, 100.0, 2e9, 1000)
    set_arm(many, "b", 0.89, 10.0, 2e9, 1000)
    found = choice(read_run(many))
    assert found.sentence.startswith(
        "a has the best accuracy, 0.900 [0.880, 0.920]; b (−0.010) has 90 % less time"
    )
    assert "Not resolved by accuracy on test, 1 of 2 pairs: a and b." in found.sentence
    assert [one.arm for one in found.options][:2] == ["a", "b"]
    (many / "comparison.json").unlink()
    assert "were not tested in this run" in choice(read_run(many)).sentence


def test_one_arm_is_no_choice_and_what_did_not_learn_is_none(tmp_path):
    assert choice(read_run(make_run(tmp_path / "one", Recipe(arms=("only",), accuracy=(0.9,))))) is None
    failed = choice(read_run(make_run(tmp_path / "none", Recipe(accuracy=(0.05, 0.05)))))
    assert failed.sentence == "No arm has learned the task, so there is nothing to choose."
    assert pl.Series([one.learned for one in failed.options]).to_list() == [False, False]
