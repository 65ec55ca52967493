"""Dropout of a micro-batch is a function of seed, step and its number, so it does not matter who computes it."""

from __future__ import annotations

import torch

from tunescope.training.callbacks import StepStream


def drawn(stream: StepStream, step: int, number: int) -> torch.Tensor:
    stream.step = step
    stream.reseed(number)
    return torch.rand(8)


def test_a_micro_batch_draws_the_same_whatever_came_before():
    here, there = StepStream(7), StepStream(7)
    in_order = [drawn(here, 3, number) for number in range(3)]
    alone = drawn(there, 3, 2)
    assert torch.equal(in_order[2], alone)
    assert not torch.equal(in_order[0], in_order[1])
    assert not torch.equal(drawn(here, 4, 2), alone)
    assert not torch.equal(drawn(StepStream(8), 3, 2), alone)


def test_the_first_micro_batch_draws_what_a_step_of_one_draws():
    stream = StepStream(7)
    stream.step = 5
    stream.reseed()
    assert torch.equal(torch.rand(8), drawn(stream, 5, 0))
