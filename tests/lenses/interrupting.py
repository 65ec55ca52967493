"""A sweep that is interrupted and goes on: what was done is not done again, and the result is the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest


class _StopError(Exception):
    """What an interruption looks like to the sweep."""


def check_sweep_goes_on(
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    sweep: Callable[[Path | None], pl.DataFrame],
    folder: Path,
    shared: int = 1,
    name: str = "store",
) -> None:
    """Interrupt a sweep before its last piece but one, run it again, and compare with one that was left alone.

    Args:
        monkeypatch: Counts the pieces.
        module: Where the sweep looks up what runs every piece.
        sweep: Runs the whole sweep, with a folder for what is not finished, or without one.
        folder: That folder; it must not exist.
        shared: How many models of the sweep are one and the same, so that one finds what the other has done.
        name: What runs every piece.
    """
    store, runs = getattr(module, name), []
    stop_at: int | None = None

    def counted(*arguments: Any) -> Any:
        if stop_at is not None and len(runs) == stop_at:
            raise _StopError
        runs.append(1)
        return store(*arguments)

    monkeypatch.setattr(module, name, counted)
    expected = sweep(None)
    whole = len(runs) // shared
    assert whole > 2
    runs.clear()
    stop_at = whole - 1
    with pytest.raises(_StopError):
        sweep(folder)
    kept = list(folder.rglob("*.npz"))
    assert kept
    runs.clear()
    stop_at = None
    assert sweep(folder).equals(expected)
    assert len(runs) == whole - len(kept)
    assert not folder.exists()
