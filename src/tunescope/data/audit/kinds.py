"""What a finding is, and how its numbers are written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["red", "amber", "note"]
LEAST_PROBABILITY = 1e-300


@dataclass(frozen=True)
class Finding:
    """One thing that an audit found.

    Attributes:
        severity: ``red``: results measured on these data do not mean what they seem to; ``amber``: they need
            care; ``note``: good to know.
        kind: A word for machines, such as ``label_determined`` or ``shared_texts``.
        sentence: What was found, with its numbers.
        advice: What to do about it.
        evidence: The numbers, JSON-able.
    """

    severity: Severity
    kind: str
    sentence: str
    advice: str
    evidence: dict[str, Any] = field(default_factory=dict)


def percent(share: float) -> str:
    """Write a share so that a small one is not rounded to nothing: 1.75 %, 0.51 %, 44 %."""
    value = 100 * share
    if value in (0, 100):
        return f"{value:.0f} %"
    digits = 0 if 10 <= value <= 90 else 1 if 2 <= value <= 98 else 2
    text = f"{value:.{digits}f}"
    if float(text) in (0, 100):
        return "under 0.01 %" if value < 50 else "over 99.99 %"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"


def probability(letter: str, value: float) -> str:
    """Write a p or q value; one that a float cannot tell from 0 is never written as 0: ``q < 1e-300``."""
    return f"{letter} < {LEAST_PROBABILITY:.0e}" if value < LEAST_PROBABILITY else f"{letter} = {value:.2g}"


def counted(count: int, noun: str) -> str:
    """Write a count with its noun: 1 text, 2 texts."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
