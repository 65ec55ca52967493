"""Patching across models: where must the tuned model's activations be put into the base for the base to answer alike?

Both models run the same row; a site's activations of one are put into the other at every token (Prakash et al. 2024,
"cross-model activation patching"). Both are read through the tuned readout (final norm and head), so that the base
stands at 0 and the tuned model at 1, and a patch stands between: ``recovered`` is the share of tuning's gain that the
tuned activations bring into the base, ``lost`` the share that the base's activations take from the tuned model.

Formula:
    ``recovered = (m_patched - m_base) / (m_tuned - m_base)``, a ratio of sums over rows, m the margin under the
    tuned readout.

Range:
    About 0 (as the base) to 1 (as the tuned model); beyond both where a patch overshoots.

How to read:
    Where recovery jumps with depth, tuning's work reaches the stream. Single heads that recover much carry it.

Cost:
    Rows times sites in both models, each started in its own block.

Limits:
    Base and tuned must share their shape. What is not in the tuned readout's terms is not seen. Where tuning left
    weights as they were, some places carry all or nothing by construction; the column ``by_construction`` says so, and
    no finding picks them. In an encoder-decoder a stream is one of two: the decoder reads the text beside the
    encoder's output, so neither stack's stream carries everything by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field

from tunescope.capture.patch import PATCH_SITES, Patcher, PatchPlace, first_stream, passed, patcher_of
from tunescope.capture.patch_models import (
    moved_names,
    require_same_shape,
    trunk_state,
    tuned_readout,
    without_adapters,
)
from tunescope.capture.patch_stacks import stack_sites
from tunescope.capture.sites import HEAD_OUT, Site, head_weights, stack_of
from tunescope.data.tokens import Tokens
from tunescope.errors import LensError, ModelError
from tunescope.lenses.ablation.sweep import equal_length_batches, require_finite_pass
from tunescope.lenses.ablation.table import FEWEST_TEXTS, halves
from tunescope.lenses.patching.certain_across import Certain
from tunescope.lenses.patching.measure import Answers, Between
from tunescope.lenses.subject import LensRows, Subject, clusters
from tunescope.models.activations import fast_activations
from tunescope.models.classifier import Classifier
from tunescope.progress import Task
from tunescope.seeds import derive_seed
from tunescope.stats.results import result_table

WHAT = (
    "Share of tuning's gain in margin and accuracy that the tuned model's activations at one site bring into the base, "
    "and that the base's take from the tuned model, both read through the tuned head."
)
PatchSite = Literal["resid_pre", "attn_out", "head_out", "mlp_out", "resid_post"]
Direction = Literal["tuned_into_base", "base_into_tuned"]
TOKENS_STORED = 2048  # rows of one length that are stored together


class CrossOptions(BaseModel):
    """Options of the lens ``patching_cross``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: LensRows = Field(default_factory=LensRows, description="which rows to look at")
    sites: tuple[PatchSite, ...] = Field(
        ("resid_pre", "attn_out", "mlp_out", "head_out"),
        min_length=1,
        description="what is carried across: resid_pre, attn_out, mlp_out, head_out (per head), resid_post",
    )
    directions: tuple[Direction, ...] = Field(
        ("tuned_into_base", "base_into_tuned"),
        min_length=1,
        description="tuned_into_base (what is recovered), base_into_tuned (what is lost)",
    )
    random_control: bool = Field(
        True, description="whether every patch is also made in a random direction of equal size"
    )
    tokens_at_once: int = Field(2048, ge=64, description="tokens in one pass; bounds the memory")


def run(subject: Subject, options: CrossOptions) -> tuple[pl.DataFrame, None]:
    """Carry activations between base and tuned, and return shares of the gain.

    Raises:
        LensError: The models have different shapes, or there are no labelled rows.
    """
    tokens = subject.draw(options.rows)
    base, tuned = comparable(subject, "patching_cross")
    places = places_of(tuned, options.sites)
    certain = Certain.of(tuned, moved_names(trunk_state(base), trunk_state(tuned)))
    runs = _runs(places, options, certain)
    counts = {direction: len(_of(runs, direction)) for direction in options.directions}
    answers: dict[str, Answers] = {one: Answers.empty(len(tokens), count) for one, count in counts.items()}
    ends = Answers.empty(len(tokens), 2)
    seed = derive_seed(subject.sampling_seed, "patching across models")
    with subject.progress.task(f"{subject.arm}: patching across models", len(tokens), "rows") as task:
        both = _Both(base, tuned, options, places, seed)
        both.fill(tokens, answers, ends, task)
    between = Between(ends.columns([0]), ends.columns([1]), clusters(tokens), subject.sampling_seed)
    records = between.ends(subject)
    for direction, found in answers.items():
        records += between.records(subject, _of(runs, direction), found, direction == "base_into_tuned")
    if "tuned_into_base" in answers and len(set(between.groups.tolist())) >= FEWEST_TEXTS:
        first, second = halves(tokens, subject.sampling_seed)
        picks = between.picks(_of(runs, "tuned_into_base"), answers["tuned_into_base"], first)
        for direction, found in answers.items():
            records += between.picked(subject, _of(runs, direction), found, picks, second)
    return result_table(records), None


