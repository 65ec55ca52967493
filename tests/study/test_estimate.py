from __future__ import annotations

import json
import math

import numpy as np
import pytest
from study_helpers import make_study, raw_study, write_reviews

from tunescope.config import LensConfig
from tunescope.environment import environment
from tunescope.errors import DataError, ModelError
from tunescope.models import load
from tunescope.study import validate
from tunescope.study.estimate import half_width, memory
from tunescope.study.inputs import data_digests
from tunescope.study.lens_cost import Passes, lens_operations, lens_precision
from tunescope.study.operations import Shape, operations, padded_tokens


@pytest.fixture(autouse=True)
def quick_probe(monkeypatch):
    monkeypatch.setattr("tunescope.study.estimate.PROBE_SECONDS", 0.02)


@pytest.fixture
def reviews(tmp_path):
    return write_reviews(tmp_path / "reviews.csv")


def test_validate_says_rows_majority_tokens_cost_and_precision(reviews, gpt2_folder):
    arms = [
        {"name": "full", "model": str(gpt2_folder)},
        {"name": "new", "model": "scratch", "method": "head_only"},
    ]
    study = make_study(raw_study(reviews, gpt2_folder, arms=arms, lenses=["cka", "ablation"]))
    text = validate(study)
    parameters = sum(one.numel() for one in load(str(gpt2_folder)).model.parameters())
    for part in (
        "train: 90 rows, majority bad 33.3% (bad 30, good 30, odd 30)",
        f"arm full: {gpt2_folder}, full, {parameters:,} parameters",
        "pretrain",
        "(guessed: 1.4 a word, the tokenizer is trained first)",
        "accuracy on 30 test rows: ±0.160 at the majority's 0.33",
        f"ablation on 30 rows: ±{1.96 / math.sqrt(30):.3f} logits",
        "6 x N x tokens",
        "Nothing was trained.",
    ):
        assert part in text, part


def test_validate_loads_no_weights_and_writes_nothing(reviews, gpt2_folder, tmp_path, monkeypatch):
    from transformers import PreTrainedModel

    monkeypatch.setattr(
        PreTrainedModel, "from_pretrained", lambda *_, **__: pytest.fail("weights were loaded")
    )
    before = sorted(tmp_path.rglob("*"))
    validate(make_study(raw_study(reviews, gpt2_folder)))
    assert sorted(tmp_path.rglob("*")) == before


def test_validate_finds_what_a_run_would_stop_at(reviews, gpt2_folder, tmp_path):
    raw = raw_study(reviews, gpt2_folder)
    raw["data"]["label"] = "mod"
    with pytest.raises(DataError, match="mod"):
        validate(make_study(raw))
    raw = raw_study(reviews, gpt2_folder)
    raw["arms"][0]["model"] = str(tmp_path / "nothing")
    with pytest.raises(ModelError, match="nothing is not a folder"):
        validate(make_study(raw))


def shape(**more) -> Shape:
    lengths = {"train": np.full(160, 10), "validation": np.full(40, 10)}
    return Shape(1000, 600, 8, 2, 4, lengths, {"train": 0.0, "validation": 0.0}, False, **more)


def test_operations_by_hand(reviews, gpt2_folder):
    study = make_study(raw_study(reviews, gpt2_folder, lenses=[{"lens": "cka", "rows": {"n": 20}}]))
    cost = operations(study, study.arms[0], shape())
    assert cost["train"] == 2 * (6 * 600 * 1600 + 2 * 600 * 400)  # 2 epochs, each with an evaluation
    assert cost["evaluate"] == 2 * 600 * 2000
    one_pass = 2 * 600 * 10 * 20  # of one model; 8 sites of two models of 2 blocks, three variants
    assert cost["cka"] == 2 * one_pass + 3 * 2 * 256 * 8**2 * 20


def test_ablation_and_head_only_by_hand(reviews, gpt2_folder):
    arms = [{"name": "head", "model": str(gpt2_folder), "method": "head_only"}]
    lens = {"lens": "ablation", "rows": {"n": 20}, "edits": ["zero"], "random_control": True}
    study = make_study(raw_study(reviews, gpt2_folder, arms=arms, lenses=[lens]))
    cost = operations(study, study.arms[0], shape())
    assert cost["train"] == 2 * 600 * 1600
    assert cost["ablation"] == 2 * (2 * 600 * 10 * 20) * (1 + 2 * (4 + 2) * 2 / 2)
    assert memory(study.arms[0], shape(), 16) == 4 * 1000


def test_frozen_blocks_run_once_by_hand(reviews, gpt2_folder):
    arms = [{"name": "last", "model": str(gpt2_folder), "method": "last_k", "k": 1}]
    study = make_study(raw_study(reviews, gpt2_folder, arms=arms, lenses=[]))
    cost = operations(
        study, study.arms[0], shape()
    )  # 1 of 2 blocks is trained; 2 epochs, 1600 and 400 tokens
    below, above = 2 * 600 / 2 * (1600 + 400), (6 * 600 / 2 * 1600 + 2 * 600 / 2 * 400) * 2
    assert cost["train"] == below + above
    assert cost["evaluate"] == 2 * 600 / 2 * 2000  # the lower block's output is on disk
    never = make_study(
        raw_study(reviews, gpt2_folder, arms=arms, lenses=[], training={"activation_store": "never"})
    )
    cost = operations(never, never.arms[0], shape())
    epochs = never.training_of(never.arms[0]).get("num_train_epochs", 3)
    assert cost["train"] == epochs * ((2 * 600 + 4 * 600 / 2) * 1600 + 2 * 600 * 400)
    assert cost["evaluate"] == 2 * 600 * 2000


