from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import yaml
from study_helpers import Listening, make_study, raw_study, write_reviews

from tunescope.data.rows import Rows
from tunescope.errors import DataError, Interrupted, ModelError, RunError
from tunescope.files import read_json
from tunescope.models import load
from tunescope.study import fit as _fit
from tunescope.study import measure as _measure
from tunescope.study import run

HERE = Path(__file__).parent
VOLATILE = {
    "seconds", "finished", "date", "command", "real_tokens_per_second", "tokens_per_second", "peak_memory_bytes",
    "memory", "memory_bytes",
}  # fmt: skip


@pytest.fixture(scope="session")
def reviews(tmp_path_factory):
    return write_reviews(tmp_path_factory.mktemp("data") / "reviews.csv")


@pytest.fixture(scope="session")
def finished(reviews, gpt2_folder, tmp_path_factory):
    """A finished run of two arms, to be copied and changed."""
    folder = tmp_path_factory.mktemp("runs") / "moods"
    study = make_study(two_arms(reviews, gpt2_folder))
    return study, run(study, folder, device="cpu")


def two_arms(reviews, model):
    arms = [
        {"name": "full", "model": str(model)},
        {"name": "head", "model": str(model), "method": "head_only"},
    ]
    return raw_study(reviews, model, arms=arms)


@pytest.fixture
def copied(finished, tmp_path):
    study, folder = finished
    shutil.copytree(folder, tmp_path / "moods")
    return study, tmp_path / "moods"


