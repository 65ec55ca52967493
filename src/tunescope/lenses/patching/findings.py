"""Sentences made from the tables of patching, between texts and across models."""

from __future__ import annotations

from typing import Any

import polars as pl

from tunescope.lenses.patching.construction import BUT_OWN_STREAM, EVERYTHING
from tunescope.lenses.subject import Subject
from tunescope.stats.results import Finding

KINDS = {"heads": "strongest head", "sublayers": "strongest sublayer"}
PICKED = "picked on one half of the texts, shown on the other"
SUBLAYERS = {
    "attn_out": "the attention of layer", "cross_attn_out": "the cross-attention of layer",
    "mlp_out": "the MLP of layer",
}  # fmt: skip


def findings(table: pl.DataFrame, subject: Subject) -> list[Finding]:
    """Say which head and sublayer bring back most of what tells clean from corrupted texts, and where it travels.

    The place is picked on one half of the texts and shown on the other; it is ``found`` if its share is clear of 0 and
    beyond that of an unrelated text. Places that carry all by construction are no candidates.
    """
    mine = _mine(table, subject).filter(pl.col("estimator") == "ratio_of_sums")
    mine = mine.filter(pl.col("direction") == mine["direction"].first())
    found = []
    for pick in ("strongest head", "strongest sublayer"):
        if "pick" in mine.columns:
            found += _strongest(mine.filter(pl.col("pick") == pick), (pick, _left_out(mine, pick)), subject)
    return [*found, *_travels(mine, subject)]


def _left_out(mine: pl.DataFrame, pick: str) -> str:
    """Say which sublayer was no candidate because it holds all that reaches the answer, and what it carries."""
    if "by_construction" not in mine.columns or pick != KINDS["sublayers"]:
        return ""
    certain = mine.filter(
        pl.col("by_construction").is_in([EVERYTHING, BUT_OWN_STREAM])
        & pl.col("site").is_in(list(SUBLAYERS))
        & (pl.col("model") == "tuned") & (pl.col("control") == "none")
    )  # fmt: skip
    if certain.is_empty():
        return ""
    row = certain.row(0, named=True)
    return (
        f" No candidate was {name_of(row)} ({percent(row)}): behind it the pooled token hears of no other token, so it "
        "holds by construction all but what that token already had."
    )


def _mine(table: pl.DataFrame, subject: Subject) -> pl.DataFrame:
    return table.filter((pl.col("arm") == subject.arm) & pl.col("seed").eq_missing(pl.lit(subject.seed)))


def _strongest(shown: pl.DataFrame, of: tuple[str, str], subject: Subject) -> list[Finding]:
    pick, left_out = of
    tuned = shown.filter((pl.col("model") == "tuned") & (pl.col("control") == "split_half"))
    if tuned.is_empty() or tuned["value"][0] is None:
        return []
    row = tuned.row(0, named=True)
    other = shown.filter((pl.col("model") == "tuned") & (pl.col("control") == "split_half_unrelated"))
    control = other.row(0, named=True) if other.height else None
    denoising = row["direction"] == "denoising"
    what = "brings back" if denoising else "takes away"
    sentence = (
        f"Patching {name_of(row)} at {position_said(row['position'])} from the "
        f"{'clean into the corrupted' if denoising else 'corrupted into the clean'} text {what} {percent(row)} of the "
        f"gap in margin in the tuned model, the most of any {pick.split()[1]} (picked on one half of the texts, shown "
        f"on the other).{left_out}"
    )
    clear = row["low"] is not None and row["low"] > 0 and beyond(row, control)
    held = f"from an unrelated text of equal length: {percent(control)}"
    test = "bootstrap over texts of a ratio of sums; picked on one half, shown on the other"
    return [_finding(row, sentence, (test, held), clear, subject, ("patching", f"{row['n']} pairs"))]


def _travels(mine: pl.DataFrame, subject: Subject) -> list[Finding]:
    """Say from which layer on the stream at the pooled token carries more than the stream at the changed tokens.

    Of one stack: in an encoder-decoder the two are not places of one stream.
    """
    if "stack" in mine.columns:
        return []
    stream = mine.filter(
        (pl.col("site") == "resid_pre") & (pl.col("control") == "none") & (pl.col("model") == "tuned")
    )
    places = {
        where: dict(
            stream.filter(pl.col("position") == where).select("layer", "value").drop_nulls().iter_rows()
        )
        for where in ("at", "pooled")
    }
    crossing = [
        layer for layer in sorted(places["pooled"])
        if places["pooled"][layer] > places["at"].get(layer, float("inf"))
    ]  # fmt: skip
    if not crossing or crossing[0] == 0:
        return []
    layer = crossing[0]

    def at(where: str, depth: int) -> dict[str, Any]:
        return stream.filter((pl.col("position") == where) & (pl.col("layer") == depth)).row(0, named=True)

    row, words = at("pooled", layer), at("at", layer)
    before = at("pooled", layer - 1)
    sentence = (
        f"What tells the texts apart has moved from the changed words to the pooled token before layer {layer} of the "
        f"tuned model: the stream there carries {percent(row)} of the gap at the pooled token and {percent(words)} at "
        f"the changed words, one layer earlier {percent(before)} at the pooled token."
    )
    clear = None not in (row["low"], before["high"]) and row["low"] > before["high"]
    control = "the same place one layer earlier; the whole stream carries 100 % by construction"
    test = "bootstrap over texts of a ratio of sums"
    return [_finding(row, sentence, (test, control), clear, subject, ("patching", f"{row['n']} pairs"))]


