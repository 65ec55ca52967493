"""Grids and learning curves, run from end to end: what is chosen, on which rows, and what is done again."""

from __future__ import annotations

import shutil

import polars as pl
import pytest
from study_helpers import Listening, make_study, raw_study, write_reviews

from tunescope.data.labels import LabelMap
from tunescope.data.rows import Rows
from tunescope.errors import ConfigError, DataError
from tunescope.files import read_json, write_json
from tunescope.study import fit, run
from tunescope.study.choose import trials_of, unequal_trials
from tunescope.study.context import seen_rows


@pytest.fixture(scope="session")
def reviews(tmp_path_factory):
    return write_reviews(tmp_path_factory.mktemp("grids") / "reviews.csv")


def raw_grid(reviews, model) -> dict:
    arms = [
        {"name": "last", "model": str(model), "method": "last_k", "k": [1, 2], "base_head": "none"},
        {"name": "curve", "model": str(model), "method": "head_only", "train_share": [0.3, 1.0],
         "base_head": "none"},
    ]  # fmt: skip
    raw = raw_study(reviews, model, arms=arms, seeds=[0, 1], audit=False)
    raw["training"]["num_train_epochs"] = 1
    return raw


@pytest.fixture(scope="session")
def finished(reviews, gpt2_folder, tmp_path_factory):
    study = make_study(raw_grid(reviews, gpt2_folder))
    progress = Listening()
    folder = run(study, tmp_path_factory.mktemp("runs") / "grid", device="cpu", progress=progress)
    return study, folder, progress.lines


@pytest.fixture
def copied(finished, tmp_path):
    study, folder, _ = finished
    shutil.copytree(folder, tmp_path / "grid")
    return study, tmp_path / "grid"


def test_trainings_and_unequal_trials_are_said_before_anything_starts(finished):
    _, folder, lines = finished
    assert lines[1].startswith(
        "  grid last: 2 trials over k (2), 2 seeds: 4 trainings; one is chosen by accuracy"
    )
    assert "a learning curve, every point evaluated" in lines[2]
    assert "unequal numbers of trials (last 2, curve 1)" in lines[3]
    assert lines.index("last-k1, seed 0") > 3
    assert read_json(folder / "grids.json")["note"] == lines[3].strip()


def test_the_choice_is_the_best_mean_over_seeds_on_validation_rows(finished):
    study, folder, _ = finished
    last, curve = read_json(folder / "grids.json")["grids"]
    means = {}
    for arm in study.arms[:2]:
        values = []
        for seed in (0, 1):
            trial = read_json(folder / "arms" / arm.name / f"seed-{seed}" / "trial.json")
            assert {record["split"] for record in trial["records"]} == {"validation"}
            values += [one["value"] for one in trial["records"] if one["metric"] == "accuracy"]
        means[arm.name] = sum(values) / 2
    assert {point["arm"]: point["mean"] for point in last["points"]} == pytest.approx(means)
    assert last["chosen"] == [max(means, key=lambda name: means[name])]  # the first of equal ones
    assert last["axes"] == [{"key": "k", "values": [1, 2]}]
    assert all(seed["low"] <= seed["value"] <= seed["high"] for p in last["points"] for seed in p["seeds"])
    assert (curve["kind"], curve["chosen"]) == (
        "learning_curve",
        ["curve-train_share0.3", "curve-train_share1"],
    )


def test_only_chosen_trials_see_test_rows_and_lenses(finished):
    _, folder, _ = finished
    (chosen,) = read_json(folder / "grids.json")["grids"][0]["chosen"]
    (other,) = {"last-k1", "last-k2"} - {chosen}
    shown = {chosen, "curve-train_share0.3", "curve-train_share1"}
    assert set(pl.read_parquet(folder / "results" / "cka.parquet")["arm"]) == shown
    assert {one["arm"] for one in read_json(folder / "comparison.json")["arms"]} == shown
    for seed in (0, 1):
        kept = sorted(path.name for path in (folder / "arms" / other / f"seed-{seed}").glob("*.*"))
        assert kept == ["log.jsonl", "parameters.json", "trial.json"]
        metrics = read_json(folder / "arms" / chosen / f"seed-{seed}" / "metrics.json")
        assert {"test", "train", "validation"} == set(metrics["confusion"])
        assert metrics["grid"] == "last"


def test_a_second_run_does_nothing_and_a_new_trial_trains_only_itself(
    copied, reviews, gpt2_folder, monkeypatch
):
    study, folder = copied
    progress = Listening()
    run(study, folder, device="cpu", progress=progress)
    assert progress.lines == [f"{folder}: all {len(list((folder / 'stages').iterdir()))} stages are done and "
                              "undamaged; nothing to do."]  # fmt: skip
    trained = []
    original = fit.make_training
    monkeypatch.setattr(
        fit, "make_training", lambda *args: trained.append((args[1].name, args[2])) or original(*args)
    )
    raw = raw_grid(reviews, gpt2_folder)
    raw["arms"][1]["train_share"] = [0.3, 0.6, 1.0]
    run(make_study(raw), folder, device="cpu")
    assert trained == [("curve-train_share0.6", 0), ("curve-train_share0.6", 1)]
    assert len(read_json(folder / "grids.json")["grids"][1]["points"]) == 3


