"""A study with a behaviour section and the command ``test``, on tiny models, from the file to the page."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "study"))

from study_helpers import make_study, raw_study, write_reviews

from tunescope.cli import app
from tunescope.errors import ConfigError, DataError
from tunescope.report import write_report
from tunescope.report.behaviour_seeds import over_seeds
from tunescope.stats.results import Result
from tunescope.study import run
from tunescope.study.suites import TestRequest

HOSTILE = "<script>alert(1)</script> <img src=x onerror=alert(2)> =cmd()"


ENDS = ("walked home", "said nothing", "was angry", "had a good day")


def pairs_file(folder: Path) -> str:
    rows = [(f"she {word} {HOSTILE} {index}", f"he {word} {HOSTILE} {index}", "female to male")
            for index, word in enumerate(ENDS * 4)]  # fmt: skip
    rows += [(second, first, "male to female") for first, second, _ in rows]
    table = pl.DataFrame(rows, schema=["original", "rewritten", "direction"], orient="row")
    table = table.with_columns(
        pl.format("{} <b>term</b>", pl.col("original").str.split(" ").list.first()).alias("term")
    )
    table.write_csv(folder / "pairs.csv")
    return str(folder / "pairs.csv")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, gpt2_folder):
    folder = tmp_path_factory.mktemp("behaviour")
    suite = {
        "suite": "mine",
        "corpus": "pairs",
        "path": pairs_file(folder),
        "direction": "direction",
        "term": "term",
    }
    raw = raw_study(
        write_reviews(folder / "reviews.csv"), gpt2_folder, lenses=[], audit=False,
        training={"max_steps": 4, "per_device_train_batch_size": 8, "learning_rate": 1e-3},
        behaviour={"suites": ["gender", suite], "resamples": 200, "inside": {"pairs": 1, "layer": 1}},
        expect=[{"lens": "behaviour", "metric": "flip_share", "model": "tuned", "upper": 1.0,
                 "where": {"suite": "mine", "part": "all"}}],
    )  # fmt: skip
    return run(make_study(raw), folder / "run"), raw


def test_the_stage_writes_table_pairs_states_csv_findings_and_rules_hold_on_it(finished):
    folder, _ = finished
    result = Result.load(folder / "results", "behaviour")
    assert set(result.table["suite"]) == {"gender", "mine"}
    assert set(result.table["model"]) == {"base", "tuned", "tuned_minus_base"}
    assert "0.525" in result.provenance["bound_reason"]
    pairs = pl.read_parquet(folder / "results" / "examples" / "behaviour.parquet")
    mine = pairs.filter(pl.col("suite") == "mine")
    sizes = mine["margin_change_tuned"].abs().to_list()
    assert (mine.height, sizes == sorted(sizes, reverse=True)) == (32, True)
    rows = pl.read_parquet(folder / "data" / "rows.parquet")
    validation = set(rows.filter(pl.col("split") == "validation")["row_id"])
    assert set(pairs.filter(pl.col("suite") == "gender")["row_id"]) <= validation
    csv = pl.read_csv(folder / "results" / "behaviour.csv", infer_schema_length=None)
    assert (csv.height, csv.columns) == (result.table.height, result.table.columns)
    assert (
        pl.read_csv(folder / "results" / "examples" / "behaviour.csv", infer_schema_length=None).height
        == pairs.height
    )
    states = pl.read_parquet(folder / "results" / "examples" / "behaviour_states.parquet")
    assert set(states["model"]) == {"base", "tuned"}
    assert set(states["layer"]) == {1}
    findings = json.loads((folder / "findings.json").read_text())["findings"]
    assert any(one["lens"] == "behaviour" and one["sentence"].startswith("mine: ") for one in findings)
    verdicts = json.loads((folder / "expect.json").read_text())["verdicts"]
    assert [one["verdict"] for one in verdicts] == ["met"]


def test_the_page_shows_suites_and_marks_changed_words_and_hostile_text_is_harmless(finished):
    folder, _ = finished
    write_report(folder)
    page = (folder / "report.html").read_text(encoding="utf-8")
    section = page[page.index('<section id="behaviour">') :]
    section = section[: section.index("</section>")]
    assert "<mark>she</mark>" in section
    assert "<mark>he</mark>" in section
    assert "alert(1)" in section
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "<b>term" not in page
    assert "tuned minus base" in section
    assert "rewritten minus original" in section
    assert re.search(r"\d+ (?:tokens each|and \d+ tokens)", section)  # which pairs can be patched
    assert re.search(r"accuracy −?[\d.]+ \[.*?\], McNemar p\s", section)
    assert re.search(r"p\s(?:< )?[\d.]+, sign test p\s(?:< )?[\d.]+", section)


def test_nothing_is_done_again_and_another_bound_does_the_behaviour_alone(finished):
    folder, raw = finished
    before = (folder / "arms" / "full" / "seed-0" / "metrics.json").stat().st_mtime_ns
    changed = {**raw, "behaviour": {**raw["behaviour"], "bound": 5.0, "bound_reason": "a test"}}
    run(make_study(changed), folder)
    assert (folder / "arms" / "full" / "seed-0" / "metrics.json").stat().st_mtime_ns == before
    table = Result.load(folder / "results", "behaviour").table
    assert set(table["within"].drop_nulls()) == {5.0}


def test_a_rule_about_behaviour_needs_a_behaviour_section(finished, tmp_path):
    _, raw = finished
    with pytest.raises(ConfigError, match="unknown lens 'behaviour'"):
        run(make_study({**raw, "behaviour": None}), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"behaviour.suites: .*two suites are named 'gender'"):
        make_study({**raw, "behaviour": {"suites": ["gender", "gender"]}})


def invoke(*arguments: str):
    return CliRunner().invoke(app, ["test", *arguments])


def test_the_command_writes_a_run_and_ends_with_8_where_a_rule_is_not_met(bert_folder, tmp_path):
    path = pairs_file(tmp_path)
    rules = tmp_path / "rules.yaml"
    common = [
        str(bert_folder),
        "--suite",
        f"pairs={path}",
        "--output-dir",
        str(tmp_path / "out"),
        "--device",
        "cpu",
    ]
    rules.write_text("expect:\n  - {metric: flip_share, where: {part: all}, upper: 1.0}\n")
    good = invoke(*common, "--expect", str(rules), "--json", "--set", "resamples=200")
    assert good.exit_code == 0, good.output
    answer = json.loads(good.stdout)
    assert answer["expect"] == {"met": 1, "not met": 0, "undecided": 0}
    assert Path(answer["report"]).is_file()
    rules.write_text("expect:\n  - {metric: absolute_margin_change, where: {part: all}, lower: 1000}\n")
    bad = invoke(*common, "--expect", str(rules), "--quiet", "--set", "resamples=200")
    assert bad.exit_code == 8
    assert "not met" in bad.output
    rules.write_text("expect:\n  - {metric: flip_shares, where: {part: all}, upper: 1.0}\n")
    assert "did you mean 'flip_share'" in invoke(*common, "--expect", str(rules), "--quiet").output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--suite", "gender"], 2, "'gender' rewrites rows, and there are none"),
        (["--suite", "gendre"], 2, "did you mean 'gender'"),
        (["--suite", "ecc=x.csv"], 2, "there is no corpus 'ecc'"),
        (["--suite", "pairs=none.csv"], 3, "none.csv"),
        (["--suite", "pairs=none.csv", "--base", "x"], 2, "The base needs labelled rows to fit its head on"),
        (["--suite", "gender", "--set", "bund=1"], 2, "unknown key 'bund'; did you mean 'bound'"),
        (["--suite", "gender", "--expect", "none.yaml"], 2, "There is no file of rules none.yaml"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said(bert_folder, tmp_path, arguments, code, message):
    found = invoke(str(bert_folder), *arguments, "--output-dir", str(tmp_path / "out"), "--quiet")
    assert (found.exit_code, message in found.output) == (code, True), found.output


def test_no_touched_rows_end_with_the_number_of_rows_and_the_terms(bert_folder, tmp_path):
    pl.DataFrame({"text": ["rain", "a warm day"]}).write_csv(tmp_path / "rows.csv")
    found = invoke(str(bert_folder), "--suite", "race", "--data", str(tmp_path / "rows.csv"), "--quiet",
                   "--output-dir", str(tmp_path / "out"))  # fmt: skip
    assert found.exit_code == DataError.exit_code
    assert "touches none of 2 rows" in found.output
    assert "It looked for" in found.output


def test_a_suite_that_touches_nothing_is_left_out_beside_one_that_does(bert_folder, tmp_path):
    texts = [f"she walked home, she said, day {index}" for index in range(8)]
    pl.DataFrame({"text": texts}).write_csv(tmp_path / "rows.csv")
    common = [str(bert_folder), "--suite", "gender,race", "--data", str(tmp_path / "rows.csv")]
    found = invoke(*common, "--output-dir", str(tmp_path / "out"), "--json")
    assert found.exit_code == 0, found.output
    (said,) = json.loads(found.stdout)["left_out"]
    assert said.startswith("Left out: The suite 'race' touches none of 8 rows")
    table = pl.read_parquet(tmp_path / "out" / "results" / "behaviour.parquet")
    assert set(table["suite"].drop_nulls()) == {"gender"}
    assert "touches none of 8 rows" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_the_request_is_no_test_of_pytest():
    assert TestRequest.__test__ is False


def test_seeds_are_shown_side_by_side_with_their_range():
    def row(seed, model, metric, value, verdict=None):
        return {"arm": "a", "seed": seed, "model": model, "part": "all", "suite": "gender", "metric": metric,
                "value": value, "verdict": verdict, "class": None, "control": None}  # fmt: skip

    rows = []
    for seed, size in ((0, 0.2), (1, 0.5)):
        rows += [
            row(seed, "tuned", "margin_change", size - 0.3, "different" if seed else "equivalent"),
            row(seed, "tuned", "absolute_margin_change", size), row(seed, "tuned", "flip_share", size / 10),
            row(seed, "tuned_minus_base", "absolute_margin_change", 0.1),
            {**row(seed, "tuned", "absolute_margin_change", 9.0), "control": "random_words"},
        ]  # fmt: skip
    for seed in (0, 1):  # what a directional suite is judged by is its failures alone
        rows += [
            {**row(seed, "tuned", "failure_share", 0.2, "fails"), "suite": "ways"},
            {**row(seed, "tuned", "margin_change", 0.2, "different"), "suite": "ways"},
        ]
    kinds = {"class": pl.String, "control": pl.String, "verdict": pl.String}
    table = pl.DataFrame(rows, schema_overrides=kinds, infer_schema_length=None)
    (part,) = over_seeds(table, ["a", "b"])
    assert (part.arm, part.seeds) == ("a", 2)
    line, other = part.lines
    assert line.verdicts == "equivalent, different"
    assert (other.suite, other.verdicts) == ("ways", "fails, fails")
    assert (line.signed, line.size, line.flips) == ("−0.100 to +0.200", "0.200 to 0.500", "0.020 to 0.050")
    assert over_seeds(table.filter(pl.col("seed") == 0), ["a"]) == ()
