"""A run as an object: tables, figures, findings, files, and what a notebook shows of it."""

from __future__ import annotations

import json

import polars as pl
import pytest

import tunescope
from tiny import tiny_folder
from tunescope.errors import LensError, RunError
from tunescope.files import write_json
from tunescope.stats.results import Finding, save_findings

HOSTILE = "<script>alert(1)</script>"
WORDS = ["the", "cat", "sat", "on", "warm", "mat", "and", "rain", "good", "day", "he", "was", "angry"]


def made_rows(text, label):
    return [
        {text: " ".join(WORDS[i % 9 : i % 9 + 2 + i % 4]) + f" {WORDS[i % 13]}", label: ["no", "yes"][i % 2]}
        for i in range(60)
    ]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A comparison made through the public function, twice: the second call finds everything done."""
    root = tmp_path_factory.mktemp("opened")
    tiny_folder("gpt2", root / "base", n_labels=2, layers=2, names=["no", "yes"])
    tiny_folder("gpt2", root / "tuned", n_labels=2, layers=2, names=["no", "yes"], seed=1)
    rows = [
        {"body": " ".join(WORDS[i % 9 : i % 9 + 2 + i % 4]) + f" {WORDS[i % 13]}", "y": ["no", "yes"][i % 2]}
        for i in range(60)
    ]
    pl.DataFrame(rows).write_csv(root / "rows.csv")
    lenses = ["weights", {"lens": "cka", "rows": {"n": 20}}]
    made = [
        tunescope.compare(
            root / "base", root / "tuned", data=root / "rows.csv", text="body", label="y", folder=root / "run",
            lenses=lenses, device="cpu",
        )
        for _ in range(2)
    ]  # fmt: skip
    return made[1]


def test_tables_are_polars_and_those_of_the_files(compared):
    table = compared["cka"].table
    assert isinstance(table, pl.DataFrame)
    assert table.equals(pl.read_parquet(compared.folder / "results" / "cka.parquet"))
    assert compared["tuned"]["cka"].table.equals(table)
    assert set(compared.lenses) == {"weights", "cka"}
    assert list(compared) == list(compared.lenses)
    assert compared.arms == ("tuned",)
    assert compared["cka"].provenance["options"]["rows"]["n"] == 20
    accuracy = compared.metrics.filter((pl.col("metric") == "accuracy") & pl.col("class").is_null())
    assert accuracy.height == 1


def test_figures_are_plotlys_own_and_hold_the_reports_data(compared):
    from plotly.graph_objects import Figure

    figure = compared["cka"].figure()
    assert isinstance(figure, Figure)
    keys = [one.key for one in compared["cka"].figures()]
    assert len(keys) == len(set(keys)) >= 1
    named = compared["cka"].figure(keys[-1])
    assert len(named.data) > 0
    assert isinstance(compared.figure(), Figure)  # the depth strip
    dark = compared["cka"].figure(theme="dark")
    assert dark.layout.paper_bgcolor != figure.layout.paper_bgcolor
    with pytest.raises(LensError, match=r"The lens cka has no figure 'none' here\.\nNext: Its figures are"):
        compared["cka"].figure("none")
    with pytest.raises(LensError, match="has no figure 'none'; its figures are"):
        compared.figure("none")


def test_saving_writes_what_the_ending_says(compared, tmp_path):
    compared["cka"].save(tmp_path / "cka.csv")
    assert pl.read_csv(tmp_path / "cka.csv").height == compared["cka"].table.height
    compared["cka"].save(tmp_path / "cka.html")
    assert "plotly" in (tmp_path / "cka.html").read_text(encoding="utf-8").lower()
    assert compared.save(tmp_path / "page.html").read_bytes() == compared.report.read_bytes()
    with pytest.raises(RunError, match=r"cka.xls should end in .csv, .parquet, .jsonl or .html"):
        compared["cka"].save(tmp_path / "cka.xls")


def test_reprs_are_readable_and_a_run_stands_for_its_folder(compared):
    from pathlib import Path

    said = repr(compared)
    assert said.startswith(f"Comparison('{compared.folder}'): base against tuned")
    assert "arms: tuned" in said
    assert all(one.sentence in said for one in compared.findings[:8])
    assert "rows" in repr(compared["cka"])
    assert "RunArm('tuned')" in repr(compared["tuned"])
    assert Path(compared) == compared.folder
    opened = tunescope.load_run(compared.folder)
    assert opened["weights"].table.equals(compared["weights"].table)
    assert compared.about["base_head"] == "probe"
    assert compared.refused == []


def test_what_is_not_there_is_said(compared, tmp_path):
    with pytest.raises(LensError, match="no lens and no arm 'ckaa'; its lenses are"):
        compared["ckaa"]
    with pytest.raises(LensError, match="tuned has no lens 'ckaa'"):
        compared["tuned"]["ckaa"]
    with pytest.raises(RunError, match="There is no run folder"):
        tunescope.load_run(tmp_path / "nowhere")


def test_a_notebook_shows_hostile_words_as_text(tmp_path):
    from tunescope.stats.results import Result, result_table

    name = f"arm {HOSTILE}"
    table = result_table([{"arm": name, "model": "tuned", "metric": HOSTILE, "value": 1.0, "note": HOSTILE}])
    Result("cka", table, {"what": HOSTILE}).save(tmp_path / "results")
    finding = Finding("cka", name, f"x {HOSTILE}", "cka", 0.5, 0.4, 0.6, 9, None, None, "rows", "found")
    save_findings([finding], tmp_path / "findings.json")
    write_json(tmp_path / "compare.json", {"name": HOSTILE, "tuned": {name: HOSTILE}, "notes": []})
    run = tunescope.load_run(tmp_path)
    for shown in (run, run[name], run["cka"]):
        page = shown._repr_html_()
        assert "<script" not in page
        assert "&lt;script&gt;" in page


def test_public_functions_stay_functions_however_often_they_are_asked_for():
    import tunescope.checkpoints

    assert callable(tunescope.compare)
    assert callable(tunescope.compare)
    assert callable(tunescope.inspect)
    assert callable(tunescope.inspect)
    assert callable(tunescope.run)
    assert json.dumps(sorted(tunescope.__all__))


def test_a_study_runs_from_a_mapping_and_comes_back_as_a_run(tmp_path):
    tiny_folder("gpt2", tmp_path / "base", n_labels=2, layers=1)
    rows = made_rows("text", "label")
    pl.DataFrame(rows).write_csv(tmp_path / "rows.csv")
    study = {
        "name": "small", "data": {"path": str(tmp_path / "rows.csv"), "text": "text", "label": "label"}, "audit": False,
        "arms": [{"name": "head", "model": str(tmp_path / "base"), "method": "head_only"}],
        "training": {"num_train_epochs": 1}, "lenses": [{"lens": "cka", "rows": {"n": 8}}],
    }  # fmt: skip
    run = tunescope.run(study, tmp_path / "run", device="cpu")
    assert run.arms == ("head",)
    assert run["head"]["cka"].table.height > 0
    assert run.report.is_file()
