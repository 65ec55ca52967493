"""One model inspected: its facts against transformers' own, its weights against numpy, its lenses on rows."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from strangers import NAMES, labelled
from transformers import AutoModelForSequenceClassification
from typer.testing import CliRunner

from tiny import tiny_folder
from tunescope.checkpoints import InspectRequest, inspect_folder
from tunescope.checkpoints.statistics import matrix_statistics
from tunescope.cli import app
from tunescope.config import DataConfig, LensConfig
from tunescope.errors import LensError
from tunescope.stats.results import Result, load_findings


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("inspect")
    tiny_folder("bert", root / "bert", n_labels=2, layers=2, names=NAMES)
    tiny_folder("gpt2", root / "language", layers=2, language=True)
    texts, labels = labelled(60, seed=1)
    pl.DataFrame({"text": texts, "label": labels}).write_csv(root / "rows.csv")
    return root


def test_facts_of_a_classifier_are_transformers_own(root, tmp_path):
    answer = CliRunner().invoke(
        app,
        ["inspect", str(root / "bert"), "--output-dir", str(tmp_path / "run"), "--device", "cpu", "--json"],
    )
    assert answer.exit_code == 0, answer.output
    facts = json.loads(answer.stdout)
    theirs = AutoModelForSequenceClassification.from_pretrained(root / "bert")
    counts = facts["parameters"]
    assert counts["all"] == sum(one.numel() for one in theirs.parameters())
    assert counts["head"] == sum(one.numel() for one in theirs.classifier.parameters())
    assert sum(one["parameters"] for one in counts["matrices"]) + counts["vectors"] == counts["trunk"]
    assert facts["precision"] == {"stored": {"F32": counts["all"]}, "computed": "float32"}
    assert (facts["kind"], facts["head"]["labels"], facts["head"]["pooling"]) == (
        "classifier",
        NAMES,
        "first",
    )
    made = facts["architecture"]
    assert (made["family"], made["layers"], made["heads"], made["width"], made["positions"]) == (
        "BERT",
        2,
        4,
        32,
        64,
    )
    missing = {one["site"]: one["why"] for one in facts["sites"] if not one["layers"]}
    assert set(missing) == {"final_norm_in", "final_norm_out"}
    assert "normalises after each sublayer and has no final norm" in missing["final_norm_in"]
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_language_model_says_which_lenses_need_classes(root, tmp_path):
    run = inspect_folder(InspectRequest(str(root / "language"), tmp_path / "run", device="cpu"))
    facts = json.loads((run / "inspect.json").read_text())
    assert facts["kind"] == "language model"
    assert facts["architecture"]["tied_embeddings"]
    assert facts["tokenizer"]["pads_with_end"]
    cannot = {one["what"]: one["why"] for one in facts["cannot"]}
    assert cannot["lens words"] == "it needs classes, and the model is a language model"
    assert "lens cka" in facts["can"]
    assert "predict" in cannot


def test_weight_statistics_are_those_of_the_singular_values():
    values = np.random.default_rng(0).standard_normal((40, 24)) @ np.diag(np.linspace(3, 0.1, 24))
    found = {one["metric"]: one for one in matrix_statistics(values)}
    own = np.linalg.svd(values, compute_uv=False)
    assert found["spectral"]["value"] == pytest.approx(own[0])
    assert found["frobenius"]["value"] == pytest.approx(np.linalg.norm(values))
    assert found["stable_rank"]["value"] == pytest.approx((own**2).sum() / own[0] ** 2)
    wide = {one["metric"]: one["value"] for one in matrix_statistics(values.T)}
    assert wide["stable_rank"] == pytest.approx(found["stable_rank"]["value"])
    # The control is the limit of large Gaussian matrices: one of this size comes near it.
    noise = {
        one["metric"]: one for one in matrix_statistics(np.random.default_rng(1).standard_normal((900, 400)))
    }
    assert noise["stable_rank"]["value"] == pytest.approx(noise["stable_rank"]["control"], rel=0.05)


def test_with_rows_the_lenses_speak_of_one_model_alone(root, tmp_path):
    data = DataConfig(path=str(root / "rows.csv"), text="text", label="label")
    ablation = {"rows": {"n": 8}, "reference_rows": 8, "random_control": False, "edits": ["mean"]}
    lenses = [
        LensConfig(lens="spread", options={"rows": {"n": 20}}), LensConfig(lens="ablation", options=ablation),
        LensConfig(lens="weights"),
    ]  # fmt: skip
    request = InspectRequest(str(root / "bert"), tmp_path / "run", data, lenses=lenses, device="cpu")
    run = inspect_folder(request)
    for lens in ("spread", "ablation", "weight_statistics"):
        assert set(Result.load(run / "results", lens).table["model"]) == {"tuned"}
    about = json.loads((run / "compare.json").read_text())
    assert about["base"] == "none: one model was looked at"
    assert about["refused"] == [
        {"arm": "bert", "lens": "weights", "why": "it says what changed between two models, and there is one"}
    ]
    assert any(note.startswith("bert: accuracy ") and "the base" not in note for note in about["notes"])
    sentences = [one.sentence for one in load_findings(run / "findings.json")]
    assert sentences
    assert not any("base" in sentence or "tuned" in sentence for sentence in sentences)
    assert "bert, inspected" in (run / "report.html").read_text(encoding="utf-8")
    only = InspectRequest(
        str(root / "bert"), tmp_path / "none", data, lenses=[LensConfig(lens="weights")], device="cpu"
    )
    with pytest.raises(LensError, match="The lens 'weights' cannot look at bert: it says what changed"):
        inspect_folder(only)
