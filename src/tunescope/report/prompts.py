"""The section on zero-shot arms: the prompts that were tried, how far they lie apart, and which was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunescope.report.figures import style
from tunescope.report.figures.select import estimate
from tunescope.report.quality import Strip, shared_domain, strip
from tunescope.report.read import RunFolder, reading
from tunescope.report.text import Estimate, finite, number, plural, visible

SHOWN_CHARACTERS = 400


@dataclass(frozen=True)
class Candidate:
    """One prompt (with or without calibration), its accuracy on train rows, over folds."""

    prompt: str
    calibration: str
    accuracy: Estimate
    drawn: Strip | None
    folds: str
    chosen: bool


@dataclass(frozen=True)
class Prompted:
    """What one zero-shot arm asked."""

    arm: str
    colour: int
    seed: int | None
    sentence: str
    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...]


def prompts(run: RunFolder) -> list[Prompted]:
    """Return the prompts of every arm that recorded some, once a seed where they differ."""
    found = []
    for arm in run.arm_names:
        seen: list[Any] = []
        for item in run.of(arm):
            record = (item.metrics or {}).get("prompt")
            if not isinstance(record, Mapping) or record in seen:
                continue
            seen.append(record)
            with reading(run.folder, f"arms/{arm}/seed-{item.seed}/metrics.json"):
                place = run.arm_names.index(arm) % len(style.ARM_COLOURS)
                found.append(_prompted(arm, place, item.seed, record))
    return found


def _prompted(arm: str, colour: int, seed: int | None, record: Mapping[str, Any]) -> Prompted:
    accuracies = [estimate(dict(one["accuracy"])) for one in record.get("candidates") or []]
    domain = shared_domain(accuracies)
    candidates = tuple(
        Candidate(
            prompt=str(visible(str(one["prompt"]), SHOWN_CHARACTERS)),
            calibration=str(one.get("calibration") or "none"),
            accuracy=accuracy,
            drawn=strip(accuracy, (), domain),
            folds=", ".join(number(fold.get("value"), 2) for fold in one.get("folds") or []),
            chosen=bool(one.get("chosen")),
        )
        for one, accuracy in zip(record.get("candidates") or [], accuracies, strict=True)
    )
    notes = [str(note) for note in (record.get("note"), *(record.get("notes") or [])) if note]
    return Prompted(arm, colour, seed, _sentence(record, len(candidates)), candidates, tuple(notes))


def _sentence(record: Mapping[str, Any], tried: int) -> str:
    spread, rows = record.get("spread") or {}, int(record.get("rows") or 0)
    if tried < 2 or not rows:
        asked = f"asked on {plural(rows, 'train row')}" if rows else "no train row was asked"
        return f"One prompt, {asked}: nothing was chosen, and how much the wording matters is not known."
    parts = [
        f"{tried} candidates on {plural(rows, 'train row')}; accuracy from {number(spread.get('lowest'))} to "
        f"{number(spread.get('highest'))}, a range of {number(spread.get('range'))} that comes from the wording alone"
    ]
    if finite(spread.get("standard_deviation")) is not None:
        parts.append(f"standard deviation {number(spread['standard_deviation'])}")
    sentence = "; ".join(parts) + ". The best was chosen on these train rows, no other row was asked."
    selection = record.get("selection_accuracy")
    if selection and finite(selection.get("value")) is not None:
        sentence += (
            f" Each fold answered by the candidate that is best on the others: {estimate(dict(selection))}."
        )
    return sentence
