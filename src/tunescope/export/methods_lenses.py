"""The part of the methods section that says what was looked at inside the models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunescope.export.said import options_said
from tunescope.export.section import Section
from tunescope.export.words import markdown
from tunescope.lenses.works import OF_STATISTIC, Cite, Ran, of_lens
from tunescope.report.read import LensResult, RunFolder
from tunescope.report.trust import rows_said


def statistics(words: str) -> list[Cite]:
    """Return the works behind the statistics that a text (in lower case) names."""
    return [cite for word, cite in OF_STATISTIC if word in words]


def lenses(section: Section) -> None:
    """Say what every lens looked at, with which options, and what it cites; a lens that did not run is not named."""
    run = section.run
    if not run.results:
        return
    section.head("Looking inside")
    for result in run.results.values():
        section.say(_lens(section, result))


def _lens(section: Section, result: LensResult) -> str:
    about = result.provenance
    options = dict(about.get("options") or {})
    metrics = (
        result.table["metric"].drop_nulls().unique().to_list() if "metric" in result.table.columns else []
    )
    ran = Ran(
        options, [str(metric) for metric in metrics], _how(section.run, result, options), _most_rows(result)
    )
    cited = section.cite([*of_lens(result.lens, ran), *statistics(ran.methods)])
    rows = rows_said(result)
    options.pop("rows", None)
    said = options_said(options)
    notes = [
        markdown(note)
        for note in about.get("notes") or []
        if result.lens == "behaviour" or "base head of" in str(note)
    ]
    return " ".join(
        part
        for part in (
            f"**{markdown(result.lens.replace('_', ' '))}**{cited}.",
            markdown(about.get("what") or ""),
            f"It looked at {markdown(rows)}." if rows else "",
            f"Options: {said}." if said else "",
            *(f"{note}." if not note.endswith(".") else note for note in notes),
        )
        if part
    )


def _most_rows(result: LensResult) -> int | None:
    most = result.table["n"].max() if "n" in result.table.columns else None
    return int(most) if isinstance(most, int) else None


def _how(run: RunFolder, result: LensResult, options: Mapping[str, Any]) -> str:
    """Return how a lens's intervals and tests were made, in the words of its table, findings and options."""
    said = [str(one.get("test")) for one in run.findings or [] if one.get("lens") == result.lens]
    if "method" in result.table.columns:
        said += [str(one) for one in result.table["method"].drop_nulls().unique().to_list()]
    said += ["benjamini"] if options.get("correction") == "bh" else []
    return " ".join(said).lower()
