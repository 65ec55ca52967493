"""One text for equal documents, in words what differs between two of them, and checksums of data and model folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunescope.files import sha256_of

MOST_CHANGES_SHOWN = 4
MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model")


def canonical_json(document: Any) -> str:
    """Return the one JSON text of a document: sorted keys, no spaces, no NaN."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_of_json(document: Any) -> str:
    """Return the SHA-256 of a document's canonical JSON, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Name the dotted keys whose values differ, as ``key: old -> new``; at most a few, then a count."""
    before, after = dict(_flat(json.loads(canonical_json(old)))), dict(_flat(json.loads(canonical_json(new))))
    lines = [
        f"{key}: {_short(before.get(key))} -> {_short(after.get(key))}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]
    more = len(lines) - MOST_CHANGES_SHOWN
    return lines[:MOST_CHANGES_SHOWN] + ([f"and {more} more changes"] if more > 0 else [])


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _short(value: Any) -> str:
    text = "unset" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def data_digests(path: Any) -> dict[str, str]:
    """Return the checksum of every local file that a data path names; hub ids and URLs have none.

    Args:
        path: The study's ``data.path``: a file, glob, folder, hub id, a list of them, or a mapping to them.
    """
    if isinstance(path, dict):
        return {key: value for part in path.values() for key, value in data_digests(part).items()}
    if isinstance(path, list | tuple):
        return {key: value for part in path for key, value in data_digests(part).items()}
    found = Path(path)
    if found.is_file():
        return {str(path): sha256_of(found)}
    if found.is_dir():
        return {str(path): _folder_digest(found, ("**/*",))}
    if "://" not in str(path) and any(sign in str(path) for sign in "*?["):
        root = Path(found.anchor or ".")
        pattern = str(found.relative_to(root)) if found.anchor else str(path)
        return {str(one): sha256_of(one) for one in sorted(root.glob(pattern)) if one.is_file()}
    return {}


def model_digest(path: str) -> str | None:
    """Return a checksum of a local model folder's files, or None for a hub id."""
    return _folder_digest(Path(path), MODEL_FILES) if Path(path).is_dir() else None


def _folder_digest(folder: Path, patterns: tuple[str, ...]) -> str:
    files = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return sha256_of_json({path.relative_to(folder).as_posix(): sha256_of(path) for path in files})
