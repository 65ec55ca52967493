"""A study under torchrun with two processes: the same files as of one, and one clear error where it fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from safetensors.torch import load_file
from study_helpers import make_study, raw_study, write_reviews

from tunescope.config import dump_study
from tunescope.errors import RunError
from tunescope.files import read_json
from tunescope.study import run

# 331 rows: splits, batches and shares all leave a remainder.
ROWS = 331


# Every process on one thread, so that sums are made in one order.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def command(folder: Path, launcher: list[str], *more: str) -> list[str]:
    """Return what runs the folder's study by a launcher."""
    study = str(folder / "study.yaml")
    return [sys.executable, *launcher, "-m", "tunescope", "run", study, "--device", "cpu", *more]


def started(folder: Path, launcher: list[str], *more: str) -> subprocess.CompletedProcess:
    """Run the folder's study by a launcher."""
    asked = command(folder, launcher, *more)
    return subprocess.run(asked, env=ENVIRONMENT, capture_output=True, text=True, check=False)


TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ACCELERATE = ["-m", "accelerate.commands.launch", "--num_processes", "2", "--cpu", "--main_process_port", "0"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, gpt2_folder):
    """The study as one process does it."""
    folder = tmp_path_factory.mktemp("processes")
    lenses = [
        {"lens": "cka", "rows": {"n": 66}}, {"lens": "spread", "rows": {"n": 66}}, {"lens": "weights"},
        {"lens": "attention", "rows": {"n": 65}}, {"lens": "ablation", "rows": {"n": 66}},
    ]  # fmt: skip
    raw = raw_study(write_reviews(folder / "rows.csv", ROWS), gpt2_folder, lenses=lenses)
    raw["arms"] = [
        {"name": "full", "model": str(gpt2_folder)},
        {
            "name": "lora",
            "model": str(gpt2_folder),
            "method": "lora",
            "training": {"gradient_accumulation_steps": 3},
        },
        {"name": "whole-steps", "model": str(gpt2_folder), "training": {"gradient_accumulation_steps": 1}},
    ]
    # 199 train rows: the last step has one micro-batch of 7 rows, and of LoRA's two
    raw["training"] |= {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 2,
    }
    study = make_study(raw)
    (folder / "study.yaml").write_text(dump_study(study), encoding="utf-8")
    done = started(folder, [], "--output-dir", str(folder / "one"))
    assert done.returncode == 0, done.stderr
    return folder


def same_results(one: Path, two: Path) -> None:
    """Compare predictions, metrics and results of every lens."""
    for arm in ("full", "lora", "whole-steps"):
        first, second = (
            pl.read_parquet(run / f"arms/{arm}/seed-0/predictions.parquet") for run in (one, two)
        )
        assert_frame_equal(second, first, check_exact=True)
        first, second = (read_json(run / f"arms/{arm}/seed-0/metrics.json")["records"] for run in (one, two))
        assert second == first
        first, second = (load_file(run / f"arms/{arm}/seed-0/model/model.safetensors") for run in (one, two))
        assert all(torch.equal(second[name], value) for name, value in first.items())
        first, second = (losses(run / f"arms/{arm}/seed-0/log.jsonl") for run in (one, two))
        assert second == first
    for name in ("cka", "spread", "attention", "weights", "ablation"):
        first, second = (pl.read_parquet(run / "results" / f"{name}.parquet") for run in (one, two))
        assert_frame_equal(second, first, check_exact=True)
    assert read_json(two / "findings.json") == read_json(one / "findings.json")


def losses(log: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [
        {key: value for key, value in line.items() if "second" not in key and "memory" not in key}
        for line in lines
    ]


@pytest.mark.slow
def test_two_processes_give_what_one_gives(alone):
    done = started(alone, TORCHRUN, "--output-dir", str(alone / "two"))
    assert done.returncode == 0, done.stderr
    assert "2 processes: the first one leads" in done.stdout + done.stderr
    assert done.stderr.count("the first process trains alone: a step is one micro-batch") == 1
    assert (done.stdout + done.stderr).count("Report: ") == 1
    same_results(alone / "one", alone / "two")


@pytest.mark.slow
def test_accelerate_gives_the_same(alone):
    done = started(alone, ACCELERATE, "--output-dir", str(alone / "accelerated"))
    assert done.returncode == 0, done.stderr
    same_results(alone / "one", alone / "accelerated")


@pytest.mark.slow
def test_a_failure_ends_both_with_one_error(alone):
    done = started(alone, TORCHRUN, "--output-dir", str(alone / "one" / "results"))
    assert done.returncode != 0
    assert done.stderr.count("Error: ") == 1 + done.stderr.count("ChildFailedError: ")
    assert "is not empty and is not a run folder" in done.stderr


@pytest.mark.slow
def test_ctrl_c_saves_a_checkpoint_and_the_same_command_continues(alone):
    into = ("--output-dir", str(alone / "stopped"))
    checkpoints = alone / "stopped" / "arms" / "full" / "seed-0" / "checkpoints"
    with (alone / "said").open("w+", encoding="utf-8") as said:
        process = subprocess.Popen(
            command(alone, TORCHRUN, *into), env=ENVIRONMENT, stdout=said, stderr=said, start_new_session=True
        )
        until = time.monotonic() + 300
        while not checkpoints.is_dir() and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(1.0)  # let the first steps begin; at whatever moment it comes, the result is the same
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the launcher and every process
        assert process.wait(120) != 0
        said.seek(0)
        assert "This is a bug" not in said.read()
    done = started(alone, TORCHRUN, *into)
    assert done.returncode == 0, done.stderr
    same_results(alone / "one", alone / "stopped")


def test_a_call_from_python_is_refused_where_each_process_would_run_it(monkeypatch, tmp_path, gpt2_folder):
    monkeypatch.setenv("WORLD_SIZE", "2")
    study = make_study(raw_study(write_reviews(tmp_path / "rows.csv"), gpt2_folder))
    with pytest.raises(
        RunError, match="2 processes were started, and each would run the whole study by itself"
    ):
        run(study, tmp_path / "run", device="cpu")
