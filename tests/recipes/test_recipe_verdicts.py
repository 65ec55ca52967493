"""Verdicts by rule on planted numbers: every verdict word is reached, and by nothing else than the numbers."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
import pytest
from pydantic import ValidationError

from tunescope.config.claims import ClaimConfig, ClaimNumber
from tunescope.lenses.claims.judge import judge, measure, rule_of
from tunescope.lenses.claims.rules import Arm
from tunescope.lenses.claims.verdicts import RULES, Evidence, claims


@dataclass(frozen=True)
class Planted:
    axes: dict
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = 100


def finder(*numbers):
    def find(wanted):
        axes = {key: getattr(wanted, key) for key in ("metric", "arm", "seed", "baseline", "layer")}
        asked = {key: value for key, value in axes.items() if value is not None}
        found = [one for one in numbers if all(one.axes.get(key) == value for key, value in asked.items())]
        if not found:
            raise LookupError(f"there is no {wanted.metric}")
        return found

    return find


ACCURACY = {
    "claim": "1", "statement": "It learns.", "reported": ".9", "source": "table 1", "published": 0.9,
    "number": {"metric": "accuracy"}, "lower": 0.85, "upper": 0.95,
    "verdicts": [
        {"verdict": "reproduced", "when": [{"lower": 0.85}], "because": "it is high"},
        {"verdict": "artefact of a leak", "because": "the look-up table does as well",
         "when": [{"minus": {"metric": "accuracy", "baseline": "lookup"}, "upper": 0.0}]},
    ],
    "otherwise": "it is neither",
}  # fmt: skip


def accuracy(value, half=0.02, arm="a", seed=0):
    return Planted({"metric": "accuracy", "arm": arm, "seed": seed}, value, value - half, value + half)


LOOKUP = Planted({"metric": "accuracy", "baseline": "lookup"}, 0.7, 0.65, 0.75)


def one(config=ACCURACY, *numbers, learned=True, seeds=(0,)):
    evidence = Evidence({}, {"a": Arm(learned, True)}, seeds, finder(*numbers))
    return claims([ClaimConfig.model_validate(config)], evidence).table.row(0, named=True)


@pytest.mark.parametrize(
    ("value", "half", "verdict", "outside"),
    [
        (0.9, 0.02, "reproduced", False),
        (0.86, 0.02, "not reproduced", False),  # the interval straddles the bound
        (0.6, 0.02, "artefact of a leak", True),
        (0.72, 0.02, "not reproduced", True),
    ],
)
def test_the_first_rule_whose_whole_interval_holds_is_the_verdict(value, half, verdict, outside):
    row = one(ACCURACY, accuracy(value, half), LOOKUP)
    assert (row["verdict"], row["outside"]) == (verdict, outside)
    assert row["value"] == value
    assert row["ours"].startswith(f"{value:.2f}"[:4])
    if verdict == "not reproduced":
        assert row["why"] == "it is neither"


def test_a_model_that_did_not_learn_says_nothing():
    row = one(ACCURACY, accuracy(0.9), LOOKUP, learned=False)
    assert (row["verdict"], row["why"]) == ("task not learned", "its accuracy does not clear the majority's")
    assert (
        one({**ACCURACY, "learned": False}, accuracy(0.9), LOOKUP, learned=False)["verdict"] == "reproduced"
    )


def test_what_cannot_be_tested_says_why():
    assert one(ACCURACY, accuracy(0.5))["verdict"] == "not testable here because there is no accuracy"
    undefined = Planted({"metric": "accuracy", "arm": "a", "seed": 0}, None)
    assert one(ACCURACY, undefined)["verdict"] == "not testable here because accuracy is undefined"
    stated = {key: ACCURACY[key] for key in ("claim", "statement", "reported", "source", "number")}
    row = one({**stated, "not_testable": "two pairs have no error"}, accuracy(0.9))
    assert row["verdict"] == "not testable here because two pairs have no error"
    assert row["ours"].startswith("0.9")


def test_seeds_must_agree():
    same = one(ACCURACY, accuracy(0.9), accuracy(0.91, seed=1), LOOKUP, seeds=(0, 1))
    assert (same["verdict"], same["value"]) == ("reproduced", pytest.approx(0.905))
    apart = one(ACCURACY, accuracy(0.9), accuracy(0.5, seed=1), LOOKUP, seeds=(0, 1))
    assert apart["verdict"] == "not reproduced"
    assert apart["why"].startswith("seeds disagree: seed 0 reproduced")


def test_differences_take_the_widest_interval_and_sizes_fold_at_zero():
    twice = {"minus": {"metric": "accuracy", "baseline": "lookup"}, "times": 2.0, "lower": -0.61}
    rule = [{"verdict": "reproduced", "because": "b", "when": [twice]}]
    # 0.9 - 2 x 0.7 = -0.5, from 0.88 - 1.5 = -0.62 to 0.92 - 1.3
    assert one({**ACCURACY, "verdicts": rule}, accuracy(0.9), LOOKUP)["verdict"] == "not reproduced"
    rule[0]["when"][0]["lower"] = -0.63
    assert one({**ACCURACY, "verdicts": rule}, accuracy(0.9), LOOKUP)["verdict"] == "reproduced"
    size = [{"verdict": "reproduced", "because": "b", "when": [{"size": True, "upper": 0.031}]}]
    assert one({**ACCURACY, "verdicts": size}, accuracy(-0.01), LOOKUP)["verdict"] == "reproduced"
    assert one({**ACCURACY, "verdicts": size}, accuracy(-0.02), LOOKUP)["verdict"] == "not reproduced"


def layers(*values):
    return [
        Planted({"metric": "m", "layer": layer}, value, value - 0.1, value + 0.1)
        for layer, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("take", "without", "expected"),
    [("greatest", {}, 2.0), ("least", {}, -3.0), ("largest", {}, -3.0), ("mean", {}, 0.0), ("only", {"layer": 0}, None),
     ("least", {"layer": 1}, 1.0)],
)  # fmt: skip
def test_which_of_several_numbers_is_meant(take, without, expected):
    number = ClaimNumber.model_validate({"metric": "m", "take": take, "without": without})
    if expected is None:
        with pytest.raises(LookupError, match="2 numbers are m"):
            measure(number, finder(*layers(1.0, -3.0, 2.0)))
        return
    assert measure(number, finder(*layers(1.0, -3.0, 2.0))).value == expected


def test_the_rule_stands_beside_the_verdict_in_words():
    words = rule_of(ClaimConfig.model_validate(ACCURACY))
    assert words == (
        "reproduced: the number at least 0.85; artefact of a leak: the number minus accuracy (baseline lookup) at most "
        "0; otherwise not reproduced"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdicts": []}, "exactly one of 'verdicts', 'rule' and 'not_testable'"),
        ({"rule": "bow_tie"}, "exactly one of"),
        ({"number": None}, "'verdicts' judge a number"),
        ({"options": {"loss": 1.0}}, "'options' belong to 'rule'"),
        ({"verdicts": [{"verdict": "true", "when": [{"lower": 0}], "because": "b"}]}, "it is none of these words"),
        ({"verdicts": [{"verdict": "artefact of ", "when": [{"lower": 0}], "because": "b"}]}, "none of these words"),
        ({"verdicts": [{"verdict": "reproduced", "when": [{}], "because": "b"}]}, "a condition needs a bound"),
    ],
)  # fmt: skip
def test_claims_that_no_rule_can_judge_are_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        ClaimConfig.model_validate({**ACCURACY, **change})


def test_a_rule_that_is_code_needs_its_lens():
    config = {key: ACCURACY[key] for key in ("claim", "statement", "reported", "source")} | {
        "rule": "bow_tie"
    }
    row = one(config)
    assert row["verdict"] == "not testable here because the lens cka was not run for it"
    assert row["rule"] == RULES["bow_tie"].words


def test_no_claims_no_table():
    assert claims([], Evidence({"cka": pl.DataFrame()}, {}, [0], finder())) is None


def test_a_number_without_an_interval_is_no_evidence_unless_the_rule_asks_for_the_value():
    bare = Planted({"metric": "accuracy", "arm": "a", "seed": 0}, 0.9, n=3)
    found = judge(ClaimConfig.model_validate(ACCURACY), finder(bare))
    assert found.verdict == "not testable here"
    assert found.ours == "0.900"
    assert found.why == "the number at least 0.85 is judged by an interval, and 0.900 of 3 rows has none"
    by_value = [{"verdict": "reproduced", "when": [{"lower": 0.85, "judge": "value"}], "because": "b"}]
    found = judge(ClaimConfig.model_validate({**ACCURACY, "verdicts": by_value}), finder(bare))
    assert found.verdict == "reproduced"
