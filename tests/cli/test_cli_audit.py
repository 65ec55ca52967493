"""``tunescope audit`` as it is typed."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from tunescope.cli import app


def run(*arguments: object):
    return CliRunner().invoke(app, ["audit", *map(str, arguments)])


@pytest.fixture
def rows(tmp_path):
    lines = [f"hello text number {i} and so on,{'ab'[i % 2]},t{i % 4}" for i in range(40)]
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("text,label,topic\n" + "\n".join(lines) + "\n")
    test.write_text(
        "text,label,topic\n" + "\n".join([lines[3], *(f"new {line}" for line in lines[:9])]) + "\n"
    )
    return train, test


def test_tables_and_findings_for_people(rows):
    train, test = rows
    done = run(train, "--test", test, "--text", "text", "--label", "label", "-q")
    assert done.exit_code == 0
    shown = " ".join(done.stdout.split())
    assert "50 rows" in shown
    assert "Findings: 3 red" in shown
    assert "'topic' determines the label: 4 of 4 values have one label only" in shown
    assert "1 text stands in both train and test" in shown
    assert "Words in a text" in shown


def test_json_for_machines_and_a_file(rows, tmp_path):
    train, test = rows
    done = run(
        train, "--test", test, "--text", "text", "--label", "label", "--json", "-o", tmp_path / "audit.json"
    )
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert document["findings"][0]["severity"] == "red"
    assert document == json.loads((tmp_path / "audit.json").read_text())


def test_tokens_cleaning_and_a_split_column(rows, tmp_path, gpt2_folder):
    train, _ = rows
    whole = tmp_path / "whole.csv"
    lines = train.read_text().splitlines()
    parts = ("train" if i % 3 else "test" for i in range(len(lines) - 1))
    filled = [f"{line},{part}" for line, part in zip(lines[1:], parts, strict=True)]
    whole.write_text("\n".join([f"{lines[0]},part", *filled]))
    done = run(
        whole, "--text", "text", "--label", "label", "--split-column", "part", "--model", gpt2_folder,
        "--max-length", 4, "--clean", "lower", "--clean", "{step: special_characters, keep: '.'}", "--json",
    )  # fmt: skip
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert document["rows"]["splits"] == {"train": 26, "test": 14}
    assert document["lengths"]["max_length"] == 4
    assert [step["step"] for step in document["rows"]["cleaning"][0]["steps"]] == [
        "lower",
        "special_characters",
    ]
    assert any(finding["kind"] == "truncation" for finding in document["findings"])


def test_what_stands_in_a_file_cannot_steer_the_terminal(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("text,label\n" + "".join(f"text {i},\x1b[31m[bold]{'ab'[i % 2]}\n" for i in range(8)))
    done = run(path, "--text", "text", "--label", "label", "-q")
    assert done.exit_code == 0
    assert "\x1b" not in done.stdout
    assert "[31m[bold]a" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["gone.csv", "--text", "text", "--label", "label"], 3, "the file is missing"),
        (["{train}", "--text", "texts", "--label", "label"], 3, "column 'texts' (data.text) is missing"),
        (["{train}", "--text", "text", "--label", "labels"], 3, "Did you mean 'label'?"),
        (["{train}", "--text", "text", "--label", "text"], 3, "stands in this row only"),
        (["{bytes}", "--text", "text", "--label", "label"], 3, "is not utf-8"),
        (["{empty}", "--text", "text", "--label", "label"], 3, "empty"),
        (["{train}", "--text", "text", "--label", "label", "--max-length", "5"], 2, "no tokenizer was given"),
        (["{train}", "--text", "text", "--label", "label", "--clean", "upper"], 2, "upper"),
        (["{train}", "--text", "text", "--label", "label", "--tokenizer", "./none"], 4, "none"),
    ],
)
def test_hostile_and_wrong_input_ends_in_a_sentence(rows, tmp_path, arguments, code, said):
    (tmp_path / "bytes.csv").write_bytes(b"text,label\n\xff\xfe,a\n")
    (tmp_path / "empty.csv").write_bytes(b"")
    names = {"train": rows[0], "bytes": tmp_path / "bytes.csv", "empty": tmp_path / "empty.csv"}
    done = run(*(one.format(**names) for one in arguments))
    assert done.exit_code == code
    assert said in done.stderr
    assert "Next: " in done.stderr
    assert "Traceback" not in done.stderr
