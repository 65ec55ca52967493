"""Looking inside a model while it is trained, in anyone's own script that uses transformers' Trainer."""

from __future__ import annotations

from tunescope.watch.callback import TunescopeCallback
from tunescope.watch.correlation import correlations
from tunescope.watch.records import Watched, load_watched
from tunescope.watch.schedule import Schedule

__all__ = ["Schedule", "TunescopeCallback", "Watched", "correlations", "load_watched"]
