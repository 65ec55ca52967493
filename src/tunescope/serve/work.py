"""One thread that computes, slice by slice: short questions first, and the latest question of a tab wins.

A job is an iterator of answers. Between two answers the worker looks whether something more urgent has come, so that
a long sweep never holds up a prediction. A job whose key comes again is dropped, wherever it stands.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any


class Busy(Exception):
    """The queue is full."""


class Ended:
    """What a job delivers last: done, dropped for a later one, or failed with an error."""

    def __init__(self, error: BaseException | None = None, dropped: bool = False) -> None:
        self.error, self.dropped = error, dropped


@dataclass(eq=False)
class Job:
    """Work that answers in pieces.

    Attributes:
        key: A later job of the same key replaces this one.
        urgency: Smaller is done first; jobs of equal urgency take turns.
        make: Called once in the worker; its iterator gives the answers.
        deliver: Called in the worker with each answer and at last with :class:`Ended`.
    """

    key: Hashable
    urgency: int
    make: Callable[[], Iterator[dict[str, Any]]]
    deliver: Callable[[dict[str, Any] | Ended], None]
    cancelled: threading.Event = field(default_factory=threading.Event)
    answers: Iterator[dict[str, Any]] | None = None
    turn: int = 0


class Worker:
    """A thread with a bounded queue of jobs.

    Args:
        name: Of the thread.
        most: How many jobs wait at most.
    """

    def __init__(self, name: str, most: int = 64) -> None:
        self.most = most
        self._jobs: dict[Hashable, Job] = {}
        self._turns = itertools.count()
        self._change = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Take a job on; an older one of the same key is dropped.

        Raises:
            Busy: Too many jobs wait already, or the worker is closed.
        """
        with self._change:
            older = self._jobs.pop(job.key, None)
            if older is not None:
                older.cancelled.set()
            if self._closed or len(self._jobs) >= self.most:
                raise Busy
            job.turn = next(self._turns)
            self._jobs[job.key] = job
            self._change.notify()
        if older is not None:
            older.deliver(Ended(dropped=True))

    def cancel(self, job: Job) -> None:
        """Drop a job that nobody waits for any more."""
        with self._change:
            job.cancelled.set()
            if self._jobs.get(job.key) is job:
                del self._jobs[job.key]

    @property
    def is_busy(self) -> bool:
        """Whether a job waits or is being done."""
        with self._change:
            return bool(self._jobs)

    def close(self, seconds: float = 1.0) -> bool:
        """Take nothing more and end the thread after the slice that it is in; False where that takes longer."""
        with self._change:
            self._closed = True
            self._jobs.clear()
            self._change.notify()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            with self._change:
                while not self._jobs and not self._closed:
                    self._change.wait()
                if self._closed:
                    return
                job = min(self._jobs.values(), key=lambda one: (one.urgency, one.turn))
            self._slice(job)

    def _slice(self, job: Job) -> None:
        """Do one step of a job, and put it behind those of equal urgency."""
        ended: Ended | None = None
        answer: dict[str, Any] | None = None
        try:
            job.answers = job.make() if job.answers is None else job.answers
            answer = next(job.answers)
        except StopIteration:
            ended = Ended()
        except Exception as error:
            ended = Ended(error)
        with self._change:
            mine = self._jobs.get(job.key) is job
            if mine and ended is not None:
                del self._jobs[job.key]
            job.turn = next(self._turns)
        if mine and not job.cancelled.is_set():
            if answer is not None:
                job.deliver(answer)
            if ended is not None:
                job.deliver(ended)