def test_another_choice_evaluates_the_other_trial_and_sets_the_first_aside(copied, monkeypatch):
    """The measured values are changed by hand: what follows from them must follow."""
    study, folder = copied
    (chosen,) = read_json(folder / "grids.json")["grids"][0]["chosen"]
    (other,) = {"last-k1", "last-k2"} - {chosen}
    from tunescope.study import measure

    original = measure.make_trial

    def better(context, arm, seed):
        original(context, arm, seed)
        path = context.arm_folder(arm, seed) / "trial.json"
        trial = read_json(path)
        for record in trial["records"]:
            if record["metric"] == "accuracy":
                record["value"] = 1.0 if arm.name == other else 0.0
        write_json(path, trial)

    for name in (chosen, other):
        for seed in (0, 1):
            (folder / "arms" / name / f"seed-{seed}" / "trial.json").unlink()
    monkeypatch.setattr(measure, "make_trial", better)
    progress = Listening()
    run(study, folder, device="cpu", progress=progress)
    assert read_json(folder / "grids.json")["grids"][0]["chosen"] == [other]
    assert any(f"evaluate-{chosen}-seed-0 is no longer part of the study" in line for line in progress.lines)
    assert not (folder / "arms" / chosen / "seed-0" / "metrics.json").exists()
    assert other in set(pl.read_parquet(folder / "results" / "cka.parquet")["arm"])


def test_a_grid_without_validation_rows_is_refused_before_training(
    reviews, gpt2_folder, tmp_path, monkeypatch
):
    raw = raw_grid(reviews, gpt2_folder)
    raw["data"]["validation"] = 0.0
    monkeypatch.setattr(fit, "train", lambda *_: pytest.fail("it must not be trained"))
    with pytest.raises(
        DataError, match="chooses its trial on validation rows, and there are no labelled ones"
    ):
        run(make_study(raw), tmp_path / "run", device="cpu")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"selection": {"metric": "acuracy"}}, r"selection\.metric: .*did you mean 'accuracy'"),
        ({"compare": {"metric": "f2"}}, r"compare\.metric: .*"),
        (
            {"expect": [{"metric": "accuracy", "arm": "lst", "lower": 0.1}]},
            r"expect\.0\.arm: .*did you mean 'last'",
        ),
    ],
)
def test_names_that_nothing_bears_are_refused_before_the_data_is_read(
    reviews, gpt2_folder, tmp_path, change, text
):
    with pytest.raises(ConfigError, match=text):
        run(make_study(raw_grid(reviews, gpt2_folder) | change), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_k_larger_than_the_model_is_refused_before_the_data_is_read(reviews, gpt2_folder, tmp_path):
    raw = raw_grid(reviews, gpt2_folder)
    raw["arms"][0]["k"] = [1, 3]
    with pytest.raises(ConfigError, match=r"arms\.last\.k: the model has 2 blocks, so k is 1 to 2; came 3"):
        run(make_study(raw), tmp_path / "run", device="cpu")
    raw["arms"][0] |= {"method": "lora", "peft": {"layers_to_transform": [2]}}
    del raw["arms"][0]["k"]
    with pytest.raises(
        ConfigError, match=r"peft\.layers_to_transform: the model has the blocks 0 to 1; came 2"
    ):
        run(make_study(raw), tmp_path / "run", device="cpu")


def test_equal_trials_are_not_remarked(reviews, gpt2_folder):
    raw = raw_grid(reviews, gpt2_folder)
    raw["arms"][1] = {**raw["arms"][0], "name": "other"}
    study = make_study(raw)
    assert trials_of(study) == {"last": 2, "other": 2}
    assert unequal_trials(study) is None


def rows_of(labels: list[int | None], ids: list[str]) -> Rows:
    frame = pl.DataFrame(
        {"row_id": ids, "label": labels, "split": ["train"] * len(ids), "text": ids},
        schema_overrides={"label": pl.Int64},
    )
    return Rows(frame, LabelMap(("a", "b")), {})


def test_shares_of_train_rows_are_nested_stratified_and_free_of_order():
    ids = [f"row{i}" for i in range(100)]
    labels = [None if i == 7 else int(i % 5 == 0) for i in range(100)]
    rows = rows_of(labels, ids)
    kept = {share: set(seen_rows(rows, share, 0)) for share in (0.01, 0.1, 0.5, 1.0)}
    assert kept[0.01] < kept[0.1] < kept[0.5] < kept[1.0]
    assert len(kept[1.0]) == 99
    for share, inside in kept.items():
        ones = sum(labels[i] for i in inside)
        assert ones == max(1, round(share * 20))
    turned = rows_of(labels[::-1], ids[::-1])
    assert {ids[i] for i in kept[0.1]} == {ids[::-1][i] for i in seen_rows(turned, 0.1, 0)}
    assert {ids[i] for i in kept[0.1]} != {ids[i] for i in seen_rows(rows, 0.1, 1)}
