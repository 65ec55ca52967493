"""What training cost, in detail: trained parameters matrix by matrix, and the course of memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tunescope.report.figures import cost, style
from tunescope.report.read import RunFolder, reading
from tunescope.report.tables import Table
from tunescope.report.text import number, plural


def itemised(run: RunFolder) -> Iterable[tuple[str, int | None, str, Table]]:
    """Yield what each arm trains, matrix by matrix, from its first seed's parameters.json."""
    for arm in run.arm_names:
        item = next((one for one in run.of(arm) if one.matrices), None)
        if item is None or item.matrices is None:
            continue
        with reading(run.folder, f"arms/{arm}/seed-{item.seed}/parameters.json"):
            kept = [one for one in item.matrices if one["trained"]]
            frozen = [one for one in item.matrices if not one["trained"]]
            total = sum(int(one["of"]) for one in item.matrices)
            lines = tuple(_matrix(one) for one in kept)
            trained = sum(int(one["trained"]) for one in kept)
            rest = sum(int(one["of"]) for one in frozen)
        sentence = (
            f"{number(trained)} of {number(total)} parameters in {plural(len(kept), 'matrix')}".replace(
                "matrixs", "matrices"
            )
        )
        if frozen:
            sentence += f"; {number(rest)} parameters in {len(frozen)} more are frozen"
        columns = ("matrix", "shape", "trained", "of")
        yield arm, item.seed, sentence, Table(columns, (False, False, True, True), lines, len(lines))


def _matrix(one: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    shape = " × ".join(map(str, one["shape"])) or "scalar"
    name = str(one["matrix"])
    return (
        (name, name),
        (shape, shape),
        (number(int(one["trained"])), repr(one["trained"])),
        (number(int(one["of"])), repr(one["of"])),
    )


def memory_figure(run: RunFolder) -> style.Figure | None:
    """Return the course of memory over each training, or None where it was not recorded."""
    courses = []
    for item in run.arms:
        price = (item.metrics or {}).get("cost")
        course = price.get("memory") if isinstance(price, Mapping) else None
        if course:
            with reading(run.folder, f"arms/{item.arm}/seed-{item.seed}/metrics.json"):
                points = [(float(seconds), float(size)) for seconds, size in course]
            courses.append((item.arm, item.seed, points))
    panel = cost.memory_panel(courses, run.arm_names)
    if panel is None:
        return None
    caption = (
        "Memory of the process while training (on a GPU: allocated on it), one line a training. It holds what was "
        "loaded before, so compare the courses, and the peaks in the table of arms, within one run only."
    )
    return style.Figure("memory", "Memory over time", (panel,), caption, folded=True)
