"""What the numbers stand on: the trust bar, the rows a result is about, and how to reproduce the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from tunescope.files import read_json
from tunescope.report.figures.ablation import SIGNIFICANT
from tunescope.report.figures.select import only, values
from tunescope.report.read import SPLITS, LensResult, RunFolder, reading
from tunescope.report.text import finite, listed, number, percent, plural, visible

MUCH_TRUNCATION = 0.05
MOST_SAID = 96  # characters of a red finding in the trust bar
FEW_ROWS = 500
SUMMARIES = "summaries.json"
ROWLESS = ("weights", "weight_statistics")  # they read the weights alone; their n counts entries


@dataclass(frozen=True)
class Trust:
    """One cell of the trust bar; ``state`` is ``ok``, ``care``, ``alarm`` or ``unknown``."""

    name: str
    value: str
    note: str
    state: str


def trust_bar(run: RunFolder) -> list[Trust]:
    """Return rows, seeds, the audit (or repeated texts), truncation, corrected tests and doctor, each with a state."""
    checked = _repeats(run) if run.audit is None else _audit(run)
    if run.inspected:  # nothing was trained; without rows the weights alone were read
        looked = [_rows(run), checked, _truncation(run), _tests(run)] if run.summary is not None else []
        return [*looked, _doctor(run)]
    return [_rows(run), _seeds(run), checked, _truncation(run), _tests(run), _doctor(run)]


def _doctor(run: RunFolder) -> Trust:
    """Return when the machine that ran this was last checked against known truths, and with what result."""
    environment = run.environment or {}
    record = environment.get("doctor")
    if not isinstance(record, Mapping) or not record.get("date"):
        return Trust("Doctor", "never run", "tunescope doctor checks this machine", "unknown")
    date, version = str(record["date"])[:10], str(record.get("version") or "")
    if record.get("passed") is not True:
        return Trust("Doctor", date, "not passed: numbers of this machine may be wrong", "alarm")
    if version and version != str(environment.get("tunescope") or version):
        return Trust("Doctor", date, f"passed by another version, {version}", "care")
    return Trust("Doctor", date, "passed on this machine", "ok")


def _audit(run: RunFolder) -> Trust:
    """Return what the audit of the rows found; a red finding is said in its own words."""
    with reading(run.folder, "data/audit.json"):
        found = [(str(one["severity"]), str(one["sentence"])) for one in (run.audit or {})["findings"]]
    reds = [sentence for severity, sentence in found if severity == "red"]
    amber = sum(severity == "amber" for severity, _ in found)
    if reds:
        more = f" And {len(reds) - 1} more." if len(reds) > 1 else ""
        return Trust("Data audit", f"{len(reds)} red", f"{visible(reds[0], MOST_SAID)}{more}", "alarm")
    if amber:
        return Trust("Data audit", "no red finding", f"{amber} amber", "care")
    return Trust("Data audit", "clean", "no red or amber finding", "ok")


def _rows(run: RunFolder) -> Trust:
    rows = (run.summary or {}).get("rows") or {}
    if not rows:
        return Trust("Rows", "unknown", "data/summary.json is missing", "unknown")
    tested = rows.get(run.split or "test") or 0
    order = [*[split for split in reversed(SPLITS) if split in rows], *[s for s in rows if s not in SPLITS]]
    counts = " · ".join(f"{number(rows[split])} {split}" for split in order)
    return Trust("Rows", number(sum(rows.values())), counts, "care" if tested < FEW_ROWS else "ok")


def _seeds(run: RunFolder) -> Trust:
    if not run.seeds:
        return Trust("Seeds", "none", "nothing was trained in this run", "unknown")
    count = len(run.seeds)
    note = "spread over seeds is not known" if count == 1 else f"seeds {listed(map(str, run.seeds))}"
    return Trust("Seeds", str(count), note, "care" if count == 1 else "ok")


def truncation(run: RunFolder) -> list[tuple[str, str, int, int]]:
    """Return (arm, split, rows, truncated rows) over all classes."""
    found = []
    for arm, splits in run.of_arms("truncated").items():
        for split, labels in splits.items():
            counts = [cell for cell in labels.values() if isinstance(cell, dict)]
            found.append(
                (
                    arm,
                    split,
                    sum(c.get("rows", 0) for c in counts),
                    sum(c.get("truncated", 0) for c in counts),
                )
            )
    for arm, splits in run.of_arms("cut").items():  # of studies that summarise: articles that were cut
        found += [(arm, split, int(one["rows"]), int(one["rows_cut"])) for split, one in splits.items()]
    return found


def _truncation(run: RunFolder) -> Trust:
    counted = [(cut / rows, arm, split) for arm, split, rows, cut in truncation(run) if rows]
    if not counted:
        return Trust("Truncated", "unknown", "truncation was not counted", "unknown")
    share, arm, split = max(counted)
    note = f"of texts at most ({arm}, {split})" if share else "no text was cut"
    return Trust("Truncated", percent(share), note, "care" if share > MUCH_TRUNCATION else "ok")


def corrected_tests(run: RunFolder) -> tuple[int, int]:
    """Return how many corrected tests the result tables hold, and how many survive at q <= 0.05."""
    total = kept = 0
    for result in run.results.values():
        table = result.table
        if "q" not in table.columns or not table["q"].dtype.is_numeric():
            continue
        if "control" in table.columns and table["control"].dtype == pl.String:
            table = table.filter(pl.col("control").is_null() | (pl.col("control") == "none"))
        q = table["q"].drop_nulls().drop_nans()
        total, kept = total + q.len(), kept + int((q <= SIGNIFICANT).sum())
    if (run.folder / SUMMARIES).is_file():  # arms and lead-3 in pairs
        with reading(run.folder, SUMMARIES):
            known = [one["q"] for one in read_json(run.folder / SUMMARIES)["records"] if one["q"] is not None]
        total, kept = total + len(known), kept + sum(one <= SIGNIFICANT for one in known)
    return total, kept


def _tests(run: RunFolder) -> Trust:
    total, kept = corrected_tests(run)
    if not total:
        return Trust("Tests that survive", "none", "no result holds corrected tests", "unknown")
    note = f"{number(kept)} of {number(total)} at q ≤ {SIGNIFICANT}"
    return Trust("Tests that survive", percent(kept / total), note, "ok")


def _repeats(run: RunFolder) -> Trust:
    if run.rows is None:
        return Trust("Repeated texts", "unknown", "data/rows.parquet is missing", "unknown")
    repeats = run.rows.height - run.rows["text"].n_unique()
    shared = 0
    if "split" in run.rows.columns:
        splits = run.rows.group_by("text").agg(pl.col("split").n_unique().alias("splits"))
        shared = splits.filter(pl.col("splits") > 1).height
    note = f"{plural(shared, 'text')} in more than one split" if shared else "no text in more than one split"
    return Trust("Repeated texts", number(repeats), note, "care" if shared else "ok")


def base_heads(table: pl.DataFrame) -> list[str]:
    """Return what gave the base its logits in a table's rows about the base."""
    if not {"base_head", "model"} <= set(table.columns):
        return []
    return [str(head) for head in values(only(table, model="base"), "base_head")]


