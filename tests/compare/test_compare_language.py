"""Two language models compared on texts without labels, up to the page; and what cannot be compared."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from transformers import AutoModelForCausalLM

from tiny import encode, tiny_folder
from tunescope.checkpoints import CompareRequest, compare_folders
from tunescope.config import DataConfig, LensConfig
from tunescope.data.unlabelled import unlabelled_rows
from tunescope.errors import DataError, LensError, ModelError
from tunescope.stats.results import Result, load_findings

ROWS = {"rows": {"n": 16}}
LENSES = (
    LensConfig(lens="cka", options={"rows": {"n": 16}, "block": 8}),
    LensConfig(lens="ablation", options={**ROWS, "reference_rows": 8, "edits": ["zero"]}),
    LensConfig(lens="logit_lens", options=ROWS),
    LensConfig(lens="attribution_direct", options=ROWS),
)
WORDS = ["the", "cat", "sat", "on", "warm", "mat", "and", "rain", "good", "day", "he", "was", "angry"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("compare-language")
    for name, seed in (("base", 0), ("tuned", 1)):
        tiny_folder("llama", root / name, language=True, layers=2, seed=seed)
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(WORDS, size=generator.integers(3, 9))) for _ in range(40)]
    (root / "texts.txt").write_text("\n".join([*texts, "", texts[0]]) + "\n", encoding="utf-8")
    (root / "texts.csv").write_text("body\n" + "\n".join(texts) + "\n", encoding="utf-8")
    return root


def data(folder, **options):
    return DataConfig(**{"path": str(folder / "texts.txt"), "text": "text", "label": "label", **options})


def test_texts_without_labels_are_divided_by_content(folder):
    rows = unlabelled_rows(data(folder), 0.4, seed=0)
    assert len(rows) == 41
    assert rows.frame["label"].null_count() == 41
    assert rows.frame.group_by("text").agg(pl.col("split").n_unique())["split"].max() == 1
    assert "1 rows without text were left out." in rows.provenance["notes"]
    assert 10 <= (rows.frame["split"] == "train").sum() <= 22
    columns = unlabelled_rows(data(folder, path=str(folder / "texts.csv"), text="body"), 0.4, seed=0)
    assert len(columns) == 40
    assert len(unlabelled_rows(data(folder, rows=7), 0.4, seed=0)) in (7, 8)
    with pytest.raises(DataError, match="there is no column 'text'"):
        unlabelled_rows(data(folder, path=str(folder / "texts.csv")), 0.4, seed=0)


def test_two_language_models_end_to_end(folder, tmp_path):
    request = CompareRequest(
        base=str(folder / "base"), tuned=[str(folder / "tuned")], data=data(folder), folder=tmp_path / "run",
        lenses=LENSES, device="cpu",
    )  # fmt: skip
    run = compare_folders(request)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "tuned has a loss of" in page
    assert "true tokens" in page
    about = json.loads((run / "compare.json").read_text())
    (said,) = [note for note in about["notes"] if "loss per token" in note]
    metrics = json.loads((run / "arms" / "tuned" / "seed-0" / "metrics.json").read_text())
    loss = {one["metric"]: one for one in metrics["records"]}
    assert f"{loss['loss_per_token']['value']:.3f}" in said
    assert loss["loss_per_token"]["value"] == pytest.approx(_loss(folder), abs=1e-5)
    table = Result.load(run / "results", "ablation").table
    assert set(table["model"].unique()) == {"base", "tuned", "tuned_minus_base"}
    lenses = {one.lens for one in load_findings(run / "findings.json")}
    assert {"ablation", "logit_lens", "attribution_direct"} <= lenses


def _loss(folder):
    """The tuned model's loss by transformers alone: mean over a row's tokens, then over the validation rows."""
    from tunescope.models.language import load_language_model

    model = AutoModelForCausalLM.from_pretrained(folder / "tuned").eval()
    tokenizer = load_language_model(str(folder / "tuned"))
    rows = unlabelled_rows(data(folder), 0.4, seed=0).split("validation").frame["text"]
    losses = []
    for text in rows:
        inputs = encode(tokenizer, [text])
        losses.append(float(model(**inputs, labels=inputs["input_ids"]).loss.detach()))
    return np.mean(losses)


def test_what_cannot_be_compared_is_said(folder, tmp_path):
    classifier = tiny_folder("llama", tmp_path / "classifier", layers=2)

    def compared(tuned, base="base", lenses=LENSES[:1]):
        request = CompareRequest(
            base=str(folder / base), tuned=[str(one) for one in tuned], data=data(folder), folder=tmp_path / "run",
            lenses=lenses, device="cpu",
        )  # fmt: skip
        return compare_folders(request)

    with pytest.raises(
        ModelError, match=r"is a language model and .*classifier is a classifier; one comparison"
    ):
        compared([folder / "tuned", classifier])
    with pytest.raises(
        LensError, match="'words' cannot look at tuned: it needs classes, and tuned is a language"
    ):
        compared([folder / "tuned"], lenses=[LensConfig(lens="words")])
    masked = tiny_folder("bert", tmp_path / "masked", language=True, layers=2)
    with pytest.raises(ModelError, match=r"is a causal language model and .*masked a masked one"):
        compared([masked])
