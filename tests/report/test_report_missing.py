"""What a run does not hold is said; what is damaged is named; nothing crashes and nothing is half-read."""

from __future__ import annotations

import json
import re
import shutil

import polars as pl
import pytest
from report_browser import Page
from report_run import Recipe, make_run

from tunescope.errors import FormatError, RunError
from tunescope.files import read_json, write_json
from tunescope.report import write_report
from tunescope.report.quality import answer, scores
from tunescope.report.read import read_run
from tunescope.report.trust import corrected_tests
from tunescope.runs import RunFolder as RunLock
from tunescope.stats.results import Result, result_table


def text_of(folder) -> str:
    return Page(write_report(folder).read_text(encoding="utf-8")).text


MISSING = [
    ("study.resolved.yaml", "study.resolved.yaml is missing"),
    ("environment.json", "environment.json is missing"),
    ("data/summary.json", "data/summary.json is missing"),
    ("data/rows.parquet", "data/rows.parquet is missing"),
    ("findings.json", "findings.json is missing"),
    ("arms", "the folder arms/ is missing or empty"),
    ("results", "No lens has measured layers"),
    ("results/cka.parquet", "results/cka.parquet is missing or holds no maps"),
    ("results/ablation.parquet", "results/ablation.parquet is missing or holds no effects"),
    ("arms/full/seed-0/metrics.json", "metrics.json is missing"),
    ("arms/full/seed-0/log.jsonl", "As logged while training 1 arm"),
    ("arms/full/seed-0/predictions.parquet", "153 wrong of 600"),
]


@pytest.mark.parametrize(("name", "said"), MISSING, ids=[name for name, _ in MISSING])
def test_what_is_missing_is_said(run_copy, name, said):
    path = run_copy / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert said in text_of(run_copy)


def test_an_empty_folder_gives_a_page_that_says_so(tmp_path):
    text = text_of(tmp_path)
    assert "This run holds no accuracy" in text
    assert "No findings were written" in text
    assert "No training was logged" in text


def test_without_metrics_the_answer_is_what_changed_inside(run_copy):
    shutil.rmtree(run_copy / "arms")
    text = text_of(run_copy)
    assert "Inside, full is least like its base at norm, CKA 0." in text


DAMAGED = [
    "environment.json", "findings.json", "data/summary.json", "data/rows.parquet",
    "arms/full/seed-0/metrics.json", "arms/full/seed-0/log.jsonl", "arms/full/seed-0/predictions.parquet",
    "results/cka.parquet", "results/cka.json", "results/ablation.parquet",
]  # fmt: skip


