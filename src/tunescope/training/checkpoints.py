"""Checkpoints that are whole, belong to this training, and can be opened by transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunescope.errors import RunError
from tunescope.files import read_json, sha256_of, write_json
from tunescope.folders import remove
from tunescope.progress import SILENT, Progress

SEAL = "complete.json"


def seal(checkpoint: Path, fingerprint: str, notes: Mapping[str, Any]) -> None:
    """Write the checksums of a checkpoint's files: the last file, so a checkpoint without it is not whole."""
    files = {
        path.relative_to(checkpoint).as_posix(): {"sha256": sha256_of(path), "size": path.stat().st_size}
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name != SEAL
    }
    write_json(checkpoint / SEAL, {"fingerprint": fingerprint, "files": files, **notes})


def step_of(checkpoint: Path) -> int:
    """Return the optimiser step of a ``checkpoint-N`` folder."""
    return int(checkpoint.name.rpartition("-")[2])


def all_checkpoints(folder: Path) -> list[Path]:
    """Return the ``checkpoint-N`` folders of ``folder``, newest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=step_of, reverse=True)


def latest(folder: Path, fingerprint: str, progress: Progress = SILENT) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest usable checkpoint with its seal, removing and naming what cannot be used.

    Args:
        folder: Folder of the checkpoints.
        fingerprint: What the training is; checkpoints of another are removed.
        progress: Told of what was removed.
    """
    for checkpoint in all_checkpoints(folder):
        reason, notes = _problem(checkpoint, fingerprint)
        if reason is None:
            return checkpoint, notes
        progress.say(f"  {checkpoint.name}: {reason}; not continued from it")
        remove(checkpoint)
    return None


def _problem(checkpoint: Path, fingerprint: str) -> tuple[str | None, dict[str, Any]]:
    if not (checkpoint / SEAL).is_file():
        return "it was not written to its end", {}
    try:
        notes = read_json(checkpoint / SEAL)
    except RunError:
        return f"{SEAL} is damaged", {}
    if notes["fingerprint"] != fingerprint:
        return "it belongs to other settings", {}
    for name, expected in notes["files"].items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing", {}
        if path.stat().st_size != expected["size"] or sha256_of(path) != expected["sha256"]:
            return f"{name} is damaged", {}
    return None, notes


def rotate(folder: Path, keep: int | None, best: str | None) -> None:
    """Remove all but the newest ``keep`` checkpoints; the best one always stays."""
    if keep is None:
        return
    protected = None if best is None else Path(best).name
    for checkpoint in all_checkpoints(folder)[max(keep, 1) :]:
        if checkpoint.name != protected:
            remove(checkpoint)
