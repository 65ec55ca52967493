"""What all figures share: colours, layout, and the small classes that carry a figure to the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from tunescope.report.text import finite

# Okabe and Ito's palette without black and yellow, told apart under the common colour blindnesses; four more follow
# for runs of many arms, where names in hovers and tables tell apart what colours cannot.
ARM_COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7b61c9", "#a8324f", "#8a8f2a", "#a0694b",
)  # fmt: skip
BASE_COLOUR = "#8a929c"
GRID = "rgba(120,130,145,0.22)"
ZERO = "rgba(90,100,115,0.75)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', 'DejaVu Sans', sans-serif"

# Ink and paper of the two themes, the same as in style.css: what the page sets when it draws, and an export by itself.
THEMES: dict[str, dict[str, str]] = {
    "light": {"ink": "#16191d", "soft": "#4c5560", "paper": "#ffffff", "line": "#c3c9d0"},
    "dark": {"ink": "#eceff2", "soft": "#b9c1ca", "paper": "#14171b", "line": "#454e58"},
}

# ColorBrewer's RdBu with a white centre: red where taking a part out hurts, blue where it helps.
DIVERGING = [
    [0.0, "#67001f"], [0.1, "#b2182b"], [0.2, "#d6604d"], [0.3, "#f4a582"], [0.4, "#fddbc7"],
    [0.5, "#ffffff"], [0.6, "#d1e5f0"], [0.7, "#92c5de"], [0.8, "#4393c3"], [0.9, "#2166ac"],
    [1.0, "#053061"],
]  # fmt: skip
CIVIDIS = [
    [index / 9, colour]
    for index, colour in enumerate(
        [
            "#00224e",
            "#123570",
            "#3b496c",
            "#575d6d",
            "#707173",
            "#8a8678",
            "#a59c74",
            "#c3b369",
            "#e1cc55",
            "#fee838",
        ]
    )
]
BLUES = [[0.0, "#f7fbff"], [0.25, "#c6dbef"], [0.5, "#6baed6"], [0.75, "#2171b5"], [1.0, "#08306b"]]


@dataclass(frozen=True)
class Scale:
    """A colour scale drawn once under panels that share it."""

    kind: Literal["cividis", "diverging", "blues"]
    low: str
    middle: str
    high: str


@dataclass(frozen=True)
class Panel:
    """One Plotly drawing: a title in HTML and a figure of ``data`` and ``layout``."""

    title: str
    figure: dict[str, Any]
    height: int


@dataclass(frozen=True)
class Figure:
    """Panels under one title, with what a reader needs to trust them.

    Attributes:
        key: The figure's name on the page and in file names; unique within a run.
        title: The heading; empty where the section's own says it.
        panels: The drawings, side by side.
        caption: Remarks on how it was drawn: intervals, controls, what the hover holds.
        how: How to read it.
        scale: The colour scale that its panels share.
        folded: Whether it opens on demand only.
        shows: What it shows, one sentence.
        high: What a high value means.
        measured: What was measured on what: the quantity, the rows, the models.
        table: Its data, one row a mark; read off the panels where this is None (:mod:`.data`).
    """

    key: str
    title: str
    panels: tuple[Panel, ...]
    caption: str
    how: str = ""
    scale: Scale | None = None
    folded: bool = False
    shows: str = ""
    high: str = ""
    measured: str = ""
    table: pl.DataFrame | Sequence[Mapping[str, Any]] | None = None


def arm_colour(arms: Sequence[str], arm: str) -> str:
    """Return the colour that an arm has everywhere on the page."""
    return ARM_COLOURS[list(arms).index(arm) % len(ARM_COLOURS)] if arm in arms else BASE_COLOUR


def faded(colour: str, opacity: float) -> str:
    """Return ``#rrggbb`` as an rgba colour."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def layout(height: int, **more: Any) -> dict[str, Any]:
    """Return the layout every figure starts from; the page sets ink and paper for its theme."""
    return {
        "height": height,
        "margin": {"l": 52, "r": 12, "t": 10, "b": 42},
        "font": {"family": FONT, "size": 12},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": False,
        "hoverlabel": {"font": {"family": FONT, "size": 12}, "align": "left", "namelength": -1},
        "dragmode": False,
        **more,
    }


def map_layout(height: int, **more: Any) -> dict[str, Any]:
    """Return the layout of a heatmap: the gaps between cells show as a fine grid, so white cells are seen."""
    return layout(height, **{"plot_bgcolor": GRID, **more})


def axis(title: str = "", **more: Any) -> dict[str, Any]:
    """Return an axis in the house style."""
    return {
        "title": {"text": title, "standoff": 8},
        "gridcolor": GRID,
        "zeroline": False,
        "ticks": "",
        "automargin": True,
        "fixedrange": True,
        **more,
    }


def named_axis(names: Sequence[str], title: str = "", **more: Any) -> dict[str, Any]:
    """Return an axis with one tick per name; positions are numbers, so that no name is read as a date."""
    ticks = {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": list(names)}
    return axis(title, **{"showgrid": False, "range": [-0.5, len(names) - 0.5], **ticks, **more})


def clean(value: Any) -> Any:
    """Return a figure for JSON: five significant digits, no NaN (a gap is ``None``)."""
    if isinstance(value, dict):
        return {key: clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(item) for item in value]
    if isinstance(value, float):
        number = finite(value)
        return None if number is None else float(f"{number:.5g}")
    return value


def plotly_figure(drawn: Panel | Figure, theme: Literal["light", "dark"] = "light") -> dict[str, Any]:
    """Return ``data`` and ``layout`` for Plotly outside the page: ink and paper of a theme, no missing values as NaN.

    Args:
        drawn: One panel, or a figure whose panels are set side by side, at most three a line, with their titles.
        theme: Whose ink and paper.
    """
    from tunescope.report.figures.sheet import side_by_side

    joined = drawn.figure if isinstance(drawn, Panel) else side_by_side(drawn.panels)
    colours = THEMES[theme]
    made = clean(joined)
    given = made["layout"]
    hover = {**given.get("hoverlabel", {}), "bgcolor": colours["paper"], "bordercolor": colours["line"]}
    hover["font"] = {**hover.get("font", {}), "color": colours["ink"]}
    made["layout"] = {
        **given,
        "paper_bgcolor": colours["paper"],
        "font": {**given.get("font", {}), "color": colours["soft"]},
        "hoverlabel": hover,
    }
    for trace in made["data"]:
        if "error_y" in trace:
            trace["error_y"] = {**trace["error_y"], "color": colours["soft"]}
    return dict(made)
