"""Lenses: each looks at one thing, base against tuned; one dict names them all.

Adding a lens touches three files: the lens, one line in :data:`LENSES`, and its test.
"""

from __future__ import annotations

from tunescope.lenses import (
    ablation,
    ablation_findings,
    attribution_direct,
    cka,
    dimension_findings,
    dimensions,
    logit_lens,
    map_findings,
    maps,
    planted,
    probe_findings,
    probes,
    similarity,
    spread,
    word_findings,
    words,
)
from tunescope.lenses.look import Lens, LensOutput, ReadLens, look, save_outputs
from tunescope.lenses.reading import ReadingLens, View, read_pass
from tunescope.lenses.seed_band import seed_band, seed_band_findings
from tunescope.lenses.subject import LensRows, Subject

LENSES: dict[str, Lens | ReadLens] = {
    "cka": ReadLens(cka.CKAOptions, cka.WHAT, cka.CKALens, cka.findings),
    "similarity": ReadLens(
        similarity.SimilarityOptions, similarity.WHAT, similarity.SimilarityLens, similarity.findings
    ),
    "spread": ReadLens(spread.SpreadOptions, spread.WHAT, spread.SpreadLens, spread.findings),
    "dimensions": Lens(
        dimensions.DimensionOptions, dimensions.WHAT, dimensions.run, dimension_findings.findings
    ),
    "probes": Lens(probes.ProbeOptions, probes.WHAT, probes.run, probe_findings.findings),
    "logit_lens": Lens(logit_lens.LogitLensOptions, logit_lens.WHAT, logit_lens.run, logit_lens.findings),
    "attribution_direct": Lens(
        attribution_direct.DirectOptions,
        attribution_direct.WHAT,
        attribution_direct.run,
        attribution_direct.findings,
    ),
    "maps": Lens(maps.MapOptions, maps.WHAT, maps.run, map_findings.findings),
    "ablation": Lens(ablation.AblationOptions, ablation.WHAT, ablation.run, ablation_findings.findings),
    "words": Lens(words.WordOptions, words.WHAT, words.run, word_findings.findings),
    "planted": Lens(planted.PlantedOptions, planted.WHAT, planted.run, planted.findings),
}

__all__ = [
    "LENSES", "Lens", "LensOutput", "LensRows", "ReadLens", "ReadingLens", "Subject", "View", "look", "read_pass",
    "save_outputs", "seed_band", "seed_band_findings",
]  # fmt: skip
