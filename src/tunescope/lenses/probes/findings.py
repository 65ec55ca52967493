"""Sentences of the lens ``probes``: where the task becomes readable, and what tuning adds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from tunescope.lenses.geometry.pooled import site_name
from tunescope.lenses.subject import Subject
from tunescope.stats.results import Finding

LEVEL = 0.05
Record = dict[str, Any]


def findings(table: pl.DataFrame, subject: Subject) -> Sequence[Finding]:
    """Say from where on the task is readable in base and tuned, and where tuning adds most."""
    own = table.filter((pl.col("arm") == subject.arm) & pl.col("seed").eq_missing(pl.lit(subject.seed)))
    probes = own.filter(pl.col("metric") == "probe_accuracy").sort("layer")
    majority = own.filter(pl.col("metric") == "majority_accuracy").row(0, named=True)
    readable = {
        which: next(
            (
                row
                for row in probes.filter(pl.col("model") == which).iter_rows(named=True)
                if row["value"] > row["control"] and row["q"] <= LEVEL
            ),
            None,
        )
        for which in ("base", "tuned")
    }
    said = f"The task is readable (a linear probe beats the majority's {majority['value']:.2f}, q ≤ {LEVEL}) "
    if subject.same_trunk:
        return [_same_trunk(said, readable["tuned"], probes, subject)]
    gains = probes.filter(pl.col("model") == "tuned_minus_base")
    most = gains.sort("value", descending=True, maintain_order=True).row(0, named=True)
    there = {(row["metric"], row["model"]): row for row in own.iter_rows(named=True) if _at(row, most)}
    before, after = (there["probe_accuracy", which] for which in ("base", "tuned"))
    sentence = (
        f"{said}{_first(readable['base'])} in the base and {_first(readable['tuned'])} in the tuned model; "
        f"tuning adds most at {_place(most)}: {before['value']:.2f} to {after['value']:.2f}, "
        f"{most['value']:+.3f} [{most['low']:+.3f}, {most['high']:+.3f}]; selectivity there "
        f"{there['selectivity', 'tuned']['value']:.2f}{_untrained(there)}."
    )
    verdict = "found" if most["q"] <= LEVEL and most["value"] > 0 else "undecided"
    return [_finding(sentence, most, subject, verdict, f"the base's probe there: {before['value']:.3f}")]


def _same_trunk(said: str, first: Record | None, probes: pl.DataFrame, subject: Subject) -> Finding:
    best = probes.filter(pl.col("model") == "tuned").sort("value", descending=True, maintain_order=True)
    row = best.row(0, named=True)
    sentence = (
        f"{said}{_first(first)}, and best at {_place(row)}, {row['value']:.2f} [{row['low']:.2f}, "
        f"{row['high']:.2f}]; tuning left the trunk as it was, so base and tuned are the same here."
    )
    verdict = "found" if first is not None else "undecided"
    return _finding(sentence, row, subject, verdict, f"the majority: {row['control']:.3f}")


def _finding(sentence: str, row: Record, subject: Subject, verdict: str, control: str) -> Finding:
    return Finding(
        lens="probes", arm=subject.arm, sentence=sentence, metric="probe_accuracy", value=row["value"], low=row["low"],
        high=row["high"], n=row["n"], test=f"exact McNemar, corrected over layers: q = {row['q']:.2g}",
        control=control, rows=f"{row['n']} rows, probes fitted on {row['train_rows']} train rows",
        verdict="task not learned" if subject.learned is False else verdict,
    )  # fmt: skip


def _at(row: Record, place: Record) -> bool:
    return bool(row["site"] == place["site"] and row["layer"] == place["layer"])


def _first(row: Record | None) -> str:
    return "nowhere" if row is None else f"first at {_place(row)}"


def _place(row: Record) -> str:
    return site_name(row["site"], row["layer"])


def _untrained(there: dict[tuple[str, str], Record]) -> str:
    row = there.get(("probe_accuracy", "untrained"))
    return "" if row is None else f", a probe of an untrained model reaches {row['value']:.2f}"