def test_the_other_lenses_by_hand():
    passes = Passes(one=100.0, row=5.0, layers=2, heads=4, rows=20, tokens=14.0, train=1000)
    cost = {
        "cka": ({"variants": ["raw"]}, 200 + 2 * 256 * 64 * 20),
        "spread": ({}, 200),
        "dimensions": ({"train_rows": 40}, 2 * (100 + 200)),
        "probes": ({"train_rows": 40, "untrained": True}, 3 * (100 + 200)),
        "steps": ({"most": 12}, 1300),
        "other_models": ({"models": {"a": "x", "b": "y"}}, 400),
        "words": ({"most_words": 4, "gradient_rows": 2}, 2 * (100 * (1 + 2 * 4) + 5 * 2 * 3 * 64)),
        "weights": ({}, 0),
        "ablation": (
            {"components": ["mlp"], "edits": ["zero"], "random_control": False},
            200 * (1 + 2 * 1 / 2),
        ),
        "a_new_one": ({}, 200),
    }
    for name, (options, wanted) in cost.items():
        found = lens_operations(LensConfig(lens=name, options=options), passes)
        assert found == pytest.approx(wanted), name
    more = {
        "components": ["heads"], "edits": ["zero", "mean"], "random_control": False, "all_but_one": ["attention"],
        "removal": {"orders": ["strongest_first", "random"], "random_orders": 2, "steps": 5},
        "screen": {"verify": 3, "check": False},
    }  # fmt: skip
    found = lens_operations(LensConfig(lens="ablation", options=more), passes)
    # 3 heads verified x 2 edits, half a pass each; 2 x 2 all but one; 3 curves x 5 steps x 2 edits on half of the rows
    assert found == 200 * (1 + 3 * 2 / 2 + 2 * 2 + 3 * 5 * 2 / 2) + 100 * (1 + 2 * 3)
    patching = {
        "sites": ["head_out"],
        "head_positions": ["all"],
        "directions": ["denoising"],
        "unrelated_control": True,
    }
    found = lens_operations(LensConfig(lens="patching", options=patching), passes)
    assert found == 200 * (2 + 2 * 4 * 2 / 2) + 12 * 100
    grafting = {"smallest": ["attention", "mlp"], "weight_rows": [0.1, 1.0]}
    found = lens_operations(LensConfig(lens="grafting", options=grafting), passes)
    assert found == 100 * (8 + 3 * 2 * (4 + 3) / 2 + 4 * 2 / 2 + (2 * 2) ** 2 / 8 + 2)
    found = lens_operations(
        LensConfig(lens="patching_cross", options={"directions": ["tuned_into_base"]}), passes
    )
    assert found == 100 * (2 + 2 * (4 + 3) * 2 / 2)
    pairs = {"components": ["heads"], "edits": ["zero"], "random_control": False, "pairs": "within_layer"}
    found = lens_operations(LensConfig(lens="ablation", options=pairs), passes)
    assert found == 200 * (1 + (2 * 4 + 2 * 6) / 2)


def test_precision_is_said_where_it_is_known():
    said = list(lens_precision(LensConfig(lens="probes"), 400, half_width))
    assert said == ["  probes on 400 rows: accuracies ±0.049 at 0.50, ±0.030 at 0.90 (Wilson)"]
    assert list(lens_precision(LensConfig(lens="probes"), 0, half_width)) == []


def test_padding_is_that_of_the_batches_that_training_forms():
    lengths = np.array([1, 2, 3, 4, 10, 10, 10, 10])
    assert padded_tokens(lengths, 4) == 4 * 4 + 4 * 10
    assert padded_tokens(lengths[:5], 8) == 5 * 10


def test_half_width_is_wilsons():
    """Wilson 1927 by hand: z/(1+z^2/n) * sqrt(p(1-p)/n + z^2/(4n^2))."""
    z, n, p = 1.959963984540054, 500, 0.9
    by_hand = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert half_width(p, n) == pytest.approx(by_hand, abs=1e-9)


def test_data_digests_follow_contents(tmp_path):
    (tmp_path / "a.csv").write_text("1")
    (tmp_path / "b.csv").write_text("2")
    glob, folder = str(tmp_path / "*.csv"), str(tmp_path)
    before = data_digests({"train": [glob], "test": folder})
    assert len(before) == 3
    (tmp_path / "b.csv").write_text("3")
    after = data_digests({"train": [glob], "test": folder})
    assert [key for key in before if before[key] != after[key]] == [str(tmp_path / "b.csv"), folder]
    assert data_digests("stanfordnlp/imdb") == {}
    assert data_digests("https://example.org/*.csv") == {}


def test_environment_is_json_and_names_versions_device_and_command():
    found = json.loads(json.dumps(environment("cpu", "tunescope run study.yaml")))
    assert {"tunescope", "python", "platform", "libraries", "device", "threads", "command"} <= set(found)
    assert found["libraries"]["torch"].startswith("2.")
    assert found["command"] == "tunescope run study.yaml"
