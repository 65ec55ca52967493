"""What a comparison leaves behind: merged results, the record of what was compared, the report, and where time went."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tunescope import __version__
from tunescope.checkpoints.plan import PAIR, Plan
from tunescope.data.rows import Rows
from tunescope.environment import command_line
from tunescope.errors import LensError
from tunescope.files import read_json, write_json
from tunescope.foreign import Pair, arm_names
from tunescope.lenses import LensOutput, save_outputs
from tunescope.progress import Progress
from tunescope.report import write_report
from tunescope.runs import RunFolder
from tunescope.stats.results import save_findings

SEEN_BEFORE = "Whether a checkpoint trained elsewhere has seen some of these rows in training is not known."


@dataclass
class Outcome:
    """What was compared, and what this call did of it.

    Attributes:
        plan: The stages.
        run: The run folder.
        rows: The rows.
        seconds: What this call did, by name, in order.
        start: When it began, on the monotonic clock.
    """

    plan: Plan
    run: RunFolder
    rows: Rows
    seconds: dict[str, float]
    start: float

    def parts(self) -> Iterator[tuple[Pair, LensOutput]]:
        """Yield what every lens saw of every pair."""
        for pair in self.plan.pairs.pairs:
            for lens in self.plan.lenses(pair):
                yield pair, LensOutput.load_part(self.run.path / self.plan.part(pair, lens.lens), lens.lens)

    def refused(self) -> list[dict[str, str]]:
        """Return the lenses that were left out, with the reasons."""
        return [
            {"arm": pair.name, "lens": part.lens, "why": str(part.provenance["refused"])}
            for pair, part in self.parts()
            if "refused" in part.provenance
        ]

    def merge(self) -> None:
        """Merge the parts into one result a lens.

        Raises:
            LensError: No lens could look at any pair.
        """
        parts = [part for _, part in self.parts() if "refused" not in part.provenance]
        if not parts:
            first = self.refused()[0]
            raise LensError(
                f"The lens {first['lens']!r} cannot look at {first['arm']}: {first['why']}.",
                hint="Name others with --lens, or compare models that resemble each other more.",
            )
        for arm, pairs in self.plan.arms().items():
            for lens in self.plan.wanted:
                stage = self.plan.across(arm, pairs, lens)
                if stage is not None:
                    found = LensOutput.load_part(self.run.path / stage.outputs[0], lens.lens)
                    parts += [found] if found.table.height else []
        request = self.plan.request
        about = {"tunescope": __version__, "command": command_line(), "seeds": [request.seed]}
        findings = save_outputs(parts, self.run.path / "results", about)
        save_findings(findings, self.run.path / "findings.json")

    def measured(self) -> list[tuple[Pair, dict[str, Any]]]:
        """Return what measuring said of every pair."""
        return [
            (pair, read_json(self.run.path / f"looks/{self.plan.place(pair)}/{PAIR}"))
            for pair in self.plan.pairs.pairs
        ]


def write_outcome(outcome: Outcome) -> None:
    """Write ``compare.json``, ``data/summary.json`` and the report."""
    folder = outcome.run.path
    write_json(folder / "data" / "summary.json", _summary(outcome))
    write_json(folder / "compare.json", _about(outcome))
    write_report(folder)


def _summary(outcome: Outcome) -> dict[str, Any]:
    found = {
        pair.tuned.arm: about for pair, about in reversed(outcome.measured())
    }  # the first seed of each arm
    return {
        **outcome.rows.summary(),
        "tokens": {arm: about["tokens"] for arm, about in found.items()},
        "truncated": {arm: about["truncated"] for arm, about in found.items()},
    }


def _about(outcome: Outcome) -> dict[str, Any]:
    plan, measured, refused = outcome.plan, outcome.measured(), outcome.refused()
    tuned = {pair.tuned.arm: pair.tuned.path for pair in reversed(plan.pairs.pairs)}
    tuned = {arm: tuned[arm] for arm in plan.arms()}
    return {
        "name": f"{arm_names([plan.request.base])[0]} against {', '.join(tuned)}",
        "command": command_line(),
        "base": str(plan.request.base),
        "base_head": "own" if plan.speaks else plan.base_head,
        "kind": plan.kind,
        "tuned": tuned,
        "label_map": dict(plan.request.label_map),
        "pairs": [
            {"arm": one.tuned.arm, "seed": one.tuned.seed, "base": one.base, "tuned": one.tuned.path}
            for one in plan.pairs.pairs
        ],
        "data": plan.request.data.model_dump(mode="json"),
        "assumptions": list(dict.fromkeys(item for _, about in measured for item in about["assumed"])),
        "refused": refused,
        "notes": [
            *plan.pairs.notes,
            *plan.notes,
            *(note for _, about in measured for note in about["notes"]),
            *(f"{one['arm']}: the lens {one['lens']} is left out: {one['why']}" for one in refused),
            SEEN_BEFORE,
        ],
        "logged_metrics": [
            {"arm": pair.name, "logged": about["logged"], "ours": {"accuracy": about["accuracy"]}}
            for pair, about in measured
            if about["logged"]
        ],
        "seconds": round(time.monotonic() - outcome.start, 1),
        "stages": [{"stage": name, "seconds": round(value, 2)} for name, value in outcome.seconds.items()],
        "seed": plan.request.seed,
    }


def say_stages(outcome: Outcome, progress: Progress) -> None:
    """Print where the time of this call went."""
    total = time.monotonic() - outcome.start
    rows = [*outcome.seconds.items()]
    rows += [("report and the rest", max(0.0, total - sum(outcome.seconds.values()))), ("in all", total)]
    width = max(len(name) for name, _ in rows)
    progress.say(f"{'stage':<{width}}  seconds")
    for name, seconds in rows:
        progress.say(f"{name:<{width}}  {seconds:7.1f}")
