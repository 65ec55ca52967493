"""``tunescope serve``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def serve_runs(runs: Sequence[Path], port: int, device: str, memory_gb: float, open_browser: bool) -> None:
    """Serve run folders on this machine until Ctrl-C.

    Raises:
        RunError: A folder is not a run, or the port is in use.
        MissingDependencyError: starlette or uvicorn is not installed.
    """
    from tunescope.serve import ServeOptions, serve

    if not serve(runs, ServeOptions(port, device, memory_gb, open_browser)):
        os._exit(0)  # a thread inside torch cannot be ended, and Python would abort over it