def rows_said(result: LensResult) -> str:
    """Return which rows a result is about: ``512 rows of validation (stratified sample)``.

    The provenance may hold the number that was asked for; the table holds how many there were.
    """
    if result.lens in ROWLESS:
        return ""
    rows = result.provenance.get("rows")
    rows = rows if isinstance(rows, Mapping) else {}
    measured = result.table["n"].max() if "n" in result.table.columns else None
    known = [int(n) for n in (finite(rows.get("n")), finite(measured)) if n is not None]
    if not known:
        return ""
    split = f" of {rows['split']}" if rows.get("split") else ""
    how = f" ({rows['how']})" if rows.get("how") else ""
    return f"{plural(min(known), 'row')}{split}{how}"


@dataclass(frozen=True)
class Reproduce:
    """How to make this run again."""

    commands: tuple[str, ...]
    study_text: str | None
    environment: tuple[tuple[str, str], ...]


def reproduce(run: RunFolder) -> Reproduce:
    """Return the commands, the resolved study and the environment."""
    recorded = [(run.compare or {}).get("command"), (run.environment or {}).get("command")]
    recorded += [result.provenance.get("command") for result in run.results.values()]
    commands = list(dict.fromkeys(_command(item) for item in recorded if item))
    if run.study_text is not None:
        commands.insert(0, "tunescope run study.resolved.yaml")
    return Reproduce(tuple(dict.fromkeys(commands)), run.study_text, tuple(flat(run.environment or {})))


def _command(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def flat(document: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return a nested mapping as (dotted name, text) pairs, for a plain two-column table."""
    pairs: list[tuple[str, str]] = []
    for key, value in document.items():
        name = f"{prefix}{key}"
        if name == "format_version":
            continue
        if isinstance(value, Mapping):
            pairs += flat(value, f"{name}.")
        elif isinstance(value, float):
            pairs.append((name, f"{value:.6g}"))
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            pairs.append((name, text))
    return pairs
