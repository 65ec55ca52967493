"""What the numbers stand on: the trust bar, the findings, what the run cannot tell, how to reproduce it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from tunescope.report.figures.ablation import SIGNIFICANT
from tunescope.report.figures.select import only, values
from tunescope.report.quality import Strip, strip
from tunescope.report.read import SPLITS, LensResult, RunFolder, reading
from tunescope.report.text import Estimate, finite, listed, number, percent, plural, visible

MUCH_TRUNCATION = 0.05
MOST_SAID = 96  # characters of a red finding in the trust bar
FEW_ROWS = 500
VERDICTS = {
    "found": "found",
    "equivalent": "equivalent",
    "undecided": "undecided",
    "task not learned": "unlearned",
}

SIMILARITIES = ("cka", "rsa_cosine", "rsa_correlation", "rsa_whitened", "procrustes")


@dataclass(frozen=True)
class Trust:
    """One cell of the trust bar; ``state`` is ``ok``, ``care``, ``alarm`` or ``unknown``."""

    name: str
    value: str
    note: str
    state: str


@dataclass(frozen=True)
class Finding:
    """One finding as a card."""

    sentence: str
    arm: str
    lens: str
    effect: Estimate
    drawn: Strip | None
    control: str
    verdict: str
    style: str


def findings(run: RunFolder) -> list[Finding] | None:
    """Return the findings as cards, the most important first, or None where the run holds no findings.json."""
    if run.findings is None:
        return None
    return [_card(item) for item in by_importance(run.findings)]


def by_importance(found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return findings in turns: the first of every lens, then the second of every lens, and so on.

    Within a lens those that were found come before the others; else the order stays. So no lens with many sentences
    crowds another off the first screen.
    """
    decided = sorted(found, key=lambda item: item.get("verdict") != "found")
    turn: dict[str, int] = {}
    keyed = []
    for item in decided:
        lens = str(item.get("lens") or "")
        keyed.append((turn.get(lens, 0), item))
        turn[lens] = turn.get(lens, 0) + 1
    return [item for _, item in sorted(keyed, key=lambda one: one[0])]


def _card(item: Mapping[str, Any]) -> Finding:
    n = finite(item.get("n"))
    effect = Estimate(
        finite(item.get("value")),
        finite(item.get("low")),
        finite(item.get("high")),
        None if n is None else int(n),
    )
    # What "nothing changed" means: one for a similarity, zero for an effect.
    nothing = 1.0 if item.get("metric") in SIMILARITIES else 0.0
    bounds = [bound for bound in (0.0, nothing, effect.value, effect.low, effect.high) if bound is not None]
    room = 0.08 * ((max(bounds) - min(bounds)) or 1.0)
    verdict = str(item.get("verdict") or "undecided")
    return Finding(
        sentence=str(item.get("sentence", "")),
        arm=str(item.get("arm") or ""),
        lens=str(item.get("lens") or ""),
        effect=effect,
        drawn=strip(effect, [nothing], (min(bounds) - room, max(bounds) + room)),
        control=said(item.get("control")),
        verdict=verdict,
        style=VERDICTS.get(verdict, "undecided"),
    )


def said(value: Any) -> str:
    """Return a finding's test, control or rows, whatever they are, as one short text."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, (bool, int, float)):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {said(item)}" for key, item in value.items())
    if isinstance(value, Sequence):
        return plural(len(value), "row") if len(value) > 4 else listed(said(item) for item in value)
    return str(value)


def trust_bar(run: RunFolder) -> list[Trust]:
    """Return rows, seeds, truncation, corrected tests, and the audit (or repeated texts), each with a state."""
    last = _repeats(run) if run.audit is None else _audit(run)
    return [_rows(run), _seeds(run), _truncation(run), _tests(run), last]


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
