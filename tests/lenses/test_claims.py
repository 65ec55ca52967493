"""Study 001's claims: each verdict follows from planted numbers, and every way a claim can fail has its name."""

from __future__ import annotations

import polars as pl
import pytest

from tunescope.config.claims import ClaimConfig
from tunescope.lenses.claims.rules import (
    Arm,
    bow_tie_claim,
    few_dimensions_claim,
    last_half_claim,
    one_dimension_claim,
    same_place_claim,
)
from tunescope.lenses.claims.verdicts import Evidence, claims


def bow_ties(raw=(0.1, 0.3), equal=(0.1, 0.2), standardised=(0.05, 0.2), seed=0):
    rows = [
        ("cka", "bow_tie", raw), ("cka", "bow_tie_equal_distance", equal),
        ("cka_standardised", "bow_tie", standardised),
    ]  # fmt: skip
    return [
        {"arm": "a", "seed": seed, "model": "tuned_minus_base", "metric": metric, "similarity": similarity,
         "value": (low + high) / 2, "low": low, "high": high, "n": 100}
        for similarity, metric, (low, high) in rows
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "reproduced"),
        ({"raw": (-0.1, 0.2)}, "not reproduced"),
        ({"raw": (-0.3, -0.1)}, "not reproduced"),
        ({"equal": (-0.1, 0.1)}, "artefact of fading with distance"),
        ({"standardised": (-0.1, 0.1)}, "artefact of a few loud dimensions"),
    ],
)
def test_the_bow_tie(change, verdict):
    assert bow_tie_claim(pl.DataFrame(bow_ties(**change))).verdict == verdict


def test_seeds_must_agree():
    table = pl.DataFrame([*bow_ties(), *bow_ties(raw=(-0.2, 0.1), seed=1)])
    found = bow_tie_claim(table)
    assert found.verdict == "not reproduced"
    assert found.why.startswith("seeds disagree: seed 0 reproduced")
    assert (found.low, found.high) == (-0.2, 0.3)


def alike(values, metric="cka", model="base_tuned", half=0.02, seed=0):
    return [
        {"arm": "a", "seed": seed, "model": model, "metric": metric, "site": "resid_post", "site_other": "resid_post",
         "layer": layer, "layer_other": layer, "value": value, "low": value - half, "high": value + half, "n": 50}
        for layer, value in enumerate(values)
    ]  # fmt: skip


FALLING, LEVEL = [0.95, 0.94, 0.6, 0.5], [0.9, 0.9, 0.9, 0.9]


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ([*alike(FALLING), *alike(FALLING, "cka_standardised")], "reproduced"),
        ([*alike(LEVEL), *alike(LEVEL, "cka_standardised")], "not reproduced"),
        ([*alike(FALLING), *alike(LEVEL, "cka_standardised")], "artefact of a few loud dimensions"),
        (
            [*alike(FALLING), *alike(FALLING, model="tuned_seeds")],
            "artefact of training at all, not of the task",
        ),
        ([*alike(FALLING), *alike(LEVEL, model="tuned_seeds")], "reproduced"),
    ],
)
def test_the_last_half(rows, verdict):
    assert last_half_claim(pl.DataFrame(rows)).verdict == verdict


def shared(tuned, base):
    return pl.DataFrame([
        {"arm": "a", "seed": 0, "other": "qnli", "model": model, "metric": "shared_top_dimensions", "layer": 6,
         "value": float(value), "top": 10, "control": 100 / 256, "n": 80}
        for model, value in (("tuned_other", tuned), ("base_other", base))
    ])  # fmt: skip


def test_the_same_place():
    assert same_place_claim(shared(8, 3), None).verdict == "reproduced"
    assert same_place_claim(shared(9, 9), None).verdict == "artefact of pretraining"
    assert same_place_claim(shared(7, 3), None).verdict == "not reproduced"
    assert same_place_claim(None, None).verdict == "not testable here"
    assert "p = 1" not in same_place_claim(shared(8, 3), None).ours


