"""The file beside the report: maps that turn, play over layers and take any colour, in one HTML file."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from jinja2 import Environment
from markupsafe import Markup

from tunescope import __version__
from tunescope.report.evidence import arm_seeds, checked, group_title
from tunescope.report.figures import maps, style
from tunescope.report.figures.select import only, values
from tunescope.report.read import RunFolder, read_examples
from tunescope.report.text import finite, interval, plural, visible
from tunescope.report.trust import rows_said

FILE_NAME = "maps.html"
FILES = {"maps": FILE_NAME, "steps": "steps.html"}
WORDS = {"maps": ("Layer", "Maps"), "steps": ("Step", "Training steps")}
MAPS_NOTE = (
    "Base and tuned rows of a layer share one map and one scale. Layers are turned or mirrored onto one another and "
    "drawn at one size: what moves between two layers shows which rows change company, not how far a state went. PCA: "
    "within a layer the way from a row's base point to its tuned point is the projection of the true change. "
)
STEPS_NOTE = (
    "All steps were laid down together and are drawn at one scale, so a row that moves has moved; step 0 is the base. "
    "PCA: the way between two steps is the projection of the true change. "
)
NEAR_NOTE = (
    "t-SNE and UMAP: near points are neighbours as far as the trustworthiness says; far distances, sizes and "
    "densities mean nothing."
)
FILE_ROWS = 5_000
MOST_NAMES = len(
    style.ARM_COLOURS
)  # a column of more different values than colours is drawn only if it is numeric
SHOWN_TEXT = 300
OWN = {"label": "both", "prediction": "", "error": "", "kmeans": "", "hdbscan": ""}
SIDES = ("base", "tuned")
Record = dict[str, Any]
Policy = Callable[[tuple[str, ...], tuple[str, ...]], str]
Source = Callable[[Environment, str], str]


def render_maps(
    run: RunFolder, environment: Environment, source: Source, policy: Policy, lens: str = "maps"
) -> str | None:
    """Return the file as text, or None where the run has no maps.

    Args:
        run: The run.
        lens: ``maps``, which plays over layers, or ``steps``, which plays over training steps.
        environment: The page's, with its escaping and its ``as_json``.
        source: Reads a style sheet or script as the browser will hash it.
        policy: Makes the content policy of scripts and style sheets.

    Raises:
        RunError: The coordinates are damaged, or lack a column.
    """
    result = run.results.get(lens)
    points = None if result is None else read_examples(run, lens, maps.EXAMPLE_COLUMNS)
    if result is None or points is None or points.is_empty():
        return None
    table = checked(result, maps.TABLE_COLUMNS)
    arms = []
    for arm, seed, rows, _main in arm_seeds(table, run.arm_names):
        own = only(points, arm=arm)
        own = only(own, seed=seed) if values(own, "seed") else own
        title = group_title(arm, seed, table)
        if own.height and lens == "maps":
            arms.append(_arm(run, own, rows, title))
        elif own.height:
            for layer, site in own.select("layer", "site").unique().sort("layer", "site").rows():
                one, numbers = (_as_steps(only(each, layer=layer, site=site)) for each in (own, rows))
                name = f"{title}, {maps.site_title(site, layer)}"
                arms.append(_arm(run, _with_base(one), numbers, name, steps=True))
    total = points["row_id"].n_unique()
    some = (
        f"The first {FILE_ROWS:,}, at random, of {total:,} rows; all are in results/examples/{lens}.parquet. "
    )
    document = {
        "arms": arms, "methods": maps.METHOD_NAMES, "palette": list(style.ARM_COLOURS), "missing": style.BASE_COLOUR,
        "ramp": [colour for _, colour in style.CIVIDIS],
    }  # fmt: skip
    style_text, script_text = source(environment, "maps.css"), source(environment, "maps.js")
    return environment.get_template("maps.html.j2").render(
        word=WORDS[lens][0], title=WORDS[lens][1], lens=lens,
        about=(MAPS_NOTE if lens == "maps" else STEPS_NOTE) + NEAR_NOTE,
        name=run.name, version=__version__, document=document, style_text=Markup(style_text),
        script_text=Markup(script_text), policy=policy((script_text,), (style_text,)),
        said=f"{rows_said(result) or plural(total, 'row')}. {some if total > FILE_ROWS else ''}",
    )  # fmt: skip


def _as_steps(rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows of one place with the training step where layers stand."""
    return rows.filter(pl.col("step").is_not_null()).with_columns(layer=pl.col("step"))


def _with_base(points: pl.DataFrame) -> pl.DataFrame:
    """Return points with those of step 0 as the base's at every step."""
    steps = points.select(pl.col("layer").unique(maintain_order=True))
    base = only(points, layer=0).drop("layer").with_columns(model=pl.lit("base")).join(steps, how="cross")
    return pl.concat([base.select(points.columns), points])


