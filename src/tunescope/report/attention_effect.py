"""Does attention that changed matter? Heads by how far their attention moved, against what taking them out does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.stats import spearmanr

from tunescope.report.figures import style
from tunescope.report.figures.ablation import EDIT_NAMES, edits, effects, shown_metrics
from tunescope.report.figures.select import only
from tunescope.report.text import number, signed

RESAMPLES = 2000
FEWEST = 8  # heads, below which a rank correlation has no interval worth its name
# How far attention moved: which divergences are held against ablation, with their names and units.
METRICS = {"kl": ("KL", "nats"), "jensen_shannon": ("Jensen-Shannon", "bits")}


@dataclass(frozen=True)
class Agreement:
    """How two rankings of the same heads agree.

    Attributes:
        heads: One row a head: layer, head, moved, effect (of taking it out of the tuned model).
        value: Spearman's rank correlation of ``moved`` with the size of ``effect``.
        low: Lower end of a 95 % percentile interval over heads.
        high: Upper end.
        edit: What ablation did to a head.
        metric: How ``moved`` is measured: one of :data:`METRICS`.
    """

    heads: pl.DataFrame
    value: float
    low: float
    high: float
    edit: str
    metric: str = "kl"


def agreement(
    attention: pl.DataFrame, ablation: pl.DataFrame, metric: str = "kl", seed: int = 0
) -> Agreement | None:
    """Return how far the heads whose attention moved are those that matter, from two stored tables of one training.

    The interval resamples heads: it says how sure the ranking is for heads like these, not how well each head's two
    numbers are known over texts.

    Returns:
        None where a table has no heads, fewer than eight are in both, or one of the two is the same for all.
    """
    kinds, measured = edits(ablation), shown_metrics(ablation)
    if not kinds or not measured:
        return None
    edit = "mean" if "mean" in kinds else kinds[0]
    hurt = effects(ablation, site="head_out", edit=edit, model="tuned", control="none", metric=measured[0])
    moved = only(attention, metric=metric, model="base_tuned")
    if hurt.is_empty() or moved.is_empty():
        return None
    heads = (
        moved.select("layer", "head", moved="value")
        .join(hurt.select("layer", "head", effect="value"), on=["layer", "head"])
        .drop_nulls()
        .sort("layer", "head")
    )
    first, second = heads["moved"].to_numpy(), heads["effect"].abs().to_numpy()
    if len(heads) < FEWEST or not np.ptp(first) or not np.ptp(second):
        return None
    generator = np.random.default_rng(seed)
    draws = [
        _correlation(first[rows], second[rows])
        for rows in generator.integers(0, len(heads), (RESAMPLES, len(heads)))
    ]
    low, high = np.nanquantile(draws, (0.025, 0.975))
    return Agreement(heads, _correlation(first, second), float(low), float(high), edit, metric)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if not np.ptp(first) or not np.ptp(second):
        return float("nan")
    return float(spearmanr(first, second).statistic)


def figure(found: Sequence[Agreement], key: str, colour: str) -> style.Figure:
    """Return heads as points, a panel a divergence: how far attention moved across, the effect of the head upwards."""
    edit = EDIT_NAMES.get(found[0].edit, found[0].edit)
    caption = (
        f"{len(found[0].heads)} heads: divergence of base and tuned attention, against the effect of the head {edit} "
        f"in the tuned model. {' '.join(sentence(one) for one in found)}"
    )
    how = (
        "Points far right and near zero are heads that look elsewhere without it mattering here; points far from zero "
        "on the left matter as they did before. Attention and effect are different questions."
    )
    panels = tuple(_panel(one, colour) for one in found)
    return style.Figure(key, "Does attention that changed matter?", panels, caption, how)


def _panel(found: Agreement, colour: str) -> style.Panel:
    records, (name, unit) = found.heads.to_dicts(), METRICS[found.metric]
    data = [{
        "type": "scatter", "mode": "markers", "x": [row["moved"] for row in records],
        "y": [row["effect"] for row in records], "marker": {"color": colour, "size": 7, "opacity": 0.75},
        "hoverinfo": "text",
        "text": [
            f"L{row['layer']}H{row['head']}<br>attention moved by {number(row['moved'])} {unit} ({name})<br>effect of "
            f"taking it out {signed(row['effect'])}"
            for row in records
        ],
    }]  # fmt: skip
    layout = style.layout(
        300,
        xaxis=style.axis(f"how far attention moved ({unit})", rangemode="tozero"),
        yaxis=style.axis("effect of taking it out", zeroline=True, zerolinecolor=style.ZERO),
    )
    return style.Panel(name, {"data": data, "layout": layout}, 300)


def sentence(found: Agreement) -> str:
    """Return the correlation in words, with its interval and what it is over."""
    if found.low > 0:
        said = "Heads whose attention moved more tend to matter more"
    elif found.high < 0:
        said = "Heads whose attention moved more tend to matter less"
    else:
        said = "How far a head's attention moved does not tell whether it matters"
    return (
        f"{said} ({METRICS[found.metric][0]}): Spearman {found.value:.2f} [{found.low:.2f}, {found.high:.2f}] with the "
        "size of the effect (95 % bootstrap over heads)."
    )