def dimensions(
    one=0.9, full=0.91, best=0.7, difference=(-0.01, -0.02, 0.0), left=0.9, random=(0.5, 0.6), arm="a"
):
    about = {"arm": arm, "seed": 0, "model": "tuned", "n": 500}
    dimension = {**about, "metric": "one_dimension_accuracy"}
    curve = {**about, "metric": "removal_accuracy", "head_fit": "frozen", "edit": "zero"}
    return pl.DataFrame([
        {**about, "metric": "model_accuracy", "value": full, "low": full, "high": full},
        {**dimension, "by": "variance", "dimension": 5, "value": one, "low": one - 0.02, "high": one + 0.02,
         "difference": difference[0], "difference_low": difference[1], "difference_high": difference[2]},
        {**dimension, "by": "random direction", "value": best, "low": best, "high": best},
        {**about, "metric": "support_vector_accuracy", "classifier": "RBF support vectors", "value": 0.6, "low": 0.55,
         "high": 0.65, "by": "study 001's 496 of 768 as a share of the width", "dimension": 165},
        {**curve, "order": "variance, lowest first", "removed": 0, "value": full, "low": full, "high": full},
        {**curve, "order": "variance, lowest first", "removed": 255, "value": left, "low": left, "high": left},
        {**curve, "order": "random", "removed": 255, "value": sum(random) / 2, "low": random[0], "high": random[1]},
        {**curve, "order": "random", "removed": 256, "value": 0.5, "low": 0.5, "high": 0.5},
    ], infer_schema_length=None)  # fmt: skip


def test_one_dimension():
    found = one_dimension_claim(dimensions())
    assert found.verdict == "reproduced"
    assert "as published (RBF support vectors" in found.ours
    assert found.value == pytest.approx(-0.01 / 0.91)
    assert one_dimension_claim(dimensions(best=0.89)).verdict == "artefact of any direction"
    far = one_dimension_claim(dimensions(one=0.6, difference=(-0.31, -0.35, -0.27)))
    assert (far.verdict, "reaches" in far.why) == ("not reproduced", False)
    near = one_dimension_claim(dimensions(one=0.88, difference=(-0.03, -0.05, -0.01)))
    assert (near.verdict, "reaches" in near.why) == ("not reproduced", True)


def test_few_dimensions():
    assert few_dimensions_claim(dimensions()).verdict == "reproduced"
    assert few_dimensions_claim(dimensions(left=0.8)).verdict == "not reproduced"
    assert (
        few_dimensions_claim(dimensions(random=(0.8, 0.95))).verdict == "artefact of having many dimensions"
    )


def judged(tables, arms):
    wanted = [
        ClaimConfig(claim=name, statement="s", reported="r", source="t", rule=rule)
        for name, rule in (("1", "bow_tie"), ("1b", "last_half"), ("2", "same_place"), ("3", "one_dimension"),
                           ("3b", "few_dimensions"), ("4", "encoder_loses_more"))
    ]  # fmt: skip

    def find(number):
        raise AssertionError("these rules look no number up")

    table = claims(wanted, Evidence(tables, arms, [0], find)).table
    return {(row["claim"], row["arms"]): row["verdict"] for row in table.iter_rows(named=True)}


def test_all_claims_at_once_and_an_unlearned_arm_says_nothing():
    lossy = dimensions(one=0.6, difference=(-0.31, -0.35, -0.27), arm="bert")
    cka = pl.DataFrame([*bow_ties(), *[{**row, "arm": "bert"} for row in bow_ties()]])
    cka = cka.with_columns(site=pl.lit("resid_post"), site_other=pl.lit("resid_post"), layer=0, layer_other=0)
    tables = {"cka": cka, "dimensions": pl.concat([dimensions(), lossy], how="diagonal_relaxed")}
    by = judged(tables, {"a": Arm(True, True), "bert": Arm(True, False)})
    assert by["1", "a"] == "reproduced"
    assert by["1b", "a"].startswith("not testable here because")
    assert by["2", "a"] == "not testable here because the lens spread was not run for it"
    assert by["3", "a"] == "reproduced"
    assert by["3", "bert"] == "not reproduced"
    assert by["4", "a and bert"] == "reproduced"
    by = judged(tables, {"a": Arm(True, True), "bert": Arm(False, False)})
    assert by["3", "bert"] == by["4", "a and bert"] == "task not learned"
    assert by["2", "bert"].startswith("not testable here")
    assert (
        judged(tables, {"a": Arm(True, True)})["4", "a"]
        == "not testable here because the study has no encoder"
    )


def test_options_of_a_rule_change_its_verdict():
    table = {"dimensions": dimensions()}
    claim = ClaimConfig(
        claim="3", statement="s", reported="r", source="t", rule="one_dimension", options={"loss": 0.001}
    )
    found = claims([claim], Evidence(table, {"a": Arm(True, True)}, [0], lambda number: []))
    assert found.table["verdict"].to_list() == ["not reproduced"]
