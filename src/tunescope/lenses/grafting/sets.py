"""The smallest sets of weights that carry the task: parts found greedily, and rows by how far tuning moved them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from tunescope.capture.graft_parts import GraftPart
from tunescope.lenses.grafting.runs import Grafts, Run
from tunescope.seeds import derive_seed


def greedy(picking: Grafts, parts: Sequence[Run], gain: float, reach: float) -> list[Run]:
    """Add the part that helps most, one after another, until a share of the accuracy's gain is reached.

    A step takes the part with the highest mean probability of the true class, which does not stand still where
    accuracy does. Parts whose weights did not change are never tried.

    Args:
        picking: The rows on which parts are picked.
        parts: The candidates, single grafts.
        gain: What the tuned model gains in accuracy on these rows.
        reach: The share of it to reach.

    Returns:
        The sets of 1, 2, ... parts in the order in which they grew; the last is ``picked``, unless all parts together
        do not reach the share.
    """
    left = [one.part for one in parts]
    base = float(picking.ends.hit[:, 0].mean())
    chosen: tuple[GraftPart, ...] = ()
    found: list[Run] = []
    while left:
        trials = [_set((*chosen, part)) for part in left]
        answers = picking.answers(trials)
        best = int(answers.probability.mean(0).argmax())
        chosen = (*chosen, left.pop(best))
        reached = float(answers.hit[:, best].mean()) - base >= reach * gain
        found.append(replace(trials[best], picked=reached))
        if reached:
            break
    return found


def _set(parts: tuple[GraftPart, ...]) -> Run:
    return Run("greedy", "set", parts=parts, step=len(parts))


def weight_rows(
    picking: Grafts, shares: Sequence[float], gain: float, reach: float, random: bool
) -> list[Run]:
    """Graft the rows of all matrices that tuning moved furthest (by the Euclidean norm of their change).

    A row is the first axis of a matrix as it is stored. Vectors (biases, gains of norms) go with the whole alone.

    Args:
        picking: The rows of data on which the smallest share is picked.
        shares: Shares of all matrix rows, above 0 to 1.
        gain: What the tuned model gains in accuracy there.
        reach: The share of it to reach.
        random: Whether as many rows drawn at random are grafted too.

    Returns:
        One graft a share; ``picked`` is the smallest that reaches. Then as many with the control ``random``.
    """
    ours, theirs = picking.states["base"], picking.states["tuned"]
    names = sorted(name for name, value in ours.items() if value.dim() >= 2)
    sizes = np.array([len(ours[name]) for name in names])
    moved = np.concatenate(
        [(theirs[name] - ours[name]).flatten(1).norm(dim=1).cpu().numpy() for name in names]
    )
    generator = np.random.default_rng(derive_seed(picking.seed, "rows of matrices"))
    orders = {"none": np.argsort(-moved, kind="stable"), "random": generator.permutation(len(moved))}
    found = [
        Run("rows", "rows", rows=_masks(picking, names, sizes, orders[kind], share), share=share, control=kind)
        for kind in (("none", "random") if random else ("none",)) for share in sorted(set(shares))
    ]  # fmt: skip
    answers = picking.answers(found)
    base = float(picking.ends.hit[:, 0].mean())
    reached = [
        index for index, one in enumerate(found)
        if one.control == "none" and float(answers.hit[:, index].mean()) - base >= reach * gain
    ]  # fmt: skip
    first = reached[0] if reached else None
    return [replace(one, picked=index == first) for index, one in enumerate(found)]


def _masks(
    picking: Grafts, names: Sequence[str], sizes: np.ndarray, order: np.ndarray, share: float
) -> dict[str, torch.Tensor | None]:
    """Return masks of the first rows in an order; the share 1 is every weight, vectors too."""
    if share >= 1:
        return dict.fromkeys(picking.states["base"])
    chosen = np.zeros(len(order), dtype=bool)
    chosen[order[: max(1, round(share * len(order)))]] = True
    parts = np.split(chosen, np.cumsum(sizes)[:-1])
    device = picking.base.device
    return {
        name: torch.as_tensor(mask, device=device)
        for name, mask in zip(names, parts, strict=True)
        if mask.any()
    }
