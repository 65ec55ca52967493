from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
from behaviour_models import NAMES, counting, gender_suite
from scipy import stats

from tunescope.behaviour import (
    About,
    Material,
    Rules,
    Settings,
    Suite,
    Wish,
    mean_changes,
    measure,
    pair_table,
)
from tunescope.behaviour.measures import sign_test
from tunescope.behaviour.suite import CONTROL_COLUMNS, Expected, require_pairs, split_direction
from tunescope.errors import DataError
from tunescope.evaluation.predict import probabilities_of

ABOUT = About("arm", None, "rows")
RULES = Rules(Settings(resamples=400, permutations=999))


def run(suite: Suite, tuned, base=None, rules: Rules = RULES):
    return measure(Wish([suite], NAMES, rules, ABOUT, "because", {"arm": "arm", "seed": 0}), tuned, base)


def number(table: pl.DataFrame, metric: str, model: str = "tuned", **axes):
    own = table.filter((pl.col("metric") == metric) & (pl.col("model") == model))
    for key, value in {"part": "all", "class": None, "control": None, **axes}.items():
        own = own.filter(pl.col(key).is_null() if value is None else pl.col(key) == value)
    assert own.height == 1, own
    return own.row(0, named=True)


def test_the_margin_of_a_swap_is_the_difference_of_the_words_and_turns_to_one_direction():
    found = run(gender_suite(), counting({"she": 0.7, "he": 0.2, "walks": 0.05})).table
    # she -> he takes 0.5 off the margin of positive, he -> she adds it: the mean over both directions cancels.
    assert number(found, "margin_change")["value"] == pytest.approx(0.0, abs=1e-12)
    assert number(found, "absolute_margin_change")["value"] == pytest.approx(0.5)
    turned = number(found, "class_margin_change", **{"class": "positive"})
    assert (turned["value"], turned["orientation"]) == (pytest.approx(0.5), "male to female")
    assert number(found, "class_margin_change", **{"class": "negative"})["value"] == pytest.approx(-0.5)
    down = number(found, "margin_change", part="direction", direction="female_to_male")
    assert (down["value"], down["n"]) == (pytest.approx(-0.5), 60)
    assert number(found, "margin_change")["verdict"] == "different"  # by the turned means, not by the first
    turned = number(found, "turned_margin_change", **{"class": "positive"})
    assert (turned["value"], turned["n"]) == (pytest.approx(0.5), 120)
    assert "moves by +0.500" in number(found, "margin_change")["why"]


def test_probabilities_shares_and_flips_agree_with_the_logits():
    predict = counting({"she": 0.7, "he": -0.4})
    found = run(gender_suite(20), predict).table
    women, men = (probabilities_of(predict([f"{word} walks w0"]))[0, 0] for word in ("she", "he"))
    gap = number(found, "probability_change", **{"class": "positive"})["value"]
    assert gap == pytest.approx(women - men)
    assert number(found, "flip_share")["value"] == 1.0
    assert number(found, "large_change_share")["value"] == 1.0
    strict = run(gender_suite(20), predict, rules=dataclasses.replace(RULES, cut=women - men + 0.01)).table
    assert number(strict, "large_change_share")["value"] == 0.0
    for name in NAMES:  # both directions: the signed change of every class cancels, its size does not
        size = number(found, "absolute_probability_change", **{"class": name})
        chances = [
            probabilities_of(predict([f"{word} walks w0"]))[0, NAMES.index(name)] for word in ("she", "he")
        ]
        assert size["value"] == pytest.approx(abs(chances[0] - chances[1]))
        assert size["low"] <= size["value"] <= size["high"]
    assert number(found, "accuracy_change")["value"] == 0.0  # as many won as lost
    assert number(found, "accuracy_change")["p"] == 1.0


def test_without_a_label_the_class_that_the_tuned_model_predicts_is_followed_in_both_models():
    tuned, base = counting({"she": 0.5, "he": -0.5}), counting({"she": 0.1, "he": 0.3})
    found = run(gender_suite(10, label=None), tuned, base)
    followed = dict(found.examples.select("original", "followed").iter_rows())
    assert followed["she walks w1"] == "positive"
    assert followed["he walks w1"] == "negative"
    # base: she -> he follows positive: 0.1 -> 0.3; he -> she follows negative: -0.3 -> -0.1.
    changes = dict(found.examples.select("original", "margin_change_base").iter_rows())
    assert changes["she walks w1"] == pytest.approx(0.2)
    assert changes["he walks w1"] == pytest.approx(0.2)
    assert "0 of 20 pairs are followed by their label" in found.notes[-1]
    assert "class that the tuned model predicts" in found.findings[0].sentence


