"""Scatter plots of pooled states: one panel a layer and model, coloured by label, crosses where the model is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from tunescope.report.figures import style
from tunescope.report.figures.geometry import depth_layout, depth_line
from tunescope.report.figures.select import only
from tunescope.report.text import finite, for_plotly

TABLE_COLUMNS = (
    "arm",
    "model",
    "site",
    "layer",
    "metric",
    "value",
    "low",
    "high",
    "method",
    "axes",
    "control",
)
EXAMPLE_COLUMNS = (
    "row_id", "arm", "seed", "model", "site", "layer", "method", "axes", "x", "y", "z", "label", "prediction",
    "error", "kmeans", "hdbscan",
)  # fmt: skip
METHOD_NAMES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
HEIGHT = 300
SHOWN_TEXT = 60
UNLABELLED = "no label"
Record = dict[str, Any]


def site_title(site: str, layer: int) -> str:
    """Return what a panel calls a place."""
    return {"embeddings": "embeddings", "final_norm_out": "norm"}.get(site, f"layer {layer}")


def scatter_panels(
    points: pl.DataFrame, table: pl.DataFrame, texts: Mapping[str, str], labels: Sequence[str]
) -> tuple[style.Panel, ...]:
    """Return the two-axis maps of one method: layers across, base above tuned, both models of a layer on one scale.

    Args:
        points: Coordinates of the rows that are shown, of one arm, seed and method.
        table: The numbers of the same arm and seed.
        texts: Text by row id, as far as known.
        labels: The classes, in their order.
    """
    places = points.select("layer", "site").unique().sort("layer", "site").rows()
    reaches = {place: reach(only(points, layer=place[0], site=place[1])) for place in places}
    panels: list[style.Panel] = []
    for model in ("base", "tuned"):
        for layer, site in places:
            own = only(points, layer=layer, site=site, model=model)
            if own.is_empty():
                continue
            figure = one_panel(own, labels, reaches[layer, site], not panels, texts)
            title = f"{model}, {site_title(site, layer)}{_trust(table, own, model)}"
            panels.append(style.Panel(title, figure, HEIGHT))
    return tuple(panels)


def one_panel(
    points: pl.DataFrame,
    labels: Sequence[str],
    span: list[float],
    legend: bool,
    texts: Mapping[str, str] | None = None,
) -> Record:
    """Return one two-axis map as a figure.

    Args:
        points: Its coordinates.
        labels: The classes, in their order.
        span: The range of both axes.
        legend: Whether it has the legend.
        texts: Text by row id, as far as known.
    """
    hidden = {"range": span, "showgrid": False, "showticklabels": False}
    layout = style.layout(
        HEIGHT,
        xaxis=style.axis("", **hidden),
        yaxis=style.axis("", **hidden, scaleanchor="x"),
        margin={"l": 6, "r": 6, "t": 6, "b": 34},
        showlegend=legend,
        legend={"orientation": "h", "x": 0, "y": -0.02, "yanchor": "top", "font": {"size": 11}},
        hovermode="closest",
        plot_bgcolor="rgba(120,130,145,0.07)",
    )
    return {"data": _traces(points, texts or {}, labels), "layout": layout}


def reach(points: pl.DataFrame) -> list[float]:
    """Return one range for both axes that holds every point, so that base and tuned are drawn alike."""
    low = min(finite(points[axis].min()) or 0.0 for axis in "xy")
    high = max(finite(points[axis].max()) or 0.0 for axis in "xy")
    room = 0.05 * (high - low) or 1.0
    return [low - room, high + room]


def _trust(table: pl.DataFrame, points: pl.DataFrame, model: str) -> str:
    about = {name: points[name][0] for name in ("layer", "site", "method")}
    found = only(table, metric="trustworthiness", model=model, axes=2, **about)
    value = finite(found["value"][0]) if found.height else None
    return "" if value is None else f" · trust {value:.2f}"


def _traces(points: pl.DataFrame, texts: Mapping[str, str], labels: Sequence[str]) -> list[Record]:
    """Return one trace a label, all labels in every panel, so that colours and legend are the same."""
    named = points.with_columns(pl.col("label").fill_null(UNLABELLED))
    present = set(named["label"].to_list())
    order = [*[name for name in labels if name in present], *sorted(present - set(labels))]
    traces = []
    for place, name in enumerate(order):
        own = named.filter(pl.col("label") == name)
        colour = style.ARM_COLOURS[place] if place < len(style.ARM_COLOURS) else style.BASE_COLOUR
        if name == UNLABELLED:
            colour = style.BASE_COLOUR
        traces.append({
            "type": "scatter", "mode": "markers", "name": for_plotly(name, 24), "x": own["x"].to_list(),
            "y": own["y"].to_list(), "hoverinfo": "text",
            "text": [_hover(record, texts) for record in own.iter_rows(named=True)],
            "marker": {
                "size": 5.5, "opacity": 0.75, "color": colour, "line": {"width": 0},
                "symbol": ["x" if wrong else "circle" for wrong in own["error"].to_list()],
            },
        })  # fmt: skip
    return traces


def _hover(record: Record, texts: Mapping[str, str]) -> str:
    said = for_plotly(record["label"], 24)
    if record["prediction"] is not None:
        said += f", predicted {for_plotly(record['prediction'], 24)}"
    text = texts.get(str(record["row_id"]))
    row = for_plotly(record["row_id"], 24)
    return f"{row}: {said}" + ("" if text is None else f"<br>{for_plotly(text, SHOWN_TEXT)}")


def cluster_panels(table: pl.DataFrame, colour: str) -> tuple[style.Panel, ...]:
    """Return the agreement of clusters with labels over depth: base, tuned, and permuted labels."""
    panels: list[style.Panel] = []
    for method, title in (("kmeans", "k-means"), ("hdbscan", "HDBSCAN")):
        for metric, name in (("adjusted_rand", "adjusted Rand index"), ("purity", "purity")):
            own = only(table, metric=metric, method=method).filter(pl.col("value").is_not_null())
            base, tuned = (only(own, model=model).sort("layer") for model in ("base", "tuned"))
            if tuned.is_empty():
                continue
            null = tuned.with_columns(value=pl.col("control"), low=None, high=None)
            chance = depth_line(null, "labels permuted", style.BASE_COLOUR)
            chance["line"] |= {"dash": "dot"}
            traces = [
                chance, depth_line(base, "base", style.BASE_COLOUR), depth_line(tuned, "tuned", colour)
            ]  # fmt: skip
            panels.append(
                style.Panel(f"{title}: {name}", {"data": traces, "layout": depth_layout(own, 230)}, 230)
            )
    return tuple(panels)


def agreement_said(table: pl.DataFrame) -> str:
    """Return how many clusters were found at the last layer, and how evenly rows are split, in words."""
    last = table.filter(pl.col("layer") == table["layer"].max())
    said = []
    for model in ("base", "tuned"):
        own = only(last, model=model, metric="adjusted_rand", method="kmeans")
        score = only(last, model=model, metric="silhouette", method="kmeans").filter(
            pl.col("control").is_not_null()
        )
        if score.height and own.height and None not in own.select("value", "low", "high").row(0):
            said.append(
                f"{model} {score['clusters'][0]} (silhouette {score['value'][0]:.2f}; a normal cloud of the same "
                f"covariance gives {score['control'][0]:.2f}; adjusted Rand index "
                f"{own['value'][0]:.2f} [{own['low'][0]:.2f}, {own['high'][0]:.2f}])"
            )
    return f"k-means clusters at the last site: {', '.join(said)}. " if said else ""
