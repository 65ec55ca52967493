"""Expectations against a run folder written by hand: verdicts, what rules are about, and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from tunescope.config.expect import CompareConfig, ElsewhereConfig, ExpectRule
from tunescope.errors import ConfigError, ExpectationError, RunError
from tunescope.expect import Number, check, decide, require, summary
from tunescope.files import write_json
from tunescope.stats.results import Result, result_table


def record(metric, value, low=None, high=None, split="test", label=None, **more):
    return {
        "split": split, "metric": metric, "class": label, "value": value, "low": low, "high": high, "n": 872,
        "method": "invented", "note": None, **more,
    }  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for arm, seed, accuracy in (("full", 0, 0.93), ("full", 1, 0.91), ("lora", 0, 0.88)):
        write_json(
            tmp_path / "arms" / arm / f"seed-{seed}" / "metrics.json",
            {
                "arm": arm, "seed": seed, "seconds": 12.5,
                "records": [
                    record("accuracy", accuracy, accuracy - 0.02, accuracy + 0.02),
                    record("accuracy", 0.99, 0.98, 1.0, split="train"),
                    record("recall", 0.8, 0.7, 0.9, label="positive"),
                    record("roc_auc_ovr", None, note="undefined: the split has one class only"),
                ],
                "slices": [record("accuracy", 0.7, 0.6, 0.8, column="length", group="the longest")],
                "cost": {"trainable_parameters": 49920, "peak_memory_bytes": 5e8, "devices": ["cpu"]},
            },
        )  # fmt: skip
    lookup = {"records": [record("accuracy", 1.0, 0.886, 1.0)]}
    write_json(tmp_path / "baselines" / "lookup" / "metrics.json", lookup)
    pair = {"first": "full", "second": "lora", "value": 0.05, "low": 0.01, "high": 0.09, "n": 872}
    write_json(tmp_path / "comparison.json", {"metric": "accuracy", "split": "test", "pairs": [pair]})
    effects = [
        {
            "arm": "full", "seed": 0, "model": "tuned", "site": "head_out", "layer": layer, "head": head,
            "metric": "margin_change", "value": value, "low": value - 0.1, "high": value + 0.1, "n": 512,
            "edit": edit,
        }
        for layer, head, edit, value in (
            (0, 0, "zero", -0.3), (0, 1, "zero", -0.5), (1, 0, "zero", -1.5), (0, 0, "mean", -0.05)
        )
    ]  # fmt: skip
    Result("ablation", result_table(effects), {}).save(tmp_path / "results")
    return tmp_path


def verdicts(run, **rule):
    return check(run, [ExpectRule.model_validate(rule)])


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"lower": 0.5}, "met"),
        ({"lower": 0.6}, "met"),  # the end of the interval itself
        ({"lower": 0.61}, "undecided"),
        ({"lower": 0.8}, "undecided"),
        ({"lower": 0.81}, "not met"),
        ({"upper": 0.8}, "met"),
        ({"upper": 0.79}, "undecided"),
        ({"upper": 0.6}, "undecided"),
        ({"upper": 0.59}, "not met"),
        ({"lower": 0.55, "upper": 0.85}, "met"),
        ({"lower": 0.65, "upper": 0.85}, "undecided"),
        ({"lower": 0.65, "upper": 0.75}, "undecided"),
        ({"equals": 0.7, "tolerance": 0.1}, "met"),
        ({"equals": 0.7}, "undecided"),
        ({"equals": 0.7, "judge": "value"}, "met"),
        ({"equals": 0.9, "tolerance": 0.05}, "not met"),
        ({"lower": 0.71, "judge": "value"}, "not met"),
    ],
)
def test_a_bound_is_undecided_exactly_where_the_interval_straddles_it(bounds, expected):
    rule = ExpectRule.model_validate({"metric": "accuracy", **bounds})
    assert decide(Number({}, 0.7, 0.6, 0.8), rule) == expected


def test_a_number_without_interval_is_judged_by_its_value_and_an_undefined_one_not_at_all():
    rule = ExpectRule(metric="seconds", upper=10.0)
    assert decide(Number({}, 9.99, None, None), rule) == "met"
    assert decide(Number({}, 10.01, None, None), rule) == "not met"
    assert decide(Number({}, None, None, None, note="one class"), rule) == "undecided"


def test_a_bound_is_not_broken_by_the_last_digit_of_a_float():
    assert decide(Number({}, 0.1 + 0.2, None, None), ExpectRule(metric="x", equals=0.3)) == "met"


def test_without_arm_and_seed_a_rule_holds_for_every_training(run):
    found = verdicts(run, metric="accuracy", lower=0.9)
    assert [(v.arm, v.seed, v.verdict) for v in found] == [
        ("full", 0, "met"), ("full", 1, "undecided"), ("lora", 0, "undecided"),
    ]  # fmt: skip
    assert summary(found) == {"met": 1, "not met": 0, "undecided": 2}
    assert (
        found[0].sentence
        == "met: full (seed 0): accuracy on test is 0.93 [0.91, 0.95]; expected at least 0.9."
    )


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ({"metric": "accuracy", "arm": "lora"}, 0.88),
        ({"metric": "accuracy", "arm": "full", "seed": 1}, 0.91),
        ({"metric": "accuracy", "arm": "lora", "split": "train"}, 0.99),
        ({"metric": "recall", "arm": "lora", "class": "positive"}, 0.8),
        ({"metric": "recall", "arm": "lora", "label": "positive"}, 0.8),
        ({"metric": "accuracy", "arm": "lora", "slice": {"column": "length", "group": "the longest"}}, 0.7),
        ({"metric": "trainable_parameters", "arm": "lora"}, 49920),
        ({"metric": "seconds", "arm": "lora"}, 12.5),
        ({"metric": "accuracy", "baseline": "lookup"}, 1.0),
        ({"metric": "accuracy", "arm": "full", "against": "lora"}, 0.05),
        ({"metric": "accuracy", "arm": "lora", "against": "full"}, -0.05),
        (
            {"lens": "ablation", "metric": "margin_change", "layer": 1, "head": 0, "where": {"edit": "zero"}},
            -1.5,
        ),
        ({"lens": "ablation", "metric": "margin_change", "where": {"edit": "mean"}}, -0.05),
    ],
)
def test_a_rule_finds_its_number(run, rule, value):
    (found,) = verdicts(run, **rule, lower=-1e9)
    assert found.value == pytest.approx(value)
    assert found.numbers == 1


def test_a_difference_turned_round_has_its_interval_turned_round(run):
    (found,) = verdicts(run, metric="accuracy", arm="lora", against="full", upper=0.0)
    assert (found.low, found.high, found.verdict) == (-0.09, -0.01, "met")


def test_of_several_numbers_of_a_lens_the_worst_decides_and_is_shown(run):
    rule = {"lens": "ablation", "metric": "margin_change", "where": {"edit": "zero"}, "lower": -0.45}
    (found,) = verdicts(run, **rule)
    assert (found.verdict, found.value, found.numbers, found.broken) == ("not met", -1.5, 3, 1)
    assert "1 of 3 such numbers are not met" in found.sentence


def test_the_source_and_an_undefined_number_are_said(run):
    (found,) = verdicts(run, metric="roc_auc_ovr", arm="lora", lower=0.9, source="Table 2", name="ranks well")
    assert found.verdict == "undecided"
    assert found.sentence == (
        "undecided: lora (seed 0): ranks well (roc_auc_ovr on test) is undefined: the split has one class only; "
        "expected at least 0.9 (Table 2)."
    )


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"metric": "accuracy", "arm": "loar"}, "unknown arm 'loar'; did you mean 'lora'?"),
        ({"metric": "acuracy"}, "unknown metric 'acuracy'; did you mean 'accuracy'?"),
        ({"metric": "accuracy", "seed": 7}, "unknown seed the number 7; expected one of: 0, 1"),
        ({"metric": "accuracy", "split": "validation"}, "unknown split 'validation'; expected one of: test, train"),
        ({"metric": "recall", "label": "positve"}, "unknown label 'positve'; did you mean 'positive'?"),
        ({"metric": "recall"}, "there is no such number over all labels; name one of: positive"),
        ({"metric": "accuracy", "baseline": "look-up"}, "unknown baseline 'look-up'; did you mean 'lookup'?"),
        ({"metric": "f1_macro", "against": "lora"}, "unknown metric 'f1_macro'; expected one of: accuracy"),
        ({"metric": "cka", "lens": "abblation"}, "unknown lens 'abblation'; did you mean 'ablation'?"),
        ({"metric": "margin_change", "lens": "ablation", "layer": 9}, "unknown layer the number 9; expected one of"),
        ({"metric": "margin_change", "lens": "ablation", "where": {"edits": "zero"}}, "did you mean 'edit'?"),
        (
            {"metric": "accuracy", "slice": {"column": "lenght", "group": 1}},
            "unknown column 'lenght'; did you mean 'length'?",
        ),
    ],
)  # fmt: skip
def test_what_the_run_does_not_have_is_named_with_its_nearest(run, rule, said):
    with pytest.raises(ConfigError) as caught:
        verdicts(run, **rule, lower=0.0)
    assert said in str(caught.value)
    assert caught.value.hint


def test_all_wrong_rules_are_told_at_once(run):
    rules = [ExpectRule(metric=name, lower=0.0) for name in ("acc", "accuracy", "f2")]
    with pytest.raises(ConfigError, match=r"(?s)^2 of 3 expectations.*expect\.0.*expect\.2"):
        check(run, rules)


def test_a_missing_or_damaged_run_is_refused(run, tmp_path):
    with pytest.raises(RunError, match="is not a run folder"):
        check(tmp_path / "nowhere", [])
    (run / "results" / "ablation.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunError, match="is corrupt"):
        verdicts(run, lens="ablation", metric="margin_change", lower=0.0)


def test_strict_counts_undecided_as_not_met_and_says_so(run):
    found = verdicts(run, metric="accuracy", lower=0.9)
    require(found, strict=False)
    with pytest.raises(
        ExpectationError, match=r"2 of 3 .* not met \(2 undecided, which --strict counts"
    ) as caught:
        require(found)
    assert caught.value.exit_code == 8
    with pytest.raises(ExpectationError, match=r"^3 of 3 expectations are not met:\n  not met: full"):
        require(verdicts(run, metric="accuracy", lower=0.99), strict=False)
    require(verdicts(run, metric="accuracy", lower=0.5))


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"metric": "a"}, "needs a bound"),
        ({"metric": "a", "lower": 1, "upper": 0}, "lower .1. is above upper"),
        ({"metric": "a", "equals": 1, "lower": 0}, "'equals' stands alone"),
        ({"metric": "a", "lower": 1, "tolerance": 0.1}, "'tolerance' belongs to 'equals'"),
        ({"metric": "a", "lower": 1, "layer": 3}, "'layer' belongs only to a rule that names a lens"),
        ({"metric": "a", "lower": 1, "lens": "cka", "split": "test"}, "'split' belongs only to a rule that names no"),
        ({"metric": "a", "lower": 1, "baseline": "b", "arm": "c"}, "in place of 'arm'"),
        ({"metric": "a", "lower": 1, "arm": "c", "against": "c"}, "against itself"),
        ({"metric": "a", "lower": True}, "not a number"),
        ({"metric": "a", "lower": 1, "armm": "x"}, "Extra inputs"),
    ],
)  # fmt: skip
def test_rules_that_make_no_sense_are_refused(rule, said):
    with pytest.raises(ValidationError, match=said):
        ExpectRule.model_validate(rule)


def test_a_rule_survives_being_written_and_read():
    rule = ExpectRule.model_validate(
        {"metric": "recall", "class": "positive", "equals": 0.5, "tolerance": 0.1}
    )
    assert ExpectRule.model_validate(rule.model_dump(mode="json")) == rule
    assert rule.bounds == (0.4, 0.6)


def test_the_sections_compare_and_elsewhere_have_defaults_and_refuse_nonsense():
    assert CompareConfig().model_dump() == {
        "metric": "accuracy", "split": "test", "correction": "holm", "equivalent_within": 0.01, "level": 0.95,
    }  # fmt: skip
    other = {"name": "imdb", "path": "a.csv", "text": "t", "label": "y", "map": {0: "bad", 1: "good"}}
    found = ElsewhereConfig.model_validate({"data": [other]})
    assert ElsewhereConfig.model_validate(found.model_dump(mode="json")).data[0].name == "imdb"
    for wrong, said in (
        ({}, "neither a text nor data"),
        ({"data": [other, {**other, "name": "IMDb"}]}, "two data sets are named"),
        ({"data": [{**other, "map": {}}]}, "at least 1 item"),
        ({"text": "a.txt", "window": 4}, "greater than or equal to 8"),
    ):
        with pytest.raises(ValidationError, match=said):
            ElsewhereConfig.model_validate(wrong)
    with pytest.raises(ValidationError, match="'holm' or 'bh'"):
        CompareConfig(correction="bonferroni")