def contents(folder: Path) -> dict[str, object]:
    """Everything that a run computed, without times."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".parquet":
            found[name] = pl.read_parquet(path).to_dict(as_series=False)
        elif path.suffix in (".json", ".jsonl") and not name.startswith(("stages", ".", "environment")):
            found[name] = _without_times(path.read_text())
        elif path.suffix == ".safetensors":
            found[name] = path.read_bytes()
    return found


def _without_times(text: str) -> object:
    def clean(value):
        if isinstance(value, dict):
            return {
                key: clean(inner) for key, inner in value.items() if key not in VOLATILE and key != "sha256"
            }
        return [clean(inner) for inner in value] if isinstance(value, list) else value

    return (
        [clean(json.loads(line)) for line in text.splitlines()]
        if text.count("\n{")
        else clean(json.loads(text))
    )


def test_run_folder_holds_what_the_contract_says(finished):
    _, folder = finished
    for name in (
        "study.yaml", "study.resolved.yaml", "environment.json", "data/rows.parquet", "data/summary.json",
        "results/cka.parquet", "results/cka.json", "findings.json", "report.html", "comparison.json",
        "baselines/majority/metrics.json", "baselines/tfidf/predictions.parquet", "data/cross_validation.json",
    ):  # fmt: skip
        assert (folder / name).is_file(), name
    for arm in ("full", "head"):
        names = sorted(path.name for path in (folder / "arms" / arm / "seed-0").iterdir())
        wanted = {"log.jsonl", "metrics.json", "model", "parameters.json", "predictions.parquet"}
        assert set(names) - {"tensorboard"} == wanted
    assert not list(folder.rglob("*.part"))
    assert not list(folder.rglob("*.bin"))


def test_metrics_agree_with_predictions_and_predictions_with_rows(finished):
    _, folder = finished
    rows = Rows.load(folder / "data" / "rows.parquet")
    table = pl.read_parquet(folder / "arms" / "full" / "seed-0" / "predictions.parquet")
    assert table["row_id"].to_list() == rows.frame["row_id"].to_list()
    assert table["label"].to_list() == rows.frame["label"].to_list()
    assert table["split"].to_list() == rows.frame["split"].to_list()
    assert table.columns[:4] == ["row_id", "split", "label", "prediction"]
    metrics = read_json(folder / "arms" / "full" / "seed-0" / "metrics.json")
    for split in ("train", "validation", "test"):
        own = table.filter(pl.col("split") == split)
        accuracy = (own["label"] == own["prediction"]).mean()
        (record,) = [r for r in metrics["records"] if (r["split"], r["metric"]) == (split, "accuracy")]
        assert record["value"] == pytest.approx(accuracy)
        assert record["low"] < accuracy <= record["high"]
        assert sum(map(sum, metrics["confusion"][split])) == own.height
        assert metrics["majority"][split]["accuracy"] == pytest.approx(
            own["label"].value_counts()["count"].max() / own.height
        )
    assert metrics["trainable_parameters"] == metrics["parameters"]
    assert metrics["seconds"] > 0
    head = read_json(folder / "arms" / "head" / "seed-0" / "metrics.json")
    assert head["trainable_parameters"] == 3 * 32


def test_summary_counts_rows_labels_tokens_and_truncation(finished):
    _, folder = finished
    summary = read_json(folder / "data" / "summary.json")
    assert sum(summary["rows"].values()) == 150
    assert summary["labels"] == ["bad", "good", "odd"]
    assert set(summary["tokens"]) == set(summary["truncated"]) == {"full", "head"}
    assert set(summary["tokens"]["full"]["train"]) == {"mean", "median", "p95", "max"}
    rows = [cell["rows"] for cell in summary["truncated"]["full"]["train"].values()]
    assert sum(rows) == summary["rows"]["train"]


def test_arms_share_rows_and_head_initialisation(finished, monkeypatch):
    from tunescope.runs import RunFolder
    from tunescope.study.context import Context

    study, folder = finished
    context = Context(study, RunFolder(folder))
    first, second = (context.base(arm, 0) for arm in study.arms)
    assert first.model.score.weight.equal(second.model.score.weight)
    assert not context.base(study.arms[0], 1).model.score.weight.equal(first.model.score.weight)
    ids = [
        pl.read_parquet(folder / "arms" / arm.name / "seed-0" / "predictions.parquet")["row_id"]
        for arm in study.arms
    ]
    assert ids[0].equals(ids[1])
    trunks = [
        load(str(folder / "arms" / arm / "seed-0" / "model")).trunk.state_dict() for arm in ("full", "head")
    ]
    assert all(first.trunk.state_dict()[name].equal(value) for name, value in trunks[1].items())
    assert any(not first.trunk.state_dict()[name].equal(value) for name, value in trunks[0].items())


def test_second_run_does_nothing(copied):
    study, folder = copied
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    progress = Listening()
    run(study, folder, device="cpu", progress=progress)
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert {path for path in after if before.get(path) != after[path]} <= {folder / ".lock"}
    assert "nothing to do" in progress.lines[0]


def test_resolved_study_reproduces_the_run(finished, tmp_path):
    _, folder = finished
    again = make_study(yaml.safe_load((folder / "study.resolved.yaml").read_text()))
    other = run(again, tmp_path / "again", device="cpu")
    assert contents(other) == contents(folder)


@pytest.mark.parametrize(
    ("name", "redone"),
    [
        ("data/rows.parquet", ["data"]),
        ("data/summary.json", ["summary"]),
        ("arms/full/seed-0/model/model.safetensors", ["train-full-seed-0"]),
        ("arms/head/seed-0/predictions.parquet", ["evaluate-head-seed-0"]),
        ("looks/full/seed-0/cka/table.parquet", ["look-full-seed-0-cka"]),
        ("results/cka.parquet", ["results"]),
        ("report.html", ["report"]),
    ],
)
def test_damaged_file_is_named_and_rebuilt_alone(copied, name, redone, finished):
    study, folder = copied
    path = folder / name
    path.write_bytes(path.read_bytes()[:-7])
    progress = Listening()
    stamps = {path.stem: path.stat().st_mtime_ns for path in (folder / "stages").glob("*.json")}
    run(study, folder, device="cpu", progress=progress)
    assert any(f"{name} is damaged: rebuilding" in line for line in progress.lines)
    changed = [p.stem for p in (folder / "stages").glob("*.json") if p.stat().st_mtime_ns != stamps[p.stem]]
    assert sorted(set(changed) - {"report", "results"}) == sorted(set(redone) - {"report", "results"})
    assert contents(folder) == contents(finished[1])


def test_changed_study_says_what_it_redoes_and_why_before_it_starts(copied, reviews, gpt2_folder):
    _, folder = copied
    raw = two_arms(reviews, gpt2_folder)
    raw["arms"][0]["training"] = {"learning_rate": 5e-3}
    before = (folder / "arms" / "head" / "seed-0" / "model" / "model.safetensors").stat().st_mtime_ns
    progress = Listening()
    run(make_study(raw), folder, device="cpu", progress=progress)
    said = "\n".join(progress.lines)
    assert "  train-full-seed-0: training.learning_rate: 0.002 -> 0.005" in said
    assert "  evaluate-full-seed-0: train-full-seed-0 changes" in said
    assert "train-head" not in said
    assert (folder / "arms" / "head" / "seed-0" / "model" / "model.safetensors").stat().st_mtime_ns == before
    assert yaml.safe_load((folder / "study.resolved.yaml").read_text())["arms"][0]["training"] == {
        "learning_rate": 5e-3
    }


def test_changed_data_file_is_noticed(gpt2_folder, tmp_path, monkeypatch):
    data = write_reviews(tmp_path / "reviews.csv", rows=60, seed=1)
    raw = raw_study(data, gpt2_folder, lenses=[], audit=False)
    raw["arms"][0] |= {"method": "head_only", "training": {"max_steps": 1}}
    study, folder = make_study(raw), tmp_path / "moods"
    run(study, folder, device="cpu")
    write_reviews(data, rows=60, seed=2)
    monkeypatch.setattr(sys.modules["tunescope.study.work"], "make_data", _stopped)
    progress = Listening()
    with pytest.raises(SystemError, match="read again"):
        run(study, folder, device="cpu", progress=progress)
    assert any(line.startswith("  data: files.") for line in progress.lines)


def _stopped(*_):
    raise SystemError("the data is read again")


def test_arm_that_leaves_the_study_is_set_aside_and_returns_untrained_again(
    copied, reviews, gpt2_folder, monkeypatch
):
    study, folder = copied
    shorter = study.model_copy(update={"arms": study.arms[:1]})
    progress = Listening()
    run(shorter, folder, device="cpu", progress=progress)
    assert any("train-head-seed-0 is no longer part of the study" in line for line in progress.lines)
    assert not (folder / "arms" / "head").exists()
    assert set(pl.read_parquet(folder / "results" / "cka.parquet")["arm"]) == {"full"}
    monkeypatch.setattr(_fit, "train", lambda *_: pytest.fail("it is trained already"))
    run(study, folder, device="cpu")
    assert set(pl.read_parquet(folder / "results" / "cka.parquet")["arm"]) == {"full", "head"}


@pytest.fixture(scope="session")
def small(reviews, gpt2_folder, tmp_path_factory):
    """A finished run of one arm without a probe, to be compared with."""
    raw = raw_study(
        reviews, gpt2_folder, arms=[{"name": "full", "model": str(gpt2_folder), "base_head": "none"}]
    )
    study = make_study(raw)
    return study, run(study, tmp_path_factory.mktemp("runs") / "moods", device="cpu")


STOPS = {
    "make_data": "work", "make_summary": "work", "make_baselines": "evidence", "make_training": "fit",
    "make_evaluation": "measure", "make_looks": "look", "make_comparison": "evidence", "make_results": "look",
    "_report": "execute",
}  # fmt: skip


def test_stop_in_every_stage_then_continue_gives_the_same(small, tmp_path, monkeypatch):
    """The process ends where a training starts, and in each stage where the work is done and not yet recorded."""
    study, folder = small
    stops = [(step, "after") for step in STOPS]
    stops.insert(list(STOPS).index("make_training"), ("make_training", "before"))
    for step, when in stops:
        module = sys.modules[f"tunescope.study.{STOPS[step]}"]
        original = getattr(module, step)

        def dies(*args, step=step, when=when, original=original):
            if when == "after":
                original(*args)
            raise SystemError(f"power cut {when} {step}")

        with monkeypatch.context() as patch:
            patch.setattr(module, step, dies)
            with pytest.raises(SystemError, match=f"power cut {when} {step}"):
                run(study, tmp_path / "moods", device="cpu")
    run(study, tmp_path / "moods", device="cpu")
    assert contents(tmp_path / "moods") == contents(folder)


def test_ctrl_c_in_any_stage_is_one_clear_error(small, tmp_path, monkeypatch):
    study, _ = small

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(_measure, "make_evaluation", stop)
    with pytest.raises(Interrupted, match="Stopped by Ctrl-C; what was finished is kept") as caught:
        run(study, tmp_path / "moods", device="cpu")
    assert caught.value.exit_code == 130
    assert (tmp_path / "moods" / "stages" / "train-full-seed-0.json").is_file()


SCRIPT = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, {here!r})
from study_helpers import make_study, Listening
import yaml
from pathlib import Path
from tunescope.study import run
if __name__ == "__main__":
    run(make_study(yaml.safe_load(Path({study!r}).read_text())), Path({folder!r}), device="cpu")
"""


