"""What columns say about the label, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunescope.data.audit.kinds import Finding, percent, probability

DETERMINED = 0.95  # of the majority's errors that the look-up does not make
TOLD = 0.25
SIGNIFICANT = 0.05
ASSOCIATED = 0.1  # Cramér's V, corrected
MANY_VALUES = 5  # values a class from which on grouping by them can make splits
SHOWN = 10  # columns named in one sentence


def column_findings(columns: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Finding, float]]:
    """Word the records of :func:`audit_columns`, each with its weight."""
    for record in columns:
        if "untested" not in record:
            yield from _tested(record)
    untested = [record for record in columns if "untested" in record]
    if untested:
        shown = "; ".join(f"{r['column']!r} ({r['untested']})" for r in untested[:SHOWN])
        more = f"; and {len(untested) - SHOWN} more" if len(untested) > SHOWN else ""
        sentence = f"Not tested against the label: {shown}{more}."
        advice = "Be sure that the order of such ids does not follow the label."
        evidence = {"columns": [record["column"] for record in untested]}
        yield Finding("note", "untested_columns", sentence, advice, evidence), 0.0


def _tested(record: Mapping[str, Any]) -> Iterator[tuple[Finding, float]]:
    significant = record["q"] is not None and record["q"] < SIGNIFICANT
    column, closed = record["column"], record["closed"]
    loo, majority = record["leave_one_out"], record["majority"]
    what = "values" if "quantiles" not in record else "quantile ranges of its values"
    numbers = (
        f"a look-up table is right on {loo['right']:,} of {loo['rows']:,} rows ({percent(loo['accuracy'])}), each "
        f"left out in turn (the most frequent label: {percent(majority['accuracy'])})"
    )
    if "test" in record:
        test = record["test"]
        numbers += f", and on {test['right']:,} of {test['rows']:,} test rows ({percent(test['accuracy'])})"
        if test["unseen"]:
            numbers += f" ({test['unseen']:,} with values that train lacks)"
    pure = f"{record['pure_values']:,} of {record['distinct']:,} {what} have one label only"
    evidence = dict(record)
    many = record["distinct"] >= MANY_VALUES * record["classes"]
    group = f"Set data.group_by: {column}" if "quantiles" not in record else f"Cut {column} into groups"
    if significant and closed >= DETERMINED:
        verb = "determines" if loo["right"] == loo["rows"] else "almost determines"
        sentence = f"{column!r} {verb} the label: {pure}; {numbers}."
        advice = (
            f"A model of the text may learn {column!r} instead of the label. {group} and compare grouped "
            "with random cross-validation, or collect labels that vary within its values; drop the column if it "
            "was made from the label."
            if many
            else f"{column!r} looks like another form of the label: drop it, and never give it to a model."
        )
        yield Finding("red", "label_determined", sentence, advice, evidence), closed
    elif significant and closed >= TOLD:
        sentence = f"{column!r} tells much about the label: {numbers}; {pure}."
        advice = (
            f"{group}, and hold the models against this look-up table as a baseline."
            if many or "quantiles" in record
            else f"Do not use {column!r} as a feature: drop it from what a model reads, and report it as a baseline "
            "(this look-up table). It has too few values to make grouped splits."
        )
        yield Finding("amber", "label_told", sentence, advice, evidence), closed
    elif significant and record["cramers_v_corrected"] >= ASSOCIATED:
        said = probability("q", record["q"])
        if not record["trusted"]:
            said += ", approximate: many expected counts are below 5"
        cramer = f"Cramér's V {record['cramers_v_corrected']:.2f}, corrected; {said}"
        sentence = f"{column!r} goes with the label ({cramer}); {numbers}."
        advice = f"Look at results per value of {column!r} (slices)."
        yield Finding("note", "label_associated", sentence, advice, evidence), max(closed, 0.0)
