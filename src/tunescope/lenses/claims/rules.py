"""Rules that no bound on one number says: study 001's claims, each a pure function of one arm's rows of lens tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from tunescope.config.claims import NOT_REPRODUCED as NOT
from tunescope.config.claims import NOT_TESTABLE, REPRODUCED
from tunescope.lenses.dimensions.study import THEIR_WIDTH, carried

THEIR_LOSS = 0.018  # of the model's accuracy: 1.6 % on SST-2, 1.8 % on QNLI
THEIR_SHARED = 0.8  # of the dimensions of greatest variance: 8 of 10
THEIR_KEPT = 3  # of 768 dimensions: those left when the lowest 765 are removed
LEAST_DROP = -0.02  # of accuracy: what "barely hurts" may lose
Row = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """What a verdict must know of an arm.

    Attributes:
        learned: Whether it clears the majority baseline in every seed; None where that is not known.
        decoder: Whether its model is a decoder (causal); None where that is not known.
    """

    learned: bool | None
    decoder: bool | None


@dataclass(frozen=True)
class Judged:
    """A number of these models and what follows from it.

    Attributes:
        verdict: ``reproduced``, ``not reproduced``, ``artefact of ...`` or ``not testable here``.
        why: In words, with the numbers it rests on.
        ours: The number in words.
        value: The number.
        low: The lower end of its interval, over seeds the lowest.
        high: The upper end, over seeds the highest.
        n: Rows.
    """

    verdict: str
    why: str
    ours: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None


def _missing(why: str) -> Judged:
    return Judged(NOT_TESTABLE, why)


def over_seeds(table: pl.DataFrame, judge: Callable[[pl.DataFrame], Judged]) -> Judged:
    """Judge each seed of a table by itself, as :func:`agreed` puts them together."""
    seeds = table["seed"].unique().sort().to_list() or [None]
    return agreed({seed: judge(table.filter(pl.col("seed").eq_missing(pl.lit(seed)))) for seed in seeds})


def agreed(by_seed: Mapping[int | None, Judged]) -> Judged:
    """Return one judgement over seeds: a verdict stands where all agree, the interval reaches from end to end."""
    each = list(by_seed.values())
    if len(each) == 1:
        return each[0]
    verdicts = [one.verdict for one in each]
    known = [one.value for one in each if one.value is not None]
    lows, highs = (
        [end for end in ends if end is not None]
        for ends in zip(*((one.low, one.high) for one in each), strict=True)
    )
    same = len(set(verdicts)) == 1
    why = "; ".join(dict.fromkeys(one.why for one in each)) if same else "seeds disagree: " + "; ".join(
        f"seed {seed} {one.verdict} ({one.why})" for seed, one in by_seed.items()
    )  # fmt: skip
    return Judged(
        verdict=verdicts[0] if same else NOT,
        why=why,
        ours="; ".join(f"seed {seed}: {one.ours}" for seed, one in by_seed.items() if one.ours),
        value=sum(known) / len(known) if known else None,
        low=min(lows, default=None),
        high=max(highs, default=None),
        n=each[0].n,
    )


def said(row: Row | Judged, digits: int = 2, sign: bool = False) -> str:
    """Return a number with its interval, in a sentence."""
    value, low, high = (
        (row.value, row.low, row.high) if isinstance(row, Judged) else (row["value"], row["low"], row["high"])
    )
    plus = "+" if sign else ""
    ends = "" if low is None or high is None else f" [{low:{plus}.{digits}f}, {high:{plus}.{digits}f}]"
    return "undefined" if value is None else f"{value:{plus}.{digits}f}{ends}"


def bow_tie_claim(cka: pl.DataFrame) -> Judged:
    """Judge claim 1 from the bow-ties of the lens ``cka``."""
    return over_seeds(cka, _bow_tie)


def _bow_tie(cka: pl.DataFrame) -> Judged:
    changes = cka.filter(
        (pl.col("model") == "tuned_minus_base")
        & pl.col("metric").is_in(["bow_tie", "bow_tie_equal_distance"])
        & pl.col("low").is_not_null()
    )
    known = {(row["similarity"], row["metric"]): row for row in changes.iter_rows(named=True)}
    change = known.get(("cka", "bow_tie"))
    if change is None:
        return _missing("the bow-tie has no interval: fewer than 4 blocks, or too few rows")
    base = Judged("", "", "", change["value"], change["low"], change["high"], change["n"])
    ours = f"change of the bow-tie {said(change, sign=True)}"
    biased = known.get(("cka_biased", "bow_tie"))
    ours += f"; as published (biased CKA) {said(biased, sign=True)}" if biased else ""

    def judged(verdict: str, why: str) -> Judged:
        return Judged(verdict, why, ours, base.value, base.low, base.high, base.n)

    if change["low"] <= 0:
        where = "below 0" if change["high"] < 0 else "on both sides of 0"
        return judged(NOT, f"the interval of the change lies {where}")
    checks = {
        "fading with distance": known.get(("cka", "bow_tie_equal_distance")),
        "a few loud dimensions": known.get(("cka_standardised", "bow_tie")),
    }
    for cause, row in checks.items():
        if row is not None and row["low"] <= 0:
            return judged(f"artefact of {cause}", f"with that taken out the change is {said(row, sign=True)}")
    if any(row is None for row in checks.values()):
        return judged(NOT_TESTABLE, "without the standardised variant, or pairs at equal distance")
    return judged(REPRODUCED, "also at equal distance and with standardised dimensions")


def last_half_claim(cka: pl.DataFrame) -> Judged:
    """Judge claim 1b: the mean CKA of base and tuned over the first half of the blocks, minus over the last."""
    band = cka.filter(pl.col("model") == "tuned_seeds")

    def judge(own: pl.DataFrame) -> Judged:
        raw, other = (_halves(own, metric) for metric in ("cka", "cka_standardised"))
        if raw is None:
            return _missing("CKA of base against tuned has no intervals, or there are fewer than 2 blocks")
        ours = f"first half minus last half {said(raw, sign=True)}"
        ours += "" if other is None else f", standardised {said(other, sign=True)}"

        def judged(verdict: str, why: str) -> Judged:
            return Judged(verdict, why, ours, raw["value"], raw["low"], raw["high"], raw["n"])

        if raw["low"] <= 0:
            return judged(NOT, "the interval holds 0 or lies below it")
        if other is not None and other["low"] <= 0:
            return judged("artefact of a few loud dimensions", "standardised, the halves do not differ")
        beyond = _beyond(own, band)
        if beyond is not None and not beyond:
            why = "no block of the last half differs from its base more than another seed differs"
            return judged("artefact of training at all, not of the task", why)
        seeds = "" if beyond is None else f"; {beyond} blocks of the last half beyond another seed's"
        return judged(REPRODUCED, f"the interval lies above 0{seeds}")

    return over_seeds(cka.filter(pl.col("model") != "tuned_seeds"), judge)


def _same(own: pl.DataFrame, metric: str) -> pl.DataFrame:
    return own.filter(
        (pl.col("metric") == metric)
        & (pl.col("site") == "resid_post")
        & (pl.col("site_other") == "resid_post")
        & (pl.col("layer") == pl.col("layer_other"))
        & pl.col("low").is_not_null()
    ).sort("layer")


def _halves(own: pl.DataFrame, metric: str) -> Row | None:
    """Return the difference of the halves; its half-width is the sum of the halves' mean half-widths.

    That is what it would be if the cells of a half moved together and the halves moved apart: never too narrow.
    """
    rows = _same(own.filter(pl.col("model") == "base_tuned"), metric)
    half = rows.height // 2
    if half < 1:
        return None
    first, last = rows.head(half), rows.tail(half)
    value = float(first["value"].mean()) - float(last["value"].mean())  # type: ignore[arg-type]
    wide = float(pl.concat([first, last]).select((pl.col("high") - pl.col("low")).mean()).item())
    return {"value": value, "low": value - wide, "high": value + wide, "n": rows["n"][0]}


def _beyond(own: pl.DataFrame, band: pl.DataFrame) -> int | None:
    """Return how many blocks of the last half are less like their base than any two seeds are alike; None unknown."""
    rows, seeds = _same(own.filter(pl.col("model") == "base_tuned"), "cka"), _same(band, "cka")
    if seeds.is_empty():
        return None
    lows = seeds.group_by("layer").agg(pl.col("low").min().alias("seeds_low"))
    last = rows.tail(rows.height // 2).join(lows, on="layer")
    return last.filter(pl.col("high") < pl.col("seeds_low")).height


def same_place_claim(
    others: pl.DataFrame | None, spread: pl.DataFrame | None, shared: float = THEIR_SHARED
) -> Judged:
    """Judge claim 2 from the lens ``other_models``; without it, say what base and tuned share."""
    if others is None or others.filter(pl.col("metric") == "shared_top_dimensions").is_empty():
        ours = ""
        if spread is not None:
            rows = spread.filter(
                (pl.col("metric") == "shared_top_dimensions") & (pl.col("layer") == pl.col("layer").max())
            )
            counts = [
                f"{row['value']:.0f} of {row['top']}" for row in rows.iter_rows(named=True) if row["value"]
            ]
            ours = f"base and tuned share {', '.join(counts)}" if counts else ""
        return Judged(NOT_TESTABLE, "no model of another task and the same width was compared", ours)
    return over_seeds(others, lambda own: _same_place(own, shared))


def _same_place(others: pl.DataFrame, shared: float) -> Judged:
    rows = others.filter(pl.col("metric") == "shared_top_dimensions")
    last = rows.filter(pl.col("layer") == pl.col("layer").max()).drop_nulls("value")
    names = last["other"].unique(maintain_order=True).to_list()
    known = {(row["other"], row["model"]): row for row in last.iter_rows(named=True)}
    if not names or ("base_other" not in last["model"]):
        return _missing("the states are all alike, so they share nothing")
    name = names[0]
    tuned, base = known[name, "tuned_other"], known[name, "base_other"]
    chance = _by_chance(int(tuned["value"]), tuned)
    ours = (
        f"{tuned['value']:.0f} of {tuned['top']} shared with {name} (by chance {tuned['control']:.1f}, "
        f"p = {chance:.2g}); the base shares {base['value']:.0f}"
    )

    def judged(verdict: str, why: str) -> Judged:
        return Judged(verdict, why, ours, tuned["value"] / tuned["top"], None, None, tuned["n"])

    if tuned["value"] < shared * tuned["top"]:
        return judged(NOT, f"fewer than {shared * tuned['top']:.0f} are shared")
    if base["value"] >= tuned["value"]:
        return judged("artefact of pretraining", "the base shares as many before it was tuned for anything")
    return judged(REPRODUCED, "more are shared than before tuning")


def _by_chance(shared: int, row: Row) -> float:
    """Return how often two random lists of that length share as many (hypergeometric)."""
    from scipy.stats import hypergeom

    width = round(row["top"] ** 2 / row["control"])
    return float(hypergeom.sf(shared - 1, width, row["top"], row["top"]))


def one_dimension_claim(dimensions: pl.DataFrame, loss: float = THEIR_LOSS) -> Judged:
    """Judge claim 3 from the lens ``dimensions``: what the loudest dimension loses of the model's accuracy."""
    tuned = dimensions.filter(pl.col("model") == "tuned")
    return over_seeds(tuned, lambda own: _one_dimension(own, loss))


