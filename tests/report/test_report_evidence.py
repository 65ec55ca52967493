"""Arms and costs, comparison, audit, slices, grids, prompts, expectations and what tuning cost elsewhere."""

from __future__ import annotations

import json
import math
import re
import shutil

import polars as pl
import pytest
from report_browser import Page, open_page
from report_evidence import add_evidence, add_grid, place_of
from report_run import Recipe, make_run
from scipy import stats

from tunescope.files import read_json, write_json
from tunescope.report import write_report
from tunescope.report.arms import arms, trade_off_figure
from tunescope.report.audit import audit, cross_validation
from tunescope.report.comparison import comparison
from tunescope.report.costs import memory_figure
from tunescope.report.elsewhere import elsewhere
from tunescope.report.expectations import expectations
from tunescope.report.figures import cost
from tunescope.report.grids import grids
from tunescope.report.limits import limits
from tunescope.report.prompts import prompts
from tunescope.report.quality import metric_tables, scores
from tunescope.report.read import read_run
from tunescope.report.slices import reliability_figure, sliced, thresholds
from tunescope.report.tables import data
from tunescope.report.text import stored
from tunescope.report.trust import trust_bar

RECIPE = Recipe(seeds=(0, 1))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = add_evidence(make_run(tmp_path_factory.mktemp("evidence") / "run", RECIPE), RECIPE)
    add_grid(folder)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def run(made):
    return read_run(made)


@pytest.fixture(scope="module")
def shown(made):
    return Page((made / "report.html").read_text(encoding="utf-8"))


@pytest.fixture
def copied(made, tmp_path):
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def change(path, **entries):
    document = read_json(path)
    del document["format_version"]
    write_json(path, document | entries)


def test_every_new_section_is_there_and_led_to(shown):
    ids = {attributes.get("id") for _, attributes in shown.elements}
    wanted = {"arms", "comparison", "expect", "grids", "prompts", "audit", "metrics", "slices", "elsewhere"}
    assert wanted <= ids
    targets = {a["href"][1:] for tag, a in shown.elements if tag == "a" and a.get("href", "").startswith("#")}
    assert wanted <= targets <= ids


def test_the_table_of_arms_pools_seeds_and_shows_their_spread(run):
    found = arms(run)
    assert [row.name for row in found.rows] == ["full", "head-only"]
    assert [row.name for row in found.baselines] == ["majority", "tfidf"]
    records = [
        next(r for r in item.metrics["records"] if (r["split"], r["metric"]) == ("test", "accuracy"))
        for item in run.of("full")
    ]
    row = found.rows[0]
    assert row.accuracy.value == pytest.approx(sum(r["value"] for r in records) / 2)
    assert row.spread == (min(r["value"] for r in records), max(r["value"] for r in records))
    own = run.comparison["arms"][0]["accuracy"]  # of seeds and rows
    assert (row.accuracy.low, row.accuracy.high) == (own["low"], own["high"])
    assert own["high"] - own["low"] > max(r["high"] - r["low"] for r in records)
    assert scores(run)[0].accuracy == row.accuracy
    assert "2 seeds tell little of their spread" in row.accuracy.note
    assert row.learned  # which is about these trainings
    assert row.cost["stored_bytes"] == 90_912_345
    assert len(found.trainings) == 4


def test_without_a_comparison_the_interval_is_of_seeds_and_of_what_each_training_knows(copied):
    (copied / "comparison.json").unlink()
    run = read_run(copied)
    records = [
        next(r for r in item.metrics["records"] if (r["split"], r["metric"]) == ("test", "accuracy"))
        for item in run.of("full")
    ]
    first, second = (r["value"] for r in records)
    mean, spread = (first + second) / 2, stats.t.ppf(0.975, 1) * abs(first - second) / 2
    below, above = (sum(abs(r[end] - r["value"]) for r in records) / 2 for end in ("low", "high"))
    found = arms(run).rows[0].accuracy
    assert found.low == pytest.approx(mean - math.hypot(below, spread))
    assert found.high == pytest.approx(min(1.0, mean + math.hypot(above, spread)))


def test_costs_are_in_the_table_in_units_that_people_read(shown):
    assert "90.9 MB 3,425 3.3 % 802 MB 5.2 min" in shown.text
    assert "22,715,526 100.0 %" in shown.text
    assert "Baseline lookup was left out: there is no column beside text and label." in shown.text
    assert "full: the base model has read these texts, without labels." in shown.text
    assert "2,304 of 149,760 parameters in 1 matrix; 147,456 parameters in 1 more are frozen" in shown.text
    assert "encoder.0.query.weight" not in shown.text  # frozen matrices are counted, not listed


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (3_929_715, "3.93 MB"), (2.5e12, "2,500 GB")],
)
def test_bytes_are_said_in_decimal_units(count, said):
    assert stored(count) == said


