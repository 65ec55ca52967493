"""Which components carry the change of an answer when words of a text are exchanged?

Causal mediation by activation patching (Vig et al. 2020): the original text is run with one component's value from the
rewritten text. The share mediated is what this moves the margin, of what the whole rewriting moves it: ``(m(original
with the component from rewritten) - m(original)) / (m(rewritten) - m(original))``. Shares of components need not sum
to 1: components act on one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tunescope.capture.patch import PatchPlace
from tunescope.capture.sites import Site
from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.lenses.patching.runs import PatchRequest, pair_margins, shares
from tunescope.lenses.subject import clusters
from tunescope.models.classifier import Classifier
from tunescope.progress import Task
from tunescope.stats.tests import benjamini_hochberg

Component = Literal["heads", "attention", "mlp", "layer", "dimensions"]
SITES = {"heads": "head_out", "attention": "attn_out", "mlp": "mlp_out", "layer": "resid_pre"}


@dataclass(frozen=True)
class MediationOptions:
    """How mediation is measured.

    Attributes:
        components: ``heads``, ``attention``, ``mlp`` (each at every token) and ``layer``: the stream before a block, at
            the tokens that were changed (``at``) and at the pooled token; the two say from which block on the change
            has left the changed words. ``dimensions``: each dimension alone of the stream behind some blocks, at every
            token.
        dimension_layers: The blocks behind which dimensions are patched; None for the last, whose stream the head
            reads. Behind earlier blocks every dimension costs a run of the blocks that follow.
        floor: Least absolute change of margin that a pair must have, in logits.
        unrelated: Whether each component is also patched from another pair's rewritten text of equal length.
        random: Whether each component is also moved as far in a random direction.
        seed: Seeds resamples, permutations and random directions.
        tokens_at_once: Tokens in one pass; bounds the memory.
    """

    components: tuple[Component, ...] = ("heads", "attention", "mlp", "layer")
    dimension_layers: tuple[int, ...] | None = None
    floor: float = 0.1
    unrelated: bool = True
    random: bool = True
    seed: int = 0
    tokens_at_once: int = 2048


def mediation(
    model: Classifier,
    original: Tokens,
    rewritten: Tokens,
    options: MediationOptions | None = None,
    *,
    groups: np.ndarray | None = None,
    task: Task | None = None,
) -> list[dict[str, Any]]:
    """Return the mediated share of every component, with intervals and controls.

    Args:
        model: The classifier.
        original: The original texts, N; their labels are the classes whose margin is measured.
        rewritten: The rewritten texts; each of as many tokens as its original (select equal lengths first, and say how
            many pairs that leaves).
        options: How it is measured.
        groups: Group of each pair, [N]; None groups pairs whose original texts are equal.
        task: Where to report pairs.

    Returns:
        Records with ``site``, ``layer``, ``head``, ``dimension``, ``position``, ``control`` (``none``, ``unrelated``,
        ``random``; ``no_op`` is 0 and ``everything`` is 1 by construction), ``metric`` (``mediated_share``),
        ``estimator`` (``ratio_of_sums``, ``mean_of_ratios``; of dimensions the first alone), ``value``, ``low``,
        ``high``, ``n`` (pairs above the floor), ``p``, ``q`` (Benjamini-Hochberg over all components, and apart from
        them over all dimensions) and ``note``; 0 is no share, 1 the whole change, below 0 against it.

    Raises:
        LensError: There is no pair, a pair has unequal lengths or no label, or a logit is not finite.
        SiteError: There is no such layer.
    """
    options = options or MediationOptions()
    if len(original) != len(rewritten) or len(original) == 0:
        raise LensError(
            f"Mediation needs pairs; came {len(original)} original and {len(rewritten)} rewritten texts."
        )
    if (original.labels < 0).any():
        name = original.row_ids[int((original.labels < 0).argmax())]
        raise LensError(f"Pair {name} has no label, so no margin of its class can be measured.")
    places = components_of(model, options.components)
    if "dimensions" in options.components:
        places += dimensions_of(model, options.dimension_layers)
    request = PatchRequest(places, options.seed, options.unrelated, options.random, options.tokens_at_once)
    found = pair_margins(model, original, rewritten, original.labels, request, task)
    own = clusters(original) if groups is None else groups
    tables = {"none": found.patched, "unrelated": found.unrelated, "random": found.random}
    families = (
        [index for index, place in enumerate(places) if place.dimensions is None],
        [index for index, place in enumerate(places) if place.dimensions is not None],
    )
    records: list[dict[str, Any]] = []
    for control, table in tables.items():
        for family in families:
            if table is not None and family:
                found_shares = shares(found, table[:, family], options.floor, own, options.seed)
                records += _records([places[index] for index in family], found_shares, control)
    whole = [PatchPlace(Site("resid_pre", 0))]
    for control, runs in (("no_op", found.no_op), ("everything", found.everything)):
        records += _records(whole, shares(found, runs[:, None], options.floor, own, options.seed), control)
    return records


def components_of(model: Classifier, wanted: Sequence[str]) -> list[PatchPlace]:
    """List the components of a model but for single dimensions, layer by layer."""
    found = []
    for layer in range(model.n_layers):
        for name in wanted:
            if name == "dimensions":
                continue
            site = Site(SITES[name], layer)
            if name == "heads":
                found += [PatchPlace(site, (head,)) for head in range(model.n_heads)]
            elif name == "layer":
                found += [PatchPlace(site, None, "at")]
                found += [PatchPlace(site, None, "pooled")] if model.pooling != "mean" else []
            else:
                found.append(PatchPlace(site))
    return found


def dimensions_of(model: Classifier, layers: Sequence[int] | None) -> list[PatchPlace]:
    """List every dimension of the stream behind some blocks, of the last where none is named."""
    chosen = [model.n_layers - 1] if layers is None else list(dict.fromkeys(layers))
    return [
        PatchPlace(Site("resid_post", layer), dimensions=(one,))
        for layer in chosen
        for one in range(model.width)
    ]


def _records(places: Sequence[PatchPlace], found: Any, control: str) -> list[dict[str, Any]]:
    q = benjamini_hochberg(found.p) if control == "none" else np.full(len(places), np.nan)
    estimators = (("ratio_of_sums", found.ratio), ("mean_of_ratios", found.mean))
    return [
        {
            "site": place.site.name, "layer": place.site.layer, "head": place.heads[0] if place.heads else None,
            "dimension": place.dimensions[0] if place.dimensions else None, "position": str(place.positions),
            "control": control, "metric": "mediated_share", "estimator": estimator,
            "value": interval.value, "low": interval.low, "high": interval.high, "n": found.pairs,
            "p": float(found.p[index]), "q": float(q[index]), "note": interval.note,
        }
        for estimator, intervals in (estimators if places[0].dimensions is None else estimators[:1])
        for index, (place, interval) in enumerate(zip(places, intervals, strict=True))
    ]  # fmt: skip