@pytest.fixture(scope="session")
def straight(reviews, gpt2_folder, tmp_path_factory):
    """A study of one training that is long enough to be stopped, and its run without a stop."""
    arms = [{"name": "full", "model": str(gpt2_folder), "base_head": "none"}]
    raw = raw_study(reviews, gpt2_folder, arms=arms, lenses=[], audit=False)
    raw["training"]["num_train_epochs"] = 12
    return raw, run(make_study(raw), tmp_path_factory.mktemp("runs") / "straight", device="cpu")


# Ctrl-C has a cheaper sibling above, and one in the tests of training.
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_process_that_is_killed_while_training_is_continued(tmp_path, straight, number):
    raw, undisturbed = straight
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(raw))
    folder = tmp_path / "moods"
    script = SCRIPT.format(here=str(HERE), study=str(tmp_path / "study.yaml"), folder=str(folder))
    (tmp_path / "main.py").write_text(script)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, tmp_path / "main.py"], env=environment, stderr=subprocess.PIPE
    )
    checkpoints = folder / "arms" / "full" / "seed-0" / "checkpoints"
    deadline = time.monotonic() + 120
    while (
        not list(checkpoints.glob("checkpoint-*/complete.json"))
        and process.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.005)
    assert list(checkpoints.glob("checkpoint-*")), process.communicate()[1]
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode != 0, "it ended before it could be stopped"
    if number == signal.SIGINT:
        assert b"Interrupted" in stderr
    assert not (folder / "stages" / "train-full-seed-0.json").exists()
    run(make_study(raw), folder, device="cpu")
    assert contents(folder) == contents(undisturbed)