def test_an_arm_below_the_majority_is_marked(tmp_path):
    folder = make_run(tmp_path / "run", Recipe(accuracy=(0.93, 0.05)))
    assert [row.learned for row in arms(read_run(folder)).rows] == [True, False]
    assert (
        Page(write_report(folder).read_text(encoding="utf-8")).text.count("head-only task not learned") == 1
    )


def test_training_that_read_no_text_has_no_speed(copied):
    path = place_of(copied, "head-only", 0) / "metrics.json"
    price = read_json(path)["cost"] | {"real_tokens_per_second": 0.0, "padding_share": 0.0}
    for seed in (0, 1):
        change(place_of(copied, "head-only", seed) / "metrics.json", cost=price)
    found = arms(read_run(copied))
    assert found.rows[1].cost["real_tokens_per_second"] is None
    assert any("training read stored features" in note for note in found.notes)


def test_a_baseline_that_beats_all_arms_is_in_the_answer(copied):
    path = copied / "baselines" / "tfidf" / "metrics.json"
    records = read_json(path)["records"]
    for record in records:
        if record["metric"] == "accuracy":
            record |= {"value": 0.99, "low": 0.98, "high": 1.0}
    change(path, records=records)
    text = Page(write_report(copied).read_text(encoding="utf-8")).text
    assert "and the baseline tfidf reaches more than any arm, 0.990 [0.980, 1.000] ." in text


def test_dominated_arms_are_those_that_another_beats_in_both():
    points = [(10.0, 0.9), (1.0, 0.8), (20.0, 0.85), (10.0, 0.9), (5.0, 0.7)]
    assert cost.dominated(points) == [None, None, 0, None, 1]
    assert cost.dominated([(10.0, 0.9), (10.0, 0.8), (9.0, 0.8)]) == [None, 0, None]  # equal in one is enough


def test_costs_over_seeds_are_means_and_the_peak_of_memory(copied):
    for seed, seconds, size in ((0, 100.0, 3e9), (1, 300.0, 2e9)):
        path = place_of(copied, "full", seed) / "metrics.json"
        change(path, cost=read_json(path)["cost"] | {"seconds": seconds, "peak_memory_bytes": size})
    found = arms(read_run(copied))
    assert (found.rows[0].cost["seconds"], found.rows[0].cost["peak_memory_bytes"]) == (200.0, 3e9)
    assert [row.cost["seconds"] for row in found.trainings[:2]] == [100.0, 300.0]


def test_costs_stand_on_a_logarithmic_axis_with_zero_apart():
    places, ticks = cost.log_places([0.0, 100.0, 10_000.0], time=False)
    assert places == [1.0, 2.0, 4.0]
    assert ticks[0] == (1.0, "0")
    assert (3.0, "1 k") in ticks
    assert (0.0, "1 s") in cost.log_places([1.0, 7.0], time=True)[1]


def test_the_trade_off_names_what_is_not_resolved(copied):
    document = read_json(copied / "comparison.json")
    pair = document["pairs"][0] | {"verdict": "undecided", "better": None}
    change(copied / "comparison.json", pairs=[pair])
    run = read_run(copied)
    figure = trade_off_figure(run, arms(run))
    assert [panel.title for panel in figure.panels] == [
        "accuracy and time",
        "accuracy and trained parameters",
    ]
    said = "Not resolved by accuracy on test, 1 of 1 pair: full and head-only."
    assert said in figure.caption
    assert any("cannot be said: full or head-only" in told for told in limits(run, scores(run)))
    marks = {
        t["text"][0]: t["marker"]["symbol"]
        for t in figure.panels[0].figure["data"]
        if t["mode"] == "markers+text"
    }
    assert marks == {
        "full": "circle",
        "head-only": "circle-open",
    }  # equal time, so the worse one is dominated


def test_where_no_arm_learned_the_task_nothing_is_called_resolved(copied):
    pair = read_json(copied / "comparison.json")["pairs"][0] | {"verdict": "task not learned", "better": None}
    change(copied / "comparison.json", pairs=[pair])
    said = arms(read_run(copied)).unresolved
    assert said == "1 of 1 pair: no arm of it has learned the task, so the difference says nothing."


