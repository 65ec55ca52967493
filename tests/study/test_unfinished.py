"""Half-finished trainings: kept from another study or other data, begun again on request; SIGTERM is as Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from study_helpers import Listening, make_study, raw_study, write_reviews
from test_study import SCRIPT, contents
from transformers import TrainerCallback

from tunescope.errors import Interrupted, RunError
from tunescope.study import run
from tunescope.training import trainer as trainer_module

HERE = Path(__file__).parent


class StopsAt(TrainerCallback):
    """Sends this process a signal during a step."""

    def __init__(self, step, number):
        self.step, self.number = step, number

    def on_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            os.kill(os.getpid(), self.number)


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    return write_reviews(tmp_path_factory.mktemp("unfinished") / "reviews.csv", rows=90)


def raw(reviews, model, **more):
    arms = [{"name": "full", "model": str(model), "base_head": "none"}]
    made = raw_study(reviews, model, arms=arms, audit=False, **{"lenses": [], **more})
    made["training"] |= {"num_train_epochs": 3, "report_to": "none"}
    return made


def stopped(document, folder, number=signal.SIGINT, **more):
    """Run a study and stop it in the fourth of its steps."""
    original = trainer_module.ClassifierTrainer.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            trainer_module.ClassifierTrainer,
            "__init__",
            lambda self, job, callbacks: original(self, job, [*callbacks, StopsAt(4, number)]),
        )
        with pytest.raises(Interrupted) as caught:
            run(make_study(document), folder, device="cpu", **more)
    assert list((folder / "arms/full/seed-0/checkpoints").glob("checkpoint-4/complete.json"))
    return str(caught.value)


def test_a_half_finished_training_of_another_study_is_refused_and_kept(reviews, gpt2_folder, tmp_path):
    document, folder = raw(reviews, gpt2_folder), tmp_path / "run"
    stopped(document, folder)
    other = raw(reviews, gpt2_folder)
    other["training"]["learning_rate"] = 1e-3
    told = r"full, seed 0 is half finished in .*checkpoints.*: training.learning_rate: 0.002 -> 0.001\."
    with pytest.raises(RunError, match=told) as caught:
        run(make_study(other), folder, device="cpu")
    assert "--restart" in caught.value.hint
    assert "--output-dir" in caught.value.hint
    more = write_reviews(tmp_path / "more.csv", rows=93)
    with pytest.raises(RunError, match=r"other data: data \(.*more.csv"):
        run(make_study(raw(more, gpt2_folder)), folder, device="cpu")
    lens = raw(reviews, gpt2_folder, lenses=[{"lens": "cka", "rows": {"n": 24}}])
    run(
        make_study(lens), folder, device="cpu"
    )  # a lens is no part of it: the training goes on, to the same end
    straight = run(make_study(lens), tmp_path / "straight", device="cpu")
    assert contents(folder) == contents(straight)


def test_restart_trains_from_the_beginning_what_belongs_to_another_study(reviews, gpt2_folder, tmp_path):
    folder = tmp_path / "run"
    stopped(raw(reviews, gpt2_folder), folder)
    other = raw(reviews, gpt2_folder)
    other["training"]["learning_rate"] = 1e-3
    progress = Listening()
    run(make_study(other), folder, device="cpu", progress=progress, restart=True)
    assert any("full, seed 0: trained from the beginning (--restart)" in line for line in progress.lines)
    assert contents(folder) == contents(run(make_study(other), tmp_path / "straight", device="cpu"))


@pytest.mark.parametrize("keep", [False, True])
def test_a_finished_training_of_another_study_is_done_again_without_a_word(
    reviews, gpt2_folder, tmp_path, keep
):
    folder = tmp_path / "run"
    run(make_study(raw(reviews, gpt2_folder)), folder, device="cpu", keep_checkpoints=keep)
    assert (folder / "arms/full/seed-0/checkpoints").exists() == keep
    other = raw(reviews, gpt2_folder)
    other["training"]["learning_rate"] = 1e-3
    progress = Listening()
    run(make_study(other), folder, device="cpu", progress=progress)
    assert any("training.learning_rate: 0.002 -> 0.001" in line for line in progress.lines)
    straight = run(make_study(other), tmp_path / "straight", device="cpu")
    assert contents(folder / "arms") == contents(straight / "arms")


def test_sigterm_saves_a_checkpoint_and_the_same_command_continues(reviews, gpt2_folder, tmp_path):
    document, folder, progress = raw(reviews, gpt2_folder), tmp_path / "run", Listening()
    before = signal.getsignal(signal.SIGTERM)
    said = stopped(document, folder, signal.SIGTERM, progress=progress)
    assert said.startswith("Stopped by SIGTERM after step 4 of ")
    assert "  SIGTERM: finishing this step and saving; once more stops at once" in progress.lines
    assert signal.getsignal(signal.SIGTERM) == before
    run(make_study(document), folder, device="cpu")
    assert contents(folder) == contents(run(make_study(document), tmp_path / "straight", device="cpu"))


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_a_process_that_gets_sigterm_outside_training_says_so_and_leaves_its_folder_free(
    reviews, gpt2_folder, tmp_path
):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(raw(reviews, gpt2_folder)))
    folder = tmp_path / "run"
    script = SCRIPT.format(here=str(HERE), study=str(tmp_path / "study.yaml"), folder=str(folder))
    (tmp_path / "main.py").write_text(script)
    process = subprocess.Popen([sys.executable, tmp_path / "main.py"], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (folder / "stages" / "data.json").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    # CPython ends as after SIGINT where the signal came inside a string given to exec (a dataclass being made).
    assert process.returncode in (1, -signal.SIGINT), stderr
    assert b"Stopped by SIGTERM" in stderr
    assert not (folder / ".owner.json").exists()