def comparable(subject: Subject, lens: str) -> tuple[Classifier, Classifier]:
    """Return base and tuned with adapters merged, after checking that weights and activations can change places.

    Raises:
        LensError: The models have different shapes; both shapes are said.
    """
    try:
        base, tuned = (
            without_adapters(subject.base, subject.base),
            without_adapters(subject.tuned, subject.base),
        )
        require_same_shape(base, tuned)
    except ModelError as error:
        raise LensError(f"{subject.arm}: {error}") from error
    ours, theirs = trunk_state(base), trunk_state(tuned)
    if all(torch.equal(value.cpu(), theirs[name].cpu()) for name, value in ours.items()):
        note = (
            f"{lens}: base and tuned have the same weights outside the head, so nothing differs between them."
        )
        if note not in subject.notes:
            subject.notes.append(note)
    return base, tuned


def places_of(model: Classifier, sites: Sequence[str]) -> list[PatchPlace]:
    """List every site of a model, head by head at ``head_out``, layer by layer.

    In an encoder-decoder ``attn_out`` and ``head_out`` are those of self-attention in both stacks and of
    cross-attention.
    """
    assert set(sites) <= set(PATCH_SITES)
    if model.is_encoder_decoder:
        every = stack_sites(model, sites)
    else:
        every = [Site(site, layer) for layer in range(model.n_layers) for site in sites]
    found = []
    for site in every:
        heads = range(stack_of(model, site).n_heads) if site.name in HEAD_OUT else None
        found += [PatchPlace(site)] if heads is None else [PatchPlace(site, (head,)) for head in heads]
    return found


def place_axes(place: PatchPlace) -> dict[str, Any]:
    """Return the columns that name a place; ``stack`` in an encoder-decoder alone."""
    site, head = place.site, place.heads[0] if place.heads else None
    stack = {} if site.stack is None else {"stack": site.stack}
    return {"site": site.name, "layer": site.layer, "head": head, **stack}


def _runs(places: Sequence[PatchPlace], options: CrossOptions, certain: Certain) -> list[dict[str, Any]]:
    controls = ["none", *(["random"] if options.random_control else [])]
    known = [certain.patch(place.site) for place in places]
    found = []
    for direction in options.directions:
        for control in controls:
            found += [
                {**place_axes(place), "control": control, "direction": direction,
                 "by_construction": one if control == "none" else None}
                for place, one in zip(places, known, strict=True)
            ]  # fmt: skip
        axes = place_axes(first_stream(certain.model))
        found.append({**axes, "control": "no_op", "direction": direction, "by_construction": None})
    return found


def _of(runs: Sequence[dict[str, Any]], direction: str) -> list[dict[str, Any]]:
    return [run for run in runs if run["direction"] == direction]


@dataclass(frozen=True)
class _Both:
    base: Classifier
    tuned: Classifier
    options: CrossOptions
    places: Sequence[PatchPlace]
    seed: int

    def fill(self, tokens: Tokens, answers: dict[str, Answers], ends: Answers, task: Task) -> None:
        """Run every patch on every row."""
        weights = {
            which: {
                one.site: head_weights(model, one.start, one.site.stack, one.site.name == "cross_head_out")
                for one in self.places if one.site.name in HEAD_OUT
            }
            for which, model in (("base", self.base), ("tuned", self.tuned))
        }  # fmt: skip
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn(len(self.places), self.base.width, generator=generator)
        random = drawn / drawn.norm(dim=1, keepdim=True)
        with torch.inference_mode(), tuned_readout(self.base, self.tuned):
            for batch in equal_length_batches(tokens, TOKENS_STORED):
                inputs = batch.to(self.base.device).inputs()
                with fast_activations(self.base.model), fast_activations(self.tuned.model):
                    passes = {"base": passed(self.base, inputs), "tuned": passed(self.tuned, inputs)}
                    for stored in passes.values():
                        require_finite_pass(stored, stored.logits, batch.row_ids)
                    for direction, found in answers.items():
                        into, of = ("base", "tuned") if direction == "tuned_into_base" else ("tuned", "base")
                        model = self.base if into == "base" else self.tuned
                        patcher = patcher_of(model, passes[into], passes[of], weights[of])
                        labels = np.asarray(tokens.labels[batch.index])
                        found.fill(batch.index, self._patched(patcher, random), labels, batch.row_ids)
                    both = torch.stack([passes["base"].logits, passes["tuned"].logits])
                    ends.fill(batch.index, both, np.asarray(tokens.labels[batch.index]), batch.row_ids)
                task.advance(len(batch.row_ids))

    def _patched(self, patcher: Patcher, random: torch.Tensor) -> torch.Tensor:
        """Return the logits of every run of one direction, in the order of the runs."""
        size = self.options.tokens_at_once
        found = [patcher.logits(self.places, size)]
        if self.options.random_control:
            found.append(patcher.logits(self.places, size, random))
        itself = patcher_of(patcher.model, patcher.recipient, patcher.recipient)
        found.append(itself.logits([first_stream(patcher.model)], size))
        return torch.cat(found)
