"""Lenses: each looks at one thing, base against tuned; one dict names them all.

Adding a lens touches three files: the lens, one line in :data:`LENSES`, and its test.
"""

from __future__ import annotations

from tunescope.lenses import planted
from tunescope.lenses.ablation import findings as ablation_findings
from tunescope.lenses.ablation import lens as ablation_lens
from tunescope.lenses.ablation import seeds as ablation_seeds
from tunescope.lenses.activations import lens as activations_lens
from tunescope.lenses.attention import lens as attention_lens
from tunescope.lenses.dimensions import findings as dimension_findings
from tunescope.lenses.dimensions import lens as dimensions_lens
from tunescope.lenses.dimensions import spread
from tunescope.lenses.flow import lens as flow_lens
from tunescope.lenses.geometry import cka, other_models, similarity
from tunescope.lenses.geometry.seed_band import across_seeds, seed_band, seed_band_findings
from tunescope.lenses.grafting import findings as grafting_findings
from tunescope.lenses.grafting import lens as grafting_lens
from tunescope.lenses.logits import attribution_direct, logit_lens
from tunescope.lenses.logits import findings as logit_findings
from tunescope.lenses.look import Lens, LensOutput, ReadLens, look, save_outputs
from tunescope.lenses.maps import findings as map_findings
from tunescope.lenses.maps import lens as maps_lens
from tunescope.lenses.maps import options as map_options
from tunescope.lenses.maps import steps
from tunescope.lenses.over_steps import lens as over_steps
from tunescope.lenses.patching import cross as patching_cross
from tunescope.lenses.patching import findings as patching_findings
from tunescope.lenses.patching import lens as patching_lens
from tunescope.lenses.probes import findings as probe_findings
from tunescope.lenses.probes import lens as probes_lens
from tunescope.lenses.reading import ReadingLens, View, read_pass
from tunescope.lenses.several_seeds import SeveralSeeds
from tunescope.lenses.subject import LensRows, Subject
from tunescope.lenses.weights import lens as weights_lens
from tunescope.lenses.words import findings as word_findings
from tunescope.lenses.words import lens as words_lens

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
        dimensions_lens.DimensionOptions,
        dimensions_lens.WHAT,
        dimensions_lens.run,
        dimension_findings.findings,
    ),
    "probes": Lens(probes_lens.ProbeOptions, probes_lens.WHAT, probes_lens.run, probe_findings.findings),
    "logit_lens": Lens(
        logit_lens.LogitLensOptions, logit_lens.WHAT, logit_lens.run, logit_findings.findings, two_stacks=True
    ),
    "attribution_direct": Lens(
        attribution_direct.DirectOptions,
        attribution_direct.WHAT,
        attribution_direct.run,
        attribution_direct.findings,
        two_stacks=True,
    ),
    "attention": ReadLens(
        attention_lens.AttentionOptions,
        attention_lens.WHAT,
        attention_lens.AttentionLens,
        attention_lens.findings,
    ),
    "flow": Lens(flow_lens.FlowOptions, flow_lens.WHAT, flow_lens.run, flow_lens.findings),
    "activations": ReadLens(
        activations_lens.ActivationOptions,
        activations_lens.WHAT,
        activations_lens.ActivationLens,
        activations_lens.findings,
    ),
    "weights": Lens(
        weights_lens.WeightOptions,
        weights_lens.WHAT,
        weights_lens.run,
        weights_lens.findings,
        two_stacks=True,
    ),
    "maps": Lens(maps_lens.MapOptions, maps_lens.WHAT, maps_lens.run, map_findings.findings),
    "steps": Lens(map_options.StepOptions, steps.WHAT, steps.run, steps.findings),
    "watch": Lens(
        over_steps.WatchOptions, over_steps.WHAT, over_steps.run, over_steps.findings, two_stacks=True
    ),
    "ablation": Lens(
        ablation_lens.AblationOptions,
        ablation_lens.WHAT,
        ablation_lens.run,
        ablation_findings.findings,
        ablation_seeds.across_seeds,
        two_stacks=True,
    ),
    "patching": Lens(
        patching_lens.PatchingOptions,
        patching_lens.WHAT,
        patching_lens.run,
        patching_findings.findings,
        two_stacks=True,
    ),
    "patching_cross": Lens(
        patching_cross.CrossOptions,
        patching_cross.WHAT,
        patching_cross.run,
        patching_findings.cross_findings,
        two_stacks=True,
    ),
    "grafting": Lens(
        grafting_lens.GraftOptions,
        grafting_lens.WHAT,
        grafting_lens.run,
        grafting_findings.findings,
        two_stacks=True,
    ),
    "words": Lens(
        words_lens.WordOptions, words_lens.WHAT, words_lens.run, word_findings.findings, two_stacks=True
    ),
    "planted": Lens(planted.PlantedOptions, planted.WHAT, planted.run, planted.findings),
}

# They look at a generated corpus, or at the checkpoints of one training: not at any two models.
NOT_OF_TWO = ("planted", "steps", "watch")


__all__ = [
    "LENSES", "NOT_OF_TWO", "Lens", "LensOutput", "LensRows", "ReadLens", "ReadingLens", "SeveralSeeds", "Subject",
    "View", "look",
    "read_pass", "save_outputs", "seed_band", "seed_band_findings",
]  # fmt: skip
