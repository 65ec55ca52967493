"""Ablation of heads, sublayers and what else is named: what the model's answer loses without it.

Effects are changes of the logit margin ``z_y - logsumexp(z_c, c != y)`` of the true class y, and of its probability,
per example and paired, so that intervals and tests are paired too. Zero ablation takes a component away; mean
ablation replaces it by its mean over real tokens and so keeps what it adds to every input alike; resampling puts
another example's value there; noise adds Gaussian noise of the component's own spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.lenses import ablation_table as tables
from tunescope.lenses.components import (
    KIND_SITES,
    EditKind,
    Kind,
    Scope,
    Variant,
    all_but_one,
    every,
    named_groups,
    pairs,
    parse,
    removals,
    single,
)
from tunescope.lenses.directions import Direction, directions_of
from tunescope.lenses.effects import ARRAYS, Effects, Metric, empty_effects, fill
from tunescope.lenses.replacement import needs_statistics, statistics
from tunescope.lenses.samples import Sample, sample_rows
from tunescope.lenses.subject import LensRows, Subject
from tunescope.lenses.sweep import Sweep, stored_width
from tunescope.models.classifier import Classifier
from tunescope.progress import Task
from tunescope.seeds import derive_seed
from tunescope.stats.results import result_table

WHAT = (
    "Change of the true class's logit margin (and probability) when one head, attention sublayer or MLP sublayer is "
    "replaced by zero or by its mean; paired per example, base under its base head beside tuned."
)
Order = Literal["strongest_first", "weakest_first", "random"]
NEVER_RANDOM = ("pair", "all_but_one", "removal")  # their control is the single component, or a random order


class Removal(BaseModel):
    """An ordered removal: components are taken out one after another, and stay out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    of: Kind = Field("heads", description="what is removed: heads, attention, mlp or block")
    orders: tuple[Order, ...] = Field(
        ("strongest_first", "weakest_first", "random"),
        min_length=1,
        description="strongest_first (largest loss of margin), weakest_first, random",
    )
    steps: int = Field(8, ge=1, description="how many points a curve has: 1 or more")
    random_orders: int = Field(3, ge=1, description="how many random orders are drawn: 1 or more")