def test_labels_of_marks_do_not_cover_one_another():
    crowded = cost.label_spots([1.0] * 5, [0.5, 0.5, 0.501, 0.9, 0.1], [20] * 5)
    assert crowded[3] == crowded[4] == "middle right"  # they stand alone
    assert len({spot for spot in crowded[:3] if spot}) == len([spot for spot in crowded[:3] if spot])
    assert cost.label_spots([0.0, 3.0], [0.5, 0.5], [6, 30]) == [
        "middle right",
        "middle left",
    ]  # the right end


def test_many_arms_have_an_overview_of_pairs(copied):
    document = read_json(copied / "comparison.json")
    names = ["a", "b", "c", "d"]
    verdicts = ["found", "equivalent", "undecided", "task not learned", "found", "found"]
    pairs = [(first, second) for i, first in enumerate(names) for second in names[i + 1 :]]
    records = [
        document["pairs"][0]
        | {"first": first, "second": second, "value": 0.1, "verdict": verdict, "better": second}
        for (first, second), verdict in zip(pairs, verdicts, strict=True)
    ]
    own = [document["arms"][0] | {"arm": name} for name in names]
    change(copied / "comparison.json", pairs=records, arms=own, lower_is_better=True)
    found = comparison(read_run(copied))
    rows = {arm: [(cell.shown, cell.style) for cell in cells] for arm, cells in found.matrix}
    # Of a loss less is better: 0.1 above b, so a is the worse one.
    assert rows["a"] == [("", "empty"), ("+0.100", "worse"), ("≈", "quiet"), ("+0.100", "quiet")]
    assert rows["b"][0] == ("−0.100", "better")
    assert (
        found.counts
        == "6 pairs: 3 different, 1 equivalent, 1 undecided, 1 where no arm has learned the task."
    )
    write_report(copied)


def test_memory_is_drawn_in_gigabytes_by_training(run):
    traces = memory_figure(run).panels[0].figure["data"]
    assert len(traces) == 4
    assert traces[0]["y"] == [0.79, 0.802]


def test_the_comparison_shows_the_numbers_of_its_file(made, run, shown):
    pair = read_json(made / "comparison.json")["pairs"][0]
    found = comparison(run)
    assert found.pairs[0].difference.value == pair["value"]
    assert found.pairs[0].verdict == pair["verdict"] == "found"
    assert pair["sentence"] in shown.text
    assert found.ranking in shown.text
    assert len(found.against) == 4
    assert found.spreads[0].seeds == tuple(
        (str(one["seed"]), one["value"]) for one in read_json(made / "comparison.json")["arms"][0]["seeds"]
    )
    assert "2 of the 3 seeds that a spread needs" in shown.text


def test_a_comparison_that_was_not_made_says_why(copied):
    write_json(copied / "comparison.json", {"done": False, "reason": "there are no labelled test rows"})
    text = Page(write_report(copied).read_text(encoding="utf-8")).text
    assert "Arms were not compared: there are no labelled test rows." in text


def test_a_red_finding_is_in_the_audit_the_trust_bar_and_the_limits(made, run, shown):
    red = read_json(made / "data" / "audit.json")["findings"][0]
    assert red["severity"] == "red"
    found = audit(run)
    assert found.reds == 1
    assert (found.findings[0].sentence, found.findings[0].advice) == (red["sentence"], red["advice"])
    cell = trust_bar(run)[2]
    assert (cell.name, cell.value, cell.state) == ("Data audit", "1 red", "alarm")
    assert red["sentence"].startswith(cell.note.removesuffix(" …"))
    assert any(red["sentence"] in told for told in limits(run, scores(run)))
    assert "6 150 of 150 (100.0 %)" in shown.text  # of one label only, then the look-up


def test_findings_are_ranked_red_first_whatever_their_order(copied):
    path = copied / "data" / "audit.json"
    given = [
        {"severity": s, "kind": "x", "sentence": s, "advice": ""} for s in ("note", "amber", "red", "amber")
    ]
    change(path, findings=given)
    assert [one.severity for one in audit(read_run(copied)).findings] == ["red", "amber", "amber", "note"]
    change(path, findings=given[:2])
    assert trust_bar(read_run(copied))[2].value == "no red finding"
    change(path, findings=[])
    assert trust_bar(read_run(copied))[2].value == "clean"


def test_random_stands_beside_grouped(run, copied, shown):
    fold = cross_validation(run).folds[0]
    assert (fold.random.value, fold.grouped.value, fold.gap.value, fold.leak) == (0.81, 0.64, 0.17, True)
    assert "0.810 [0.790, 0.830] 0.640 [0.620, 0.660] 0.170 [0.150, 0.190]" in shown.text
    write_json(
        copied / "data" / "cross_validation.json", {"done": False, "reason": "no column groups the rows"}
    )
    assert "not compared: no column groups the rows" in cross_validation(read_run(copied)).sentence


