"""Work in turns between processes, here threads with pipes: order, errors, lost processes, what is not shared."""

from __future__ import annotations

import threading
from multiprocessing import Pipe

import pytest
import torch
from torch import nn

from tunescope import processes
from tunescope.errors import ConfigError, DataError, RunError
from tunescope.processes import Team, in_turns


def crew(size, work):
    """Return a leader and the threads of its team, each of which calls ``work(team)``."""
    leader, threads = Team(0, size), []
    for rank in range(1, size):
        here, there = Pipe()
        leader.links[rank] = here
        threads.append(threading.Thread(target=work, args=(Team(rank, size, {0: there}),)))
        threads[-1].start()
    return leader, threads


@pytest.mark.parametrize(("size", "count"), [(1, 5), (2, 7), (3, 7), (3, 2), (2, 0)])
def test_items_come_in_order_and_each_is_made_once(size, count):
    made: list[tuple[int, int]] = []

    def make(rank):
        def one(item):
            made.append((rank, item))
            return item * item

        return one

    leader, threads = crew(size, lambda team: list(in_turns(range(count), make(team.rank), team)))
    assert list(in_turns(range(count), make(0), leader)) == [(item, item * item) for item in range(count)]
    for thread in threads:
        thread.join(5)
    assert sorted(made) == sorted((item % size, item) for item in range(count))


def test_without_a_team_nothing_is_parted():
    assert list(in_turns("abc", str.upper, None)) == [("a", "A"), ("b", "B"), ("c", "C")]


def test_the_error_of_another_process_is_the_leader_s():
    leader, threads = crew(2, lambda team: team.fail(DataError("row 7 is missing")))
    with pytest.raises(DataError, match="row 7 is missing"):
        list(in_turns(range(3), str, leader))
    threads[0].join(5)


def test_a_process_that_ended_is_named():
    leader, threads = crew(2, lambda team: team.links[0].close())
    threads[0].join(5)
    with pytest.raises(RunError, match=r"A process of this run ended, or cannot be reached \(1\)"):
        list(in_turns(range(3), str, leader))


def test_an_error_in_the_block_lets_the_others_go():
    ended = []

    def serve(team):
        assert team.told()[0] is print
        with pytest.raises(processes._Gone):
            team.told()
        ended.append(team.rank)

    leader, threads = crew(3, serve)

    def failing():
        with leader.share(print, 1):
            assert leader.sharing
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    for thread in threads:
        thread.join(5)
    assert sorted(ended) == [1, 2]
    assert not leader.sharing
    assert not leader.links


def test_few_rows_held_modules_and_nested_work_stay_with_the_leader(monkeypatch):
    leader = Team(0, 2, {1: object()})  # type: ignore[dict-item]
    monkeypatch.setattr(processes, "_TEAM", [leader])
    module = nn.Sequential(nn.Linear(2, 2))
    assert processes.team(64, module) is leader
    assert processes.team(63, module) is None
    handle = module[0].register_forward_hook(lambda *_: None)
    assert processes.team(64, module) is None
    handle.remove()
    module[0].forward = lambda value: value  # as accelerate wraps it
    assert processes.team(64, module) is None
    del module[0].forward
    leader.sharing = True
    assert processes.team(64, module) is None


def test_a_graphics_card_is_refused_for_several_processes(monkeypatch):
    processes.refuse_device("cuda")  # one process: nothing to refuse
    monkeypatch.setattr(processes, "_TEAM", [Team(0, 2)])
    processes.refuse_device("cpu")
    with pytest.raises(
        ConfigError, match="Several processes share work on processors alone; the device is cuda"
    ):
        processes.refuse_device("cuda")


def test_gradients_of_others_are_added_as_a_backward_pass_adds_them():
    from tunescope.training.crew import Crew

    torch.manual_seed(0)
    module, rows = nn.Linear(3, 2), torch.randn(6, 3)
    for start in (0, 2, 4):
        module(rows[start : start + 2]).square().sum().backward()
    expected = [one.grad.clone() for one in module.parameters()]
    module.zero_grad()
    seen = []
    module.weight.register_post_accumulate_grad_hook(lambda parameter: seen.append(parameter.grad.clone()))

    def second(team):
        step, mass, values, batches = team.told()
        assert (step, mass, batches) == (4, 6, [[0, 1], [2, 3], [4, 5]])
        other = nn.Linear(3, 2)
        with torch.no_grad():
            for parameter, value in zip(other.parameters(), values, strict=True):
                parameter.copy_(torch.from_numpy(value))
        loss = other(rows[2:4]).square().sum()
        loss.backward()
        team.answer((loss.detach(), [one.grad.numpy() for one in other.parameters()]))

    leader, threads = crew(2, second)
    shares = Crew(leader, module)
    shares.begin(4, 6, [{"positions": torch.tensor(pair)} for pair in ([0, 1], [2, 3], [4, 5])])
    for number, start in enumerate((0, 2, 4)):
        found = shares.take(number)
        assert (found is None) == (number != 1)
        if found is None:
            module(rows[start : start + 2]).square().sum().backward()
    threads[0].join(5)
    for parameter, gradient in zip(module.parameters(), expected, strict=True):
        assert torch.equal(parameter.grad, gradient)
    assert len(seen) == 3
    assert torch.equal(seen[-1], expected[0])


def test_a_step_of_one_micro_batch_is_sent_nowhere():
    from tunescope.training.crew import Crew

    leader = Team(0, 2, {})
    shares = Crew(leader, nn.Linear(2, 2))
    shares.begin(0, 2, [{"positions": torch.tensor([0, 1])}])
    assert shares.take(0) is None
