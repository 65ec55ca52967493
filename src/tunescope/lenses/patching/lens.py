"""Activation patching between a clean and a corrupted text: where in the network is what tells them apart?

*Denoising* puts activations of the clean text into the run of the corrupted one: what they bring back is sufficient at
that place. *Noising* puts activations of the corrupted text into the clean run: what is lost was necessary there (Vig
et al. 2020; Meng et al. 2022; Wang et al. 2022; Heimersheim and Nanda 2024). Both are measured as the share R of the
gap between the two texts in the logit margin of the clean text's class, over pairs whose gap is above a floor.

Formula:
    ``R = (m_patched - m_corrupted) / (m_clean - m_corrupted)``, a ratio of sums over pairs; m is the margin of
    the clean text's class.

Range:
    About 0 (nothing carried) to 1 (the whole gap); below 0 and above 1 where a patch overshoots.

How to read:
    Denoising that recovers says that a place suffices; noising that loses says that it was needed. Hold both
    against patches from an unrelated text.

Cost:
    Pairs times sites times positions, each started in its own block.

Limits:
    Needs pairs of equal token length; pairs whose gap is below ``floor`` are left out and counted. Some places carry
    all or nothing whatever was learnt; the column ``by_construction`` says so, and no finding picks them. Both stacks
    of an encoder-decoder read the text, the decoder one place later: ``before``, ``at`` and ``after`` count there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tunescope.capture.patch import PatchPlace, first_stream
from tunescope.capture.patch_stacks import stack_sites
from tunescope.capture.sites import HEAD_OUT, Site, stack_of
from tunescope.errors import LensError
from tunescope.lenses.patching.construction import by_construction
from tunescope.lenses.patching.cross import PatchSite, place_axes
from tunescope.lenses.patching.measure import PICKS
from tunescope.lenses.patching.pairs import Pairs, PairTokens, pairs_of
from tunescope.lenses.patching.runs import (
    PairMargins,
    PatchRequest,
    Shares,
    pair_margins,
    share_differences,
    shares,
)
from tunescope.lenses.subject import LensRows, Subject
from tunescope.models.classifier import Classifier
from tunescope.progress import Task
from tunescope.seeds import derive_seed
from tunescope.stats.results import result_table
from tunescope.stats.tests import benjamini_hochberg

WHAT = (
    "Share of the gap in margin between a clean and a corrupted text that one place's activations bring back (clean "
    "into corrupted) or take away (corrupted into clean); base and tuned on the same pairs."
)
Position = Literal["all", "before", "at", "after", "pooled"]
Way = Literal["denoising", "noising"]
FEWEST_GROUPS = 8
MANY = 100_000  # of the split all rows may lend an unrelated text


class PatchingOptions(BaseModel):
    """Options of the lens ``patching``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: LensRows = Field(
        default_factory=lambda: LensRows(n=64), description="which rows pairs are made from (words, rows)"
    )
    pairs: Pairs = Field(default_factory=Pairs, description="where pairs of texts come from")
    directions: tuple[Way, ...] = Field(
        ("denoising", "noising"), min_length=1, description="denoising (clean into corrupted), noising"
    )
    sites: tuple[PatchSite, ...] = Field(
        ("resid_pre", "attn_out", "mlp_out", "head_out"),
        min_length=1,
        description="what is patched: resid_pre, attn_out, mlp_out, head_out (per head), resid_post",
    )
    positions: tuple[Position | int, ...] = Field(
        ("all", "before", "at", "after", "pooled"),
        min_length=1,
        description="tokens that are patched: all; before, at or after the tokens that differ; pooled; or a number, "
        "negative from behind the last",
    )
    head_positions: tuple[Position | int, ...] = Field(
        ("all",), min_length=1, description="the same for heads, of which there are many"
    )
    floor: float = Field(
        0.5, gt=0, description="least gap in margin between the two texts of a pair, in logits: above 0"
    )
    unrelated_control: bool = Field(
        True, description="whether every place is also patched from an unrelated text of equal length"
    )
    tokens_at_once: int = Field(2048, ge=64, description="tokens in one pass; bounds the memory")


