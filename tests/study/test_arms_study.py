"""One study with an arm of every kind, run from end to end: what each writes, and what each is refused for."""

from __future__ import annotations

import polars as pl
import pytest
from study_helpers import Listening, make_study, raw_study, write_reviews

from tunescope.config import load_study
from tunescope.errors import ConfigError, DataError
from tunescope.files import read_json
from tunescope.study import LENSES, METHODS, REFUSED_METHODS, run, validate

SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 64, "vocab_size": 300, "epochs": 1}
WORDS = {"good": " good", "bad": " bad", "odd": " what"}


@pytest.fixture(scope="session")
def reviews(tmp_path_factory):
    return write_reviews(tmp_path_factory.mktemp("arms") / "reviews.csv")


def raw_arms(reviews, model) -> dict:
    folder = reviews.parent
    lines = [
        f"{word} day {i},{label}" for i in range(10) for word, label in (("lovely", "pos"), ("sad", "neg"))
    ]
    (folder / "other.csv").write_text("\n".join(["t,l", *lines]) + "\n")
    general = [f"the cat sat on the mat {i} and the rain came down on the old house" for i in range(6)]
    (folder / "general.txt").write_text("\n\n".join(general))
    arms = [
        {"name": "zero", "model": "scratch", "scratch": SMALL, "method": "zero_shot", "prompt": "{text} :",
         "verbalizers": WORDS},
        {"name": "new", "model": "scratch", "scratch": SMALL, "training": {"learning_rate": [1e-3, 3e-3]}},
        {"name": "lora", "model": str(model), "method": "lora", "peft": {"r": 2}, "base_head": "none"},
        {"name": "mean", "model": str(model), "pooling": "mean", "base_head": "none",
         "training": {"class_weights": "balanced", "early_stopping": {"patience": 1}}},
    ]  # fmt: skip
    raw = raw_study(reviews, model, arms=arms)
    raw["data"]["window"] = {"keep": "sliding"}
    cross = {"name": "other", "path": str(folder / "other.csv"), "text": "t", "label": "l",
             "map": {"pos": "good", "neg": "bad"}}  # fmt: skip
    raw["elsewhere"] = {"text": str(folder / "general.txt"), "data": [cross]}
    raw["expect"] = [
        {"metric": "accuracy", "arm": "new", "lower": 0.0},
        {"metric": "accuracy", "arm": "lora", "lower": 0.999},
        {"metric": "trainable_parameters", "arm": "lora", "equals": 608, "judge": "value"},
    ]
    return raw


@pytest.fixture(scope="session")
def finished(reviews, gpt2_folder, tmp_path_factory):
    progress = Listening()
    study = make_study(raw_arms(reviews, gpt2_folder))
    folder = run(study, tmp_path_factory.mktemp("runs") / "arms", device="cpu", progress=progress)
    return folder, progress.lines


def metrics(folder, arm):
    return read_json(folder / "arms" / arm / "seed-0" / "metrics.json")


def test_every_arm_has_the_same_metrics_and_its_cost(finished):
    folder, _ = finished
    (chosen,) = read_json(folder / "grids.json")["grids"][0]["chosen"]
    names = ("zero", chosen, "lora", "mean")
    records = [
        {(r["split"], r["metric"], r["class"]) for r in metrics(folder, name)["records"]} for name in names
    ]
    assert all(own == records[0] for own in records)
    for name in names:
        found = metrics(folder, name)
        assert {"slices", "reliability", "threshold", "baseline", "truncated"} <= set(found)
        assert {one["column"] for one in found["slices"]} >= {"tokens", "truncated"}
        assert found["cost"]["stored_bytes"] > 0
        assert found["cost"]["devices"] == ["cpu"]
    for name in names[1:]:
        cost = metrics(folder, name)["cost"]
        assert cost["steps"] > 0
        assert cost["real_tokens_per_second"] > 0
        assert 0 <= cost["padding_share"] < 1
        items = read_json(folder / "arms" / name / "seed-0" / "parameters.json")["matrices"]
        assert sum(item["trained"] for item in items) == cost["trainable_parameters"]


def test_an_adapter_is_what_is_stored_of_lora(finished):
    folder, _ = finished
    found = metrics(folder, "lora")
    assert found["cost"]["trainable_parameters"] == 608
    adapter = folder / "arms" / "lora" / "seed-0" / "model" / "adapter"
    assert found["cost"]["stored_bytes"] == sum(path.stat().st_size for path in adapter.rglob("*"))


def test_a_prompt_trains_nothing_and_no_lens_looks_at_it(finished):
    folder, lines = finished
    found = metrics(folder, "zero")
    assert (found["cost"]["trainable_parameters"], found["cost"]["steps"]) == (0, 0)
    assert found["prompt"]["prompt"] == "{text} :"
    assert "nothing was tuned" in found["notes"][0]
    assert any(line.startswith("zero: no lens looks at it") for line in lines)
    assert "zero" not in set(pl.read_parquet(folder / "results" / "cka.parquet")["arm"])
    assert not (folder / "arms" / "zero" / "seed-0" / "log.jsonl").exists()


