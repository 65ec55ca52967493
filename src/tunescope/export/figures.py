"""Which figures of a run are drawn, and under which names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunescope.errors import ConfigError
from tunescope.export.paper import for_paper
from tunescope.export.pictures import Job
from tunescope.report.evidence import all_figures
from tunescope.report.figures.style import Figure, arm_colour
from tunescope.report.read import RunFolder
from tunescope.report.text import listed


@dataclass(frozen=True)
class Placed:
    """A figure and where it stands on the page: the section's anchor and the group's title (arm and seed)."""

    section: str
    group: str
    figure: Figure


def choose(run: RunFolder, wanted: Sequence[str]) -> list[Placed]:
    """Return the figures that are wanted, in the page's order.

    Args:
        run: The run.
        wanted: ``open`` for those that are not folded on the page, ``all``, ``none``, or keys and sections.

    Raises:
        ConfigError: No figure or section of this run is called so.
    """
    if "none" in wanted:
        return []
    found = [Placed(*placed) for placed in all_figures(run)]
    if "all" in wanted:
        return found
    named = set(wanted) - {"open"}
    known = {name for one in found for name in (one.section, one.figure.key)}
    unknown = sorted(named - known)
    if unknown:
        sections = listed(dict.fromkeys(one.section for one in found)) or "none"
        raise ConfigError(
            f"This run has no figure and no section called {unknown[0]!r}; its sections are {sections}.",
            hint="Give open, all, none, a section, or a figure's key as figures/README.md of an export lists them.",
        )
    return [
        one
        for one in found
        if {one.section, one.figure.key} & named or ("open" in wanted and not one.figure.folded)
    ]


def names(figure: Figure) -> list[str]:
    """Return the file names of a figure's panels, without ending: its key, numbered where there are several."""
    if len(figure.panels) == 1:
        return [figure.key]
    return [f"{figure.key}-{number}" for number in range(1, len(figure.panels) + 1)]


def jobs(run: RunFolder, chosen: Sequence[Placed], inches: float) -> Iterator[Job]:
    """Yield every panel of the chosen figures as (name, drawing) at a width in inches, for :func:`.pictures.draw`."""
    colours = [(arm, arm_colour(run.arm_names, arm)) for arm in run.arm_names]
    for one in chosen:
        for name, panel in zip(names(one.figure), one.figure.panels, strict=True):
            yield name, for_paper(panel, one.figure.scale, inches, () if one.group else colours)