class AblationOptions(BaseModel):
    """Options of the lens ``ablation``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: LensRows = Field(default_factory=LensRows, description="which rows to look at")
    sample: Sample = Field(default_factory=Sample, description="how rows are chosen from the split")
    components: tuple[Kind, ...] = Field(
        ("heads", "attention", "mlp"), description="what is ablated one by one: heads, attention, mlp, block"
    )
    also: tuple[str, ...] = Field(
        (),
        description="single places more, such as L3N10-20 (neurons), L3D7 (a dimension), T0 or T-1 (a position)",
    )
    groups: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="named sets that are ablated together, such as {early: [L0H1, L1H2]}",
    )
    directions: dict[str, Direction] = Field(
        default_factory=dict, description="directions of the residual stream that are removed, by name"
    )
    pairs: Literal["none", "within_layer", "all"] = Field(
        "none", description="whether pairs of heads are ablated: none, within_layer or all"
    )
    all_but_one: tuple[Kind, ...] = Field((), description="kinds of which all but one are ablated")
    removal: Removal | None = Field(None, description="ordered removal curves, or null")
    edits: tuple[EditKind, ...] = Field(
        ("zero", "mean"),
        min_length=1,
        description="zero, mean, position_mean, resample, resample_other_class, noise; one or more",
    )
    metrics: tuple[Metric, ...] = Field(
        ("margin_change", "probability_change"),
        min_length=1,
        description="margin_change, probability_change, predicted_margin_change, kl, flip, class_probability_change",
    )
    correction: Literal["bh", "max_t"] = Field(
        "bh", description="bh (false discovery rate over the sweep) or max_t (permutation of the largest t)"
    )
    split_half: bool = Field(
        True,
        description="whether the strongest component is picked on one half of the rows and shown on the other",
    )
    random_control: bool = Field(True, description="whether to sweep random directions of equal norm too")
    memory_gb: float = Field(
        4.0, gt=0, description="most memory for stored states and effects, in GB; more is refused"
    )
    reference_rows: int = Field(512, ge=4, description="train rows that the mean is taken over: 4 or more")
    tokens_at_once: int = Field(1024, ge=64, description="tokens in one pass; bounds the memory")


def planned(model: Classifier, options: AblationOptions) -> list[Variant]:
    """List every change of the first stage, with its controls; removals follow once effects are known.

    Raises:
        LensError: A component lies outside the model; the message gives the valid range.
    """
    found: list[Variant] = []
    for edit in options.edits:
        singles = every(model, options.components, edit)
        singles += [replace(parse(model, text), edit=edit) for text in options.also]
        found += singles
        found += named_groups(model, options.groups, edit)
        found += [one.variant(name, model, edit) for name, one in options.directions.items()]
        if options.pairs != "none":
            found += pairs(every(model, ("heads",), edit), options.pairs == "within_layer")
        for kind in options.all_but_one:
            found += all_but_one(every(model, (kind,), edit))
    found = list({(one.name, one.edit, one.scope): one for one in found}.values())  # each place once
    if options.random_control:
        found += [
            replace(one, control="random") for one in found
            if one.edit == options.edits[0] and one.scope not in NEVER_RANDOM
        ]  # fmt: skip
    found += [single("mlp_out", layer, None, options.edits[0], "no_op") for layer in range(model.n_layers)]
    return found


def sweep_effects(
    model: Classifier, tokens: Tokens, reference: Tokens, options: AblationOptions, seed: int, task: Task,
    chosen: Sequence[Variant] | None = None,
) -> Effects:  # fmt: skip
    """Run the sweep of one model and return paired effects, in the order of ``tokens``."""
    wanted = planned(model, options) if chosen is None else list(chosen)
    _require_room(model, tokens, wanted, options.memory_gb)
    was_training = model.training
    model.eval()
    try:
        known = statistics(model, reference, needs_statistics(wanted), "position_mean" in options.edits, task)
        names = {name: directions_of(one, model, reference) for name, one in options.directions.items()}
        sweep = Sweep(model, wanted, known, seed, options.tokens_at_once, reference, names)
        effects = empty_effects(wanted, len(tokens), len(model.labels.names))
        for index, clean, changed in sweep.run(tokens, task):
            fill(effects, index, clean, changed, tokens.labels[index])
    finally:
        model.train(was_training)
    return effects


def _require_room(model: Classifier, tokens: Tokens, wanted: Sequence[Variant], most: float) -> None:
    """Refuse a sweep whose effects and stored states would not fit, before it starts."""
    effects = len(tokens) * len(wanted) * (8 * (len(ARRAYS) - 1) + 4 * len(model.labels.names)) / 1e9
    longest = max(len(ids) for ids in tokens.input_ids)
    states = longest * stored_width(model, wanted) * 4 / 1e9
    if effects + states > most:
        raise LensError(
            f"The sweep of {len(wanted)} changes on {len(tokens)} rows would hold {effects:.2g} GB of effects and "
            f"{states:.2g} GB of stored states (rows of up to {longest} tokens), more than memory_gb: {most:g} allows.",
            hint="Take fewer rows (rows: {n: ...}) or components, or raise memory_gb.",
        )


def run(subject: Subject, options: AblationOptions) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Sweep base and tuned on the same rows; return the table of effects and the effects per example.

    The base is left out where its base head is ``none``. Tuned against base is the paired difference of effects of
    the same component.

    Raises:
        LensError: There are no labelled rows, a component is outside the model, or a value is not finite.
    """
    tokens, note = sample_rows(subject, options.rows, options.sample)
    if note is not None and note not in subject.notes:
        subject.notes.append(note)
    reference = subject.draw(LensRows(split="train", n=options.reference_rows), labelled=False)
    effects = _swept(subject, options, tokens, reference, None)
    records = _all_records(subject, options, effects, tokens)
    examples = [
        tables.examples(subject, which, found, tokens, options.metrics) for which, found in effects.items()
    ]
    if options.split_half:
        records += tables.split_half(subject, effects, tokens)
    if options.removal is not None:
        records += _removal_records(subject, options, effects["tuned"], tokens, reference)
    return result_table(records), pl.concat(examples)


