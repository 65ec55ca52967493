"""An examination as a table to read, and as the record that later runs carry."""

from __future__ import annotations

import textwrap

from tunescope.doctor.check import Line
from tunescope.doctor.examine import MISSED, Examination, Outcome
from tunescope.environment import doctor_record_path
from tunescope.files import write_json

WIDTH = 110
WORDS = {True: "met", False: "MISSED", None: "not installed"}


def text_of(found: Examination) -> str:
    """Return planted, measured and verdict of every line, check by check, and the sum at the end."""
    parts = [part for outcome in found.outcomes for part in (*_outcome(outcome), "")]
    lines = [line for outcome in found.outcomes for line in outcome.lines]
    met, missed, absent = (sum(line.met is kind for line in lines) for kind in (True, False, None))
    about = found.about
    parts += [
        f"{met} of {met + missed} truths recovered by {len(found.outcomes)} checks in {about['seconds']:.0f} s"
        + (f"; {absent} not measured (optional libraries)" if absent else "")
        + f". tunescope {about['version']}; {about['machine']}.",
        "Passed." if found.passed else f"MISSED: {', '.join(found.missed)}.",
    ]
    return "\n".join(parts)


def _outcome(outcome: Outcome) -> list[str]:
    verdict = "MISSED" if outcome.verdict == MISSED else outcome.verdict
    head = f"{outcome.name}: {outcome.title} ({outcome.seconds:.1f} s): {verdict}"
    return [*textwrap.wrap(head, WIDTH), *(part for line in outcome.lines for part in _line(line))]


def _line(line: Line) -> list[str]:
    told = f"      planted: {line.planted}; measured: {line.measured}: {WORDS[line.met]}"
    return [
        part
        for text in (f"  {line.what}", told)
        for part in textwrap.wrap(text, WIDTH, subsequent_indent="      ")
    ]


def keep(found: Examination) -> None:
    """Write the record that :func:`tunescope.environment.doctor_record` reads.

    Raises:
        RunError: The cache folder cannot be written.
    """
    about = {name: found.about[name] for name in ("date", "version", "machine", "seconds")}
    write_json(doctor_record_path(), {"passed": found.passed, "missed": found.missed, **about})