def cross_findings(table: pl.DataFrame, subject: Subject) -> list[Finding]:
    """Say before which layer half of tuning's gain is in the stream, and which part alone brings most into the base."""
    mine = _mine(table, subject)
    gain = mine.filter(pl.col("metric") == "gain_margin")
    if subject.same_trunk or gain.is_empty() or (gain["low"][0] or 0.0) <= 0:
        return []
    if "pick" not in mine.columns:
        return []
    return [one for what, pick in KINDS.items() for one in _most(mine, (what, pick), subject)]


def picked(
    table: pl.DataFrame, pick: str, metric: str
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the record of a picked part on the half of the texts that did not pick it, and its control's."""
    own = table.filter(
        (pl.col("pick") == pick) & (pl.col("metric") == metric) & pl.col("value").is_not_null()
    )
    sides = (own.filter(pl.col("control") == kind) for kind in ("split_half", "split_half_random"))
    real, random = (side.row(0, named=True) if side.height else None for side in sides)
    return real, random


def _most(mine: pl.DataFrame, of: tuple[str, str], subject: Subject) -> list[Finding]:
    row, control = picked(mine, of[1], "recovered_margin")
    if row is None:
        return []
    sentence = (
        f"Of all {of[0]}, {name_of(row)} of the tuned model brings most into the base when its activations are put "
        f"there: {percent(row)} of the gain in margin (both under the tuned head; {PICKED}).{carries_all(mine, of[1])}"
    )
    clear = row["low"] is not None and row["low"] > 0 and beyond(row, control)
    held = f"a random direction of equal size: {percent(control)}"
    test = f"bootstrap over texts of a ratio of sums; {PICKED}"
    return [_finding(row, sentence, (test, held), clear, subject, ("patching_cross", f"{row['n']} rows"))]


def carries_all(mine: pl.DataFrame, pick: str) -> str:
    """Say which sublayers were no candidates because all that tuning changed acts through them; nothing if none."""
    if "by_construction" not in mine.columns or pick != KINDS["sublayers"]:
        return ""
    certain = mine.filter(
        (pl.col("by_construction") == EVERYTHING) & pl.col("site").is_in(list(SUBLAYERS))
        & (pl.col("metric") == "recovered_margin") & (pl.col("control") == "none")
    )  # fmt: skip
    if "scope" in certain.columns:
        certain = certain.filter(pl.col("scope") == "one")
    if certain.is_empty():
        return ""
    row = certain.row(0, named=True)
    return (
        f" No candidate was {name_of(row)} ({percent(row)}): all weights that tuning changed act through it, so it "
        "carries everything by construction."
    )


def same_place(table: pl.DataFrame, row: dict[str, Any]) -> dict[str, Any] | None:
    """Return the record of the same site, layer and head in another part of the table."""
    same = table.filter(
        (pl.col("site") == row["site"]) & pl.col("layer").eq_missing(pl.lit(row["layer"]))
        & pl.col("head").eq_missing(pl.lit(row["head"]))
    )  # fmt: skip
    if "stack" in table.columns:
        same = same.filter(pl.col("stack").eq_missing(pl.lit(row["stack"])))
    return same.row(0, named=True) if same.height else None


def beyond(row: dict[str, Any], control: dict[str, Any] | None) -> bool:
    """Whether a share's interval lies above its control's."""
    return (
        control is not None
        and row["low"] is not None
        and control["high"] is not None
        and bool(row["low"] > control["high"])
    )


def name_of(row: dict[str, Any]) -> str:
    """Return a place in words."""
    stack, cross = row.get("stack"), row["site"].startswith("cross_")
    if row["head"] is not None:
        place = f"{'cross' if cross else stack}." if stack else ""
        return f"head {place}L{row['layer']}H{row['head']}"
    site = SUBLAYERS.get(row["site"], "the stream before layer")
    where = site if stack is None else site.replace("layer", f"the {stack}'s layer")
    return f"{where} {row['layer']}"


def position_said(position: str) -> str:
    """Return positions in words."""
    known = {"all": "all tokens", "at": "the changed words", "pooled": "the pooled token"}
    return known.get(
        position, f"the tokens {position} the change" if position.isalpha() else f"token {position}"
    )


def percent(row: dict[str, Any] | None) -> str:
    """Return a share in percent with its interval."""
    if row is None or row["value"] is None:
        return "not measured"
    ends = "" if row["low"] is None else f" [{100 * row['low']:.0f}, {100 * row['high']:.0f}]"
    return f"{100 * row['value']:.0f} %{ends}"


def _finding(
    row: dict[str, Any], sentence: str, how: tuple[str, str], clear: bool, subject: Subject, of: tuple[str, str]
) -> Finding:  # fmt: skip
    verdict = "task not learned" if subject.learned is False else ("found" if clear else "undecided")
    return Finding(
        lens=of[0], arm=subject.arm, sentence=sentence, metric=row["metric"], value=row["value"], low=row["low"],
        high=row["high"], n=row["n"], test=how[0], control=how[1], rows=of[1], verdict=verdict,
    )  # fmt: skip