def test_folder_in_use_is_refused(copied):
    from tunescope.runs import RunFolder

    study, folder = copied
    with RunFolder(folder).locked(), pytest.raises(RunError, match="in use by another run"):
        run(study, folder, device="cpu")


def test_errors_leave_no_half_written_run(reviews, gpt2_folder, tmp_path):
    raw = raw_study(reviews, gpt2_folder)
    raw["data"]["text"] = "revew"
    with pytest.raises(DataError, match="revew"):
        run(make_study(raw), tmp_path / "a", device="cpu")
    assert not (tmp_path / "a" / "data").exists()
    raw = raw_study(reviews, tmp_path / "nothing")
    raw["arms"][0]["model"] = str(tmp_path / "nothing")
    with pytest.raises(ModelError, match="nothing is not a folder"):
        run(make_study(raw), tmp_path / "b", device="cpu")
    assert not (tmp_path / "b" / "arms").exists()


def test_several_seeds_families_and_poolings_in_one_study(reviews, gpt2_folder, bert_folder, tmp_path):
    arms = [
        {"name": "bert-mean", "model": str(bert_folder), "pooling": "mean", "base_head": "tuned",
         "training": {"max_steps": 2}},
        {"name": "gpt2", "model": str(gpt2_folder), "base_head": "none", "training": {"max_steps": 3}},
    ]  # fmt: skip
    folder = run(
        make_study(raw_study(reviews, gpt2_folder, arms=arms, seeds=[0, 3])), tmp_path / "run", device="cpu"
    )
    table = pl.read_parquet(folder / "results" / "cka.parquet")
    assert set(table.select("arm", "seed").unique().rows()) == {
        (arm["name"], seed) for arm in arms for seed in (0, 3)
    }
    saved = read_json(folder / "arms" / "bert-mean" / "seed-3" / "model" / "tunescope.json")
    assert (saved["pooling"], saved["arm"], saved["seed"], saved["method"]) == (
        "mean",
        "bert-mean",
        3,
        "full",
    )
    assert read_json(folder / "stages" / "train-gpt2-seed-0.json")["notes"]["steps"] == 3


def test_study_without_lenses_ends_with_a_report(reviews, gpt2_folder, tmp_path):
    folder = run(make_study(raw_study(reviews, gpt2_folder, lenses=[])), tmp_path / "run", device="cpu")
    assert (folder / "report.html").is_file()
    assert not (folder / "results").exists()


def test_unlabelled_rows_are_predicted_and_not_measured(reviews, gpt2_folder, tmp_path):
    test = write_reviews(tmp_path / "test.csv", rows=12, seed=5)
    test.write_text(test.read_text() + "what a strange film,\nnothing ever works,\n")
    raw = raw_study(reviews, gpt2_folder)
    raw["data"] |= {"path": {"train": str(reviews), "test": str(test)}, "test": 0.0}
    folder = run(make_study(raw), tmp_path / "run", device="cpu")
    table = pl.read_parquet(folder / "arms" / "full" / "seed-0" / "predictions.parquet")
    unlabelled = table.filter(pl.col("label").is_null())
    assert unlabelled.height == 2
    assert unlabelled["prediction"].null_count() == 0
    metrics = read_json(folder / "arms" / "full" / "seed-0" / "metrics.json")
    counted = sum(sum(map(sum, matrix)) for matrix in metrics["confusion"].values())
    assert counted == table.height - 2
