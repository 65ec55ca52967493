"""The first screen: one sentence, cards with bounds, a whole trust bar, and all of it without scrolling."""

from __future__ import annotations

import html

import pytest
from report_evidence import add_evidence
from report_run import Recipe, make_run

from tunescope.files import read_json, write_json
from tunescope.report import write_report
from tunescope.report.cards import cards
from tunescope.report.limits import AUDIT_FOUND, brief, limits
from tunescope.report.page import render
from tunescope.report.quality import answer, scores
from tunescope.report.read import read_run
from tunescope.report.trust import trust_bar
from tunescope.stats.results import Finding, Result, result_table, save_findings


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("first") / "run", Recipe(seeds=(0, 1)))
    return add_evidence(folder, Recipe(seeds=(0, 1)))


def test_the_answer_is_one_sentence_with_numbers_and_intervals(told):
    run = read_run(told)
    said = "".join(piece for piece, _ in answer(run, scores(run)))
    assert said.endswith(".")
    assert ". " not in said
    assert "full reaches accuracy 0." in said
    assert "(means over 2 seeds, intervals of seeds and rows)" in said


def test_the_trust_bar_holds_six_things_and_the_doctor_says_when(run_copy):
    names = [one.name for one in trust_bar(read_run(run_copy))]
    assert names == ["Rows", "Seeds", "Repeated texts", "Truncated", "Tests that survive", "Doctor"]
    told = {None: ("never run", "unknown"), True: ("2026-11-20", "ok"), False: ("2026-11-20", "alarm")}
    path = run_copy / "environment.json"
    for passed, expected in told.items():
        document = {k: v for k, v in read_json(path).items() if k != "format_version"}
        record = {"date": "2026-11-20T10:00:00", "passed": passed, "version": "0.1.0", "machine": "here"}
        write_json(path, {**document, "doctor": None if passed is None else record})
        found = trust_bar(read_run(run_copy))[-1]
        assert (found.value, found.state) == expected
    write_json(path, {**document, "doctor": {**record, "passed": True, "version": "0.0.9"}})
    assert trust_bar(read_run(run_copy))[-1].note == "passed by another version, 0.0.9"


def test_no_effect_found_is_a_card_with_its_bound(run_copy):
    records = [
        {"arm": "full", "metric": "head_effect", "value": v, "low": v - 0.2, "high": v + 0.1, "q": q, "n": 40,
         "control": "none"}
        for v, q in ((-0.05, 0.6), (0.02, 0.9), (0.11, 0.06))
    ]  # fmt: skip
    Result("silence", result_table(records), {"what": "x", "rows": {}}).save(run_copy / "results")
    card = next(one for one in cards(read_run(run_copy)) if one.lens == "silence")
    assert card.sentence == (
        "No effect found by silence: of 3 corrected tests of head effect none has q ≤ 0.05. All intervals lie within "
        "[−0.250, 0.210]."
    )
    assert card.bound == "beyond ±0.250 ruled out"
    assert card.verdict == "undecided"
    records[2]["q"] = 0.04
    Result("silence", result_table(records), {"what": "x", "rows": {}}).save(run_copy / "results")
    assert "silence" not in {one.lens for one in cards(read_run(run_copy))}


@pytest.mark.parametrize(
    ("verdict", "low", "high", "bound"),
    [
        ("undecided", -0.2, 0.1, "beyond ±0.200 ruled out"),
        ("equivalent", -0.01, 0.02, "beyond ±0.020 ruled out"),
        ("found", -0.2, 0.1, ""),
        ("undecided", 0.7, 0.9, ""),  # not around zero: no effect but a level
    ],
)
def test_a_bound_stands_where_nothing_was_found(run_copy, verdict, low, high, bound):
    one = {"lens": "x", "arm": "full", "metric": "m", "sentence": "s", "value": 0.0, "low": low, "high": high,
           "n": 5, "control": "c", "verdict": verdict}  # fmt: skip
    write_json(run_copy / "findings.json", {"findings": [one]})
    card = cards(read_run(run_copy))[0]
    assert (card.bound, card.colour, card.control) == (bound, 0, "c")


@pytest.mark.parametrize(
    ("seeds", "sentence", "seed", "wanted"),
    [
        ((0, 1), "A head matters.", 1, 1),
        ((0,), "A head matters.", 0, None),  # one seed is the run's: it stands in the trust bar
        ((0, 1), "Seed 1: typos move it.", 1, None),  # said already
        ((0, 1), "Both seeds agree.", None, None),
    ],
)
def test_a_card_says_whose_training_it_is_about_where_there_are_several(
    tmp_path, seeds, sentence, seed, wanted
):
    run = make_run(tmp_path / "run", Recipe(seeds=seeds))
    finding = Finding("x", "full", sentence, "m", 0.3, 0.1, 0.5, 9, None, None, "9 rows", "found", seed)
    save_findings([finding], run / "findings.json")
    page = html.unescape(render(read_run(run)))
    assert cards(read_run(run))[0].seed == wanted
    assert ("seed 1, n = 9" in page) == (wanted == 1)


def test_differences_between_arms_are_findings_too(told):
    found = cards(read_run(told))
    pair = next(one for one in found if one.lens == "comparison")
    assert pair.sentence.startswith("full is better than head-only")
    assert pair.verdict == "found"
    assert pair.effect.low > 0


def test_the_gravest_limits_come_first_and_the_audit_is_said_once(told):
    everything = limits(read_run(told))
    assert brief(everything)[0] != everything[0] or not everything[0].startswith(AUDIT_FOUND)
    assert not any(one.startswith(AUDIT_FOUND) for one in brief(everything))
    assert len(brief(everything)) == 3
    assert limits(read_run(told)) == limits(read_run(told), scores(read_run(told)))


@pytest.mark.slow
def test_it_fits_a_window_of_1300_by_900_and_one_hover_answers_in_all_lanes(told, browser):
    path = write_report(told)
    page = browser.new_page(viewport={"width": 1300, "height": 900})
    page.set_default_timeout(120_000)
    heard = []
    page.on("console", lambda message: heard.append(message.text))
    page.goto(path.resolve().as_uri())
    page.wait_for_selector(".depth .js-plotly-plot .main-svg")
    for part in (".hero h1", ".answer", ".depth .plot", ".cards > li:nth-child(5)", ".trust", ".cannot"):
        box = page.locator(part).first.bounding_box()
        assert box["y"] + box["height"] <= 900, part
    assert page.evaluate("document.documentElement.scrollWidth") <= 1300
    lanes = page.locator(".depth .plot").first
    lanes.hover(position={"x": 300, "y": 60})
    page.wait_for_selector(".hoverlayer .legend, .hoverlayer .hovertext")
    said = page.locator(".depth .hoverlayer").text_content()
    card = page.locator(".cards details").first
    card.locator("summary").focus()
    page.keyboard.press("Enter")
    assert card.get_attribute("open") is not None
    page.close()
    assert heard == []
    for lens in ("CKA", "attention", "MLP", "L"):
        assert lens in said, said
