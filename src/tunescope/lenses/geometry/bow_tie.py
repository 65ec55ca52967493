"""Study 001's "bow-tie" as a number with an interval, from the layer-by-layer CKA of base and tuned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from tunescope.errors import LensError
from tunescope.lenses.subject import Subject
from tunescope.stats.cka import CKAMatrix
from tunescope.stats.halves import LEAST, bow_tie_weights
from tunescope.stats.results import Finding

METRIC, EQUAL_DISTANCE = "bow_tie", "bow_tie_equal_distance"
MODELS = ("base", "tuned", "tuned_minus_base")


def bow_tie_records(matrix: CKAMatrix, layers: int, about: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the bow-tie of base, of tuned, and of tuned minus base, as claimed and at equal distance in depth.

    Args:
        matrix: CKA over sites named ``base:resid_post[k]`` and ``tuned:resid_post[k]``, among others.
        layers: Number of blocks; with fewer than 4 there is nothing to measure.
        about: What every record says: arm, seed, which CKA.
    """
    if layers < LEAST:
        return []
    places = {
        which: np.array([matrix.sites.index(f"{which}:resid_post[{layer}]") for layer in range(layers)])
        for which in ("base", "tuned")
    }
    records: list[dict[str, Any]] = []
    for metric, equal in ((METRIC, False), (EQUAL_DISTANCE, True)):
        try:
            weights = bow_tie_weights(layers, equal)
        except LensError as error:
            note = str(error)
            records += [
                {**about, "metric": metric, "model": model, "n": matrix.n, "note": note} for model in MODELS
            ]
            continue
        spread = {}
        for which, index in places.items():
            spread[which] = np.zeros((len(matrix.sites),) * 2)
            spread[which][np.ix_(index, index)] = weights
        spread["tuned_minus_base"] = spread["tuned"] - spread["base"]
        records += [
            {**about, "metric": metric, "model": model, **matrix.contrast(spread[model]).record()}
            for model in MODELS
        ]
    return records


def findings(own: pl.DataFrame, subject: Subject) -> Sequence[Finding]:
    """Say whether tuning made the halves of the depth more unlike each other than their layers are among themselves.

    It is found where the change and, if it can be had, the change at equal distance lie on the same side of 0.

    Args:
        own: The CKA table of this arm and seed.
        subject: What was looked at.
    """
    rows = own.filter(pl.col("metric").is_in([METRIC, EQUAL_DISTANCE]) & pl.col("value").is_not_null())
    known = {(row["similarity"], row["metric"], row["model"]): row for row in rows.iter_rows(named=True)}
    raw = [known.get(("cka", METRIC, model)) for model in MODELS]
    if None in raw:
        return []
    base, tuned, change = (row for row in raw if row is not None)
    equal = known.get(("cka", EQUAL_DISTANCE, "tuned_minus_base"))
    decided = _side(change) != 0
    agreed = equal is None or _side(equal) == _side(change)
    fades = "" if agreed or not decided else ", so it is no more than fading with distance"
    others = [
        f"{words} {_number(row, True)}{after}"
        for words, row, after in (
            ("at equal distance in depth", equal, fades),
            ("with standardised dimensions", known.get(("cka_standardised", METRIC, "tuned_minus_base")), ""),
        )
        if row is not None
    ]
    verdict = "found" if decided and agreed else "undecided"
    sentence = (
        f"Bow-tie, CKA within the two halves of the depth minus CKA between them: base {_number(base)}, tuned "
        f"{_number(tuned)}, changed by {_number(change, True)}"
        + "".join(f"; {each}" for each in others)
        + "."
    )
    return [
        Finding(
            lens="cka", arm=subject.arm, sentence=sentence, metric=METRIC, value=change["value"], low=change["low"],
            high=change["high"], n=change["n"], test="delete-a-group jackknife, base and tuned on the same rows",
            control=f"the base's own: {base['value']:.2f}", rows=f"{change['n']} rows",
            verdict="task not learned" if subject.learned is False else verdict,
        )
    ]  # fmt: skip


def _side(row: dict[str, Any]) -> int:
    """Return on which side of 0 an interval lies; 0 where it holds 0 or is not known."""
    if row["low"] is None:
        return 0
    return int(row["low"] > 0) - int(row["high"] < 0)


def _number(row: dict[str, Any], signed: bool = False) -> str:
    sign = "+" if signed else ""
    ends = "" if row["low"] is None else f" [{row['low']:{sign}.2f}, {row['high']:{sign}.2f}]"
    return f"{row['value']:{sign}.2f}{ends}"