def _one_dimension(tuned: pl.DataFrame, most: float) -> Judged:
    one = tuned.filter(pl.col("metric") == "one_dimension_accuracy")
    full = tuned.filter(pl.col("metric") == "model_accuracy")["value"].item()
    row = one.filter(pl.col("by") == "variance").row(0, named=True)
    best = float(one.filter(pl.col("by") == "random direction")["value"].max() or 0.0)  # type: ignore[arg-type]
    if not full:
        return _missing("the model is right in no row")
    ends = [row["difference"], row["difference_low"], row["difference_high"]]
    loss, low, high = (None if end is None else end / full for end in ends)
    ours = (
        f"dimension {row['dimension']} alone {said(row, 3)} against {full:.3f}, "
        f"{said(Judged('', '', '', loss, low, high), 3, True)} of it; best random direction {best:.3f}"
        + _as_published(tuned)
    )

    def judged(verdict: str, why: str) -> Judged:
        return Judged(verdict, why, ours, loss, low, high, row["n"])

    if loss is None or loss < -most:
        reach = high is not None and high >= -most
        more = ", though the interval reaches it" if reach else ""
        return judged(NOT, f"it loses more than {most:.1%} of the accuracy{more}")
    if row["low"] is None or row["low"] <= best:
        return judged("artefact of any direction", "a random direction does as well")
    return judged(REPRODUCED, f"it loses no more than {most:.1%}, and no random direction does as well")