def test_untrusted_intervals_are_marked_and_counted(run, shown):
    table = next(one for one in metric_tables(run) if (one.arm, one.split, one.seed) == ("full", "test", 0))
    warned = {place for place, note in enumerate(table.notes, start=1) if "not to be trusted" in note}
    untrusted = [name for name, _, _, noted in table.overall if warned & set(noted)]
    assert untrusted == ["matthews_corrcoef"]
    assert table.doubtful == 1
    assert "full test, seed 0 1 interval not to be trusted" in shown.text


def test_slices_show_the_values_of_their_records(made, run):
    records = read_json(place_of(made, "full", 0) / "metrics.json")["slices"]
    columns = {column.name: column for column in sliced(run)[0].columns}
    assert list(columns) == ["length in tokens", "whether tokens were cut", "kind"]
    one = next(r for r in records if (r["column"], r["group"], r["metric"]) == ("tokens", "33+", "accuracy"))
    cell = next(item for item in columns["length in tokens"].slices if item.group == "33+")
    assert (cell.n, cell.accuracy.value) == (one["n"], one["value"])
    parity = next(
        r for r in records if r["column"] == "kind" and r["metric"] == "demographic_parity_difference"
    )
    shown = columns["kind"].fairness[0]
    assert (shown.metric, shown.label) == ("demographic parity difference", parity["class"])
    assert shown.value.value == parity["value"]


def test_reliability_draws_every_bin_with_its_error(made, run):
    figure = reliability_figure(run)
    bins = read_json(place_of(made, "full", 0) / "metrics.json")["reliability"]["test"]
    points = figure.panels[0].figure["data"][1]
    assert points["y"] == [one["accuracy"] for one in bins]
    assert figure.panels[0].title.startswith("full: ECE 0.0")


def test_thresholds_say_where_they_were_chosen(run, shown):
    found = thresholds(run)
    assert found.metric == "f1"
    assert len(found.rows) == 12
    assert "The threshold was chosen on validation rows; test rows chose nothing." in shown.text


def test_the_chosen_trial_is_marked_and_the_learning_curve_is_not(run, shown):
    selection, curve = grids(run).grids
    assert [row.name for row in selection.rows if row.chosen] == ["lora-k4-0.0005"]
    assert shown.texts.count("chosen on validation") == 1
    assert selection.rows[0].value.value == pytest.approx(0.765)
    panel = selection.figure.panels[0].figure
    assert [trace["name"] for trace in panel["data"]] == [
        "training.learning_rate 0.0001", "training.learning_rate 0.0005"
    ]  # fmt: skip
    assert [s for t in panel["data"] for s in t["marker"]["symbol"]].count("star") == 1
    assert curve.figure.panels[0].figure["data"][0]["x"] == [0.25, 0.5, 1.0]
    assert "The arms are given unequal numbers of trials." in shown.text


def test_trials_that_were_not_chosen_are_no_arms(copied):
    path = copied / "study.resolved.yaml"
    study = json.loads(path.read_text())
    study["arms"] += [{"name": f"lora-k{k}", "grid": "lora", "method": "lora"} for k in (1, 2)]
    path.write_text(json.dumps(study))
    place = copied / "arms" / "lora-k1" / "seed-0"
    place.mkdir(parents=True)
    (place / "log.jsonl").write_text('{"step": 1, "epoch": 0.1, "loss": 1.0}\n')
    shutil.copytree(copied / "arms" / "full", copied / "arms" / "lora-k2")
    for seed in (0, 1):
        change(
            copied / "arms" / "lora-k2" / f"seed-{seed}" / "metrics.json",
            arm="lora-k2",
            grid="lora",
            point={"k": 2},
        )
    run = read_run(copied)
    assert run.arm_names == ("full", "head-only", "lora-k2")
    assert "of grid lora: k 2" in arms(run).rows[2].about
    write_report(copied)


def test_prompts_stand_with_their_folds_and_the_chosen_one(made, run, shown):
    record = read_json(place_of(made, "full", 0) / "metrics.json")["prompt"]
    (item,) = prompts(run)
    assert [one.chosen for one in item.candidates] == [False, True]
    assert item.candidates[0].accuracy.value == record["candidates"][0]["accuracy"]["value"]
    assert f"a range of {record['spread']['range']:.3f} that comes from the wording alone" in shown.text