def test_damaged_files_are_named_and_the_rest_of_the_page_stands(run_copy):
    for name in DAMAGED[:-1]:
        path = run_copy / name
        content = path.read_bytes()
        path.write_bytes(b"\x00{" + content[: len(content) // 2])
    page = Page(write_report(run_copy).read_text(encoding="utf-8"))
    said = page.text[page.text.index("Damaged, and left out") :]
    for name in DAMAGED[:-2]:  # a result and its provenance are one
        assert name.replace("cka.json", "cka.parquet") in said
    cka = page.text.index("Similarity of representations (CKA)")
    assert page.text[cka:].startswith("Similarity of representations (CKA) Damaged: ")
    assert ("section", {"id": "ablation"}) in page.elements
    assert "Ablation was not run" not in page.text
    assert "head-only" in page.text


def test_a_study_that_is_not_readable_is_an_error_and_an_old_page_survives(run_copy):
    write_report(run_copy)
    (run_copy / "study.resolved.yaml").write_bytes(b"\x00{")
    with pytest.raises(RunError, match=r"study\.resolved\.yaml is not readable YAML"):
        write_report(run_copy)
    assert (run_copy / "report.html").stat().st_size > 1_000_000


def test_a_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(RunError, match="there is no such folder"):
        write_report(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["environment.json", "data/summary.json", "results/cka.json"])
def test_another_format_version_is_refused(run_copy, name):
    path = run_copy / name
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 9'))
    with pytest.raises(FormatError, match=r"format_version 9|found 9") as refused:
        write_report(run_copy)
    if name == "environment.json":
        assert "pip install tunescope==0.1.0" in str(refused.value)
    assert not (run_copy / "report.html").exists()


def test_a_run_folder_of_another_format_is_not_written_to(run_copy):
    path = run_copy / "environment.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 9'))
    with pytest.raises(FormatError, match="reads format_version 1"), RunLock(run_copy).locked():
        pass


def test_a_result_without_the_columns_of_its_figure_names_them(run_copy):
    table = Result.load(run_copy / "results", "cka")
    Result("cka", table.table.drop("site_other"), table.provenance).save(run_copy / "results")
    assert "Damaged: results/cka.parquet: expected the columns site_other" in text_of(run_copy)


def test_empty_tables_are_missing_maps(run_copy):
    for lens in ("cka", "ablation"):
        result = Result.load(run_copy / "results", lens)
        Result(lens, result.table.clear(), result.provenance).save(run_copy / "results")
    text = text_of(run_copy)
    assert "holds no maps" in text
    assert "holds no effects" in text


def test_an_unknown_lens_shows_as_a_table_with_its_sentence(run_copy):
    records = [{"arm": "full", "metric": "entropy", "layer": i, "value": i / 7, "n": 50} for i in range(250)]
    about = {"what": "How spread out attention is.", "rows": {"split": "test", "n": 50}, "notes": ["A note."]}
    Result("attention_entropy", result_table(records), about).save(run_copy / "results")
    page = Page(write_report(run_copy).read_text(encoding="utf-8"))
    assert "How spread out attention is." in page.text
    assert "Measured on 50 rows of test. A note." in page.text
    assert "The first 200 of 250 rows" in page.text
    headings = [text for text in page.texts if text in ("entropy", "base_head", "class")]
    assert "base_head" not in headings  # columns that are empty throughout are left out


def test_a_table_without_provenance_says_so(run_copy):
    pl.DataFrame({"word": ["a"], "value": [1.0]}).write_parquet(run_copy / "results" / "bare.parquet")
    assert "results/bare.json is missing" in text_of(run_copy)


def test_an_arm_that_does_not_clear_the_baseline_did_not_learn_the_task(tmp_path):
    folder = make_run(tmp_path / "run", Recipe(accuracy=(0.93, 0.05)))
    assert "the accuracy interval of head-only does not clear the majority baseline" in text_of(folder)
    assert re.search(
        r"full reaches accuracy 0\.9\d+ .*; task not learned by head-only 0\.[12]", answer_of(folder)
    )
    folder = make_run(tmp_path / "none", Recipe(accuracy=(0.05, 0.05)))
    said = answer_of(folder)
    assert re.match(r"On 600 test rows: task not learned by (full|head-only) 0\.[12]\d+ \[0\.", said)
    assert "reaches accuracy" not in said
    assert "always answering the most frequent class (joy) reaches 0.3" in said


def answer_of(folder) -> str:
    run = read_run(folder)
    return "".join(piece for piece, _ in answer(run, scores(run)))


def test_several_seeds_are_folded_and_the_answer_says_what_its_interval_is(tmp_path):
    folder = make_run(tmp_path / "run", Recipe(seeds=(0, 1)))
    text = text_of(folder)
    assert "(means over 2 seeds, intervals of seeds and rows)" in text
    assert "One seed:" not in text
    assert "full, seed 1" in text
    assert (folder / "report.html").stat().st_size < 10_000_000


def test_a_compare_run_needs_no_arms_and_no_study(run_copy):
    for name in ("arms", "study.resolved.yaml"):
        path = run_copy / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_json(
        run_copy / "compare.json",
        {
            "command": "tunescope compare base full --data x.csv", "base": "/models/base",
            "tuned": {"full": "/models/full", "head-only": "/models/head <b>"},
            "assumptions": ["max length 128, because the folder does not say"], "notes": ["labels by name"],
            "logged_metrics": [
                {"arm": "full", "logged": {"eval_accuracy": 0.91}, "ours": {"accuracy": 0.909}},
            ],
        },
    )  # fmt: skip
    text = text_of(run_copy)
    assert "Nothing was trained here" in text
    assert "/models/head <b>" in text
    assert "Assumed, because the folders do not say: max length 128" in text
    assert "arm logged.eval_accuracy ours.accuracy full 0.91 0.909" in text
    assert "tunescope compare base full --data x.csv" in text
    assert "Inside, full is least like its base" in text


def test_a_compare_run_may_hold_metrics_of_checkpoints_trained_elsewhere(run_copy):
    for arm in ("full", "head-only"):
        place = run_copy / "arms" / arm / "seed-0"
        document = read_json(place / "metrics.json")
        share = document.pop("majority")["test"]["accuracy"]
        majority = {"split": "test", "metric": "majority_accuracy", "class": None, "value": share}
        unknown = {"seed": None, "seconds": None, "trainable_parameters": None}
        records = [*document["records"], majority]
        del document["format_version"]
        write_json(place / "metrics.json", {**document, **unknown, "records": records})
        (place / "log.jsonl").unlink()
    (run_copy / "study.resolved.yaml").unlink()
    write_json(run_copy / "compare.json", {"base": "b", "tuned": {"full": "f", "head-only": "h"}})
    text = text_of(run_copy)
    assert f"always answering the most frequent class reaches {share:.3f}" in text
    assert "nothing was trained in this run" in text
    assert "each is one training, so how much another seed would change is not known" in text
    assert "seed None" not in text


def test_seeds_may_be_unknown(run_copy):
    for lens in ("cka", "ablation"):
        result = Result.load(run_copy / "results", lens)
        table = result.table.with_columns(seed=pl.lit(None, dtype=pl.Int64))
        Result(lens, table, result.provenance).save(run_copy / "results")
    assert "within base" in text_of(run_copy)


def test_corrected_tests_count_effects_and_not_controls(run_copy):
    shutil.rmtree(run_copy / "results")
    records = [
        {"metric": "m", "value": 1.0, "q": q, "control": control}
        for q, control in ((0.01, "none"), (0.05, "none"), (0.2, "none"), (0.01, "random"), (None, "none"))
    ]
    Result("ablation2", result_table(records), {}).save(run_copy / "results")
    assert corrected_tests(read_run(run_copy)) == (3, 2)


def test_texts_in_two_splits_are_counted(run_copy):
    path = run_copy / "data" / "rows.parquet"
    rows = pl.read_parquet(path)
    moved = rows.filter(pl.col("split") == "train").head(3)
    again = moved.with_columns(split=pl.lit("test"), row_id=pl.col("row_id") + "-1")
    before = read_run(run_copy).rows
    pl.concat([rows, again]).write_parquet(path)
    after = text_of(run_copy)
    assert f"{before.height + 3 - before['text'].n_unique():,}" in after
    assert "texts in more than one split" in after


def test_the_log_names_the_line_that_is_not_an_object(run_copy):
    path = run_copy / "arms" / "full" / "seed-0" / "log.jsonl"
    path.write_text('{"step": 1}\n[1]\n')
    assert "log.jsonl, line 2: expected a JSON object" in text_of(run_copy)


def test_metrics_without_records_are_damaged(run_copy):
    path = run_copy / "arms" / "full" / "seed-0" / "metrics.json"
    document = read_json(path)
    document["records"] = {"accuracy": 1}
    path.write_text(json.dumps(document))
    assert "metrics.json: expected a list under 'records', found dict" in text_of(run_copy)