def test_arms_are_compared_with_one_another_and_with_baselines(finished):
    folder, _ = finished
    found = read_json(folder / "comparison.json")
    assert len(found["pairs"]) == 6
    names = {path.parent.name for path in (folder / "baselines").glob("*/metrics.json")}
    assert names == {"majority", "tfidf", "probe-scratch", "probe-gpt2"}
    assert {one["arm"] for one in found["baselines"]} == names
    assert "lookup" in read_json(folder / "baselines" / "left_out.json")


def test_expectations_of_a_grid_are_those_of_its_chosen_trial(finished):
    folder, _ = finished
    found = read_json(folder / "expect.json")
    assert [one["verdict"] for one in found["verdicts"]] == ["met", "not met", "met"]
    assert found["verdicts"][0]["arm"].startswith("new-learning_rate")


def test_what_tuning_cost_elsewhere_is_measured_for_what_was_tuned(finished):
    folder, _ = finished
    found = read_json(folder / "elsewhere.json")
    assert [len(one["tuned"]) for one in found["language"]] == [1, 2]
    assert {one["arm"] for one in found["data"]} == {"lora", "mean"} | {
        one["arm"] for one in found["data"] if one["arm"].startswith("new-")
    }
    assert all(one["rows"] == 20 for one in found["data"])
    assert found["skipped"] == [{"arm": "zero", "note": "nothing was tuned"}]


def test_the_audit_and_cross_validation_are_there_and_the_store_is_gone(finished):
    folder, _ = finished
    audit = read_json(folder / "data" / "audit.json")
    assert audit["rows"]["total"] == 150
    assert "done" in read_json(folder / "data" / "cross_validation.json")
    assert not (folder / "store").exists()
    assert (folder / "report.html").is_file()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"prompt": "{txt} :"}, r"arms\.zero\.prompt: unknown field 'txt'; did you mean 'text'"),
        (
            {"verbalizers": {"good": " good", "bad": " bad"}},
            r"arms\.zero\.verbalizers: the label 'odd' has no",
        ),
        ({"verbalizers": {**WORDS, "well": " x"}}, r"arms\.zero\.verbalizers: unknown label 'well'"),
    ],
)
def test_prompts_that_do_not_fit_the_rows_are_refused_before_anything_is_trained(
    reviews, gpt2_folder, tmp_path, monkeypatch, change, text
):
    raw = raw_arms(reviews, gpt2_folder)
    raw["arms"][0] |= change
    monkeypatch.setattr("tunescope.study.work.make_scratch", lambda *_: pytest.fail("nothing may be trained"))
    raw["audit"] = False
    with pytest.raises(ConfigError, match=text):
        run(make_study(raw), tmp_path / "run", device="cpu")
    monkeypatch.setattr("tunescope.study.estimate.PROBE_SECONDS", 0.02)
    with pytest.raises(ConfigError, match=text):
        validate(make_study(raw))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"text": "no/such.txt"}, r"elsewhere\.text: there is no file"),
        ({"map": {"pos": "goood"}}, r"no label 'goood'"),
    ],
)
def test_what_is_looked_at_elsewhere_is_read_before_anything_is_trained(
    reviews, gpt2_folder, tmp_path, monkeypatch, change, text
):
    raw = raw_arms(reviews, gpt2_folder)
    raw["audit"] = False
    if "text" in change:
        raw["elsewhere"] |= change
    else:
        raw["elsewhere"]["data"][0] |= change
    monkeypatch.setattr("tunescope.study.work.make_scratch", lambda *_: pytest.fail("nothing may be trained"))
    with pytest.raises((ConfigError, DataError), match=text):
        run(make_study(raw), tmp_path / "run", device="cpu")


def test_validate_says_what_a_grid_and_a_prompt_cost(reviews, gpt2_folder, monkeypatch):
    monkeypatch.setattr("tunescope.study.estimate.PROBE_SECONDS", 0.02)
    text = validate(make_study(raw_arms(reviews, gpt2_folder)))
    assert "grid new: 2 trials over training.learning_rate (2), 1 seed: 2 trainings" in text
    assert "All of it: 4 trainings" in text
    assert "choose" in text
    assert text.count("arm new-learning_rate") == 1


@pytest.mark.parametrize(
    ("method", "text"),
    [
        (
            "prompt_tuning",
            r"arms\.full\.method: 'prompt_tuning' cannot be used: virtual tokens .*same tokens",
        ),
        (
            "scratch",
            r"arms\.full\.method: 'scratch' cannot be used: a model from nothing is written as",
        ),
        ("last-k", r"arms\.full\.method: unknown method 'last-k'; did you mean 'last_k'"),
    ],
)
def test_methods_that_cannot_serve_are_refused_with_the_reason(reviews, gpt2_folder, method, text):
    raw = raw_study(reviews, gpt2_folder)
    raw["arms"][0]["method"] = method
    with pytest.raises(ConfigError, match=text):
        load_study(raw, methods=METHODS, lenses=LENSES, refused=REFUSED_METHODS)
