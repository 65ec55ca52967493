"""The section on study 001's claims: what was claimed, the number here, the verdict, and the rule that gave it."""

from __future__ import annotations

from dataclasses import dataclass

from tunescope.report.evidence import checked
from tunescope.report.read import RunFolder
from tunescope.report.text import plural

COLUMNS = ("arms", "claim", "statement", "theirs", "ours", "verdict", "why", "rule", "needed")
STYLES = {"reproduced": "met", "not reproduced": "unmet"}


@dataclass(frozen=True)
class Claim:
    """One claim, judged for one arm."""

    number: str
    statement: str
    theirs: str
    arm: str
    ours: str
    verdict: str
    why: str
    rule: str
    needed: str
    style: str


@dataclass(frozen=True)
class Claims:
    """All judged claims in order, and what came of them in a sentence."""

    rows: tuple[Claim, ...]
    lead: str

    @property
    def needed(self) -> dict[str, str]:
        """What would be needed to test each claim on the model of the study, by its number."""
        return {row.number: row.needed for row in self.rows}

    @property
    def summary(self) -> str:
        """How many are reproduced, and so on."""
        counts: dict[str, int] = {}
        for row in self.rows:
            name = "artefact" if row.verdict.startswith("artefact") else row.verdict
            counts[name] = counts.get(name, 0) + 1
        said = ", ".join(f"{count} {name}" for name, count in counts.items())
        return f"{plural(len(self.rows), 'verdict')}: {said}."


def claims(run: RunFolder) -> Claims | None:
    """Return the section, or None where the run judges no claims."""
    result = run.results.get("claims")
    if result is None:
        return None
    table = checked(result, COLUMNS).sort("claim", maintain_order=True)
    keys = {
        "number": "claim", "statement": "statement", "theirs": "theirs", "arm": "arms", "ours": "ours",
        "verdict": "verdict", "why": "why", "rule": "rule", "needed": "needed",
    }  # fmt: skip
    rows = tuple(
        Claim(
            **{name: str(record[key] or "") for name, key in keys.items()},
            style=STYLES.get(str(record["verdict"]), "undecided"),
        )
        for record in table.iter_rows(named=True)
    )
    return Claims(rows, str(result.provenance.get("what") or "")) if rows else None
