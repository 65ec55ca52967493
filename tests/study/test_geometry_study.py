"""A study with every geometry lens, end to end: claims, other models, training steps, and the files they leave."""

from __future__ import annotations

import json

import polars as pl
import pytest
from study_helpers import Listening, make_study, raw_study, write_reviews

from tunescope.config import recipes
from tunescope.config.text import read_document
from tunescope.study import run


@pytest.fixture(scope="module")
def finished(tmp_path_factory, gpt2_folder):
    folder = tmp_path_factory.mktemp("geometry")
    lenses = [
        {"lens": "cka", "rows": {"n": 40}, "biased": True},
        {"lens": "spread", "rows": {"n": 40}},
        {"lens": "dimensions", "rows": {"n": 40}, "train_rows": 40, "random": 2},
        {"lens": "other_models", "rows": {"n": 40}, "rsa_rows": 20, "models": {"untuned": str(gpt2_folder)}},
        {"lens": "steps", "rows": {"n": 30}},
    ]
    training = {
        "max_steps": 8, "learning_rate": 5e-3, "per_device_train_batch_size": 16, "save_strategy": "steps",
        "save_steps": 2, "save_total_limit": None,
    }  # fmt: skip
    raw = raw_study(write_reviews(folder / "reviews.csv", 200), gpt2_folder, training=training, lenses=lenses)
    raw["claims"] = [one for one in read_document(recipes()["gptology"]).value["claims"] if "rule" in one]
    for one in raw["claims"]:
        one.pop("arms", None)
    return run(make_study(raw), folder / "run", progress=Listening())


def test_claims_are_judged_and_shown(finished):
    table = pl.read_parquet(finished / "results" / "claims.parquet")
    assert set(table["claim"]) == {"1", "1b", "2", "3", "3b", "4"}
    four = table.filter(pl.col("claim") == "4").row(0, named=True)
    assert (four["why"], four["verdict"]) == (
        "the study has no encoder", "not testable here because the study has no encoder",
    )  # fmt: skip
    assert set(table["arm"].drop_nulls()) == {"full"}
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "Published claims" in page
    assert "8 of the 10 dimensions of greatest variance" in page
    assert "What would be needed to test them as they were published" in page


def test_steps_share_a_frame_and_begin_at_the_base(finished):
    table = pl.read_parquet(finished / "results" / "steps.parquet")
    steps = table["step"].unique().sort().to_list()
    assert steps == [0, 2, 4, 6, 8]
    points = pl.read_parquet(finished / "results" / "examples" / "steps.parquet")
    assert points["step"].unique().sort().to_list() == steps
    same = table.filter((pl.col("metric") == "cka") & (pl.col("step") == 0))
    assert same["value"].item() == pytest.approx(1.0)
    moved = table.filter(
        (pl.col("metric") == "movement") & (pl.col("method") == "pca") & (pl.col("axes") == 2)
    )
    by_step = dict(moved.select("step", "value").iter_rows())
    assert by_step[0] == 0 < by_step[2]
    trust = table.filter((pl.col("metric") == "trustworthiness") & (pl.col("model") == "tuned"))
    assert trust["value"].null_count() == 0
    assert trust.height == 2 * len(steps)  # two and three axes
    # One PCA of all steps together: coordinates of all steps are centred as one cloud.
    flat = points.filter(pl.col("axes") == 2)
    assert abs(flat["x"].mean()) < 1e-9
    assert (finished / "steps.html").is_file()
    text = (finished / "steps.html").read_text(encoding="utf-8")
    assert '"name": "step 8"' in text or '"name":"step 8"' in text
    assert "steps.html" in json.loads((finished / "stages" / "report.json").read_text())["outputs"]
    assert (finished / "arms" / "full" / "seed-0" / "checkpoints" / "checkpoint-4").is_dir()


def test_the_page_shows_the_new_figures(finished):
    page = (finished / "report.html").read_text(encoding="utf-8")
    for said in (
        "Other models", "Against untuned", "Loud dimensions shared with untuned", "Training steps",
        "Shares of the logit, added up", "RBF support vectors", "matched to the loudest",
    ):  # fmt: skip
        assert said in page, said
    findings = json.loads((finished / "findings.json").read_text())["findings"]
    assert {one["lens"] for one in findings} == {"cka", "spread", "dimensions", "other_models", "steps"}
