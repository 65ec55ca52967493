"""Rules of recipes on planted numbers: a verdict needs the whole interval, and a wide one cannot tell."""

from __future__ import annotations

import pytest

from tunescope.commands.recipes import Wanted
from tunescope.config import recipes
from tunescope.expect.numbers import Number, _of_lens
from tunescope.lenses.claims.judge import judge

CATCH_ALL = (-1.0, 0.0)  # bounds below every share: "always", at the end of a list of rules


def claim_of(name, number):
    study, _ = Wanted(name).load()
    return next(one for one in study.claims if one.claim == number)


def verdict(claim, *ends, others=()):
    """Judge a claim whose own number is the first, looked up by what is asked for."""

    def find(wanted):
        for test, number in others:
            if test(wanted):
                return [number]
        return [Number({}, *ends, 30)]

    return judge(claim, find).verdict


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((0.533, 0.361, 0.698), "not testable here"),  # what 30 rows give
        ((0.5, 0.40, 0.60), "reproduced"),
        ((0.9, 0.80, 0.97), "not reproduced"),
        ((0.1, 0.05, 0.20), "not reproduced"),
    ],
)
def test_an_accuracy_of_few_rows_is_held_against_the_published_interval(ends, expected):
    assert verdict(claim_of("di725-nanogpt", "1"), *ends) == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ((0.5, 0.33, 0.67), "artefact of a column that decides the label"),
        ((0.93, 0.80, 0.99), "not testable here"),  # the intervals of table and model overlap
    ],
)
def test_a_look_up_table_must_beat_both_models_by_intervals(model, expected):
    others = [(lambda wanted: wanted.arm is not None, Number({}, *model, 30))]
    assert verdict(claim_of("di725-nanogpt", "4"), 1.0, 0.886, 1.0, others=others) == expected


@pytest.mark.parametrize(
    ("name", "ends", "expected"),
    [
        ("di725-nanogpt", (0.0, 0.0, 0.278), "not reproduced"),
        ("di725-nanogpt", (0.5, 0.237, 0.763), "reproduced"),
        ("di725-nanogpt", (0.2, 0.06, 0.51), "not testable here"),
        ("di725-nanogpt-as-published", (0.0, 0.0, 0.278), "reproduced"),
        ("di725-nanogpt-as-published", (0.5, 0.237, 0.763), "not reproduced"),
    ],
)
def test_ten_positives_can_show_no_more_than_three_in_ten(name, ends, expected):
    assert verdict(claim_of(name, "5"), *ends) == expected


@pytest.mark.parametrize(
    ("loudest", "any_direction", "machine", "expected"),
    [
        ((-0.001, -0.014, 0.012), (0.010, -0.004, 0.026), (0.0, -0.01, 0.01), "artefact of any direction"),
        ((-0.001, -0.014, 0.012), (-0.2, -0.24, -0.16), (0.0, -0.01, 0.01), "reproduced"),
        ((-0.25, -0.29, -0.21), (-0.2, -0.24, -0.16), (0.0, -0.01, 0.01),
         "artefact of a radial machine on another dimension"),
        ((-0.25, -0.29, -0.21), (-0.2, -0.24, -0.16), (-0.2, -0.24, -0.16), "not reproduced"),
        ((-0.02, -0.05, 0.01), (-0.2, -0.24, -0.16), (-0.2, -0.24, -0.16), "not testable here"),
    ],
)  # fmt: skip
def test_a_threshold_is_judged_by_its_paired_difference(loudest, any_direction, machine, expected):
    others = [
        (lambda wanted: wanted.metric == "support_vector_accuracy_difference", Number({}, *machine, 872)),
        (lambda wanted: wanted.where.get("by") == "random direction" and wanted.metric.endswith("_difference"),
         Number({}, *any_direction, 872)),
        (lambda wanted: wanted.metric == "one_dimension_accuracy_difference", Number({}, *loudest, 872)),
    ]  # fmt: skip
    assert verdict(claim_of("gptology", "3a"), 0.7, 0.67, 0.73, others=others) == expected


def test_a_lens_s_paired_difference_is_a_number_of_its_own():
    import polars as pl

    table = pl.DataFrame({
        "arm": ["a", "a"], "metric": ["one", "whole"], "value": [0.7, 0.8], "low": [0.6, 0.7], "high": [0.75, 0.85],
        "n": [9, 9], "difference": [-0.1, None], "difference_low": [-0.2, None], "difference_high": [-0.05, None],
    })  # fmt: skip
    found = {one.axes["metric"]: one for one in _of_lens(table)}
    assert list(found) == ["one", "one_difference", "whole"]
    paired = found["one_difference"]
    assert (paired.value, paired.low, paired.high, paired.n) == (-0.1, -0.2, -0.05, 9)
    assert "difference" not in paired.axes


@pytest.mark.parametrize("name", recipes())
def test_no_claim_is_decided_by_a_value_without_its_interval(name):
    study, _ = Wanted(name).load()
    for claim in study.claims:
        for rule in claim.verdicts:
            for condition in rule.when:
                always = condition.lower in CATCH_ALL and condition.upper is None
                assert condition.judge == "interval" or (rule.verdict == "not testable here" and always), (
                    claim.claim
                )
