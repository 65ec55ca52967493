"""TensorBoard, Weights & Biases offline, none, and libraries that are not there."""

from __future__ import annotations

import importlib.util
import json

import pytest
from test_train import options, stopping_at
from training_helpers import make_tokens

from tunescope.errors import ConfigError, MissingDependencyError
from tunescope.training import TrainOptions, train
from tunescope.training.trackers import scalars, wandb_mode


def read_scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        name: [(one.step, one.value) for one in events.Scalars(name)] for name in events.Tags()["scalars"]
    }


def test_tensorboard_is_on_by_default_and_holds_what_the_log_holds(fresh, tmp_path):
    log = train(fresh(), make_tokens(), make_tokens(seed=1), tmp_path, options())
    found = read_scalars(tmp_path / "tensorboard")
    for ours, theirs in (("loss", "train/loss"), ("eval_f1_macro", "eval/f1_macro")):
        expected = [(event["step"], event[ours]) for event in log.events if ours in event]
        assert found[theirs] == [(step, pytest.approx(value, rel=1e-6)) for step, value in expected]
        assert len(expected) >= 2
    assert all(value > 0 for _, value in found["train/tokens_per_second"])
    assert {name.split("/")[0] for name in found} == {"train", "eval"}


def test_a_continued_training_takes_back_the_events_it_does_again(fresh, tmp_path, monkeypatch):
    def die():
        raise SystemError("power cut")

    undo = stopping_at(monkeypatch, 10, die)
    with pytest.raises(SystemError):
        train(fresh(), make_tokens(), None, tmp_path, options(logging_steps=1))
    undo()
    log = train(fresh(), make_tokens(), None, tmp_path, options(logging_steps=1))
    assert log.continued_from == 6
    found = read_scalars(tmp_path / "tensorboard")["train/loss"]
    assert found == [(event["step"], pytest.approx(event["loss"], rel=1e-6)) for event in log.events]
    assert [step for step, _ in found] == list(range(1, 13))


def test_none_writes_nothing(fresh, tmp_path):
    train(fresh(), make_tokens(n=8), None, tmp_path, options(report_to="none", max_steps=1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "model"]


def log_records(data: bytes):
    """Yield the records of a .wandb file: LevelDB's log format (blocks of 32 KiB, records whole or in parts)."""
    place, whole = 7, b""  # behind the file's own header
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


@pytest.mark.slow
def test_wandb_offline_writes_the_course_and_asks_for_no_login(fresh, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "NETRC", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "nobody"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    given = TrainOptions(
        training={**options().training, "report_to": ["wandb", "tensorboard"]},
        record={"study": "demo", "arm": "full"},
    )
    log = train(fresh(), make_tokens(), None, tmp_path / "run", given)
    (file,) = (tmp_path / "run" / "wandb").rglob("run-*.wandb")
    losses, names = [], set()
    for data in log_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "run":
            names.add((record.run.project, record.run.display_name))
        items = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
        losses += [items["train/loss"]] if "train/loss" in items else []
    assert losses == pytest.approx([event["loss"] for event in log.events if "loss" in event])
    assert names == {("demo", "full-seed-0")}
    assert (tmp_path / "run" / "tensorboard").is_dir()


def test_wandb_is_offline_unless_a_key_is_set(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert wandb_mode() == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(ConfigError, match=r"(?s)WANDB_MODE is online, and WANDB_API_KEY is not.*=offline"):
        wandb_mode()
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert wandb_mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert wandb_mode() == "offline"


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_a_missing_library_is_said_before_anything_is_computed(fresh, tmp_path, monkeypatch, name):
    original = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == name else original(n, *a))
    with pytest.raises(MissingDependencyError, match=rf"(?s)needs the library {name}.*pip install {name}"):
        train(fresh(), make_tokens(), None, tmp_path, options(report_to=name))
    assert not (tmp_path / "log.jsonl").exists()


def test_scalars_are_grouped_and_the_closing_summary_is_left_out():
    assert scalars({"loss": 1, "eval_loss": 2.5, "epoch": 1.0, "note": "x"}) == {
        "train/loss": 1.0, "eval/loss": 2.5, "train/epoch": 1.0,
    }  # fmt: skip
    assert scalars({"train_runtime": 3.0, "train_loss": 1.0}) == {}


def test_an_unknown_tracker_is_refused(fresh, tmp_path):
    with pytest.raises(ConfigError, match=r"report_to: expected tensorboard, wandb, none.*came 'mlflow'"):
        train(fresh(), make_tokens(), None, tmp_path, options(report_to="mlflow"))
