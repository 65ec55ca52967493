"""Expectations held against a run folder: is what the study expects met, not met, or undecided?

A bound is *met* where the whole interval keeps it, *not met* where the whole interval breaks it, and
*undecided* where the interval straddles it: the run can then say neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunescope.config.expect import ExpectRule
from tunescope.errors import ConfigError, ExpectationError, RunError
from tunescope.expect.numbers import NothingMatchesError, Number, RunNumbers, numbers_of
from tunescope.expect.verdicts import OUTCOMES, Outcome, Verdict, by_training, decide, judge, subject

__all__ = ["OUTCOMES", "Number", "Outcome", "Verdict", "check", "decide", "require", "summary"]


def check(folder: Path, rules: Sequence[ExpectRule]) -> list[Verdict]:
    """Hold every rule against a run folder.

    A rule without an arm gives a verdict for every arm that has the number, one without a seed for every seed.

    Args:
        folder: The run folder.
        rules: The study's expectations.

    Returns:
        Verdicts in the order of rules, then arms, then seeds.

    Raises:
        ConfigError: Rules name an arm, metric, lens or other thing that the run does not have; the message lists
            them all, each with the nearest name.
        RunError: The folder, or a file in it, is missing or damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(
            f"{folder} is not a run folder: there is no such folder.", hint="Check the path of the run."
        )
    run = RunNumbers(folder)
    verdicts: list[Verdict] = []
    problems: list[str] = []
    for index, rule in enumerate(rules):
        try:
            numbers = numbers_of(run, rule)
        except NothingMatchesError as error:
            problems.append(f"  expect.{index} ({subject(rule)}): {error}")
            continue
        for (arm, seed), own in by_training(numbers).items():
            verdicts.append(judge(index, rule, arm, seed, own))
    if problems:
        lines = "\n".join(problems)
        raise ConfigError(
            f"{len(problems)} of {len(rules)} expectations are about something that {folder} does not have:\n{lines}",
            hint="Correct these rules; metrics.json and results/ of the run hold what can be named.",
        )
    return verdicts


def require(verdicts: Sequence[Verdict], strict: bool = True) -> None:
    """Refuse to go on where an expectation was not met; with ``strict`` an undecided one counts as not met.

    Raises:
        ExpectationError: At least one verdict is not met (or undecided, with ``strict``).
    """
    bad = [one for one in verdicts if one.verdict == "not met" or (strict and one.verdict == "undecided")]
    if not bad:
        return
    lines = "\n".join(f"  {one.sentence}" for one in bad)
    undecided = sum(one.verdict == "undecided" for one in bad)
    counted = f" ({undecided} undecided, which --strict counts as not met)" if undecided else ""
    raise ExpectationError(
        f"{len(bad)} of {len(verdicts)} expectations are not met{counted}:\n{lines}",
        hint="The run itself is complete; expect.json and the report have every verdict.",
    )


def summary(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Count verdicts: ``{"met": ..., "not met": ..., "undecided": ...}``."""
    return {outcome: sum(one.verdict == outcome for one in verdicts) for outcome in OUTCOMES}
