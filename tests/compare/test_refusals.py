"""Every refusal of compare and inspect on the command line: an exit code, a sentence, a next step, no traceback."""

from __future__ import annotations

import shutil

import polars as pl
import pytest
from strangers import NAMES, labelled
from typer.testing import CliRunner

from tiny import tiny_folder
from tunescope.cli import app


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("refusals")
    tiny_folder("gpt2", root / "base", n_labels=2, layers=1, names=NAMES)
    tiny_folder("bert", root / "bert", n_labels=2, layers=1, names=NAMES)
    tiny_folder("gpt2", root / "language", layers=1, language=True)
    texts, labels = labelled(40, seed=1)
    pl.DataFrame({"text": texts, "label": labels}).write_csv(root / "rows.csv")
    pl.DataFrame({"text": texts, "label": ["spam", "ham"] * 20}).write_csv(root / "named.csv")
    shutil.copytree(root / "base", root / "weightless")
    (root / "weightless" / "model.safetensors").unlink()
    shutil.copytree(root / "base", root / "pickled")
    (root / "pickled" / "model.safetensors").rename(root / "pickled" / "pytorch_model.bin")
    shutil.copytree(root / "base", root / "cut")
    (root / "cut" / "model.safetensors").write_bytes(
        (root / "base" / "model.safetensors").read_bytes()[:4000]
    )
    shutil.copytree(root / "base", root / "unknown")
    (root / "unknown" / "config.json").write_text('{"model_type": "mamba", "architectures": ["MambaForX"]}')
    return root


ROWS = ("--data", "rows.csv", "--text", "text", "--label", "label")
CASES = {
    "no such folder": (("compare", "base", "./nowhere", *ROWS), 4, "nowhere is not a folder", "Give the folder"),
    "no weights": (("compare", "base", "weightless", *ROWS), 4, "but no weights", "Copy model.safetensors into it"),
    "pickled weights": (("compare", "base", "pickled", *ROWS), 4, "holds only pickled weights", "call save_pretrained"),
    "damaged weights": (("compare", "base", "cut", *ROWS), 4, "cut could not be loaded", ""),
    "unknown family": (("compare", "base", "unknown", *ROWS), 4, "'mamba' is of no known family", "adding-an-arch"),
    "other vocabulary": (("compare", "base", "bert", *ROWS), 5, "different vocabularies", "the base that it was"),
    "no such data": (("compare", "base", "base", "--data", "no.csv", "--text", "text"), 3, "no.csv", "Next: "),
    "no label column": (
        ("compare", "base", "base", "--data", "rows.csv", "--text", "text", "--label", "stars"), 3, "'stars'", "Next: ",
    ),
    "no text column": (("compare", "base", "base", "--data", "rows.csv", "--text", "body"), 3, "'body'", "Next: "),
    "other labels": (
        ("compare", "base", "base", "--data", "named.csv", "--text", "text"), 4, "has other labels", "--label-map",
    ),
    "no such lens": (("compare", "base", "base", *ROWS, "--lens", "ckaa"), 2, "ckaa", "cka"),
    "no such head": (("compare", "base", "base", *ROWS, "--base-head", "best"), 2, "--base-head expected", "Leave it"),
    "base without a head": (
        ("compare", "language", "base", *ROWS, "--base-head", "own"), 4, "it has no head of its own", "head probe",
    ),
    "seeds without a name": (("compare", "base", "base,base", *ROWS), 4, "without a name", "NAME=base,base"),
    "lenses without rows": (("inspect", "base", "--lens", "cka"), 2, "need rows to look at", "Add --data FILE"),
    "rows without texts": (("inspect", "base", "--data", "rows.csv"), 2, "--data needs --text", "Add --text COLUMN"),
    "inspected weightless": (("inspect", "weightless"), 4, "but no weights", "Copy model.safetensors into it"),
    "not a run folder": (("inspect", "base", "--output-dir", "base"), 6, "is not a run folder", "Choose an empty"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_refusal_is_a_sentence_with_a_next_step(root, tmp_path, monkeypatch, name):
    monkeypatch.chdir(root)
    words, code, said, step = CASES[name]
    place = () if "--output-dir" in words else ("--output-dir", str(tmp_path / "run"))
    answer = CliRunner().invoke(app, [*words, *place, "--device", "cpu", "--quiet"])
    assert answer.exit_code == code, answer.output
    lines = answer.stderr.strip().splitlines()
    assert lines[0].startswith("Error: ")
    assert said in answer.stderr
    assert step in answer.stderr
    assert "Traceback" not in answer.stderr
    assert "bug" not in answer.stderr
    assert not (tmp_path / "run" / "report.html").exists()
