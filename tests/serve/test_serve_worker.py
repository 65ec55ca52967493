"""The worker: what is urgent goes first, the latest of a key wins, the queue is bounded, errors are told."""

from __future__ import annotations

import threading

import pytest

from tunescope.serve.work import Busy, Ended, Job, Worker


class Told:
    def __init__(self):
        self.answers, self.ended = [], threading.Event()
        self.end: Ended | None = None

    def __call__(self, item):
        if isinstance(item, Ended):
            self.end = item
            self.ended.set()
        else:
            self.answers.append(item)


@pytest.fixture
def worker():
    made = Worker("test", most=3)
    yield made
    assert made.close()


def test_an_urgent_job_overtakes_a_long_one_between_two_answers(worker):
    order, first, go = [], threading.Event(), threading.Event()

    def long():
        for number in range(3):
            order.append(f"long {number}")
            first.set()
            assert go.wait(5)
            yield {"n": number}

    def short():
        order.append("short")
        yield {"n": -1}

    one, other = Told(), Told()
    worker.submit(Job("long", 5, long, one))
    assert first.wait(5)
    worker.submit(Job("short", 0, short, other))
    go.set()
    assert one.ended.wait(5)
    assert order == ["long 0", "short", "long 1", "long 2"]
    assert [answer["n"] for answer in one.answers] == [0, 1, 2]
    assert not one.end.dropped


def test_the_latest_of_a_key_wins_and_the_older_is_told(worker):
    first, go = threading.Event(), threading.Event()

    def slow():
        first.set()
        assert go.wait(5)
        yield {"n": "old"}
        yield {"n": "older still"}

    old, new = Told(), Told()
    worker.submit(Job("tab", 0, slow, old))
    assert first.wait(5)
    worker.submit(Job("tab", 0, lambda: iter([{"n": "new"}]), new))
    assert old.ended.wait(5)
    go.set()
    assert new.ended.wait(5)
    assert old.end.dropped
    assert old.answers == []
    assert new.answers == [{"n": "new"}]


def test_a_full_queue_refuses_and_an_error_does_not_end_the_worker(worker):
    first, go = threading.Event(), threading.Event()

    def blocking():
        first.set()
        assert go.wait(5)
        yield {}

    def broken():
        raise ValueError("no such thing")
        yield {}

    told = [Told() for _ in range(3)]
    worker.submit(Job(0, 0, blocking, told[0]))
    assert first.wait(5)
    worker.submit(Job(1, 0, broken, told[1]))
    worker.submit(Job(2, 0, lambda: iter([{"n": 2}]), told[2]))
    with pytest.raises(Busy):
        worker.submit(Job(3, 0, blocking, Told()))
    go.set()
    assert all(one.ended.wait(5) for one in told)
    assert str(told[1].end.error) == "no such thing"
    assert told[2].answers == [{"n": 2}]


def test_a_cancelled_job_is_not_done(worker):
    first, go = threading.Event(), threading.Event()

    def blocking():
        first.set()
        assert go.wait(5)
        yield {}

    told, never = Told(), Told()
    worker.submit(Job(0, 0, blocking, told))
    assert first.wait(5)
    job = Job(1, 0, lambda: iter([{}]), never)
    worker.submit(job)
    worker.cancel(job)
    go.set()
    assert told.ended.wait(5)
    assert not worker.is_busy
    assert never.answers == []


def test_a_closed_worker_takes_nothing():
    worker = Worker("test")
    assert worker.close()
    with pytest.raises(Busy):
        worker.submit(Job(0, 0, lambda: iter([]), Told()))
