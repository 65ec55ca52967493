"""Both models at the same time: the same numbers, their own shares of the threads, errors as before."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from test_bench import TEXT, TEXTS, subject_of

from tunescope.errors import LensError, ModelError
from tunescope.lenses.bench import Bench
from tunescope.lenses.bench import bench as module
from tunescope.lenses.bench.at_once import are_apart, at_once
from tunescope.serve.work import Ended, Job, Worker

OFF = ["L0H1", "L1.attention", "L2.mlp"]


@pytest.fixture
def threads():
    """Set a number of threads, and put the old one back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=["gpt2", "distilbert"])
def subject(request, tmp_path_factory):
    return subject_of(tmp_path_factory.mktemp("at-once"), request.param)


def test_two_tasks_run_at_the_same_time_and_one_thread_does_them_in_turn(threads):
    threads(2)
    both = threading.Barrier(2)  # lets nobody through alone
    assert sorted(at_once({"a": lambda: both.wait(30), "b": lambda: both.wait(30)}).values()) == [0, 1]
    threads(1)
    mine = threading.get_ident()
    assert at_once({"a": threading.get_ident, "b": threading.get_ident}) == {"a": mine, "b": mine}


@pytest.mark.parametrize(("whole", "shares"), [(2, [1, 1]), (4, [2, 2]), (5, [2, 3])])
def test_each_has_its_share_of_the_threads_and_all_else_keeps_all(threads, whole, shares):
    threads(whole)
    for _ in range(2):
        found = at_once({"a": torch.get_num_threads, "b": torch.get_num_threads})
        assert list(found.items()) == list(zip("ab", shares, strict=True))
    assert torch.get_num_threads() == whole
    seen: list[int] = []
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [whole]


def test_a_share_of_one_thread_computes_on_one_thread(threads):
    """Processor time of the whole process against that of the thread: helpers of its own would show."""
    threads(2)
    left, right = torch.randn(64, 512), torch.randn(512, 2048)

    def compute() -> tuple[float, float]:
        for _ in range(5):
            torch.nn.functional.gelu(left @ right)
        process, thread = time.process_time(), time.thread_time()
        while time.thread_time() - thread < 0.3:
            torch.nn.functional.gelu(left @ right)
        return time.process_time() - process, time.thread_time() - thread

    # The other task waits, so that what the process spends beyond the thread would be helpers of the thread.
    done = threading.Event()

    def first() -> tuple[float, float]:
        try:
            return compute()
        finally:
            done.set()

    def second() -> tuple[float, float]:
        done.wait(60)
        return compute()

    for process, own in at_once({"a": first, "b": second}).values():
        assert process < 1.25 * own


def test_the_answers_are_those_of_one_model_after_another(subject, threads):
    threads(1)
    wanted = Bench(subject, reference_rows=12)
    list(wanted.prepare_means())
    before = [wanted.predict(TEXT), wanted.switched(TEXT, OFF), wanted.switched(TEXT, OFF, "mean")]
    before += [wanted.attention(TEXT, 1, 2), *(one["logits"] for one in wanted.swaps(TEXTS[4]))]
    threads(2)
    ours = Bench(subject, reference_rows=12)
    list(ours.prepare_means())
    after = [ours.predict(TEXT), ours.switched(TEXT, OFF), ours.switched(TEXT, OFF, "mean")]
    after += [ours.attention(TEXT, 1, 2), *(one["logits"] for one in ours.swaps(TEXTS[4]))]
    assert len(after) == len(before) > 4
    for one, other in zip(before, after, strict=True):
        assert list(one) == list(other) == ["base", "tuned"]
        for which in one:
            np.testing.assert_allclose(other[which], one[which], atol=1e-5)


def test_a_switch_asked_through_the_server_runs_on_both_threads(subject, threads, monkeypatch):
    threads(2)
    seen: list[str] = []
    kept = module._stored

    def stored(model, whole):
        seen.append(threading.current_thread().name)
        return kept(model, whole)

    monkeypatch.setattr(module, "_stored", stored)
    bench, ended, worker = Bench(subject), threading.Event(), Worker("asking")
    got: list[object] = []

    def deliver(item):
        got.append(item)
        if isinstance(item, Ended):
            ended.set()

    worker.submit(Job("one", 0, lambda: iter([bench.switched(TEXT, OFF)]), deliver))
    assert ended.wait(60)
    assert worker.close()
    assert isinstance(got[1], Ended)
    assert got[1].error is None
    assert set(got[0]) == {"base", "tuned"}
    assert {name.rpartition("_")[0] for name in seen} == {"tunescope-base", "tunescope-tuned"}


def test_an_error_is_the_first_models_and_nothing_runs_on(subject, threads, monkeypatch):
    threads(2)
    ended = []

    def broken(model, _whole):
        which = "base" if model is subject.base else "tuned"
        if which == "tuned":
            time.sleep(0.05)
        ended.append(which)
        raise ModelError(f"The {which} breaks here.")

    monkeypatch.setattr(module, "_stored", broken)
    bench = Bench(subject)
    with pytest.raises(ModelError, match="The base breaks here"):
        bench.predict(TEXT)
    assert ended == ["base", "tuned"]
    assert not bench._passes
    monkeypatch.undo()
    with pytest.raises(LensError, match="cannot be switched off"):
        bench.switched(TEXT, ["L0.norm"])
    assert set(bench.predict(TEXT)) == {"base", "tuned"}


def test_models_that_share_parts_run_one_after_another(subject, threads, tmp_path):
    threads(2)
    assert are_apart(subject)
    shared = subject_of(tmp_path)
    shared.base = shared.tuned
    assert not are_apart(shared)
    found = Bench(shared).predict(TEXT)
    np.testing.assert_array_equal(found["base"], found["tuned"])
