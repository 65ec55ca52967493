"""One text for equal documents, and in words what differs between two of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

MOST_CHANGES_SHOWN = 4


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
