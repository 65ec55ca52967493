"""Lenses: each looks at one thing, base against tuned; one dict names them all.

Adding a lens touches three files: the lens, one line in :data:`LENSES`, and its test.
"""

from __future__ import annotations

from tunescope.lenses import (
    ablation,
    ablation_findings,
    ablation_seeds,
    activations,
    attention,
    attribution_direct,
    cka,
    dimension_findings,
    dimensions,
    grafting,
    grafting_findings,
    logit_findings,
    logit_lens,
    map_findings,
    map_options,
    maps,
    other_models,
    patching,
    patching_cross,
    patching_findings,
    planted,
    probe_findings,
    probes,
    similarity,
    spread,
    steps,
    weights,
    word_findings,
    words,
)
from tunescope.lenses.look import Lens, LensOutput, ReadLens, look, save_outputs
from tunescope.lenses.reading import ReadingLens, View, read_pass
from tunescope.lenses.seed_band import across_seeds, seed_band, seed_band_findings
from tunescope.lenses.several_seeds import SeveralSeeds
from tunescope.lenses.subject import LensRows, Subject

LENSES: dict[str, Lens | ReadLens] = {
    "cka": ReadLens(cka.CKAOptions, cka.WHAT, cka.CKALens, cka.findings, across_seeds, two_stacks=True),
    "similarity": ReadLens(
        similarity.SimilarityOptions,
        similarity.WHAT,
        similarity.SimilarityLens,
        similarity.findings,
        two_stacks=True,
    ),
    "other_models": Lens(
        other_models.OtherModelOptions, other_models.WHAT, other_models.run, other_models.findings
    ),
    "spread": ReadLens(
        spread.SpreadOptions, spread.WHAT, spread.SpreadLens, spread.findings, two_stacks=True
    ),
    "dimensions": Lens(
        dimensions.DimensionOptions, dimensions.WHAT, dimensions.run, dimension_findings.findings
    ),
    "probes": Lens(probes.ProbeOptions, probes.WHAT, probes.run, probe_findings.findings),
    "logit_lens": Lens(
        logit_lens.LogitLensOptions, logit_lens.WHAT, logit_lens.run, logit_findings.findings, two_stacks=True
    ),
    "attribution_direct": Lens(
        attribution_direct.DirectOptions,
        attribution_direct.WHAT,
        attribution_direct.run,
        attribution_direct.findings,
    ),
    "attention": ReadLens(
        attention.AttentionOptions, attention.WHAT, attention.AttentionLens, attention.findings
    ),
    "activations": ReadLens(
        activations.ActivationOptions, activations.WHAT, activations.ActivationLens, activations.findings
    ),
    "weights": Lens(weights.WeightOptions, weights.WHAT, weights.run, weights.findings, two_stacks=True),
    "maps": Lens(maps.MapOptions, maps.WHAT, maps.run, map_findings.findings),
    "steps": Lens(map_options.StepOptions, steps.WHAT, steps.run, steps.findings),
    "ablation": Lens(
        ablation.AblationOptions,
        ablation.WHAT,
        ablation.run,
        ablation_findings.findings,
        ablation_seeds.across_seeds,
        two_stacks=True,
    ),
    "patching": Lens(patching.PatchingOptions, patching.WHAT, patching.run, patching_findings.findings),
    "patching_cross": Lens(
        patching_cross.CrossOptions, patching_cross.WHAT, patching_cross.run, patching_findings.cross_findings
    ),
    "grafting": Lens(grafting.GraftOptions, grafting.WHAT, grafting.run, grafting_findings.findings),
    "words": Lens(words.WordOptions, words.WHAT, words.run, word_findings.findings),
    "planted": Lens(planted.PlantedOptions, planted.WHAT, planted.run, planted.findings),
}

__all__ = [
    "LENSES", "Lens", "LensOutput", "LensRows", "ReadLens", "ReadingLens", "SeveralSeeds", "Subject", "View", "look",
    "read_pass", "save_outputs", "seed_band", "seed_band_findings",
]  # fmt: skip
