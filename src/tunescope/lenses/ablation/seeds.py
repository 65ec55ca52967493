"""Another seed as the control of an ablation: does the same component matter in a second training of one recipe?

A map of heads that another seed does not give again says something about one training, not about the task. Tuned
models of neighbouring seeds are held against each other on the same rows, component by component, and so is each with
its own base: where two seeds agree no better than tuned and base do, tuning gave the map nothing of its own.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from scipy.stats import rankdata

from tunescope.data.tokens import Tokens
from tunescope.lenses.ablation.options import AblationOptions
from tunescope.lenses.ablation.table import PERMUTATIONS
from tunescope.lenses.look import LensOutput
from tunescope.lenses.subject import clusters
from tunescope.stats.intervals import bootstrap_means, group_sums, jackknife
from tunescope.stats.results import Finding, result_table
from tunescope.stats.tests import benjamini_hochberg, sign_flip_p

if TYPE_CHECKING:
    from tunescope.lenses.several_seeds import SeveralSeeds

MODEL = "tuned_seeds"
CORRELATION = "seed_rank_correlation"
SITES = ("head_out", "cross_head_out", "attn_out", "cross_attn_out", "mlp_out")
GROUPS = 20  # of the delete-a-group jackknife
ALIKE = 0.5  # the rank correlation from which maps are called alike
FEWEST_COMPONENTS = 4  # fewer have no order to speak of


@dataclass(frozen=True)
class Pair:
    """Effects of the same components on the same rows in two models.

    Attributes:
        first: Change of the margin, [N, V].
        second: The same in the other model.
        components: Site, layer, head and name of each of the V.
        groups: A number a row; rows of equal text share one, [N].
    """

    first: np.ndarray
    second: np.ndarray
    components: list[dict[str, Any]]
    groups: np.ndarray


def rank_correlation(pair: Pair, seed: int) -> dict[str, Any]:
    """Return Spearman's correlation of two maps of mean effects, with a jackknife interval and a permutation p.

    The interval leaves out groups of rows, equal texts together: a bootstrap would add its own noise to the means and
    so lie below the estimate. The p value deals the components at random.
    """
    sums, sizes = group_sums(np.concatenate([pair.first, pair.second], 1), pair.groups)
    count = min(GROUPS, len(sizes))
    generator = np.random.default_rng(seed)
    part = generator.permutation(np.arange(len(sizes)) % count)
    totals = np.stack([sums[part == one].sum(0) for one in range(count)])
    weights = np.array([sizes[part == one].sum() for one in range(count)])
    value = _spearman(totals.sum(0), pair.first.shape[1])
    left_out = np.array([_spearman(totals.sum(0) - one, pair.first.shape[1]) for one in totals])
    low, high = jackknife(np.array([value]), left_out[:, None], weights)
    first, second = (rankdata(one.mean(0)) for one in (pair.first, pair.second))
    dealt = np.array([np.corrcoef(first, generator.permutation(second))[0, 1] for _ in range(PERMUTATIONS)])
    return {
        "value": value, "low": max(-1.0, float(low[0])), "high": min(1.0, float(high[0])),
        "n": len(pair.first), "p": float((np.abs(dealt) >= abs(value)).sum() + 1) / (PERMUTATIONS + 1),
    }  # fmt: skip


def _spearman(sums: np.ndarray, width: int) -> float:
    """Return the rank correlation of the first half of some sums with the second; NaN where one is constant."""
    first, second = rankdata(sums[:width]), rankdata(sums[width:])
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def across_seeds(subjects: SeveralSeeds, options: AblationOptions) -> LensOutput | None:
    """Compare the maps of neighbouring seeds; None where no effects per example are there to compare.

    Rank correlations are per kind of component: between the tuned models (``control`` ``none``) and, as what they are
    held against, of the first seed's tuned model with its own base (``control`` ``base``). Differences are the other
    seed's effect minus this one's, of the same component on the same rows.

    Args:
        subjects: One arm's seeds, with the lens's examples.
        options: The lens's options.
    """
    if subjects.examples is None or "margin_change" not in subjects.examples.columns:
        return None
    edit = options.edits[0]
    examples = subjects.examples.filter((pl.col("edit") == edit) & pl.col("site").is_in(SITES))
    if examples.is_empty():
        return None
    records: list[dict[str, Any]] = []
    for (index, first), second in zip(enumerate(subjects.seeds), subjects.seeds[1:], strict=False):
        subject = subjects[index]
        about = {"arm": subjects.arm, "seed": first, "base_head": "tuned", "edit": edit, "seed_other": second}
        tokens, key = subject.tokens(options.rows.split), subject.sampling_seed
        for site in SITES:
            own = examples.filter(pl.col("site") == site)
            pair = _paired(own, tokens, ("tuned", first), ("tuned", second))
            if pair is None:
                continue
            records += [{**about, **one, "model": MODEL} for one in _differences(pair, key)]
            for control, other in (
                ("none", pair),
                ("base", _paired(own, tokens, ("tuned", first), ("base", first))),
            ):
                if other is not None and len(other.components) >= FEWEST_COMPONENTS:
                    found = rank_correlation(other, key)
                    records.append(
                        {**about, **found, "model": MODEL, "site": site, "metric": CORRELATION, "control": control}
                    )  # fmt: skip
    if not records:
        return None
    table = result_table(records)
    return LensOutput("ablation", table, None, _findings(table, subjects), {"notes": []})


def _paired(
    examples: pl.DataFrame, tokens: Tokens, one: tuple[str, int], other: tuple[str, int]
) -> Pair | None:
    """Return the effects that two models (each named by model and seed) have in common; None for fewer than 2 rows."""
    sides = [
        examples.filter((pl.col("model") == model) & (pl.col("seed") == seed))
        .pivot(on="component", index="row_id", values="margin_change")
        .sort("row_id")
        for model, seed in (one, other)
    ]
    names = [name for name in sides[0].columns if name in sides[1].columns and name != "row_id"]
    rows = sides[0].select("row_id").join(sides[1].select("row_id"), on="row_id").sort("row_id")
    if rows.height < 2 or not names:
        return None
    first, second = (
        rows.join(side, on="row_id", maintain_order="left").select(names).to_numpy().astype(np.float64)
        for side in sides
    )
    about = examples.unique("component").rows_by_key("component", named=True, unique=True)
    components = [
        {
            "component": name,
            **{
                axis: about[name][axis]
                for axis in ("site", "layer", "head", "stack")
                if about[name].get(axis) is not None or axis != "stack"
            },
        }
        for name in names
    ]
    texts = dict(zip(tokens.row_ids, clusters(tokens).tolist(), strict=True))
    return Pair(first, second, components, np.array([texts[row] for row in rows["row_id"]]))


def _differences(pair: Pair, seed: int) -> list[dict[str, Any]]:
    """Return what another seed's effect is more than this one's, component by component."""
    values = pair.second - pair.first
    intervals = bootstrap_means(values, pair.groups, seed=seed)
    p = sign_flip_p(values, pair.groups, permutations=PERMUTATIONS, seed=seed)
    q = benjamini_hochberg(p)
    return [
        {
            **component, "metric": "margin_change", "value": interval.value, "low": interval.low,
            "high": interval.high, "n": interval.n, "p": p[i], "q": q[i], "control": "none", "scope": "one",
            "note": interval.note,
        }
        for i, (component, interval) in enumerate(zip(pair.components, intervals, strict=True))
    ]  # fmt: skip


def _findings(table: pl.DataFrame, subjects: SeveralSeeds) -> list[Finding]:
    """Say whether another seed gives the map of heads again, held against tuned and base of one seed."""
    rows = table.filter((pl.col("metric") == CORRELATION) & (pl.col("site") == "head_out"))
    found = []
    for first, second in itertools.pairwise(subjects.seeds):
        mine = rows.filter((pl.col("seed") == first) & (pl.col("seed_other") == second))
        sides = {one["control"]: one for one in mine.iter_rows(named=True)}
        seeds, base = sides.get("none"), sides.get("base")
        if seeds is None or seeds["value"] is None:
            continue
        against = "" if base is None or base["value"] is None else _said(base)
        clear = seeds["p"] <= 0.05 and (not against or base is None or seeds["low"] > base["high"])
        alike = "alike" if seeds["value"] >= ALIKE else "differently"
        sentence = (
            f"Another seed of the same recipe ranks the heads {alike}: the rank correlation of the ablation maps is "
            f"{_said(seeds)} between seeds {first} and {second}"
            + (f", {against} between tuned and base." if against else ".")
        )
        found.append(
            Finding(
                lens="ablation", arm=subjects.arm, sentence=sentence, metric=CORRELATION, value=seeds["value"],
                low=seeds["low"], high=seeds["high"], n=seeds["n"],
                test="delete-a-group jackknife over rows; permuted components",
                control=f"tuned against its own base: {against}" if against else None, rows=f"{seeds['n']} rows",
                verdict="found" if clear else "undecided",
            )
        )  # fmt: skip
    return found


def _said(row: dict[str, Any]) -> str:
    ends = "" if row["low"] is None else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['value']:.2f}{ends}"
