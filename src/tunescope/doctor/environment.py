"""What tunescope finds on this machine: versions, devices, threads, memory, caches and optional libraries."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
from pathlib import Path
from typing import Any

from tunescope import __version__
from tunescope.environment import installed_version

OFFLINE_FLAGS = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
EXTRAS_FOR_USERS = ("peft", "minilm", "maps", "summaries", "wandb", "serve", "export", "spark")
_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*([^;]*?)\s*(?:;\s*(.*))?$")


def environment() -> dict[str, Any]:
    """Return what this machine offers, JSON-able; imports torch and reads no network."""
    return {
        "tunescope": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "libraries": _libraries(),
        "devices": _devices(),
        "threads": _threads(),
        "memory_gib": _memory(),
        "caches": _caches(),
        "offline": {flag: os.environ.get(flag) for flag in OFFLINE_FLAGS},
        "extras": _extras(),
    }


def processor() -> str:
    """Return the processor's name, as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.processor() or platform.machine()
    return platform.processor() or platform.machine()


def _requirements() -> list[tuple[str, str, str | None]]:
    """Return the name, version bound and extra of everything tunescope declares that it needs."""
    found = []
    for text in importlib.metadata.requires("tunescope") or []:
        match = _REQUIREMENT.match(text)
        if match is None:
            continue
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", match[3] or "")
        found.append((match[1], match[2], extra[1] if extra else None))
    return found


def _libraries() -> dict[str, dict[str, str | None]]:
    return {
        name: {"installed": installed_version(name), "needed": bound}
        for name, bound, extra in sorted(_requirements())
        if extra is None
    }


def _extras() -> dict[str, dict[str, Any]]:
    """Return the optional libraries, and the command that installs each extra that is not there."""
    extras: dict[str, dict[str, Any]] = {}
    for name, _, extra in _requirements():
        if extra in EXTRAS_FOR_USERS:
            entry = extras.setdefault(extra, {"libraries": {}, "install": None})
            entry["libraries"][name] = installed_version(name)
            if entry["libraries"][name] is None:
                entry["install"] = f'pip install "tunescope[{extra}]"'
    return extras


def _devices() -> list[dict[str, Any]]:
    import torch

    devices: list[dict[str, Any]] = [{"name": "cpu", "what": f"{os.cpu_count()} logical processors"}]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        about = torch.cuda.get_device_properties(index)
        what = f"{about.name}, {about.total_memory / 2**30:.0f} GiB"
        devices.append({"name": f"cuda:{index}", "what": what})
    if torch.backends.mps.is_available():
        devices.append({"name": "mps", "what": "Apple graphics processor"})
    return devices


def _threads() -> dict[str, Any]:
    import torch

    # processors that this process may use: fewer than the machine has, in containers and batch systems
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processors": usable,
        "torch": torch.get_num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "TOKENIZERS_PARALLELISM": os.environ.get("TOKENIZERS_PARALLELISM"),
    }


def _memory() -> dict[str, float | None]:
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total = page * os.sysconf("SC_PHYS_PAGES") / 2**30
        free = page * os.sysconf("SC_AVPHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):  # not told on Windows, nor in part on macOS
        return {"total": None, "free": None}
    return {"total": round(total, 1), "free": round(free, 1)}


def _caches() -> dict[str, dict[str, Any]]:
    import datasets
    from huggingface_hub import constants

    paths = {"hub": constants.HF_HUB_CACHE, "datasets": str(datasets.config.HF_DATASETS_CACHE)}
    return {name: {"path": path, "exists": Path(path).is_dir()} for name, path in paths.items()}


def environment_json() -> str:
    """Return the environment as JSON text."""
    return json.dumps(environment(), indent=2)


def environment_text() -> str:
    """Return the environment as lines to read, with the command for everything that is missing."""
    found = environment()
    lines = [
        f"tunescope  {found['tunescope']}",
        f"Python     {found['python']} on {found['platform']}",
        f"Processor  {found['processor']}",
        "",
        "Devices (--device auto takes the first graphics processor, or the cpu):",
        *(f"  {device['name']:<8} {device['what']}" for device in found["devices"]),
    ]
    memory = found["memory_gib"]
    if memory["total"] is not None:
        lines.append(f"  memory   {memory['total']} GiB, {memory['free']} GiB free")
    threads = found["threads"]
    lines += ["", f"Threads: torch uses {threads['torch']} of {threads['processors']} processors."]
    lines += [f"  {name}={value}" for name, value in threads.items() if name.isupper() and value is not None]
    lines += ["", "Libraries:"]
    for name, version in found["libraries"].items():
        lines.append(f"  {name:<14} {version['installed'] or 'MISSING':<12} needs {version['needed']}")
    lines += ["", "Optional libraries:"]
    for extra, entry in found["extras"].items():
        versions = ", ".join(
            f"{name} {version or 'not installed'}" for name, version in entry["libraries"].items()
        )
        lines.append(f"  {extra:<8} {versions}" + (f": {entry['install']}" if entry["install"] else ""))
    lines += ["", "Caches:"]
    for name, cache in found["caches"].items():
        lines.append(
            f"  {name:<8} {cache['path']}" + ("" if cache["exists"] else " (empty: nothing downloaded yet)")
        )
    set_flags = [f"{flag}={value}" for flag, value in found["offline"].items() if value]
    if set_flags:
        lines.append(f"Offline: {', '.join(set_flags)}; only models and data on this machine are found.")
    else:
        lines.append("Offline flags: none; hub ids are downloaded where the network allows it.")
    return "\n".join(lines)
