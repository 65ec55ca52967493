"""Two models at the same time, each on its share of the processor's threads.

Sharing one product of 64 tokens between two cores costs much of what it saves; two models that run side by side share
nothing. Numbers of threads belong to the thread that sets them (OpenMP's and MKL's own rule, which torch follows), so
the models run on two threads of their own, which keep their shares, and everything else keeps all threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar

import torch

from tunescope.lenses.subject import Subject

Name = TypeVar("Name")
Answer = TypeVar("Answer")


def at_once(tasks: Mapping[Name, Callable[[], Answer]]) -> dict[Name, Answer]:
    """Do two tasks at the same time; any other number, or with one thread to share, one after another.

    Args:
        tasks: What to do, by name. Two must have nothing in common that either changes; see :func:`are_apart`. Modes
            of the calling thread (gradients, inference) do not hold inside.

    Returns:
        The answers in the order of the tasks.

    Raises:
        Exception: Whatever a task raises, of several the first one's, after all have ended.
    """
    threads = torch.get_num_threads()
    if len(tasks) != 2 or threads < 2:
        return {name: task() for name, task in tasks.items()}
    running = {
        name: worker.submit(task)
        for worker, (name, task) in zip(_workers(threads), tasks.items(), strict=True)
    }
    wait(running.values())
    return {name: one.result() for name, one in running.items()}


def are_apart(subject: Subject) -> bool:
    """Whether base and tuned compute on the processor and have no module or configuration in common."""
    pair = (subject.base, subject.tuned)
    if any(model.device.type != "cpu" for model in pair):
        return False
    base, tuned = ({id(one) for one in (*model.modules(), model.model.config)} for model in pair)
    return not base & tuned


@cache
def _workers(threads: int) -> tuple[Executor, Executor]:
    """Return two threads that compute on half of so many threads each, for as long as the process lasts."""
    workers = (
        ThreadPoolExecutor(1, "tunescope-base"),
        ThreadPoolExecutor(1, "tunescope-tuned"),
    )
    for worker, share in zip(workers, (threads // 2, threads - threads // 2), strict=True):
        worker.submit(_take, share).result()
    torch.set_num_threads(threads)  # what threads yet to come begin with
    return workers


def _take(share: int) -> None:
    """Let the calling thread compute on so many threads."""
    torch.get_num_threads()  # a thread that computes for the first time takes what was set last, by whichever thread
    torch.set_num_threads(share)
