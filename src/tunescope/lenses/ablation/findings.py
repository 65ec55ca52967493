"""Sentences made from an ablation table."""

from __future__ import annotations

from typing import Any

import polars as pl

from tunescope.lenses.subject import Subject
from tunescope.stats.results import Finding

VERBS = {
    "zero": "Zeroing", "mean": "Mean-ablating", "position_mean": "Mean-ablating (by position)",
    "resample": "Resampling", "resample_other_class": "Resampling (from another class)", "noise": "Adding noise to",
}  # fmt: skip
NAMES = {
    "head_out": "head", "attn_out": "the attention sublayer of layer", "mlp_out": "the MLP of layer",
    "cross_attn_out": "the cross-attention sublayer of layer",
}  # fmt: skip
TESTS = {
    True: "paired bootstrap, sign-flip permutation; the component was picked on one half of the rows and is shown on "
    "the other, so its size is not inflated by the pick",
    False: "paired bootstrap, sign-flip permutation, corrected over the sweep; the component was picked on the rows it "
    "is shown on, so its size is flattering",
}
PICKS = {"head_out": "strongest head", "attn_out": "strongest sublayer", "mlp_out": "strongest sublayer"}
SINGLE_HEADS = ["head_out", "cross_head_out"]


def findings(table: pl.DataFrame, subject: Subject) -> list[Finding]:
    """Say which head and which sublayer the tuned model needs most, and where tuning changed that most.

    The component is picked on one half of the rows and its effect is that on the other half, where the table has
    both. It is ``found`` only if the effect there is clear of chance and its interval lies beyond that of a random
    direction of equal norm. An untouched trunk has no changes to tell.
    """
    mine = table.filter(
        (pl.col("arm") == subject.arm)
        & pl.col("seed").eq_missing(pl.lit(subject.seed))
        & (pl.col("metric") == "margin_change")
        & pl.col("class").is_null()
    )
    edit = mine.filter(pl.col("control") == "none")["edit"].first()
    mine = mine.filter(pl.col("edit") == edit)
    found = []
    for sites in (SINGLE_HEADS, ["attn_out", "cross_attn_out", "mlp_out"]):
        found += _strongest(mine, sites, subject)
    if not subject.same_trunk:
        found += _most_changed(mine, subject)
    return found


def _strongest(mine: pl.DataFrame, sites: list[str], subject: Subject) -> list[Finding]:
    shown = _picked(mine, PICKS[sites[0]])
    split = shown is not None
    if shown is None:
        shown = mine.filter(pl.col("site").is_in(sites))
    effects = shown.filter((pl.col("model") == "tuned") & pl.col("control").is_in(["none", "split_half"]))
    effects = effects.filter(pl.col("value").is_not_null())
    if effects.is_empty():
        return []
    best = effects.sort("value").row(0, named=True)  # the largest loss of margin
    random, base = _beside(shown, best, "tuned", "random"), _beside(shown, best, "base", "none")
    beyond = random is not None and best["high"] is not None and best["high"] < random["low"]
    # Removing a component may help as well as harm; only a loss that chance does not explain is "needed".
    clear = _unlikely(best, split) and (best["high"] or 0.0) < 0 and beyond
    control = f"random direction of equal norm: {_number(random)}"
    if base is not None:
        control += f"; base under its {subject.base_head} head: {_number(base)}"
    sentence = (
        f"{VERBS[best['edit']]} {_name(best)} changes the true class's margin by {_number(best)} logits in the tuned "
        f"model, the largest loss of any {'head' if best['site'] in SINGLE_HEADS else 'sublayer'}"
        f"{' (picked on one half of the rows, shown on the other)' if split else ''}."
    )
    return [_finding(best, sentence, "margin_change", control, clear, split, subject)]


def _most_changed(mine: pl.DataFrame, subject: Subject) -> list[Finding]:
    shown = _picked(mine, "most changed head")
    split = shown is not None
    if shown is None:
        shown = mine.filter(pl.col("site").is_in(SINGLE_HEADS))
    changes = shown.filter(
        (pl.col("model") == "tuned_minus_base") & pl.col("control").is_in(["none", "split_half"])
    ).filter(pl.col("value").is_not_null())
    if changes.is_empty():
        return []
    most = changes.sort(pl.col("value").abs(), descending=True).row(0, named=True)
    tuned, base = _beside(shown, most, "tuned", "none"), _beside(shown, most, "base", "none")
    control = f"base under its {subject.base_head} head; no other seed"
    sentence = (
        f"Tuning changed the role of {_name(most)} most in this one training: its ablation effect on the margin went "
        f"from {_number(base)} in the base to {_number(tuned)} in the tuned model (difference {_number(most)}). "
        "Two seeds of one recipe differ in such effects too, so this alone is not what tuning always does."
    )
    return [
        _finding(most, sentence, "margin_change_difference", control, _unlikely(most, split), split, subject)
    ]


def _picked(mine: pl.DataFrame, pick: str) -> pl.DataFrame | None:
    """Return what the other half of the rows shows of the component picked on one half; None where it was not."""
    if "pick" not in mine.columns:
        return None
    found = mine.filter(pl.col("pick") == pick)
    return None if found.is_empty() else found


def _unlikely(row: dict[str, Any], split: bool) -> bool:
    """Say whether chance does not explain an effect: one test on the other half, or corrected over the sweep."""
    chance = row["p"] if split else row["q"]
    return chance is not None and chance <= 0.05


def _beside(shown: pl.DataFrame, best: dict[str, Any], model: str, control: str) -> dict[str, Any] | None:
    """Return the row of the same component in another model or control."""
    names = {"none": ["none", "split_half"], "random": ["random", "split_half_random"]}[control]
    same = shown.filter(
        (pl.col("model") == model)
        & pl.col("control").is_in(names)
        & (pl.col("site") == best["site"])
        & (pl.col("layer") == best["layer"])
        & pl.col("head").eq_missing(pl.lit(best["head"]))
        & (pl.col("stack").eq_missing(pl.lit(best["stack"])) if "stack" in shown.columns else True)
    )
    return same.row(0, named=True) if same.height else None


def _name(row: dict[str, Any]) -> str:
    if row["site"] in SINGLE_HEADS:
        return (
            f"head {row.get('component') or ''}"
            if row.get("stack")
            else f"head L{row['layer']}H{row['head']}"
        )
    name = f"{NAMES[row['site']]} {row['layer']}"
    return f"{name} of the {row['stack']}" if row.get("stack") else name


def _number(row: dict[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return "not measured"
    interval = "" if row["low"] is None else f" [{row['low']:+.2f}, {row['high']:+.2f}]"
    return f"{row['value']:+.2f}{interval}"


def _finding(
    row: dict[str, Any], sentence: str, metric: str, control: str, clear: bool, split: bool, subject: Subject
) -> Finding:
    verdict = "task not learned" if subject.learned is False else ("found" if clear else "undecided")
    return Finding(
        lens="ablation", arm=subject.arm, sentence=sentence, metric=metric, value=row["value"], low=row["low"],
        high=row["high"], n=row["n"], test=TESTS[split], control=control, rows=f"{row['n']} rows", verdict=verdict,
    )  # fmt: skip
