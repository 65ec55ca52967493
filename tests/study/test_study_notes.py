"""What a reader of a run must be told: notes on arms, other shares of the classes, windows, short names."""

from __future__ import annotations

import random
import shutil
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from scipy.special import softmax
from study_helpers import FILLERS, WORDS, Listening, make_study, raw_study

from tunescope.config import ScratchConfig
from tunescope.errors import ConfigError
from tunescope.files import read_json
from tunescope.planted.truth import TRUTH_COLUMNS
from tunescope.report.arms import arms
from tunescope.report.limits import limits
from tunescope.report.prior import priors
from tunescope.report.read import read_run
from tunescope.runs import RunFolder
from tunescope.study import run
from tunescope.study import work as work_stage
from tunescope.study.context import Context
from tunescope.study.evidence import _model_word

NOTE = "this model has read these texts, without labels"
TRAIN = {"bad": 60, "good": 10, "odd": 60}
TEST = {"bad": 10, "good": 30, "odd": 10}


def write_rows(path, counts, seed):
    rng = random.Random(seed)
    lines = ["review,mood"]
    for label, many in counts.items():
        lines += [
            f"{' '.join([rng.choice(WORDS[label]), *rng.choices(FILLERS, k=rng.randint(1, 6))])} {i},{label}"
            for i in range(many)
        ]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def noted(tmp_path_factory, gpt2_folder):
    """A run of one arm whose test split has another prior than train, on a model in a folder called model."""
    place = tmp_path_factory.mktemp("noted")
    model = place / "tiny-gpt2" / "model"
    shutil.copytree(gpt2_folder, model)
    raw = raw_study(place, model, prior="estimate", audit=False, seeds=[0])
    raw["data"] |= {
        "path": {"train": write_rows(place / "a.csv", TRAIN, 0), "test": write_rows(place / "b.csv", TEST, 1)},
        "test": 0.0, "max_length": 12, "window": {"keep": "sliding"},
    }  # fmt: skip
    raw["arms"] = [{"name": "head", "model": str(model), "method": "head_only", "note": f" {NOTE} "}]
    raw["training"] |= {"num_train_epochs": 1, "class_weights": "balanced", "report_to": "none"}
    folder = run(make_study(raw), place / "run", device="cpu")
    return raw, folder


def test_a_note_on_an_arm_is_in_its_metrics_its_lenses_and_the_report(noted):
    _, folder = noted
    assert read_json(folder / "arms" / "head" / "seed-0" / "metrics.json")["notes"] == [NOTE]
    assert f"head: {NOTE}" in read_json(folder / "results" / "cka.json")["notes"]
    shown = read_run(folder)
    assert f"head: {NOTE}." in arms(shown).notes
    told = limits(shown, [])
    assert sum(NOTE in one for one in told) == 1
    assert (folder / "report.html").read_text().count(NOTE) >= 2


def test_other_shares_are_estimated_from_the_weighted_training_and_shown_beside(noted):
    _, folder = noted
    place = folder / "arms" / "head" / "seed-0"
    found = read_json(place / "metrics.json")["prior"]
    assert found["train"] == pytest.approx(dict.fromkeys(TRAIN, 1 / 3))  # class weights made them equal
    table = pl.read_parquet(place / "predictions.parquet").filter(pl.col("split") == "test")
    logits = table.select([f"logit_{name}" for name in TRAIN]).to_numpy()
    shares = np.array([found["target"][name] for name in TRAIN])
    mean = softmax(logits + np.log(3 * shares), axis=1).mean(axis=0)
    np.testing.assert_allclose(mean, shares, atol=1e-5)  # what EM stands still at
    right = ((logits + np.log(shares)).argmax(axis=1) == table["label"].to_numpy()).mean()
    record = next(one for one in found["records"] if one["metric"] == "accuracy")
    assert record["value"] == pytest.approx(right)
    (shown,) = priors(read_run(folder))
    row = next(one for one in shown.rows if one.metric == "accuracy")
    assert row.after.value == record["value"]
    before = (logits.argmax(axis=1) == table["label"].to_numpy()).mean()
    assert row.before.value == pytest.approx(before)
    page = (folder / "report.html").read_text()
    assert "With the classes&#39; shares corrected" in page or "With the classes' shares corrected" in page
    assert "No test label chose the target shares" in page


