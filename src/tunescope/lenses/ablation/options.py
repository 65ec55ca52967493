"""The options of the lens ``ablation``, and the changes that they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tunescope.lenses.ablation.components import (
    EditKind,
    Kind,
    Variant,
    all_but_one,
    every,
    named_groups,
    pairs,
    parse,
    removals,
    single,
)
from tunescope.lenses.ablation.components_encoder_decoder import no_ops_in_stacks
from tunescope.lenses.ablation.directions import Direction
from tunescope.lenses.ablation.effects import Metric
from tunescope.lenses.ablation.published import published_variants
from tunescope.lenses.ablation.samples import Sample
from tunescope.lenses.subject import LensRows
from tunescope.models.classifier import Classifier
from tunescope.seeds import derive_seed

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


class Screen(BaseModel):
    """Pre-ranking of single components by their gradients; it screens and never reports."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: Literal["attribution"] = Field("attribution", description="attribution patching with GradDrop")
    verify: int = Field(20, ge=1, description="how many of the best components are run exactly: 1 or more")
    check: bool = Field(
        False, description="whether all are run exactly, to say how well the screen ranks and what it misses"
    )


class AblationOptions(BaseModel):
    """Options of the lens ``ablation``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: LensRows = Field(default_factory=LensRows, description="which rows to look at")
    sample: Sample = Field(default_factory=Sample, description="how rows are chosen from the split")
    components: tuple[Kind, ...] = Field(
        ("heads", "attention", "mlp"),
        description="what is ablated one by one: heads, attention, attention_bias, mlp, block",
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
    as_published: str | None = Field(
        None,
        description="a class, or null: shows what study 000 published (its mask zeroed a bias, and every column held "
        "this class's probability; sadness) beside the true ablations",
    )
    screen: Screen | None = Field(
        None,
        description="pre-ranking by attribution patching, of which the best are verified exactly; or null",
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
    if options.as_published is not None:
        found += published_variants(model)
    found = list({(one.name, one.edit, one.scope): one for one in found}.values())  # each place once
    if options.random_control:
        found += [
            replace(one, control="random") for one in found
            if one.edit == options.edits[0] and one.scope not in NEVER_RANDOM
        ]  # fmt: skip
    if model.is_encoder_decoder:
        return found + no_ops_in_stacks(model, options.edits[0])
    found += [single("mlp_out", layer, None, options.edits[0], "no_op") for layer in range(model.n_layers)]
    return found


def removal_variants(
    options: AblationOptions, singles: Sequence[Variant], strength: np.ndarray, seed: int
) -> list[Variant]:
    """Return the steps of every removal curve, for the first two edits.

    Args:
        options: Of the lens; ``removal`` is set.
        singles: The components.
        strength: The effect of each alone, `[K]`; the lowest is the strongest.
        seed: Seeds random orders.
    """
    assert options.removal is not None
    found: list[Variant] = []
    for edit in options.edits[:2]:
        mine = [replace(one, edit=edit) for one in singles]
        for order, name in _orders(options.removal, strength, seed):
            steps = _steps(len(mine), options.removal.steps)
            found += removals([mine[index] for index in order], name, steps)
    return found


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