def test_a_model_that_does_not_read_the_words_is_equivalent_and_says_why():
    found = run(gender_suite(), counting({"walks": 0.4}))
    own = number(found.table, "margin_change")
    assert (own["verdict"], own["why"]) == ("equivalent", "no pair changes the margin")
    assert found.findings[0].verdict == "equivalent"


def test_small_effects_are_equivalent_only_inside_the_bound():
    rng = np.random.default_rng(0)
    wobble: dict[str, float] = {}

    def predict(texts):  # she adds 0.03, and every text has a noise of its own
        for text in texts:
            wobble.setdefault(text, rng.normal(0, 0.05))
        noise = np.array([wobble[text] for text in texts])
        return counting({"she": 0.03})(texts) + np.stack([noise, -noise], axis=1)

    own = number(run(gender_suite(200), predict).table, "margin_change")
    assert own["verdict"] == "equivalent"
    assert own["note"].startswith("zero width: the changes of every group of pairs cancel")
    tight = dataclasses.replace(RULES, settings=dataclasses.replace(RULES.settings, bound=0.02))
    assert (
        number(run(gender_suite(200), predict, rules=tight).table, "margin_change")["verdict"] != "equivalent"
    )


def test_every_text_is_predicted_once_a_model():
    seen: list[list[str]] = []
    suite = gender_suite(5)
    control = pl.DataFrame(
        {"pair_id": suite.pairs["pair_id"], "control": "neutral", "original": suite.pairs["original"],
         "rewritten": ["they walk"] * 10}, schema=CONTROL_COLUMNS)  # fmt: skip
    run(dataclasses.replace(suite, controls=control), counting({"she": 1.0}, seen))
    asked = [text for part in seen for text in part]
    assert len(asked) == len(set(asked)) == 11


def test_the_control_is_subtracted_pair_by_pair():
    suite = gender_suite(30)
    control = suite.pairs.select(
        "pair_id", pl.lit("neutral").alias("control"), "original",
        pl.col("original").str.replace("walks", "runs").alias("rewritten"),
    )  # fmt: skip
    found = run(
        dataclasses.replace(suite, controls=control),
        counting({"she": 0.7, "he": 0.2, "walks": 0.3, "runs": 0.1}),
    )
    assert number(found.table, "absolute_margin_change", control="neutral")["value"] == pytest.approx(0.2)
    excess = number(found.table, "excess_over_control", control="neutral")
    assert excess["value"] == pytest.approx(0.5 - 0.2)
    assert any("moves the margin more than a neutral swap" in one.sentence for one in found.findings)


