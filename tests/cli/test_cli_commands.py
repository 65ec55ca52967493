"""What the commands hand to the parts that do the work, and what they print."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from config.studies import GOOD, LENSES, METHODS
from tunescope.cli import app
from tunescope.commands import checkpoints
from tunescope.commands.asked import label_map, text_columns
from tunescope.errors import ConfigError
from tunescope.files import write_json
from tunescope.report.texts import choose


@pytest.fixture
def study(monkeypatch):
    """A study module that remembers its calls; the real one is tested where it lives."""
    fake = types.SimpleNamespace(
        METHODS=METHODS, LENSES=LENSES, REFUSED_METHODS={"p_tuning": "why"}, calls=[]
    )
    fake.run = lambda *args, **kwargs: fake.calls.append((args, kwargs))
    fake.validate = lambda config, progress: f"{config.name} is valid."
    monkeypatch.setitem(sys.modules, "tunescope.study", fake)
    monkeypatch.setattr("tunescope.study", fake, raising=False)
    return fake


def invoke(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def write(folder: Path, text: str = GOOD) -> str:
    (folder / "s.yaml").write_text(text)
    return str(folder / "s.yaml")


def test_run_hands_over_the_study_with_overrides(study, tmp_path):
    file = write(tmp_path)
    answer = invoke("run", file, "--set", "seeds=[3]", "--set", "lenses.cka.block=8", "--device", "cpu")
    assert answer.exit_code == 0, answer.output
    assert answer.stdout == "Report: runs/demo/report.html\n"
    (config, folder), options = study.calls[0]
    assert (config.seeds, config.lenses[0].options["block"]) == ([3], 8)
    assert folder == Path("runs/demo")
    assert (options["device"], options["source"], options["progress"].quiet) == ("cpu", Path(file), False)


def test_workers_are_handed_over(study, tmp_path):
    assert invoke("run", write(tmp_path), "--workers", "3", "--quiet").exit_code == 0
    assert invoke("run", write(tmp_path), "--quiet").exit_code == 0
    assert [options["workers"] for _, options in study.calls] == [3, None]
    assert invoke("run", write(tmp_path), "--workers", "0").exit_code == 2


def verdict(outcome: str) -> dict:
    sentence = f"{outcome}: all (seed 0): accuracy on test is 0.5; expected at least 0.9."
    return {
        "rule": 0, "name": "accuracy on test", "verdict": outcome, "arm": "all", "seed": 0, "value": 0.5, "low": 0.4,
        "high": 0.6, "n": 30, "lower": 0.9, "upper": None, "numbers": 1, "broken": 1, "source": None,
        "sentence": sentence,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "code", "text"),
    [
        ("met", 0, "Expectations: 1 met"),
        ("not met", 8, "1 of 1 expectations are not met:"),
        ("undecided", 8, r"1 of 1 expectations are not met (1 undecided, which --strict counts as not met)"),
    ],
)
def test_strict_ends_in_code_8_where_an_expectation_is_not_met(study, tmp_path, outcome, code, text):
    """Without --strict the run ends well whatever the verdicts are."""
    file = write(tmp_path, GOOD + "expect: [{metric: accuracy, lower: 0.9}]\n")
    folder = tmp_path / "run"
    folder.mkdir()
    counts = {name: int(name == outcome) for name in ("met", "not met", "undecided")}
    document = {"verdicts": [verdict(outcome)], "summary": counts}
    (folder / "expect.json").write_text(json.dumps({"format_version": 1, **document}))
    plain = invoke("run", file, "--output-dir", str(folder))
    assert plain.exit_code == 0, plain.output
    assert f"1 {outcome}" in plain.stdout
    strict = invoke("run", file, "--output-dir", str(folder), "--strict")
    assert strict.exit_code == code
    assert text in strict.output
    assert json.loads(invoke("run", file, "--output-dir", str(folder), "--json").stdout)["expect"] == counts


def test_a_method_that_cannot_serve_is_refused_with_the_reason(study, tmp_path):
    answer = invoke("run", write(tmp_path, GOOD.replace("method: last_k", "method: p_tuning")))
    assert answer.exit_code == 2
    assert "arms.last.method: 'p_tuning' cannot be used: why" in answer.output


def test_run_as_json_says_only_json(study, tmp_path):
    answer = invoke("run", write(tmp_path), "--json", "--output-dir", str(tmp_path / "out"))
    said = json.loads(answer.stdout)
    assert said["run"] == str(tmp_path / "out")
    assert said["report"] == str(tmp_path / "out" / "report.html")
    assert study.calls[0][1]["progress"].quiet


def test_validate_prints_what_it_found(study, tmp_path):
    assert invoke("validate", write(tmp_path)).stdout == "demo is valid.\n"


def test_a_bad_study_trains_nothing(study, tmp_path):
    answer = invoke("run", write(tmp_path, GOOD.replace("gpt2", "gpt2, poling: mean", 1)))
    assert (answer.exit_code, study.calls) == (2, [])
    assert (
        f"{tmp_path}/s.yaml:7: arms.all.poling: unknown key 'poling'; did you mean 'pooling'?"
        in answer.stderr
    )


def test_an_unknown_recipe_gets_the_nearest(study):
    answer = invoke("run", "quikstrat")
    assert answer.exit_code == 2
    assert "There is no study file and no recipe 'quikstrat'" in answer.stderr


def test_report_needs_a_folder(tmp_path):
    answer = invoke("report", str(tmp_path / "none"))
    assert answer.exit_code == 6
    assert "There is no run folder" in answer.stderr


def test_compare_hands_over_what_was_asked(study, monkeypatch, tmp_path):
    asked = []

    class CompareRequest(types.SimpleNamespace):
        pass

    def compare_folders(request, progress):
        asked.append(request)
        return tmp_path

    fake = types.SimpleNamespace(
        CompareRequest=CompareRequest,
        compare_folders=compare_folders,
        BASE_HEADS=("probe", "tuned", "own", "none"),
    )
    monkeypatch.setitem(sys.modules, "tunescope.checkpoints", fake)
    answer = invoke(
        "compare", "base", "one", "two", "--data", "rows.csv", "--text", "q", "--text", "s", "--label", "y",
        "--label-map", "LABEL_0=no", "--label-map", "LABEL_1=yes", "--lens", "{lens: cka, block: 8}",
        "--rows", "9",
    )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    assert answer.stdout == f"Results: {tmp_path}\n"
    request = asked[0]
    assert (request.base, request.tuned) == ("base", ["one", "two"])
    assert (request.data.text, request.data.rows) == ({"first": "q", "second": "s"}, 9)
    assert request.label_map == {"LABEL_0": "no", "LABEL_1": "yes"}
    assert request.lenses[0].options["block"] == 8
    invoke("compare", "base", "one", "--data", "rows.csv", "--text", "t", "--label", "y")
    assert asked[1].lenses is None


def test_inspect_hands_over_what_was_asked_and_how_much_text_its_report_may_hold(monkeypatch, tmp_path):
    asked = []

    class InspectRequest(types.SimpleNamespace):
        pass

    def inspect_folder(request, progress):
        asked.append((request, choose(tmp_path, None)))
        write_json(tmp_path / "inspect.json", {"kind": "classifier"})
        return tmp_path

    fake = types.SimpleNamespace(InspectRequest=InspectRequest, inspect_folder=inspect_folder)
    monkeypatch.setitem(sys.modules, "tunescope.checkpoints", fake)
    answer = invoke(
        "inspect", "model", "--data", "rows.csv", "--text", "t", "--label", "y", "--rows", "9", "--max-length", "7",
        "--seed", "3", "--lens", "spread", "--texts", "none", "--output-dir", str(tmp_path / "out"), "--json",
    )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["kind"] == "classifier"
    request, texts = asked[0]
    assert (request.model, request.seed, request.folder, texts) == ("model", 3, tmp_path / "out", "none")
    assert (request.data.text, request.data.rows, request.data.max_length) == ("t", 9, 7)
    assert [one.lens for one in request.lenses] == ["spread"]
    assert "Add --data FILE" in invoke("inspect", "model", "--lens", "spread").stderr


def test_texts_and_label_maps():
    assert text_columns(["a"]) == "a"
    with pytest.raises(ConfigError, match="one --text column, or two"):
        text_columns(["a", "b", "c"])
    with pytest.raises(ConfigError, match="expected MODEL_LABEL=DATA_LABEL; came 'x'"):
        label_map(["x"])
    with pytest.raises(ConfigError, match="names 'a' twice"):
        label_map(["a=b", "a=c"])


@pytest.fixture
def predictions(monkeypatch):
    """Predictions of a model that finds every text good."""

    def predict(model, texts, device, progress):
        n = len(texts)
        return pl.DataFrame(
            {"row_id": [str(k) for k in range(n)], "prediction": [1] * n, "label_predicted": ["good"] * n,
             "probability_bad": [0.25] * n, "probability_good": [0.75] * n}
        )  # fmt: skip

    monkeypatch.setattr(checkpoints, "_call_predict", predict)


def test_predict_prints_a_line_a_text(predictions):
    answer = invoke("predict", "model", "A film.", "Bell\x07 and\nline \u202e")
    assert answer.stdout == "good\t0.750\tA film.\ngood\t0.750\tBell  and line  \n"
    assert [
        json.loads(line)["row_id"] for line in invoke("predict", "m", "a", "b", "--json").stdout.splitlines()
    ]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_predict_reads_a_file_and_writes_one(predictions, tmp_path, suffix):
    pl.DataFrame({"t": ["one", "two"]}).write_csv(tmp_path / "in.csv")
    out = tmp_path / f"out{suffix}"
    answer = invoke("predict", "m", "--data", str(tmp_path / "in.csv"), "--text", "t", "--output", str(out))
    assert answer.exit_code == 0, answer.output
    readers = {".csv": pl.read_csv, ".parquet": pl.read_parquet, ".jsonl": pl.read_ndjson}
    assert readers[suffix](out)["label_predicted"].to_list() == ["good", "good"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ((), 2, "Expected texts, or --data FILE --text COLUMN; came neither."),
        (("a text", "--data", "x.csv"), 2, "came both."),
        (("--data", "x.csv"), 2, "--data needs --text COLUMN"),
        (("a text", "--output", "x.xlsx"), 2, "--output expected a name that ends in .parquet, .csv, .jsonl"),
        (("--data", "DATA", "--text", "tt"), 3, "unknown column 'tt'; did you mean 't'?"),
        (
            ("--data", "DATA", "--text", "n"),
            3,
            "column 'n' holds 2 cells that are not text: rows 1, 2 (from 1).",
        ),
    ],
)
def test_predict_refuses(predictions, tmp_path, arguments, code, text):
    pl.DataFrame({"t": ["one", "two"], "n": [1, 2]}).write_parquet(tmp_path / "in.parquet")
    given = [str(tmp_path / "in.parquet") if one == "DATA" else one for one in arguments]
    answer = invoke("predict", "m", *given)
    assert answer.exit_code == code
    assert text in answer.stderr
