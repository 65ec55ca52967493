"""Which components carry the change that a suite's pairs make: mediation on pairs of equal token count."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from tunescope.config.behaviour import MediationConfig
from tunescope.config.problems import unknown
from tunescope.data.labels import LabelMap
from tunescope.data.rows import Rows
from tunescope.data.tokens import Tokens, tokenize
from tunescope.errors import ConfigError
from tunescope.lenses import Subject
from tunescope.lenses.patching.mediation import MediationOptions, mediation
from tunescope.models.classifier import Classifier
from tunescope.stats.results import Finding

LEAST_PAIRS = 5
RATIO = "ratio_of_sums"
TESTS = {
    "head": "sign flips over pairs, corrected over components",
    "dimension": "sign flips over pairs, corrected over dimensions",
}


def mediated(
    subject: Subject, examples: pl.DataFrame, config: MediationConfig, seed: int
) -> tuple[list[dict[str, Any]], list[Finding], list[str]]:
    """Return which components carry the change of margin of the pairs that move the tuned model most, suite by suite.

    Only pairs whose two texts have equally many tokens, and none cut, can be patched; how many that leaves is said.

    Args:
        subject: The models; the base counts where it has logits.
        examples: Ranked pairs of this training, by suite, with their column ``same_token_count``.
        config: How many pairs, and which components.
        seed: Seeds random directions and unrelated texts.

    Returns:
        Rows of the table (``part`` mediation), sentences, and notes.

    Raises:
        ConfigError: A suite is named that is not there.
        SiteError: The model has no such layer.
    """
    records: list[dict[str, Any]] = []
    findings: list[Finding] = []
    notes: list[str] = []
    layers = None if config.dimension_layers is None else tuple(config.dimension_layers)
    options = MediationOptions(tuple(config.components), layers, seed=seed)
    there = list(dict.fromkeys(examples["suite"]))
    for name in config.suites or ():
        if name not in there:
            raise ConfigError(
                f"behaviour.mediation.suites: {unknown('suite', name, there)}.",
                hint="Name suites as the report does: a suite file goes by its own name.",
            )
    for suite in there if config.suites is None else config.suites:
        pairs = examples.filter((pl.col("suite") == suite) & pl.col("rewritten").is_not_null())
        pairs = pairs.unique(["original", "rewritten"], keep="first", maintain_order=True)
        even = pairs.filter("same_token_count", pl.col("margin_change_tuned").abs() > options.floor)
        first, second = (_tokens(subject.tuned, even, side) for side in ("original", "rewritten"))
        whole = np.flatnonzero(~first.truncated & ~second.truncated)
        kept = whole[: config.pairs]
        said = f"{len(whole):,} of {pairs.height:,} pairs have equally many tokens and move by more than the floor"
        notes.append(f"{suite}: mediation on {len(kept):,} pairs; {said}")
        if len(kept) < LEAST_PAIRS:
            notes.append(f"{suite}: no mediation, it needs {LEAST_PAIRS} such pairs")
            continue
        for name, model in subject.models_with_logits():
            found = mediation(model, first.take(kept), second.take(kept), options)
            axes = {
                "arm": subject.arm,
                "seed": subject.seed,
                "model": name,
                "suite": suite,
                "part": "mediation",
            }
            axes["base_head"] = subject.base_head if name == "base" else None
            own = [{**one, **axes} for one in found]
            for one in own:
                one["control"] = None if one["control"] == "none" else one["control"]
            records += own
            if name == "tuned":
                findings += _finding(subject, suite, own, "head")
                findings += _finding(subject, suite, own, "dimension")
    return records, findings, notes


def _tokens(model: Classifier, pairs: pl.DataFrame, side: str) -> Tokens:
    """Return the tokens of one side of the pairs; their label is the class that is followed."""
    labels = LabelMap(tuple(model.labels.names))
    frame = pl.DataFrame(
        {
            "row_id": pairs["pair_id"],
            "position": pl.Series(range(pairs.height), dtype=pl.Int64),
            "split": ["test"] * pairs.height,
            "text": pairs[side],
            "label": pl.Series([labels.index(name) for name in pairs["followed"]], dtype=pl.Int64),
        }
    )
    return tokenize(Rows(frame, labels, {}), model.tokenizer, model.max_length).first_windows()


def _finding(subject: Subject, suite: str, records: Sequence[dict[str, Any]], axis: str) -> list[Finding]:
    """Return the sentence about the head or dimension that carries most, held against the same of an unrelated text."""
    ratio = [one for one in records if one["estimator"] == RATIO and one[axis] is not None]
    own = [one for one in ratio if one["control"] is None and one["value"] is not None]
    if not own:
        return []
    best = max(own, key=lambda one: one["value"])
    place = (best["layer"], best[axis])
    controls = [one for one in ratio if one["control"] is not None and (one["layer"], one[axis]) == place]
    beside = ", ".join(
        f"{one['control']} {one['value']:+.3f}" for one in controls if one["value"] is not None
    )
    largest = max((one["value"] for one in controls if one["value"] is not None), default=0.0)
    clear = (
        best["q"] is not None
        and best["q"] <= 0.05
        and best["low"] is not None
        and best["low"] > max(largest, 0.0)
    )
    ends = "" if best["low"] is None else f" [{best['low']:+.3f}, {best['high']:+.3f}]"
    name = (
        f"L{place[0]}H{place[1]}" if axis == "head" else f"{place[1]} of the stream behind block {place[0]}"
    )
    said = (
        f"{suite}: of single {axis}s {name} carries most of the change of margin, a share of "
        f"{best['value']:+.3f}{ends} (n = {best['n']:,} pairs of equal token count; controls: {beside or 'none'}). It "
        f"is {'beyond' if clear else 'not clearly beyond'} its controls, and picked on the pairs it is shown on."
    )
    said = re.sub(r"(?<=[ [])-(?=\d)", "−", said)
    return [
        Finding(
            lens="behaviour", arm=subject.arm, sentence=said, metric=f"{suite} mediated_share", value=best["value"],
            low=best["low"], high=best["high"], n=best["n"], test=TESTS[axis],
            control=f"the same {axis} from an unrelated text; a random direction of equal norm",
            rows="pairs that move most, of equal token count", verdict="found" if clear else "undecided",
        )
    ]  # fmt: skip