def test_what_is_not_met_is_loud_and_comes_first(run, shown):
    found = expectations(run)
    assert [row.verdict for row in found.rows] == ["not met"] * 2 + ["undecided"] * 2 + ["met"] * 2
    assert found.alarm.startswith("2 of 6 expectations are not met: nearly perfect (full, seed 0) is 0.95")
    assert shown.texts.count(found.alarm) == 2  # under the answer, and in the section
    assert "2 expectations undecided: the interval straddles the bound." in shown.text


def test_nothing_is_loud_where_all_is_met(copied):
    path = copied / "expect.json"
    change(path, verdicts=[one for one in read_json(path)["verdicts"] if one["verdict"] == "met"])
    page = Page(write_report(copied).read_text(encoding="utf-8"))
    assert not [a for _, a in page.elements if a.get("class") == "alarm"]


def test_what_tuning_cost_elsewhere(run, shown):
    found = elsewhere(run)
    assert found.language[0].losses[0].change.value == 1.2
    assert "before tuning 2.20 [2.10, 2.30]" in shown.text
    assert found.crossed[0].left_out == "boredom 7"
    assert "zero-shot: nothing was tuned." in shown.text


FILES = ("comparison.json", "expect.json", "grids.json", "elsewhere.json", "data/audit.json",
         "data/cross_validation.json", "baselines/tfidf/metrics.json", "arms/full/seed-0/parameters.json")  # fmt: skip


def test_a_missing_file_leaves_its_section_out(copied):
    gone = {
        "comparison.json": comparison, "expect.json": expectations, "grids.json": grids, "elsewhere.json": elsewhere,
        "data/audit.json": audit, "data/cross_validation.json": cross_validation,
    }  # fmt: skip
    for name, section in gone.items():
        assert section(read_run(copied)) is not None
        (copied / name).unlink()
        assert section(read_run(copied)) is None
    shutil.rmtree(copied / "baselines")
    (copied / "arms" / "full" / "seed-0" / "parameters.json").unlink()
    found = arms(read_run(copied))
    assert not found.baselines
    assert [(arm, seed) for arm, seed, *_ in found.itemised] == [("full", 1), ("head-only", 0)]
    assert trust_bar(read_run(copied))[2].name == "Repeated texts"
    text = Page(write_report(copied).read_text(encoding="utf-8")).text
    assert "Data audit" not in text


def test_without_any_of_these_files_no_section_of_theirs_is_there(page):
    ids = {attributes.get("id") for _, attributes in page.elements}
    assert not ids & {"comparison", "expect", "grids", "prompts", "audit", "slices", "elsewhere"}


def test_a_file_that_breaks_off_is_named(copied):
    for name in FILES:
        path = copied / name
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        assert path.name in read_run(copied).damaged[name]
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        ("comparison.json", {"pairs": [{"first": "a"}]}),
        ("comparison.json", {"pairs": 3}),
        ("expect.json", {"verdicts": ["met"]}),
        ("grids.json", {"grids": [{"grid": "lora"}]}),
        ("elsewhere.json", {"data": [{"arm": "full"}]}),
        ("data/audit.json", {"findings": [{"severity": "red"}]}),
        ("data/audit.json", {"columns": [{"column": "a"}]}),
        ("data/cross_validation.json", {"baselines": [{}]}),
        ("arms/full/seed-0/metrics.json", {"slices": [{"split": "test"}]}),
        ("arms/full/seed-0/metrics.json", {"threshold": {"metric": "f1"}}),
        ("arms/full/seed-0/parameters.json", {"matrices": [{"matrix": "a"}]}),
    ],
)
def test_a_file_of_another_shape_is_named(copied, name, entries):
    change(copied / name, **entries)
    page = Page(write_report(copied).read_text(encoding="utf-8"))
    assert re.search(rf"Damaged, and left out .*{re.escape(name)} does not hold what it should", page.text)
    assert "What was run" in page.text  # the rest stands


def test_chromium_draws_the_page_without_a_word_in_the_console(browser, made):
    opened = open_page(browser, made / "report.html")
    assert opened.console == []
    assert "could not be drawn" not in opened.dom.split("<script", 1)[0]


def test_arms_that_share_a_tokenizer_share_a_line(run):
    assert [row[0][0] for row in data(run).tokens.rows] == ["full and head-only"] * 3


def test_the_rows_on_the_page_are_those_of_the_run(run):
    assert isinstance(run.rows, pl.DataFrame)
    assert [one.name for one in run.baselines] == ["majority", "tfidf"]
