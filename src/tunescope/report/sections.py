"""The lenses' sections that the page shows in one loop: a line here, and a lens has its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tunescope.report import activations, attention, other_models, steps, watch, weights
from tunescope.report.evidence import Group
from tunescope.report.read import RunFolder


@dataclass(frozen=True)
class Section:
    """Where a lens stands on the page.

    Attributes:
        lens: The lens.
        title: The section's heading.
        groups: Makes its figures from a run.
    """

    lens: str
    title: str
    groups: Callable[[RunFolder], list[Group]]


@dataclass(frozen=True)
class Shown:
    """A section with something in it: anchor, heading, what the lens says it shows, figures, notes."""

    anchor: str
    title: str
    lead: str
    groups: list[Group]
    notes: tuple[str, ...]


SECTIONS: tuple[Section, ...] = (
    Section("other_models", "Other models", other_models.groups),
    Section("steps", "Training steps", steps.groups),
    Section("attention", "Attention", attention.groups),
    Section("activations", "Activations", activations.groups),
    Section("weights", "Weights", weights.groups),
    Section("watch", "Training as it happened", watch.groups),
)


def sections(run: RunFolder) -> list[Shown]:
    """Return the sections of the lenses that this run holds and that have something to draw."""
    shown = []
    for section in SECTIONS:
        found = section.groups(run) if section.lens in run.results else []
        if found:
            about = run.results[section.lens].provenance
            notes = tuple(str(note) for note in about.get("notes") or ())
            anchor = section.lens.replace("_", "-")
            shown.append(Shown(anchor, section.title, str(about.get("what") or ""), found, notes))
    return shown
