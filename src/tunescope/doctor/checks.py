"""Every check of the doctor by name."""

from __future__ import annotations

from tunescope.doctor import (
    behaviour,
    geometry,
    heads,
    interventions,
    models,
    numbers,
    readings,
    rows,
    seeds,
    weights,
)
from tunescope.doctor.check import Check

# What every reading lens is looked at for by identical-models; lenses with a plant of their own are named there.
CHECKS: dict[str, Check] = {
    "families": Check("every architecture's sites, against transformers", models.families),
    "pooling": Check("no logit depends on padding: pooling by mask", models.pooling),
    "packed": Check("rows without padding give the logits and gradients of padded rows", models.packed),
    "predictions": Check(
        "every class's column is its own probability; predictions repeat", models.predictions
    ),
    "lora": Check(
        "LoRA starts at the pretrained model and moves its own matrices alone", models.lora, needs=("peft",)
    ),
    "metrics": Check("metrics equal scikit-learn's", numbers.metrics),
    "significance": Check("tests and corrections equal their closed forms", numbers.significance),
    "intervals": Check("95 % intervals hold the truth in about 95 % of samples", numbers.intervals),
    "summaries": Check(
        "ROUGE and METEOR equal counts by hand", numbers.summaries, needs=("rouge_score", "nltk")
    ),
    "leaked-rows": Check(
        "the audit counts test rows that stand in train", rows.leaked_rows, needs=("rensa",)
    ),
    "label-column": Check("the audit names a column that determines the label", rows.label_column),
    "identical-models": Check("one model as base and as tuned: nothing changed", geometry.identical_models),
    "independent-gaussians": Check(
        "similarity of unrelated features is 0, of turned ones 1",
        geometry.independent_gaussians,
        ("cka", "similarity"),
    ),
    "decisive-head": Check(
        "ablation finds the head that decides, at its closed form", heads.decisive_head, ("ablation",)
    ),
    "redundant-heads": Check(
        "heads that stand in for each other show as a pair, not alone", heads.redundant_heads, ("ablation",)
    ),
    "head-swap": Check("attention ranks heads that changed places first", heads.head_swap, ("attention",)),
    "rogue-dimension": Check(
        "a loud dimension is told from one that decides", geometry.rogue_dimension, ("dimensions", "spread")
    ),
    "weight-update": Check("an update's matrix, rank and size", weights.rank_update, ("weights",)),
    "activations": Check(
        "a neuron that moved, a number that is massive", weights.activations, ("activations",)
    ),
    "maps": Check("what did not change does not move on the maps", geometry.maps, ("maps",)),
    "patching": Check(
        "patching finds the head that reads a changed word", interventions.patching, ("patching",)
    ),
    "patching-cross": Check(
        "patching across models finds the head that tuning changed",
        interventions.patching_cross,
        ("patching_cross",),
    ),
    "grafting": Check(
        "grafting finds the weights that tuning changed", interventions.grafting, ("grafting",)
    ),
    "probes": Check(
        "probes find where a task is readable, and their control where it is not",
        readings.probes,
        ("probes",),
    ),
    "logit-lens": Check("the logit lens finds the layer of the answer", readings.logit_lens, ("logit_lens",)),
    "direct-attribution": Check(
        "direct attribution sums to the logits", readings.direct_attribution, ("attribution_direct",)
    ),
    "words": Check("words that decide, at their closed form", readings.words, ("words",)),
    "gender-gap": Check("a gender gap of known size", behaviour.gender_gap, ("planted",)),
    "two-seeds": Check("two seeds of one recipe are not called different", seeds.two_seeds),
}
