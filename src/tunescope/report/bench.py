"""The bench's row on the page: one text whose every single switch was worked out beforehand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from tunescope.errors import RunError
from tunescope.files import read_json
from tunescope.report.read import RunFolder

PATTERN = "*/seed-*/bench/row.json"
NEEDED = ("arm", "seed", "labels", "layers", "heads", "row_id", "text", "words", "models", "chosen")

PLAIN = ("arm", "seed", "base_head", "labels", "layers", "heads", "row_id", "label", "cut", "chosen")


@dataclass(frozen=True)
class Shown:
    """The rows that the section shows.

    Attributes:
        rows: One an arm; without texts their words are left out.
        payload: The same as JSON that is safe inside a script element.
        has_texts: Whether the texts may be shown.
    """

    rows: tuple[dict[str, Any], ...]
    payload: Markup
    has_texts: bool


def bench(run: RunFolder) -> Shown | None:
    """Return the rows that a run worked out for its report, or None where there is none.

    Raises:
        RunError: A row is damaged; its file is named.
    """
    rows = []
    for path in sorted((run.folder / "looks").glob(PATTERN)):
        row = read_json(path)
        missing = [name for name in NEEDED if name not in row]
        if missing:
            raise RunError(f"{path}: expected the entry {missing[0]!r}.", hint="Remove it and run again.")
        rows.append(_without_text(row) if run.texts == "none" else row)
    shown = [row for row in rows if row["arm"] in run.arm_names]
    if not shown:
        return None
    shown.sort(key=lambda row: (run.arm_names.index(row["arm"]), row["seed"] or 0))
    return Shown(tuple(shown), _safe(shown), run.texts != "none")


def _without_text(row: dict[str, Any]) -> dict[str, Any]:
    """Return what is no text of the row; what is not known to be none is left out."""
    models = {
        name: {"logits": model["logits"], "off": model["off"], "words": []}
        for name, model in row["models"].items()
    }
    return {**{name: row[name] for name in PLAIN if name in row}, "text": "", "words": [], "models": models}


def _safe(rows: list[dict[str, Any]]) -> Markup:
    document = json.dumps(rows, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        document = document.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(document)
