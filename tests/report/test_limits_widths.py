"""How sure accuracies are, as the page says it: by rows alone, or by rows and seeds, which differs by arm."""

from __future__ import annotations

from types import SimpleNamespace

from tunescope.report.limits import _widths
from tunescope.report.text import Estimate


def score(arm, low, high, seeds):
    return SimpleNamespace(arm=arm, seeds=seeds, accuracy=Estimate((low + high) / 2, low, high, 872))


def test_of_one_seed_the_rows_say_it():
    (said,) = _widths(SimpleNamespace(split="test"), [score("a", 0.70, 0.76, 1), score("b", 0.8, 0.84, 1)])
    assert said.startswith(
        "With 872 test rows, an accuracy is known to about ±3.0 percentage points; arms closer"
    )


def test_of_several_seeds_the_surest_and_the_least_sure_arm_are_named():
    (said,) = _widths(SimpleNamespace(split="test"), [score("a", 0.24, 1.0, 2), score("b", 0.8, 0.85, 2)])
    assert said.startswith(
        "With 872 test rows and 2 seeds, accuracies are known to ±2.5 (b) to ±38.0 percentage points (a); arms"
    )
    assert list(_widths(SimpleNamespace(split="test"), [])) == []
