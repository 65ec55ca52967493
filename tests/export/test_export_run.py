"""What leaves with a run: files in the manifest, methods that say what was run, cards that the hub reads."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys

import polars as pl
import pytest
import yaml
from test_works import parse
from typer.testing import CliRunner

from tunescope.cli import app
from tunescope.errors import ConfigError, MissingDependencyError, RunError
from tunescope.export import ExportOptions, export_run
from tunescope.export.cards import hub_id
from tunescope.export.export import width_in_inches
from tunescope.export.figures import choose, jobs
from tunescope.export.said import options_said
from tunescope.files import read_json, write_json
from tunescope.report.read import read_run

NO_FIGURES = ExportOptions(figures=("none",))


@pytest.fixture(scope="module")
def exported(made_run, tmp_path_factory):
    return export_run(made_run, tmp_path_factory.mktemp("exported") / "paper", NO_FIGURES)


def test_the_manifest_lists_every_file_and_its_checksum(exported):
    manifest = read_json(exported / "export.json")
    listed = {entry["path"]: entry for entry in manifest["files"]}
    there = {path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()}
    assert there == {*listed, "export.json"}
    for name, entry in listed.items():
        data = (exported / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
        assert len(data) == entry["bytes"] > 0
    assert {"methods.md", "references.bib", "tables/metrics.csv", "tables/metrics.tex"} <= set(listed)
    assert "tables/results/cka.csv" in listed
    assert not any(name.startswith("figures/") for name in listed)


def test_methods_say_what_the_run_holds(exported, made_run):
    text = (exported / "methods.md").read_text(encoding="utf-8")
    study = yaml.safe_load((made_run / "study.resolved.yaml").read_text())
    assert "16,000 rows of train, 2,000 rows of validation and 600 rows of test" in text
    assert "sadness, joy, love, anger, fear and surprise" in text
    assert study["question"] in text
    for arm in study["arms"]:
        assert f"**{arm['name']}**".replace("-", "-") in text
    assert "22,715,526 of 22,715,526 parameters trained" in text
    assert "2,310 of 22,715,526 parameters trained" in text
    assert "num_train_epochs `3`" in text
    assert "learning_rate `0.0001`" in text
    assert "torch 2.13.0" in text
    assert "**cka**" in text


def test_methods_say_nothing_that_was_not_run(made_run, tmp_path):
    run = shutil.copytree(made_run, tmp_path / "run")
    for path in (run / "results").glob("*"):
        if path.is_file() and path.stem != "cka":
            path.unlink()
    (run / "environment.json").unlink()
    text = (export_run(run, tmp_path / "out", NO_FIGURES) / "methods.md").read_text(encoding="utf-8")
    said = set(re.findall(r"@(\w+)", text))
    assert "kornblith2019" in said
    assert not said & {
        "michel2019",
        "nanda2023",
        "kriegeskorte2008",
        "wolf2020",
        "schuirmann1987",
        "holm1979",
    }
    assert "ablation" not in text.lower()  # the study asks for it; the run has no table of it
    assert "Software" not in text
    assert "Precision" not in text  # the study of this run does not say


def test_a_run_with_nothing_says_nothing(tmp_path):
    (tmp_path / "run").mkdir()
    target = export_run(tmp_path / "run", tmp_path / "out", NO_FIGURES)
    assert (target / "methods.md").read_text(encoding="utf-8") == "# Methods of run\n"
    assert (target / "references.bib").read_text() == "% methods.md cites no works.\n"
    assert not (target / "cards").exists()


def test_references_are_those_that_the_methods_cite(exported):
    text = (exported / "methods.md").read_text(encoding="utf-8")
    entries = parse((exported / "references.bib").read_text())
    assert set(entries) == set(re.findall(r"(?<![\\\w])@(\w+)", text))
    assert {"kornblith2019", "wilson1927"} <= set(entries)


def test_model_cards_are_read_by_the_hub_library(exported, made_run):
    from huggingface_hub import ModelCard

    metrics = read_json(made_run / "arms" / "full" / "seed-0" / "metrics.json")
    accuracy = next(
        one
        for one in metrics["records"]
        if (one["split"], one["metric"], one["class"]) == ("test", "accuracy", None)
    )
    card = ModelCard.load(exported / "cards" / "full" / "seed-0" / "README.md")
    results = {one.metric_type: one for one in card.data.eval_results}
    assert results["accuracy"].metric_value == pytest.approx(accuracy["value"], abs=1e-6)
    assert f"{accuracy['low']:.4f} to {accuracy['high']:.4f}" in results["accuracy"].metric_name
    assert results["accuracy"].dataset_split == "test"
    assert results["accuracy"].task_type == card.data.pipeline_tag == "text-classification"
    assert card.data.model_name == "full, seed 0"
    assert card.data.base_model is None  # the study names a model of this machine, not of the hub
    assert "Intended use\n\nNot known." in card.text
    assert "One seed: every interval here is about rows." in card.text
    assert "whether the model treats people differently is not known" in card.text
    assert {path.name for path in (exported / "cards").iterdir()} == {"full", "head-only"}


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("distilbert/distilbert-base-uncased", True), ("gpt2", False), ("/work/shared/weights", False),
        ("./models/one", False), ("~/m/x", False), ("a/b/c", False), ("C:\\models/x", False), ("a b/c", False),
        ("owner/../x", False), ("", False), (None, False),
    ],
)  # fmt: skip
def test_only_hub_ids_are_named_as_hub_ids(name, known):
    assert hub_id(name) == (name if known else "")


def test_no_secret_leaves_with_texts_none(made_run, tmp_path):
    secret = "Zanzibarquokka"
    run = shutil.copytree(made_run, tmp_path / "run")
    rows = pl.read_parquet(run / "data" / "rows.parquet")
    rows.with_columns(pl.lit(f"{secret} in a text").alias("text")).write_parquet(
        run / "data" / "rows.parquet"
    )
    findings = read_json(run / "findings.json")
    findings["findings"][0] |= {
        "sentence": f"The word '{secret}' decides {secret}.", "control": f"without {secret}: 0", "test": f"by {secret}",
    }  # fmt: skip
    write_json(
        run / "findings.json", {key: value for key, value in findings.items() if key != "format_version"}
    )
    summary = read_json(run / "data" / "summary.json")
    summary["notes"].append(f"Dropped rows such as {secret}.")
    summary["provenance"]["cleaning"] = [{"pattern": secret}]
    write_json(
        run / "data" / "summary.json",
        {key: value for key, value in summary.items() if key != "format_version"},
    )
    with_texts = export_run(run, tmp_path / "out", ExportOptions(figures=("none",), texts="all"))
    assert secret in (with_texts / "tables" / "findings.csv").read_text(encoding="utf-8")
    without = export_run(run, tmp_path / "out", ExportOptions(figures=("none",), texts="none"))
    for path in without.rglob("*"):
        if path.is_file():
            assert secret not in path.read_text(encoding="utf-8"), path
    assert read_json(without / "export.json")["options"]["texts"] == "none"
    read = read_run(run, texts="none")
    drawn = [json.dumps(drawing.figure) for _, drawing in jobs(read, choose(read, ["all"]), 3.3)]
    assert drawn
    assert not any(secret in one for one in drawn)


def test_a_second_export_leaves_nothing_of_the_first(made_run, tmp_path):
    target = export_run(made_run, tmp_path / "out", NO_FIGURES)
    assert (target / "tables").is_dir()
    (target / "mine.txt").write_text("kept")
    export_run(made_run, target, ExportOptions(figures=("none",), tables=False))
    assert not list(target.glob("tables/**/*.csv"))
    assert (target / "mine.txt").read_text() == "kept"


def test_a_manifest_that_points_outside_removes_nothing_there(made_run, tmp_path):
    outside = tmp_path / "precious.txt"
    outside.write_text("kept")
    target = tmp_path / "out"
    target.mkdir()
    write_json(target / "export.json", {"files": [{"path": "../precious.txt"}, {"path": str(outside)}]})
    export_run(made_run, target, NO_FIGURES)
    assert outside.read_text() == "kept"


def test_foreign_folders_are_refused(made_run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"not empty, and no export wrote what is in it"):
        export_run(made_run, tmp_path / "full", NO_FIGURES)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="an export needs a folder"):
        export_run(made_run, tmp_path / "file", NO_FIGURES)
    with pytest.raises(RunError, match="no such folder"):
        export_run(tmp_path / "nothing", tmp_path / "out", NO_FIGURES)


@pytest.mark.parametrize(
    ("width", "inches"),
    [("3.3in", 3.3), ("8.4cm", 8.4 / 2.54), (" 84MM ", 84 / 25.4), ("239pt", 239 / 72.27)],
)
def test_widths_are_lengths_as_papers_state_them(width, inches):
    assert width_in_inches(width) == pytest.approx(inches)


@pytest.mark.parametrize("width", ["3.3", "in", "wide", "3,3in", "nanin", "0.1in", "300in", ""])
def test_other_widths_are_refused(width):
    with pytest.raises(ConfigError, match="The width"):
        width_in_inches(width)


def test_unknown_figures_are_refused_before_anything_is_written(made_run, tmp_path):
    with pytest.raises(ConfigError, match=r"no section called 'nonsense'; its sections are answer"):
        export_run(made_run, tmp_path / "out", ExportOptions(figures=("nonsense",)))
    assert not (tmp_path / "out").exists()


def test_a_missing_library_is_named_before_anything_is_written(made_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(MissingDependencyError, match="need the library kaleido") as error:
        export_run(made_run, tmp_path / "out", ExportOptions(figures=("depth",)))
    assert "pip install 'tunescope[export]'" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_missing_browser_is_named(made_run, tmp_path, monkeypatch):
    pytest.importorskip("kaleido")
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "no-browser"))
    with pytest.raises(
        MissingDependencyError, match="drawn by Chromium or Chrome, and none was found"
    ) as error:
        export_run(made_run, tmp_path / "out", ExportOptions(figures=("depth",)))
    assert "apt install chromium" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_command_says_where_things_are(made_run, tmp_path):
    to = tmp_path / "paper"
    told = CliRunner().invoke(
        app, ["export", str(made_run), "--to", str(to), "--figures", "none", "--json", "--quiet"]
    )
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout) == {
        "export": str(to),
        "files": len(read_json(to / "export.json")["files"]),
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "gif"], "no figure format 'gif'"),
        (["--texts", "some"], "some"),
        (["--width", "x"], "The width 'x'"),
    ],
)
def test_wrong_options_are_refused_with_exit_code_2(made_run, tmp_path, options, message):
    told = CliRunner().invoke(
        app, ["export", str(made_run), "--to", str(tmp_path / "o"), "--figures", "none", *options]
    )
    assert told.exit_code == 2
    assert message in told.output


def test_paths_of_this_machine_are_shortened_in_options():
    said = options_said(
        {"suites": [{"suite": "/home/me/suites/mine.yaml"}], "n": 0.5, "off": None, "model": "/a/b/x"}
    )
    assert said == "suites `mine.yaml`, n `0.5`, model `x`"
