"""Independent trainings in processes of their own, each with its own device; one process keeps the records.

The parent begins and finishes every stage, so that the run folder has one writer of records. A worker is a fresh
interpreter (spawn) that is told one task, waits for a word before each of its steps, and answers with the notes.
Stopped, every worker saves a checkpoint, and the same command continues.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tunescope.config import StudyConfig
from tunescope.errors import RunError, TunescopeError
from tunescope.progress import Progress
from tunescope.runs import RunFolder, Stage

GRACE_SECONDS = 60.0  # for a checkpoint when everything is stopped
VISIBLE = "CUDA_VISIBLE_DEVICES"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Task:
    """What one worker does: the stages of one training, or of one model from nothing.

    Attributes:
        title: What is said when it starts.
        arm: The arm's name.
        seed: The study's seed, or None for a model from nothing.
        steps: Pairs of a kind of step and its stage, in order.
    """

    title: str
    arm: str
    seed: int | None
    steps: tuple[tuple[str, Stage], ...]


@dataclass(frozen=True)
class Order:
    """Everything that a worker must know; it can be pickled.

    Attributes:
        study: The study.
        folder: The run folder.
        device: The device, as the worker sees it.
        keep_checkpoints: Leave checkpoints in place.
        threads: Threads of the worker's own arithmetic.
    """

    study: StudyConfig
    folder: Path
    device: str
    keep_checkpoints: bool
    threads: int


@dataclass
class _Worker:
    task: Task
    place: str | None
    process: Any
    connection: Connection
    position: int = 0
    started: float = 0.0


def places(device: str, workers: int | None) -> list[str | None]:
    """Return where trainings may run at the same time: a visible CUDA device each, or None for this one.

    Args:
        device: The resolved device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        workers: How many processes were asked for; None is one for each visible CUDA device.
    """
    if device != "cuda":
        return [None] * (workers or 1)
    import torch

    given = [one for one in os.environ.get(VISIBLE, "").split(",") if one]
    names = given or [str(index) for index in range(torch.cuda.device_count())]
    count = workers or len(names)
    return [names[index % len(names)] for index in range(count)] if count > 1 else [None]


def run_tasks(
    run: RunFolder, tasks: Sequence[Task], order: Order, where: list[str | None], progress: Progress
) -> None:
    """Do tasks in worker processes, one for each place, until all are done.

    Raises:
        TunescopeError: What a worker could not do; the others are stopped and can be continued.
        KeyboardInterrupt: Ctrl-C came; every worker was stopped and saved a checkpoint.
    """
    waiting, free, busy = list(tasks), list(where), list[_Worker]()
    try:
        while waiting or busy:
            while waiting and free:
                busy.append(_start(waiting.pop(0), free.pop(0), order, progress))
                _next_step(busy[-1], run)
            for worker in _with_news(busy):
                if _hear(worker, run, progress):
                    busy.remove(worker)
                    free.append(worker.place)
    except BaseException:
        _stop(busy, progress)
        raise


def _start(task: Task, place: str | None, order: Order, progress: Progress) -> _Worker:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, task, order), daemon=False)
    given = {name: str(order.threads) for name in THREADS}  # read once, when the libraries are loaded
    with _environment(given | ({VISIBLE: place} if place is not None else {})):
        process.start()
    there.close()
    progress.say(f"{task.title}: started{f' on CUDA device {place}' if place is not None else ''}")
    return _Worker(task, place, process, here, started=time.monotonic())


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Any:
    """Set variables for a process that is started inside, as it reads them before anything is imported."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _with_news(busy: list[_Worker]) -> list[_Worker]:
    by_object: dict[Any, _Worker] = {}
    for worker in busy:
        by_object[worker.connection] = by_object[worker.process.sentinel] = worker
    return list({id(by_object[one]): by_object[one] for one in wait(list(by_object))}.values())


def _next_step(worker: _Worker, run: RunFolder) -> None:
    _, stage = worker.task.steps[worker.position]
    run.begin(stage)
    worker.connection.send("go")


def _hear(worker: _Worker, run: RunFolder, progress: Progress) -> bool:
    """Take a worker's answer; return whether it is done."""
    try:
        kind, content = worker.connection.recv()
    except (EOFError, OSError) as error:
        worker.process.join()
        raise RunError(
            f"The worker for {worker.task.title} ended without a word (exit code {worker.process.exitcode}).",
            hint="If the machine ran out of memory, use fewer --workers. The same command continues.",
        ) from error
    if kind == "error":
        worker.process.join()
        raise content if isinstance(content, TunescopeError) else RuntimeError(content)
    _, stage = worker.task.steps[worker.position]
    seconds = round(time.monotonic() - worker.started, 3)
    run.finish(stage, {"seconds": seconds, **(content or {})})
    worker.position += 1
    if worker.position < len(worker.task.steps):
        worker.started = time.monotonic()
        _next_step(worker, run)
        return False
    worker.connection.close()
    worker.process.join()
    progress.say(f"{worker.task.title}: done")
    return True


def _stop(busy: list[_Worker], progress: Progress) -> None:
    """Ask every worker to save a checkpoint and end; end those that do not."""
    for worker in busy:
        if (
            worker.process.is_alive() and sys.platform != "win32"
        ):  # there Ctrl-C reaches all processes by itself
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.process.pid, signal.SIGINT)
    if busy:
        progress.say(f"  stopping {len(busy)} workers; each saves a checkpoint")
    deadline = time.monotonic() + GRACE_SECONDS
    for worker in busy:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        if worker.process.is_alive():
            worker.process.terminate()
            worker.process.join(5)
        worker.connection.close()


# ---- in the worker ----


def _work(connection: Connection, task: Task, order: Order) -> None:
    """Do one task; every error goes back to the parent as a value."""
    if hasattr(os, "setsid"):
        os.setsid()  # the terminal's Ctrl-C reaches the parent alone, which then asks once
    _end_with_parent()
    try:
        steps = _prepared(task, order)
        for step in steps:
            if connection.recv() != "go":
                return
            connection.send(("done", step()))
    except TunescopeError as error:
        _tell(connection, error)
    except (KeyboardInterrupt, EOFError):
        return  # the parent asked this worker to stop, or is gone: either way nobody waits for an answer
    except BaseException:
        _tell(connection, traceback.format_exc())


def _tell(connection: Connection, content: Any) -> None:
    with contextlib.suppress(OSError):
        connection.send(("error", content))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _prepared(task: Task, order: Order) -> list[Callable[[], Any]]:
    import torch

    from tunescope.models.source import quiet_transformers
    from tunescope.study.context import Context
    from tunescope.study.perform import perform
    from tunescope.study.stages import declare

    torch.set_num_threads(order.threads)
    context = Context(
        order.study, RunFolder(order.folder), order.device, Progress(quiet=True), order.keep_checkpoints
    )
    declare(context)  # fingerprints of checkpoints depend on the stages before
    arm = next(one for one in order.study.arms if one.name == task.arm)

    def step(kind: str, stage: Stage) -> Any:
        with quiet_transformers():
            return perform(context, kind, arm, task.seed, stage)

    return [lambda kind=kind, stage=stage: step(kind, stage) for kind, stage in task.steps]  # type: ignore[misc]