def test_the_control_is_subtracted_class_by_class_and_term_by_term():
    records, controls = [], []
    for row in range(24):
        term = ("good", "fine")[row % 2]
        records.append({"pair_id": f"{row}", "original": f"x {term} r{row}", "rewritten": f"x r{row}",
                        "label": ("positive", "negative")[row // 2 % 2], "terms": [term]})  # fmt: skip
        if row < 20:
            controls.append({"pair_id": f"{row}", "control": "random_words", "original": f"x r{row}",
                             "rewritten": f"x calm r{row}"})  # fmt: skip
    suite = Suite("s", "invariance", "", pair_table(records), pl.DataFrame(controls, schema=CONTROL_COLUMNS))
    table = run(suite, counting({"good": 0.9, "fine": 0.4, "calm": 0.1})).table
    own = table.filter(pl.col("metric") == "excess_over_control", pl.col("control") == "random_words")
    by_term = {row["term"]: row for row in own.filter(pl.col("part") == "term").iter_rows(named=True)}
    assert {term: (row["value"], row["n"]) for term, row in by_term.items()} == {
        "good": (pytest.approx(0.8), 10), "fine": (pytest.approx(0.3), 10),
    }  # fmt: skip
    by_class = {row["class"]: row for row in own.filter(pl.col("part") == "class").iter_rows(named=True)}
    assert {name: row["value"] for name, row in by_class.items()} == {
        "positive": pytest.approx(0.55), "negative": pytest.approx(0.55),
    }  # fmt: skip
    assert all(
        row["q"] >= row["p"] for row in (*by_class.values(), *by_term.values()) if row["p"] is not None
    )


def test_tuning_that_doubles_the_gap_widened_it_and_the_difference_is_paired():
    base, tuned = counting({"she": 0.3, "w1": 0.1}), counting({"she": 0.6, "w1": 0.2})
    found = run(gender_suite(40), tuned, base)
    one = number(found.table, "absolute_margin_change", "tuned_minus_base")
    assert (one["value"], one["verdict"]) == (pytest.approx(0.3), "widened")
    assert number(found.table, "class_margin_change", "tuned_minus_base", **{"class": "positive"})[
        "value"
    ] == pytest.approx(0.3)
    assert any(one.sentence.startswith("Tuning widened what gender moves") for one in found.findings)
    turned = run(gender_suite(40), base, tuned)
    assert number(turned.table, "absolute_margin_change", "tuned_minus_base")["verdict"] == "narrowed"


def test_the_term_that_moves_more_is_named_and_the_others_are_not():
    rng = np.random.default_rng(3)
    terms = [f"t{index}" for index in range(12)]
    records, weights = [], {}
    for term in terms:
        for row in range(20):
            word = f"{term}r{row}"
            weights[word] = float(rng.normal(0, 0.2)) + (1.5 if term == "t4" else 0.0)
            records.append({"original": f"x {word}", "rewritten": "x", "label": "positive", "terms": [term]})
    found = run(Suite("terms", "invariance", "", pair_table(records)), counting(weights))
    own = found.table.filter((pl.col("part") == "term") & (pl.col("metric") == "absolute_margin_change"))
    assert own.filter(pl.col("stands_out"))["term"].to_list() == ["t4"]
    assert own["q"].null_count() == 0
    large = found.table.filter((pl.col("part") == "term") & (pl.col("metric") == "large_change_share"))
    examples = found.examples.with_columns(hit=pl.col("largest_probability_change_tuned") >= RULES.cut)
    expected = dict(examples.group_by("terms").agg(pl.col("hit").mean()).iter_rows())
    assert dict(large.select("term", "value").iter_rows()) == pytest.approx(expected)
    assert expected["t4"] > 0.9
    assert any("1 of 12 terms move the margin more than the rest" in one.sentence for one in found.findings)


def test_a_term_that_is_itself_a_group_still_has_an_interval():
    rng = np.random.default_rng(5)
    weights = {f"r{i}": float(rng.normal(1, 0.3)) for i in range(40)}
    records = [
        {
            "original": f"x r{i}",
            "rewritten": "x",
            "terms": [f"t{i % 2}"],
            "name": f"t{i % 2}",
            "text": f"r{i // 2}",
        }
        for i in range(40)
    ]
    table = run(Suite("s", "invariance", "", pair_table(records)), counting(weights)).table
    own = table.filter((pl.col("part") == "term") & (pl.col("metric") == "absolute_margin_change"))
    assert own["low"].null_count() == 0
    assert own["n"].to_list() == [20, 20]


def test_rare_terms_are_counted_and_not_judged():
    records = [{"original": f"a w{i}", "rewritten": f"b w{i}", "terms": ["a"]} for i in range(5)]
    records += [{"original": "c", "rewritten": "d", "terms": ["c"]}]
    table = run(Suite("s", "invariance", "", pair_table(records)), counting({"a": 1.0})).table
    own = table.filter(pl.col("part") == "term")
    assert set(own["term"]) == {"a"}
    assert set(own["rare_terms"]) == {1}


def test_minimum_functionality_and_directional_suites_count_failures():
    cases = pair_table([{"original": f"good w{i}", "label": "positive"} for i in range(18)]
                       + [{"original": f"dull w{i}", "label": "positive"} for i in range(2)])  # fmt: skip
    suite = Suite("plain", "minimum_functionality", "", cases, tolerated=0.3)
    own = number(run(suite, counting({"good": 1.0, "dull": -1.0})).table, "failure_share")
    assert (own["value"], own["n"], own["verdict"]) == (pytest.approx(0.1), 20, "inconclusive")
    pairs = pair_table(
        [{"original": f"good w{i}", "rewritten": f"not good w{i}", "label": "positive"} for i in range(40)]
    )
    for weight, value, verdict in ((-0.5, 0.0, "holds"), (0.5, 1.0, "fails")):
        suite = Suite(
            "negation", "directional", "", pairs, expected=Expected(None, "down", 0.4), tolerated=0.1
        )
        own = number(run(suite, counting({"good": 1.0, "not": weight})).table, "failure_share")
        assert (own["value"], own["verdict"]) == (value, verdict)


def test_an_unknown_class_and_a_case_without_label_are_refused():
    cases = pair_table([{"original": "a", "label": "hopeful"}])
    with pytest.raises(
        DataError, match="expects a class that the model does not have: unknown label 'hopeful'"
    ):
        run(Suite("s", "minimum_functionality", "", cases), counting({}))
    with pytest.raises(DataError, match="cases without a label"):
        run(Suite("s", "minimum_functionality", "", pair_table([{"original": "a"}])), counting({}))


def test_a_suite_that_touches_nothing_says_rows_and_terms():
    empty = Suite("race", "invariance", "", pair_table([]), counts={"rows": 1234, "untouched": 1234},
                  looked_for=[f"term{index}" for index in range(30)])  # fmt: skip
    with pytest.raises(DataError, match=r"touches none of 1,234 rows.*30 terms: term0, .* and 18 more"):
        require_pairs(empty)


def test_builtin_suites_touch_rows_and_predict_no_other():
    from tunescope.behaviour import builtin_suite

    rows = pl.DataFrame({
        "row_id": ["a", "b", "c"], "text": ["she feels fine", "a quiet evening", "her brother said he was sad"],
        "label": ["positive", "positive", "negative"],
    })  # fmt: skip
    seen: list[list[str]] = []
    suite = builtin_suite("gender", Material(rows, rows["text"].to_list() * 40))
    assert suite.counts["rows"] == 3
    assert set(suite.pairs["row_id"]) == {"a", "c"} - ({"c"} if suite.counts["touched"] == 1 else set())
    assert "he feels fine" in suite.pairs["rewritten"].to_list()
    run(suite, counting({"she": 0.5}, seen))
    assert "a quiet evening" not in [text for part in seen for text in part]


def test_sign_test_is_the_binomial_test():
    changes = np.array([0.1, 0.2, -0.3, 0.4, 0.0, 0.5, 0.1])
    assert sign_test(changes) == pytest.approx(stats.binomtest(5, 6).pvalue)
    assert sign_test(np.zeros(3)) is None


def test_the_widest_grouping_wins_and_repeats_tell_nothing_new():
    rng = np.random.default_rng(1)
    once = rng.normal(0.2, 1, 80)
    values = np.repeat(once, 5)
    alone, groups = np.arange(400), np.repeat(np.arange(80), 5)
    settings = Settings(resamples=2000, permutations=999)
    (both,) = mean_changes(values[:, None], {"pair": alone, "text": groups}, settings)
    (right,) = mean_changes(once[:, None], {"pair": np.arange(80)}, settings)
    (naive,) = mean_changes(values[:, None], {"pair": alone}, settings)
    width = [one.interval.high - one.interval.low for one in (both, right, naive)]
    assert width[0] == pytest.approx(width[1], rel=0.08)
    assert width[2] < 0.6 * width[0]
    assert both.groups == 80
    assert both.p >= naive.p
    normal = stats.norm.interval(0.95, once.mean(), once.std() / np.sqrt(80))
    assert (both.interval.low, both.interval.high) == pytest.approx(normal, abs=0.03)


def test_equivalence_agrees_with_the_two_one_sided_t_tests():
    rng = np.random.default_rng(2)
    for mean in (0.0, 0.05, 0.2):
        values = rng.normal(mean, 0.5, 300)
        (own,) = mean_changes(values[:, None], {"pair": np.arange(300)}, Settings(resamples=4000))
        sides = [stats.ttest_1samp(values, side, alternative=tail).pvalue
                 for side, tail in ((0.1, "less"), (-0.1, "greater"))]  # fmt: skip
        assert own.equivalent_p == pytest.approx(max(sides), abs=0.02)


@pytest.mark.parametrize(
    ("text", "parts"),
    [("female to male", ("female", "male")), ("male_to_female", ("male", "female")), ("a -> b", ("a", "b")),
     ("mixed", None), ("tomato", None), (None, None)],
)  # fmt: skip
def test_directions_are_read_in_the_ways_they_are_written(text, parts):
    assert split_direction(text) == parts
