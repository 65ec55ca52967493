"""Trainings that were stopped half-way: what they belong to, and the refusal to lose them to another study."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from tunescope.config import ArmConfig
from tunescope.errors import Interrupted, RunError
from tunescope.files import read_json, write_json
from tunescope.fingerprints import changed_keys
from tunescope.folders import remove
from tunescope.runs import RunFolder, Stage
from tunescope.study.context import Context, is_prompted, stage_name

STARTED = "started.json"  # lies beside the checkpoints of a training from its start to its end


def note_start(run: RunFolder, stage: Stage, checkpoints: Path) -> None:
    """Write down what a training that begins or goes on depends on; :func:`note_end` takes it away."""
    before = {name: run.fingerprint(run.stages[name]) for name in stage.after}
    checkpoints.mkdir(parents=True, exist_ok=True)
    write_json(
        checkpoints / STARTED,
        {"fingerprint": run.fingerprint(stage), "inputs": dict(stage.inputs), "after": before},
    )


def note_end(checkpoints: Path) -> None:
    """Say that a training is finished: checkpoints that stay are then no half-finished work."""
    (checkpoints / STARTED).unlink(missing_ok=True)


def keep_half_finished(context: Context, restart: bool) -> None:
    """Look before anything runs for half-finished trainings that the study, as it is now, would not continue.

    A finished training is not meant: where the study changed, it is done again, and the run says so.

    Args:
        context: The study and its run folder, stages declared.
        restart: Remove such checkpoints, and train from the beginning.

    Raises:
        RunError: There is one, and ``restart`` is not asked for; what differs is named.
    """
    for arm in context.study.arms:
        for seed in context.study.seeds if not is_prompted(arm) else ():
            checkpoints = context.arm_folder(arm, seed) / "checkpoints"
            differs = _differs(context.run, arm, seed, checkpoints)
            if not differs:
                continue
            name, said = f"{arm.name}, seed {seed}", "; ".join(differs)
            if restart:
                remove(checkpoints)
                context.progress.say(f"  {name}: trained from the beginning (--restart), because: {said}")
                continue
            raise RunError(
                f"The training {name} is half finished in {checkpoints}, and it belongs to another study or "
                f"other data: {said}.",
                hint="Undo the change to continue it, add --restart to train it from the beginning, or choose "
                "another folder with --output-dir.",
            )


def _differs(run: RunFolder, arm: ArmConfig, seed: int, checkpoints: Path) -> list[str]:
    """Name what differs between a half-finished training and the study; empty where there is none, or nothing does."""
    if not any(checkpoints.glob("checkpoint-*/complete.json")):
        return []
    try:
        started = read_json(checkpoints / STARTED)
    except RunError:
        return []  # finished, or its note is damaged: the training's own check of its checkpoints decides
    stage = run.stages[stage_name("train", arm, seed)]
    if started.get("fingerprint") == run.fingerprint(stage):
        return []
    differs = changed_keys(started["inputs"], stage.inputs)
    for name in stage.after:
        if started["after"].get(name) != run.fingerprint(run.stages[name]):
            reasons = run.decide(run.stages[name]).reasons
            differs.append(f"{name} ({'; '.join(reasons)})" if reasons else f"{name} is another")
    return differs or ["the code that trains"]


@contextlib.contextmanager
def ending_cleanly() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C while the block runs; either ends in :class:`Interrupted`, with what is done kept.

    A training that is under way takes both itself and saves a checkpoint first.

    Raises:
        Interrupted: A signal to stop came; its name is said.
    """
    by = "Ctrl-C"

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal by
        by = signal.Signals(number).name
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()  # no other thread may take signals
    before: Any = signal.signal(signal.SIGTERM, stop) if main else None
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"Stopped by {by}; what was finished is kept.",
            hint="Run the same command again: it continues with what is missing.",
        ) from error
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