def _arm(run: RunFolder, points: pl.DataFrame, table: pl.DataFrame, name: str, steps: bool = False) -> Record:
    """Return one arm and seed: ids, texts, columns to colour by, and the coordinates layer (or step) by layer."""
    ids = points["row_id"].unique(maintain_order=True).head(FILE_ROWS)
    points = points.filter(pl.col("row_id").is_in(ids.to_list()))
    layers = []
    for layer, site in points.select("layer", "site").unique().sort("layer", "site").rows():
        here = only(points, layer=layer, site=site)
        drawn, trust = {}, {}
        for method, axes in here.select("method", "axes").unique(maintain_order=True).rows():
            key = f"{method}-{axes}"
            every = only(points, method=method, axes=axes)
            own = only(here, method=method, axes=axes)
            drawn[key] = _packed(own, axes, every if steps else own)
            about = {
                "layer": layer,
                "site": site,
                "method": method,
                "axes": axes,
                "metric": "trustworthiness",
            }
            trust[key] = {side: _trust(only(table, model=side, **about)) for side in SIDES}
        shown = f"step {layer}" if steps else maps.site_title(site, layer)
        layers.append({"name": shown, "maps": drawn, "trust": trust})
    first = only(points, layer=points["layer"][0], site=points["site"][0], method=points["method"][0],
                 axes=points["axes"][0])  # fmt: skip
    known = pl.DataFrame({"row_id": ids})
    if run.rows is not None:
        known = known.join(run.rows, on="row_id", how="left", maintain_order="left")
    told = run.texts == "all" and "text" in known.columns
    texts = known["text"].to_list() if told else [None] * len(ids)
    return {
        "name": visible(name),
        "ids": [visible(str(one), 60) for one in ids],
        "texts": [visible(str(text or ""), SHOWN_TEXT) for text in texts],
        "columns": [*_own_columns(first), *_data_columns(known)],
        "layers": layers,
    }


def _packed(points: pl.DataFrame, axes: int, every: pl.DataFrame) -> dict[str, str]:
    """Return the coordinates of both models as 16-bit numbers in base64, in units of the greatest of ``every``."""
    names = ["x", "y", "z"][:axes]
    both = every.select(names).to_numpy()
    reach = float(np.linalg.norm(both, axis=1).max()) or 1.0
    found = {}
    for side in SIDES:
        own = only(points, model=side).select(names).to_numpy() / reach
        found[side] = base64.b64encode(np.round(own * 32767).astype("<i2").tobytes()).decode("ascii")
    return found


def _trust(found: pl.DataFrame) -> str:
    if found.is_empty() or finite(found["value"][0]) is None:
        return ""
    return f"trustworthiness {interval(found['value'][0], found['low'][0], found['high'][0], 2)}"


def _own_columns(points: pl.DataFrame) -> list[Record]:
    """Return label, prediction, error and clusters as columns to colour by."""
    columns = []
    for name, where in OWN.items():
        sides = {side: only(points, model=side)[name] for side in SIDES}
        found = _column(name, {"both": sides["base"]} if where == "both" else sides)
        if found is not None:
            columns.append(found)
    return columns


def _data_columns(known: pl.DataFrame) -> list[Record]:
    """Return the other columns of the data that can be coloured: few different values, or numbers."""
    columns = [
        _column(f"data: {name}", {"both": known[name]})
        for name in known.columns
        if name not in ("row_id", "position", "split", "text", "label")
    ]
    return [column for column in columns if column is not None]


def _column(name: str, sides: dict[str, pl.Series]) -> Record | None:
    """Return one column by side, as places among its names or as numbers; None where no colour can tell it."""
    joined = pl.concat(list(sides.values())).drop_nulls()
    if joined.dtype.is_nested() or joined.is_empty():
        return None
    different = joined.unique().sort()
    if len(different) <= MOST_NAMES or name in OWN:
        order = {value: place for place, value in enumerate(different.to_list())}
        places = {side: [order.get(value) for value in own.to_list()] for side, own in sides.items()}
        names = [visible(_named(name, value), 60) for value in order]
        return {"name": visible(name, 40), "kind": "category", "names": names, "values": places}
    if not joined.dtype.is_numeric():
        return None
    numbers = {side: [finite(value) for value in own.to_list()] for side, own in sides.items()}
    seen = [value for own in numbers.values() for value in own if value is not None]
    if not seen:
        return None
    return {
        "name": visible(name, 40),
        "kind": "number",
        "low": min(seen),
        "high": max(seen),
        "values": numbers,
    }


def _named(column: str, value: Any) -> str:
    if column == "error":
        return "wrong" if value else "right"
    if column in ("kmeans", "hdbscan"):
        return "noise" if value == -1 else f"cluster {value}"
    return str(value)
