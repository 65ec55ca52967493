"""Trainings in processes of their own: the same numbers, one clear error, and a stop that can be continued."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from study_helpers import Listening, make_study, raw_study, write_reviews
from test_study import contents

from tunescope.errors import ModelError, RunError
from tunescope.study import run, workers

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    return write_reviews(tmp_path_factory.mktemp("workers") / "reviews.csv")


def raw_two(reviews, model, **training) -> dict:
    arms = [
        {"name": "full", "model": str(model), "base_head": "none"},
        {"name": "last", "model": str(model), "method": "last_k", "k": 1, "base_head": "none"},
    ]
    raw = raw_study(reviews, model, arms=arms, audit=False, lenses=[])
    raw["training"] |= {"num_train_epochs": 1, **training}
    return raw


def test_places_are_devices_where_there_are_some(monkeypatch):
    assert workers.places("cpu", None) == [None]
    assert workers.places("cpu", 3) == [None, None, None]
    assert workers.places("cuda:1", None) == [None]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    assert workers.places("cuda", None) == ["4", "5"]
    assert workers.places("cuda", 3) == ["4", "5", "4"]
    assert workers.places("cuda", 1) == [None]


def test_a_worker_is_started_with_its_device_and_nothing_stays_set(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with workers._environment({"CUDA_VISIBLE_DEVICES": "2"}):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "2"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.slow
def test_two_workers_give_what_one_process_gives(reviews, gpt2_folder, tmp_path):
    study = make_study(raw_two(reviews, gpt2_folder))
    progress = Listening()
    apart = run(study, tmp_path / "apart", device="cpu", workers=2, progress=progress)
    assert "2 trainings in 2 processes of 1 thread" in progress.lines
    together = run(study, tmp_path / "together", device="cpu")
    assert contents(apart) == contents(together)
    progress = Listening()
    run(study, apart, device="cpu", progress=progress)
    assert "nothing to do" in progress.lines[0]


@pytest.mark.slow
def test_what_a_worker_cannot_do_is_the_runs_own_error(reviews, gpt2_folder, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(gpt2_folder, model)
    raw = raw_two(reviews, gpt2_folder)
    raw["arms"][1]["model"] = str(model)
    study = make_study(raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "tunescope.study.execute.evidence.make_baselines",
            lambda context: _baselines_then_damage(context, model),
        )
        with pytest.raises((ModelError, RunError)) as caught:
            run(study, tmp_path / "run", device="cpu", workers=2)
    assert str(model) in str(caught.value)


def _baselines_then_damage(context, model: Path) -> None:
    (context.path / "baselines").mkdir(exist_ok=True)
    (context.path / "baselines" / "none.json").write_text("{}")
    (context.path / "data" / "cross_validation.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"damaged")


SCRIPT = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, {here!r})
from study_helpers import make_study
import yaml
from pathlib import Path
from tunescope.study import run
if __name__ == "__main__":
    run(make_study(yaml.safe_load(Path({study!r}).read_text())), Path({folder!r}), device="cpu", workers=2)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stop_ends_every_worker_and_the_run_is_continued(reviews, gpt2_folder, tmp_path, number):
    raw = raw_two(
        reviews, gpt2_folder, num_train_epochs=400, save_steps=20, save_strategy="steps", eval_strategy="no"
    )
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(raw))
    folder = tmp_path / "run"
    script = SCRIPT.format(here=str(HERE), study=str(tmp_path / "study.yaml"), folder=str(folder))
    (tmp_path / "main.py").write_text(script)
    process = subprocess.Popen([sys.executable, tmp_path / "main.py"], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 150
    places = [folder / "arms" / name / "seed-0" / "checkpoints" for name in ("full", "last")]
    while time.monotonic() < deadline and process.poll() is None:
        if all(list(place.glob("checkpoint-*/complete.json")) for place in places):
            break
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[1]
    children = _children(process.pid)
    assert len(children) >= 2
    process.send_signal(number)
    _, stderr = process.communicate(timeout=90)
    if number == signal.SIGINT:
        assert b"Interrupted" in stderr
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [child for child in children if Path(f"/proc/{child}").exists()], "a worker outlived the run"
    steps = {place: max(int(p.name.split("-")[1]) for p in place.glob("checkpoint-*")) for place in places}
    assert all(steps.values())
    for arm in raw["arms"]:
        assert not (folder / "stages" / f"train-{arm['name']}-seed-0.json").exists()


def _children(parent: int) -> list[int]:
    """Return the worker processes of a process (the resource tracker is none)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            command = (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == parent and b"spawn_main" in command:
            found.append(int(path.parent.name))
    return found
