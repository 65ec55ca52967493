"""Files beside the report of a watched training: a page with a slider over the steps, and animated pictures.

What plays: head metrics, one head's attention on one text, neurons' mean activations; whatever the training's folder
holds of these. Of long trainings at most :data:`FRAMES` steps are shown: the first, the last, and between them those at
even distances in their order; the tables hold all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
from jinja2 import Environment
from markupsafe import Markup

from tunescope import __version__
from tunescope.report import moving
from tunescope.report.figures import style
from tunescope.report.figures.select import only, values
from tunescope.report.read import RunFolder, read_examples

PAGE = "watch.html"
FRAMES = 40
MILLISECONDS = 400
EXAMPLES = ("lens", "model", "step", "value")
HEAD_METRICS = {
    "jensen_shannon": ("How far heads moved (bits, Jensen-Shannon with step 0)", "base_tuned"),
    "entropy_without_sink": ("Entropy of heads without the first token", "tuned"),
    "gini": ("Concentration of heads (Gini)", "tuned"),
}
Grid = list[list[float | None]]
Policy = Callable[[tuple[str, ...], tuple[str, ...]], str]
Source = Callable[[Environment, str], str]


@dataclass(frozen=True)
class Movie:
    """One thing over the steps: a grid a step, on one scale.

    Attributes:
        key: Its name in file names.
        title: What it shows.
        steps: The steps, ascending.
        grids: One a step, rows by columns.
        rows: Names down.
        columns: Names across.
        low: The value of the lightest (or reddest) colour.
        high: The value of the darkest (or bluest).
    """

    key: str
    title: str
    steps: tuple[int, ...]
    grids: tuple[Grid, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    low: float
    high: float

    @property
    def colours(self) -> list[list[Any]]:
        """Diverging around 0 where values have both signs."""
        return style.DIVERGING if self.low < 0 else style.BLUES


def thinned(steps: Sequence[int], most: int = FRAMES) -> list[int]:
    """Return at most ``most`` of the steps: first, last, and between them evenly by their order."""
    ordered = sorted(set(steps))
    if len(ordered) <= most:
        return ordered
    return [ordered[round(place * (len(ordered) - 1) / (most - 1))] for place in range(most)]


@dataclass(frozen=True)
class Training:
    """One training that was seen over its steps.

    Attributes:
        name: How it is called where there are several; empty for one alone.
        prefix: What its figures' and files' keys begin with.
        table: What lenses saw of it, with its correlations.
        examples: What was kept of single texts, or None.
    """

    name: str
    prefix: str
    table: pl.DataFrame
    examples: pl.DataFrame | None


def trainings(run: RunFolder) -> list[Training]:
    """Return the trainings that were seen over their steps: arms and seeds of a run, or the one that was watched."""
    result = run.results.get("watch")
    if result is None:
        return []
    table, examples = result.table, read_examples(run, "watch", EXAMPLES)
    known = table.select("arm", "seed").drop_nulls("arm").unique(maintain_order=True).rows()
    if len(known) < 2:
        return [Training("", "", table, examples)]
    found = []
    for number, (arm, seed) in enumerate(known):
        mine = (pl.col("arm") == arm) & pl.col("seed").eq_missing(pl.lit(seed))
        name = str(arm) if seed is None else f"{arm}, seed {seed}"
        kept = None if examples is None else examples.filter(mine)
        found.append(Training(name, f"{number}-", table.filter(mine), kept))
    return found


def movies(run: RunFolder) -> list[Movie]:
    """Return what plays over the steps of trainings; empty where two steps or fewer were seen."""
    return [
        replace(
            one, key=f"{seen.prefix}{one.key}", title=f"{seen.name}: {one.title}" if seen.name else one.title
        )
        for seen in trainings(run)
        for one in _of_training(seen)
        if one is not None
    ]


def _of_training(training: Training) -> list[Movie | None]:
    found: list[Movie | None] = []
    for metric, (title, model) in HEAD_METRICS.items():
        own = only(training.table, lens="attention", metric=metric, model=model)
        if own.height:
            found.append(_movie(f"heads-{metric}", title, own, ("head", "H"), ("layer", "L")))
    if training.examples is not None:
        found += _attention(only(training.examples, lens="attention", model="tuned"))
        neurons = only(training.examples, lens="activations", model="tuned")
        if neurons.height:
            title = "Mean activation of the first neurons of every layer"
            found.append(_movie("neurons", title, neurons, ("layer", "layer "), ("neuron", "")))
    return found


def _attention(maps: pl.DataFrame) -> list[Movie | None]:
    """Return one movie a head and text; axes are named by the tokens."""
    found: list[Movie | None] = []
    if maps.is_empty():
        return found
    for row_id, layer, head in maps.select("row_id", "layer", "head").unique(maintain_order=True).rows():
        own = only(maps, row_id=row_id, layer=layer, head=head)
        names = {}
        if "query_token" in own.columns:
            names = dict(own.select("query", "query_token").unique().drop_nulls().rows())
        title = f"Attention of L{layer}H{head} on {row_id}: queries down, keys across"
        found.append(
            _movie(f"attention-L{layer}H{head}-{len(found)}", title, own, ("query", ""), ("key", ""), names)
        )
    return found


def _movie(
    key: str,
    title: str,
    table: pl.DataFrame,
    down: tuple[str, str],
    across: tuple[str, str],
    names: dict[int, str] | None = None,
) -> Movie | None:
    """Return a movie of a table whose cells are found by the names of their axes, never by order."""
    known = table.filter(pl.col("value").is_not_null() & pl.col("step").is_not_null())
    steps = thinned(values(known, "step"))
    if len(steps) < 2:
        return None
    lines, places = values(known, down[0]), values(known, across[0])
    cells = {
        (step, one, other): value
        for step, one, other, value in known.select("step", down[0], across[0], "value").rows()
    }
    grids = tuple([[cells.get((step, one, other)) for other in places] for one in lines] for step in steps)
    shown = [abs(cell) for grid in grids for line in grid for cell in line if cell is not None]
    signed = any(cell is not None and cell < 0 for grid in grids for line in grid for cell in line)
    top = max(shown) or 1.0

    def named(value: int, prefix: str) -> str:
        return str((names or {}).get(value, f"{prefix}{value}"))

    return Movie(
        key, title, tuple(steps), grids, tuple(named(one, down[1]) for one in lines),
        tuple(named(one, across[1]) for one in places), -top if signed else 0.0, top,
    )  # fmt: skip


def files(run: RunFolder, environment: Environment, source: Source, policy: Policy) -> dict[str, bytes]:
    """Return the files beside the report by name: ``watch.html`` and one ``watch-NAME.gif`` a movie.

    Raises:
        MissingDependencyError: Pillow, which draws the pictures, is not installed.
        RunError: What was kept of single texts is damaged.
    """
    found = movies(run)
    if not found:
        return {}
    made = {f"watch-{one.key}.gif": gif(one) for one in found}
    script, styles = source(environment, "watch.js"), source(environment, "maps.css")
    document = {
        "movies": [
            {
                "title": one.title, "steps": one.steps, "grids": style.clean(list(one.grids)), "rows": one.rows,
                "columns": one.columns, "low": one.low, "high": one.high, "colours": one.colours,
                "file": f"watch-{one.key}.gif",
            }
            for one in found
        ],
        "milliseconds": MILLISECONDS,
    }  # fmt: skip
    page = environment.get_template("watch.html.j2").render(
        name=run.name, version=__version__, document=document, script_text=Markup(script), style_text=Markup(styles),
        policy=policy((script,), (styles,)), frames=FRAMES, movies=found,
    )  # fmt: skip
    return {PAGE: page.encode("utf-8", errors="replace"), **made}


def colour_of(value: float | None, movie: Movie) -> tuple[int, int, int]:
    """Return the colour of a cell, between the two nearest of the scale; grey where there is no number."""
    if value is None:
        return 138, 146, 156
    share = min(1.0, max(0.0, (value - movie.low) / (movie.high - movie.low)))
    scale = movie.colours
    place = next(index for index in range(1, len(scale)) if share <= scale[index][0])
    (start, first), (end, second) = scale[place - 1], scale[place]
    part = (share - start) / (end - start)
    one, two = (tuple(int(ink[at : at + 2], 16) for at in (1, 3, 5)) for ink in (first, second))
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(one, two, strict=True))
    return red, green, blue


def gif(movie: Movie, cell: int = 22) -> bytes:
    """Return an animated picture, one frame a step, with the names of the axes and the step.

    Raises:
        MissingDependencyError: Pillow is not installed.
    """
    draws = moving.pillow()
    font = draws.ImageFont.load_default()
    left = 12 + max(int(font.getlength(name)) for name in movie.rows)
    below = 12 + max(int(font.getlength(name)) for name in movie.columns)
    size = (max(360, left + cell * len(movie.columns) + 10), 56 + cell * len(movie.rows) + below)
    frames = []
    for step, grid in zip(movie.steps, movie.grids, strict=True):
        image = draws.Image.new("RGB", size, "white")
        draw = draws.ImageDraw.Draw(image)
        draw.text((6, 6), movie.title, fill="black", font=font)
        draw.text((6, 24), f"step {step}", fill="black", font=font)
        for y, line in enumerate(grid):
            draw.text((6, 50 + y * cell + 4), movie.rows[y], fill="black", font=font)
            for x, value in enumerate(line):
                box = (left + x * cell, 48 + y * cell, left + (x + 1) * cell - 2, 48 + (y + 1) * cell - 2)
                draw.rectangle(box, fill=colour_of(value, movie))
        for x, name in enumerate(movie.columns):
            _upright(image, name, (left + x * cell + 4, 50 + len(grid) * cell), font)
        frames.append(image)
    return moving.animated(frames, MILLISECONDS)


def _upright(image: Any, text: str, place: tuple[int, int], font: Any) -> None:
    """Write a name from top to bottom."""
    from PIL import Image, ImageDraw

    label = Image.new("RGB", (int(font.getlength(text)) + 2, 14), "white")
    ImageDraw.Draw(label).text((0, 0), text, fill="black", font=font)
    image.paste(label.rotate(-90, expand=True), place)