def _as_published(tuned: pl.DataFrame) -> str:
    """Return what study 001's code measures: the radial machine on its constant dimension, carried over."""
    rows = tuned.filter(
        (pl.col("metric") == "support_vector_accuracy")
        & (pl.col("classifier") == "RBF support vectors")
        & pl.col("by").str.starts_with("study 001")
    )
    if rows.is_empty():
        return ""
    row = rows.row(0, named=True)
    return f"; as published (RBF support vectors, {row['by']}: {row['dimension']}) {said(row, 3)}"


def few_dimensions_claim(dimensions: pl.DataFrame, kept: float = THEIR_KEPT) -> Judged:
    """Judge claim 3b from the removal curves: the lowest 765 of 768, carried over, set to zero."""
    tuned = dimensions.filter(pl.col("model") == "tuned")
    return over_seeds(tuned, lambda own: _few(own, round(kept)))


def _few(tuned: pl.DataFrame, kept: int) -> Judged:
    curve = tuned.filter(
        (pl.col("metric") == "removal_accuracy")
        & (pl.col("head_fit") == "frozen")
        & (pl.col("edit") == "zero")
    )
    if curve.is_empty():
        return _missing("there are no removal curves")
    width = int(curve["removed"].to_numpy().max())
    count = carried(THEIR_WIDTH - kept, width)

    def at(order: str, removed: int) -> Row | None:
        rows = curve.filter((pl.col("order") == order) & (pl.col("removed") == removed))
        return rows.row(0, named=True) if rows.height else None

    whole, left, random = (
        at("variance, lowest first", 0), at("variance, lowest first", count), at("random", count),
    )  # fmt: skip
    if whole is None or left is None or random is None:
        return _missing(f"the curve has no point at {count} removed")
    ends: Sequence[float] = [left[end] - whole["value"] for end in ("value", "low", "high")]
    ours = (
        f"{count} of {width} removed: {said(left, 3)} where the whole has {whole['value']:.3f}; a random choice "
        f"leaves {said(random, 3)}"
    )

    def judged(verdict: str, why: str) -> Judged:
        return Judged(verdict, why, ours, ends[0], ends[1], ends[2], left["n"])

    if ends[0] < LEAST_DROP:
        return judged(NOT, f"it loses more than {-LEAST_DROP:.0%}")
    if random["high"] >= left["value"]:
        return judged("artefact of having many dimensions", "a random choice of as many loses no more")
    return judged(REPRODUCED, "it loses next to nothing, a random choice does")
