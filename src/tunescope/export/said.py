"""Options and counts of a run in the words of running text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from tunescope.export.words import code
from tunescope.report.text import plural, short_path


def counted(count: Any, word: str) -> str:
    """Return ``1 row``, ``2 rows``, or that the number is not known."""
    return plural(count, word) if isinstance(count, int) else f"an unknown number of {word}s"


def options_said(options: Mapping[str, Any] | None) -> str:
    """Return options as ``name value``, those that are not set left out."""
    told = [
        f"{name} {option_said(value)}"
        for name, value in (options or {}).items()
        if value not in (None, [], {})
    ]
    return ", ".join(told)


def option_said(value: Any) -> str:
    """Return one option's value, short: of entries with many fields their names."""
    if isinstance(value, Mapping):
        inner = [f"{key} {option_said(item)}" for key, item in value.items() if item not in (None, [], {})]
        return f"({', '.join(inner)})"
    if isinstance(value, (list, tuple)):
        return " ".join(
            _shown(next(iter(item.values()), "")) if isinstance(item, Mapping) else option_said(item)
            for item in value
        )
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return _shown(value)


def _shown(value: Any) -> str:
    """Return a plain value as code; of a path of this machine only its last part."""
    if isinstance(value, float):
        return code(f"{value:g}")
    text = str(value)
    return code(short_path(text) if PurePath(text).is_absolute() else text)