def run(subject: Subject, options: PatchingOptions) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Patch between the texts of every pair in base and tuned; return shares of the gap, and the pairs.

    The base is left out where its base head is ``none``.

    Raises:
        LensError: A pair has unequal lengths, no pair can be made, or a place is outside the model.
    """
    pairs = pairs_of(subject, options.pairs, options.rows)
    places = places_of(subject.tuned, options)
    certain = by_construction(subject.tuned, places, pairs.clean, pairs.corrupt)
    axes = [{**_axes(place), "by_construction": one} for place, one in zip(places, certain, strict=True)]
    models = subject.models_with_logits()
    total = len(models) * len(options.directions) * len(pairs)
    pool = subject.draw(LensRows(split=options.rows.split, n=MANY), labelled=False)
    records: list[dict[str, Any]] = []
    examples = []
    margins: dict[tuple[str, str], PairMargins] = {}
    with subject.progress.task(f"{subject.arm}: patching between texts", total, "pairs") as task:
        for which, model in models:
            for way in options.directions:
                request = PatchRequest(
                    places, derive_seed(subject.sampling_seed, "patching"), options.unrelated_control,
                    tokens_at_once=options.tokens_at_once, pool=pool,
                )  # fmt: skip
                found = margins[which, way] = _margins(model, pairs, way, request, task)
                head = subject.base_head if which == "base" else "tuned"
                about = {
                    "arm": subject.arm, "seed": subject.seed, "model": which, "base_head": head, "direction": way,
                }  # fmt: skip
                records += _records(found, pairs, axes, options, about, subject)
                if way == options.directions[0]:
                    examples.append(_examples(subject, which, way, found, pairs))
    if len(models) == 2:
        for way in options.directions:
            records += _changes(
                margins["tuned", way], margins["base", way], pairs, (axes, way), options, subject
            )
    return result_table(records), pl.concat(examples)


def places_of(model: Classifier, options: PatchingOptions) -> list[PatchPlace]:
    """List what is patched, layer by layer.

    The whole stream at every token carries everything by construction and is left to the control; ``pooled`` is left
    out where pooling reads all tokens. In an encoder-decoder the whole stream of one stack does not: the encoder's
    (once: it is the same from every block on) says what comes from the encoder's reading of the text, the decoder's
    what it has taken up so far. The encoder has no pooled token.
    """
    if model.is_encoder_decoder:
        sites = stack_sites(model, options.sites)
    else:
        sites = [Site(site, layer) for layer in range(model.n_layers) for site in options.sites]
    found = []
    for site in sites:
        of_heads = site.name in HEAD_OUT
        heads = [(head,) for head in range(stack_of(model, site).n_heads)] if of_heads else [None]
        for where in options.head_positions if of_heads else options.positions:
            if (where == "pooled" and (model.pooling == "mean" or site.stack == "encoder")) or (
                where == "all" and site.name in ("resid_pre", "resid_post") and _whole(site)
            ):
                continue
            found += [PatchPlace(site, own, where) for own in heads]
    if not found:
        raise LensError(
            "patching: these sites and positions leave nothing to patch; the whole stream is the control."
        )
    return found


def _whole(site: Site) -> bool:
    """Whether patching a stream at every token says nothing new: all of it, or the same as an earlier block's."""
    return site.stack is None or (site.stack == "encoder" and (site.name, site.layer) != ("resid_pre", 0))


def _margins(
    model: Classifier, pairs: PairTokens, way: str, request: PatchRequest, task: Task
) -> PairMargins:
    sides = (pairs.corrupt, pairs.clean) if way == "denoising" else (pairs.clean, pairs.corrupt)
    return pair_margins(model, sides[0], sides[1], pairs.clean.labels, request, task)


