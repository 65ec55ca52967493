"""Short names for checkpoints, made from where they lie."""

from __future__ import annotations

import re
from collections.abc import Sequence

GENERIC = re.compile(r"model|checkpoint-\d+|seed-\d+")  # says little without the folder above it


def arm_names(paths: Sequence[str]) -> list[str]:
    """Return a short, unique, folder-safe name for every checkpoint, made from the end of its path."""
    parts = [
        [part for part in re.split(r"[\\/]+", str(path)) if part not in ("", ".", "..")] for path in paths
    ]
    names: list[str] = []
    for own in parts:
        depth = next((n for n, part in enumerate(reversed(own), 1) if not GENERIC.fullmatch(part)), len(own))
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(own[-depth:])).strip("-._") or "tuned"
        name = name[-60:].lstrip("-._")
        taken = sum(other == name or other.startswith(f"{name}-again-") for other in names)
        names.append(name if not taken else f"{name}-again-{taken}")
    return names
