"""tunescope: tune language models on text, and see what tuning changed inside.

The names below are imported when they are first used, so that ``import tunescope`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Comparison": "tunescope.api",
    "Inspection": "tunescope.api",
    "Result": "tunescope.stats.results",
    "Run": "tunescope.api",
    "StudyConfig": "tunescope.config",
    "TunescopeCallback": "tunescope.watch",
    "TunescopeError": "tunescope.errors",
    "compare": "tunescope.api",
    "inspect": "tunescope.api",
    "load": "tunescope.models.load",
    "load_run": "tunescope.api",
    "load_trunk": "tunescope.models.load",
    "load_watched": "tunescope.watch",
    "run": "tunescope.api",
    "write_report": "tunescope.report",
}

__all__ = ["__version__", *sorted(_HOMES)]

if TYPE_CHECKING:
    from tunescope.api import Comparison, Inspection, Run, compare, inspect, load_run, run
    from tunescope.config import StudyConfig
    from tunescope.errors import TunescopeError
    from tunescope.models.load import load, load_trunk
    from tunescope.report import write_report
    from tunescope.stats.results import Result
    from tunescope.watch import TunescopeCallback, load_watched


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tunescope' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
