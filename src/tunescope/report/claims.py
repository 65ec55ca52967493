"""The section on a study's claims: what they reported, what was measured here, the verdict, and the rule that gave it.

Above it stands what a published form does differently from the corrected one, with the reason for each key.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunescope.config.claims import NOT_TESTABLE
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
    source: str
    arm: str
    ours: str
    verdict: str
    why: str
    rule: str
    needed: str
    style: str
    outside: str = ""
    set_after: str = ""


@dataclass(frozen=True)
class Difference:
    """One key in which the published form differs from the corrected one."""

    key: str
    corrected: str
    published: str
    because: str


@dataclass(frozen=True)
class Claims:
    """All judged claims in order, what came of them in a sentence, and what the published form does differently."""

    rows: tuple[Claim, ...]
    lead: str
    differences: tuple[Difference, ...] = ()
    study: str = ""
    form: str = ""

    @property
    def needed(self) -> dict[str, str]:
        """What would be needed to test each claim on the model of the study, by its number."""
        return {row.number: row.needed for row in self.rows if row.needed}

    @property
    def summary(self) -> str:
        """How many are reproduced, and so on."""
        if not self.rows:
            return ""
        counts: dict[str, int] = {}
        for row in self.rows:
            name = next(
                (one for one in ("artefact", NOT_TESTABLE) if row.verdict.startswith(one)), row.verdict
            )
            counts[name] = counts.get(name, 0) + 1
        said = ", ".join(f"{count} {name}" for name, count in counts.items())
        return f"{plural(len(self.rows), 'verdict')}: {said}."

    @property
    def alarm(self) -> str:
        """One sentence on numbers outside the expected band; empty where there are none."""
        outside = [
            f"{row.number}{f' ({row.arm})' if row.arm else ''}: {row.outside}"
            for row in self.rows
            if row.outside
        ]
        return f"Outside the expected band: {'; '.join(outside)}." if outside else ""


def claims(run: RunFolder) -> Claims | None:
    """Return the section, or None where the run judges no claims and is no published form."""
    study = run.study or {}
    recipe = study.get("recipe") or {}
    differences = tuple(
        Difference(*(str(one.get(name) or "") for name in ("key", "corrected", "published", "because")))
        for one in study.get("as_published") or []
        if isinstance(one, dict)
    )
    about = {"study": str(recipe.get("study") or ""), "form": str(recipe.get("form") or "")}
    result = run.results.get("claims")
    if result is None:
        return Claims((), "", differences, **about) if differences else None
    keys = {
        "number": "claim", "statement": "statement", "theirs": "theirs", "arm": "arms", "ours": "ours",
        "verdict": "verdict", "why": "why", "rule": "rule", "needed": "needed", "source": "source",
    }  # fmt: skip
    rows = tuple(
        Claim(
            **{name: str(record.get(key) or "") for name, key in keys.items() if name != "verdict"},
            verdict=_short(str(record["verdict"])),
            style=STYLES.get(str(record["verdict"]), "undecided"),
            outside=_outside(record),
            set_after=str(record.get("set_after") or ""),
        )
        for record in checked(result, COLUMNS).iter_rows(named=True)
    )
    return Claims(rows, str(result.provenance.get("what") or ""), differences, **about) if rows else None


def _short(verdict: str) -> str:
    """Return a verdict without its reason, which stands under it."""
    return verdict.partition(" because ")[0] if verdict.startswith(NOT_TESTABLE) else verdict


def _outside(record: dict[str, object]) -> str:
    """Return the number and the band that it lies outside of; empty where it lies inside."""
    if not record.get("outside"):
        return ""
    value, lower, upper = (record.get(name) for name in ("value", "lower", "upper"))
    band = " to ".join("any" if end is None else f"{end:g}" for end in (lower, upper))
    return f"{value:.3f}, expected {band}"