def _changes(
    tuned: PairMargins, base: PairMargins, pairs: PairTokens, about: tuple[Sequence[dict[str, Any]], str],
    options: PatchingOptions, subject: Subject,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return what tuning changed in every place's share: tuned minus base, on pairs above the floor in both."""
    places, way = about
    shared = {
        "arm": subject.arm, "seed": subject.seed, "model": "tuned_minus_base", "base_head": subject.base_head,
        "direction": way,
    }  # fmt: skip
    records = []
    for control, ours, theirs in (
        ("none", tuned.patched, base.patched), ("unrelated", tuned.unrelated, base.unrelated),
    ):  # fmt: skip
        if ours is not None and theirs is not None:
            found = share_differences(
                (tuned, ours), (base, theirs), options.floor, pairs.groups, subject.sampling_seed
            )
            records += _shown(found, places, {**shared, "control": control})
    return records


def _records(
    found: PairMargins, pairs: PairTokens, axes: Sequence[dict[str, Any]], options: PatchingOptions,
    about: dict[str, Any], subject: Subject,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return one record a place, estimator and control; the strongest place picked on one half, shown on the other."""
    seed = subject.sampling_seed

    def of(patched: np.ndarray, rows: np.ndarray | None = None) -> Shares:
        return shares(found, patched, options.floor, pairs.groups, seed, rows)

    own = of(found.patched)
    records = _shown(own, axes, {**about, "control": "none"})
    if found.unrelated is not None:
        records += _shown(of(found.unrelated), axes, {**about, "control": "unrelated"})
    whole = [_axes(first_stream(subject.tuned))]
    for control, runs in (("no_op", found.no_op), ("everything", found.everything)):
        records += _shown(of(runs[:, None]), whole, {**about, "control": control})
    if len(np.unique(pairs.groups)) >= FEWEST_GROUPS:
        records += _picked(found, pairs, axes, options, about, seed)
    if own.pairs == 0:
        note = (
            f"patching: in the {about['model']} model no pair's gap in margin is {options.floor:g} logits or more, so "
            "there is nothing to bring back."
        )
        if note not in subject.notes:
            subject.notes.append(note)
    return records


def _axes(place: PatchPlace) -> dict[str, Any]:
    return {**place_axes(place), "position": str(place.positions)}


def _shown(found: Shares, axes: Sequence[dict[str, Any]], about: dict[str, Any]) -> list[dict[str, Any]]:
    metric = "recovered" if about["direction"] == "denoising" else "lost"
    q = benjamini_hochberg(found.p) if about["control"] == "none" else np.full(len(axes), np.nan)
    records = []
    for estimator, intervals in (("ratio_of_sums", found.ratio), ("mean_of_ratios", found.mean)):
        for index, (own, interval) in enumerate(zip(axes, intervals, strict=True)):
            records.append({
                **about, **own, "metric": metric, "estimator": estimator, "value": interval.value,
                "low": interval.low, "high": interval.high, "n": found.pairs, "p": found.p[index], "q": q[index],
                "note": interval.note,
            })  # fmt: skip
    return records


def _picked(
    found: PairMargins, pairs: PairTokens, axes: Sequence[dict[str, Any]], options: PatchingOptions,
    about: dict[str, Any], seed: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Pick the place with the largest share on one half of the texts, and show it on the other.

    Places that carry all by construction are no candidates: nothing about the model is learnt from them.
    """
    groups = np.unique(pairs.groups)
    generator = np.random.default_rng(derive_seed(seed, "halves of pairs"))
    chosen = set(groups[generator.permutation(len(groups))[: (len(groups) + 1) // 2]].tolist())
    inside = np.array([group in chosen for group in pairs.groups])
    kept = np.abs(found.gap) >= options.floor
    if not ((kept & inside).any() and (kept & ~inside).any()):
        return []
    sign = np.sign(found.gap[kept & inside])
    moved = found.patched[kept & inside] - found.recipient[kept & inside, None]
    strength = (moved * sign[:, None]).mean(axis=0)
    records = []
    for pick, sites in PICKS.items():
        usable = [
            index for index, one in enumerate(axes) if one["site"] in sites and one["by_construction"] is None
        ]
        if not usable:
            continue
        best = max(usable, key=lambda index: strength[index])
        for control, table in (("split_half", found.patched), ("split_half_unrelated", found.unrelated)):
            if table is not None:
                of = shares(
                    found, table[:, [best]], options.floor, pairs.groups, seed, np.flatnonzero(~inside)
                )
                records += [
                    {**one, "pick": pick} for one in _shown(of, [axes[best]], {**about, "control": control})
                ]
    return records


def _examples(subject: Subject, which: str, way: str, found: PairMargins, pairs: PairTokens) -> pl.DataFrame:
    """Return the pairs with both margins, so that a reader sees what was compared."""
    clean, corrupt = (found.donor, found.recipient) if way == "denoising" else (found.recipient, found.donor)
    return pl.DataFrame({
        "arm": [subject.arm] * len(pairs), "seed": pl.Series([subject.seed] * len(pairs), dtype=pl.Int64),
        "model": [which] * len(pairs), "pair": pairs.names, "change": pairs.changes,
        "class": [subject.tuned.labels.names[label] for label in pairs.clean.labels],
        "margin_clean": clean, "margin_corrupt": corrupt,
    })  # fmt: skip
