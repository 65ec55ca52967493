"""The command line on the real parts: a real model predicts, and a drafted study fits what is there."""

from __future__ import annotations

import json

import polars as pl
import torch
from typer.testing import CliRunner

from tiny import NAMES, TEXTS, tiny_folder
from tunescope.cli import app
from tunescope.config import load_study


def test_predict_agrees_with_transformers_alone(tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tiny_folder("bert", tmp_path / "model", names=list(NAMES))
    texts = [*TEXTS, TEXTS[0]]  # a repeated text must come back twice
    pl.DataFrame({"t": texts}).write_parquet(tmp_path / "in.parquet")
    out = tmp_path / "out.jsonl"
    arguments = [
        "predict",
        str(folder),
        "--data",
        str(tmp_path / "in.parquet"),
        "--text",
        "t",
        "--output",
        str(out),
    ]
    answer = CliRunner().invoke(app, [*arguments, "--device", "cpu"])
    assert answer.exit_code == 0, answer.output
    found = [json.loads(line) for line in out.read_text().splitlines()]
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    for text, row in zip(texts, found, strict=True):
        with torch.no_grad():
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0]
        assert row["label_predicted"] == NAMES[int(logits.argmax())]
        ours = torch.tensor([row[f"logit_{name}"] for name in NAMES])
        torch.testing.assert_close(ours, logits, atol=1e-5, rtol=0)
    assert len({row["row_id"] for row in found}) == len(texts)


def test_a_drafted_study_fits_the_real_methods_and_lenses(tmp_path):
    from tunescope.study import LENSES, METHODS

    frame = pl.DataFrame({"text": [f"some words {n}" for n in range(8)], "label": ["a", "b"] * 4})
    frame.write_csv(tmp_path / "a.csv")
    answer = CliRunner().invoke(app, ["init", str(tmp_path / "a.csv"), "-o", str(tmp_path / "study.yaml")])
    assert answer.exit_code == 0, answer.output
    study = load_study(tmp_path / "study.yaml", methods=METHODS, lenses=LENSES)
    assert study.arms[0].method == "full"