@pytest.mark.parametrize(
    ("prior", "text"),
    [
        ({"bad": 1, "good": 1}, r"prior: the label 'odd' has no share"),
        ({"bad": 1, "god": 1, "odd": 1}, r"prior: unknown label 'god'; did you mean 'good'"),
        ({"bad": 1, "good": 0, "odd": 1}, r"prior.*expected the classes' shares"),
        ("even", r"prior.*expected the classes' shares .*came 'even'"),
    ],
)
def test_shares_that_do_not_fit_are_refused_before_training(noted, tmp_path, monkeypatch, prior, text):
    monkeypatch.setattr("tunescope.study.fit.train", lambda *_: pytest.fail("it must not be trained"))
    with pytest.raises(ConfigError, match=text):
        run(make_study(noted[0] | {"prior": prior}), tmp_path / "run", device="cpu")


def test_lenses_say_that_they_read_the_first_window_only(noted):
    _, folder = noted
    (said,) = [one for one in read_json(folder / "results" / "cka.json")["notes"] if "window" in one]
    assert said.startswith("head: first window only; windows slide, and ")
    assert said.endswith(" of 26 validation rows have more than one")
    assert not said.split(" and ")[1].startswith("0 ")


def test_a_baseline_is_named_after_the_folder_above_model_and_tells_no_path(noted):
    _, folder = noted
    about = read_json(folder / "baselines" / "probe-tiny-gpt2" / "metrics.json")["about"]
    assert about.endswith("base model tiny-gpt2")
    for path in (folder / "baselines").glob("*/metrics.json"):
        assert "/" not in read_json(path)["about"]


@pytest.mark.parametrize(
    ("model", "word"),
    [
        ("/a/MiniLM/model/", "MiniLM"),
        ("org/name", "name"),
        ("C:\\x\\Model", "x"),
        ("model", "model"),
        ("/", "model"),
    ],
)
def test_the_word_of_a_model(model, word):
    assert _model_word(model) == word


def test_another_tracker_or_log_trains_nothing_again(noted, tmp_path, monkeypatch):
    raw, folder = noted
    shutil.copytree(folder, tmp_path / "run")
    monkeypatch.setattr("tunescope.study.fit.train", lambda *_: pytest.fail("it is trained already"))
    beside = {"report_to": "tensorboard", "logging_steps": 3, "save_total_limit": 4}
    progress = Listening()
    run(
        make_study(raw | {"training": raw["training"] | beside}),
        tmp_path / "run",
        device="cpu",
        progress=progress,
    )
    assert "nothing to do" in progress.lines[0]
    monkeypatch.undo()
    monkeypatch.setattr("tunescope.study.fit.make_training", again)
    changed = make_study(raw | {"training": raw["training"] | {"weight_decay": 0.5}})
    with pytest.raises(SystemError, match="trained again"):
        run(changed, tmp_path / "run", device="cpu")


def again(*_):
    raise SystemError("trained again")


def test_a_tuned_model_and_its_trackers_know_the_study(noted):
    record = read_json(noted[1] / "arms" / "head" / "seed-0" / "model" / "tunescope.json")
    assert (record["study"], record["arm"]) == ("moods", "head")


def test_a_model_from_nothing_is_trained_on_the_device_of_the_run(tmp_path, monkeypatch):
    given = []

    def pretrain(corpus, config, folder, *rest):
        given.append(rest[2])
        folder.mkdir(parents=True)
        return dict.fromkeys(
            ("heldout_loss", "unigram_loss", "heldout_bits_per_byte", "unigram_bits_per_byte", "parameters"),
            1,
        )

    monkeypatch.setattr("tunescope.training.scratch.pretrain", pretrain)
    monkeypatch.setattr(work_stage, "scratch_key", lambda *_: "key")
    arm = SimpleNamespace(scratch=ScratchConfig(corpus=str(tmp_path / "corpus.txt")))
    for device in ("cpu", "cuda:1"):
        context = SimpleNamespace(
            path=tmp_path / device, study=SimpleNamespace(seeds=[0], data=None), device=device, progress=None
        )
        work_stage.make_scratch(context, arm)
    assert given == ["cpu", "cuda:1"]


def test_no_baseline_sees_how_a_planted_label_came_about(tmp_path):
    data = {"path": "planted:tiny", "text": "text", "label": "label"}
    arm = {"name": "full", "model": "scratch"}
    study = make_study({"name": "planted", "data": data, "arms": [arm]})
    work_stage.make_data(Context(study, RunFolder(tmp_path)))
    rows, written = (
        pl.read_parquet(tmp_path / "data" / name) for name in ("rows.parquet", "planted/test.parquet")
    )
    assert "gender" in rows.columns
    assert not set(TRUTH_COLUMNS) & set(rows.columns)
    assert set(TRUTH_COLUMNS) < set(written.columns)
