"""The paired comparison of arms that summarise, as findings for the first screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunescope.files import read_json
from tunescope.report.figures.ablation import SIGNIFICANT
from tunescope.report.figures.select import pooled
from tunescope.report.read import RunFolder, reading
from tunescope.report.text import plural, probability

NAMES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2"}


def differences(run: RunFolder) -> list[dict[str, Any]]:
    """Return what the paired comparison of arms says, as findings: ROUGE-1 and 2 of arms, then of arms and lead-3.

    Every other metric is in the section's table. Nothing for a run that does not summarise.

    Raises:
        RunError: The file of the comparison is damaged.
    """
    path = run.folder / "summaries.json"
    if (run.study or {}).get("task") != "summarise" or not path.is_file():
        return []
    with reading(run.folder, path.name):
        own = [
            one for one in read_json(path)["records"]
            if one["split"] == run.split and one["metric"] in NAMES and one["value"] is not None
        ]  # fmt: skip
        arms = [one for one in own if {one["first"], one["second"]} <= set(run.arm_names)]
        lead = [one for one in own if one["second"] == "lead-3" and one["metric"] == "rouge1"]
        return [_difference(run, one) for one in [*arms, *lead]]


def _difference(run: RunFolder, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return one pair as a finding, the better of the two first."""
    turned = record["value"] < 0
    better, worse = (record["second"], record["first"]) if turned else (record["first"], record["second"])
    value, low, high = (
        None if end is None else -end if turned else end
        for end in (record["value"], record["high" if turned else "low"], record["low" if turned else "high"])
    )
    metric, found = NAMES[record["metric"]], record["q"] is not None and record["q"] <= SIGNIFICANT
    few = len(run.seeds) < 2
    sentence = (
        f"{'As trained here, ' if few else ''}{better} is better than {worse}: "
        if found
        else f"{better} and {worse} are not told apart: the first has "
    )
    sentence += f"{pooled([{**record, 'value': value, 'low': low, 'high': high}])} more {metric}"
    articles = f"the same {plural(int(record['n']), 'article')}"
    return {
        "lens": "comparison", "metric": record["metric"], "value": value, "low": low, "high": high, "n": record["n"],
        "sentence": f"{sentence} (corrected p {probability(record['q'])}).",
        "verdict": "found" if found else "undecided",
        "control": f"{articles}; these trained models, not their methods: no other seeds" if few else articles,
    }  # fmt: skip
