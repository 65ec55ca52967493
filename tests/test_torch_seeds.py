"""Seeding torch in a loop: the draws of torch.manual_seed, and no stacks beside."""

from __future__ import annotations

import traceback

import pytest
import torch

from tunescope.seeds import seed_torch


@pytest.mark.parametrize("seed", [0, 7, 2**31 - 1])
def test_draws_are_those_of_torch(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        expected = torch.rand(5), torch.dropout(torch.ones(50), 0.3, True)
        seed_torch(seed)
        assert all(map(torch.equal, (torch.rand(5), torch.dropout(torch.ones(50), 0.3, True)), expected))


@pytest.mark.skipif(torch.cuda.is_initialized(), reason="a device in use is seeded at once")
def test_no_stack_is_written_for_devices_that_are_not_in_use(monkeypatch):
    stacks = []
    monkeypatch.setattr(traceback, "format_stack", lambda *_: stacks.append(1) or [])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert stacks, "torch writes none any more: seed_torch can go"
        stacks.clear()
        seed_torch(0)
    assert not stacks
