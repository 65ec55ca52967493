"""Lenses: each looks at one thing, base against tuned; one dict names them all.

Adding a lens touches three files: the lens, one line in :data:`LENSES`, and its test.
"""

from __future__ import annotations

from tunescope.lenses import (
    ablation,
    ablation_findings,
    cka,
    dimension_findings,
    dimensions,
    planted,
    spread,
)
from tunescope.lenses.look import Lens, LensOutput, ReadLens, look, save_outputs
from tunescope.lenses.reading import ReadingLens, View, read_pass
from tunescope.lenses.subject import LensRows, Subject

LENSES: dict[str, Lens | ReadLens] = {
    "cka": ReadLens(cka.CKAOptions, cka.WHAT, cka.CKALens, cka.findings),
    "spread": ReadLens(spread.SpreadOptions, spread.WHAT, spread.SpreadLens, spread.findings),
    "dimensions": Lens(
        dimensions.DimensionOptions, dimensions.WHAT, dimensions.run, dimension_findings.findings
    ),
    "ablation": Lens(ablation.AblationOptions, ablation.WHAT, ablation.run, ablation_findings.findings),
    "planted": Lens(planted.PlantedOptions, planted.WHAT, planted.run, planted.findings),
}

__all__ = [
    "LENSES", "Lens", "LensOutput", "LensRows", "ReadLens", "ReadingLens", "Subject", "View", "look", "read_pass",
    "save_outputs",
]  # fmt: skip