def _swept(
    subject: Subject,
    options: AblationOptions,
    tokens: Tokens,
    reference: Tokens,
    chosen: Sequence[Variant] | None,
) -> dict[str, Effects]:
    """Return the effects of the base (where it has logits) and the tuned model."""
    models = subject.models_with_logits()
    total = len(models) * (len(tokens) + len(reference))
    what = "ablating heads and sublayers" if chosen is None else "removing one after another"
    with subject.progress.task(f"{subject.arm}: {what}", total, "rows") as task:
        return {
            name: sweep_effects(model, tokens, reference, options, subject.sampling_seed, task, chosen)
            for name, model in models
        }


def _all_records(
    subject: Subject, options: AblationOptions, effects: dict[str, Effects], tokens: Tokens
) -> list[dict[str, Any]]:
    pairs_of = dict(effects)
    if len(effects) == 2:
        pairs_of["tuned_minus_base"] = effects["tuned"].minus(effects["base"])
    summary = tables.Summary(subject, options.metrics, options.correction)
    return [record for which, found in pairs_of.items() for record in summary.records(which, found, tokens)]


def _removal_records(
    subject: Subject, options: AblationOptions, effects: Effects, tokens: Tokens, reference: Tokens
) -> list[dict[str, Any]]:
    """Rank components on one half of the rows and return the removal curves on the other."""
    assert options.removal is not None
    first, second = tables.halves(tokens, subject.sampling_seed)
    variants: list[Variant] = []
    singles = every(subject.tuned, (options.removal.of,), options.edits[0])
    if options.removal.of in options.components:
        column = {(one.name, one.edit): i for i, one in enumerate(effects.variants) if one.control == "none"}
        strength = np.array(
            [effects.margin_change[first, column[one.name, one.edit]].mean() for one in singles]
        )
    else:
        ranked = _swept(subject, options, tokens.take(first), reference, singles)["tuned"]
        strength = ranked.margin_change.mean(0)
    for edit in options.edits[:2]:
        mine = [replace(one, edit=edit) for one in singles]
        for order, name in _orders(options.removal, strength, subject.sampling_seed):
            variants += removals(
                [mine[index] for index in order], name, _steps(len(mine), options.removal.steps)
            )
    shown = tokens.take(second)
    return _all_records(subject, options, _swept(subject, options, shown, reference, variants), shown)


def _orders(removal: Removal, strength: np.ndarray, seed: int) -> list[tuple[np.ndarray, str]]:
    found: list[tuple[np.ndarray, str]] = []
    for order in removal.orders:
        if order == "random":
            for draw in range(removal.random_orders):
                generator = np.random.default_rng(derive_seed(seed, "removal order", draw))
                found.append((generator.permutation(len(strength)), f"random {draw}"))
        else:
            ranked = np.argsort(strength, kind="stable")  # the largest loss of margin first
            found.append((ranked if order == "strongest_first" else ranked[::-1], order))
    return found


def _steps(components: int, steps: int) -> list[int]:
    """Return at which numbers of removed components a curve is measured: 1, the whole, and evenly between."""
    return sorted({round(count) for count in np.linspace(1, components, min(steps, components)).tolist()})


__all__ = ["KIND_SITES", "AblationOptions", "Effects", "Removal", "Scope", "planned", "run", "sweep_effects"]
