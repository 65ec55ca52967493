"""Where a run was made: versions, machine, device, threads and command, so that it can be made again."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

from tunescope import __version__

LIBRARIES = (
    "torch", "transformers", "tokenizers", "accelerate", "peft", "datasets", "safetensors", "numpy", "scipy",
    "scikit-learn", "polars", "pyarrow", "pydantic", "plotly",
)  # fmt: skip


def environment(device: str, command: str | None = None) -> dict[str, Any]:
    """Return what a run's ``environment.json`` holds.

    Args:
        device: The device that the run computes on.
        command: The command that made the run; None means this process's own.
    """
    import torch

    return {
        "tunescope": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "libraries": {
            name: version for name in LIBRARIES if (version := installed_version(name)) is not None
        },
        "device": device,
        "device_name": torch.cuda.get_device_name(device)
        if device.startswith("cuda")
        else platform.processor(),
        "threads": {"torch": torch.get_num_threads(), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")},
        "command": command or command_line(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "doctor": doctor_record(),
    }


def doctor_record_path() -> Path:
    """Return where ``tunescope doctor`` keeps its last result: ``$XDG_CACHE_HOME/tunescope/doctor.json``."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "tunescope" / "doctor.json"


def doctor_record() -> dict[str, Any] | None:
    """Return what the last whole ``tunescope doctor`` on this machine said, or None where it never ran.

    Returns:
        ``date``, ``passed``, ``version`` (of tunescope), ``machine`` and ``missed`` (names of checks); None also where
        the file is damaged or of another format, since it then vouches for nothing.
    """
    try:
        found = json.loads(doctor_record_path().read_text(encoding="utf-8"))
        record = {name: found[name] for name in ("date", "passed", "version", "machine", "missed")}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if found.get("format_version") == 1 else None


def command_line() -> str:
    """Return this process's command as a shell would read it, the program by its bare name."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def installed_version(name: str) -> str | None:
    """Return the version of an installed library, or None where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
