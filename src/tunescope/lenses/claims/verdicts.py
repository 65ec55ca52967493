"""Study 001's claims about what tuning does to geometry, judged for these models by rules, from the lenses' tables.

The study ("GPTology", and its successor Rudman et al. 2023, arXiv 2310.17715) tuned GPT-2 small and BERT on SST-2 and
QNLI. Each claim here has the number that was published, the same number for these models with its interval, and a
verdict that follows from both by a rule that is written beside it. No verdict is given by hand, and none where a
model did not learn its task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from tunescope.lenses.claims.rules import (
    Arm,
    Judged,
    bow_tie_claim,
    few_dimensions_claim,
    last_half_claim,
    one_dimension_claim,
    said,
    same_place_claim,
)
from tunescope.lenses.look import LensOutput
from tunescope.stats.results import result_table

NAME = "claims"
NEEDED = ("cka", "dimensions")
WHAT = (
    "Four published claims about what tuning does (study 001: GPT-2 small and BERT on SST-2 and QNLI), each with its "
    "number, the same number for these models, and a verdict by rule."
)
GPT2_SMALL = (
    "openai-community/gpt2 (124 M parameters) in the place of this model, all 67,349 (QNLI 104,743) train rows, 10 "
    "epochs at batch 128 and 1e-5, three seeds or more: one GPU of 8 GB and about an hour a training"
)


@dataclass(frozen=True)
class Statement:
    """One claim as it was published."""

    number: str
    claim: str
    theirs: str
    rule: str
    needed: str = ""


STATEMENTS = {
    "bow_tie": Statement(
        "1", "Tuning gives rise to a bow-tie: the two halves of the depth draw together and apart from one another.",
        "Figure 1, by eye: the last 6 of 12 blocks; no number",
        "reproduced: the change of the bow-tie lies above 0, also at equal distance in depth and with standardised "
        "dimensions; artefact: it lies above 0, but not in one of these",
    ),
    "last_half": Statement(
        "1b", "Tuning refines the last half of the network.",
        "Figure 1, by eye; no number",
        "reproduced: base and tuned are less alike in the last half of the blocks than in the first, by CKA and by "
        "standardised CKA; artefact: by CKA alone, or no less alike anywhere than two seeds of the recipe are",
    ),
    "same_place": Statement(
        "2", "Rogue dimensions emerge at the same place when tuning for different tasks.",
        "8 of the 10 dimensions of greatest variance are shared by the SST-2 and the QNLI model",
        "reproduced: 8 of 10 or more are shared, and more than the untuned base shares with the other model; artefact "
        "of pretraining: the base shares as many before it was tuned for anything",
        "a model of another task tuned from the same base, in the lens other_models",
    ),
    "one_dimension": Statement(
        "3", "One rogue dimension does the task nearly as well as the whole model: it encodes the task.",
        "GPT-2 .913 against .928 on SST-2 (1.6 % less), .866 against .882 on QNLI (1.8 % less)",
        "reproduced: the loudest dimension loses no more than 1.8 % of the model's accuracy, and its interval lies "
        "above the best random direction; artefact of any direction: it loses no more, but a random direction does as "
        "well",
    ),
    "few_dimensions": Statement(
        "3b", "The dimensions of least variance can go: 765 of 768 are removed with next to no loss.",
        "Figure 6, by eye, SST-2: no loss; QNLI: about .85 to about .50 only near the last three",
        "reproduced: removing all but the same share of the loudest loses no more than 2 points, and a random choice "
        "of as many loses more; artefact: a random choice loses no more",
    ),
    "all_models": Statement(
        "4", "Rogue dimensions do not encode the task to the same degree in all models: less so in BERT.",
        "BERT .760 against .922 on SST-2 (17.5 % less), .819 against .897 on QNLI (8.7 % less)",
        "reproduced: the loudest dimension loses a greater part of the accuracy in the encoder than in the decoder, "
        "intervals apart",
        "a decoder and an encoder among the arms",
    ),
}  # fmt: skip


def claims(outputs: Mapping[str, pl.DataFrame], arms: Mapping[str, Arm]) -> LensOutput | None:
    """Judge every claim for every arm; None where the lenses that they are about were not run.

    Args:
        outputs: The tables of the lenses, over all arms and seeds; ``cka`` and ``dimensions`` at least.
        arms: What is known of each arm: whether it learned its task, and whether it is a decoder.
    """
    if any(name not in outputs for name in NEEDED):
        return None
    records = [
        {**_stated(name), **record}
        for arm, about in arms.items()
        for name, record in _of_arm(outputs, arm, about)
    ]
    records += [{**_stated("all_models"), **record} for record in _across(outputs, arms)]
    provenance = {"what": WHAT, "rows": {}, "options": {}, "notes": []}
    return LensOutput(NAME, result_table(records), None, [], provenance)


def _stated(name: str) -> dict[str, Any]:
    one = STATEMENTS[name]
    needed = "; ".join(part for part in (one.needed, GPT2_SMALL) if part)
    return {
        "metric": "claim", "claim": one.number, "statement": one.claim, "theirs": one.theirs, "rule": one.rule,
        "needed": needed,
    }  # fmt: skip


def _of_arm(
    outputs: Mapping[str, pl.DataFrame], arm: str, about: Arm
) -> Iterator[tuple[str, dict[str, Any]]]:
    own = {name: table.filter(pl.col("arm") == arm) for name, table in outputs.items()}
    judged = {
        "bow_tie": bow_tie_claim(own["cka"]),
        "last_half": last_half_claim(own["cka"]),
        "same_place": same_place_claim(own.get("other_models"), own.get("spread")),
        "one_dimension": one_dimension_claim(own["dimensions"]),
        "few_dimensions": few_dimensions_claim(own["dimensions"]),
    }
    for name, one in judged.items():
        yield name, {"arm": arm, "arms": arm, "model": "tuned", **_verdict(one, about)}


def _verdict(one: Judged, about: Arm) -> dict[str, Any]:
    """Return the judgement, unless the model did not learn its task: then nothing it does says what tuning does."""
    unlearned = about.learned is False and not one.verdict.startswith("not testable")
    why = "its accuracy does not clear the majority's" if unlearned else one.why
    return {
        "value": one.value, "low": one.low, "high": one.high, "n": one.n, "ours": one.ours, "why": why,
        "verdict": "task not learned" if unlearned else one.verdict,
    }  # fmt: skip


def _across(outputs: Mapping[str, pl.DataFrame], arms: Mapping[str, Arm]) -> Iterator[dict[str, Any]]:
    """Yield claim 4: the encoder's loss minus the decoder's, of every pair of such arms."""
    decoders = [name for name, one in arms.items() if one.decoder]
    encoders = [name for name, one in arms.items() if one.decoder is False]
    if not decoders or not encoders:
        why = "the study has no encoder" if decoders else "the study has no decoder"
        yield {
            "arms": ", ".join(arms),
            "verdict": "not testable here",
            "why": why,
            "ours": "",
            "model": "tuned",
        }
        return
    table = outputs["dimensions"]
    for first in decoders:
        for second in encoders:
            losses = [one_dimension_claim(table.filter(pl.col("arm") == name)) for name in (first, second)]
            unlearned = [name for name in (first, second) if arms[name].learned is False]
            yield {
                "arms": f"{first} and {second}",
                "model": "tuned",
                **_compared(losses[0], losses[1], unlearned),
            }


def _compared(decoder: Judged, encoder: Judged, unlearned: list[str]) -> dict[str, Any]:
    ends = [decoder.value, encoder.value, decoder.low, encoder.high]
    if any(end is None for end in ends):
        return {"verdict": "not testable here", "why": "a loss is not known", "ours": ""}
    ours, theirs, low, high = (float(end) for end in ends if end is not None)
    about = {
        "value": theirs - ours,
        "ours": "of the accuracy, decoder " + ", encoder ".join(_loss(one) for one in (decoder, encoder)),
        "n": decoder.n,
    }
    if unlearned:
        why = f"{', '.join(unlearned)}: accuracy does not clear the majority's"
        return {**about, "verdict": "task not learned", "why": why}
    if high < low:  # losses are negative: the encoder loses more
        return {**about, "verdict": "reproduced", "why": "the encoder loses more, intervals apart"}
    why = "the encoder loses no more, or the intervals overlap"
    return {**about, "verdict": "not reproduced", "why": why}


def _loss(one: Judged) -> str:
    return said(Judged("", "", "", one.value, one.low, one.high), 3, True)
