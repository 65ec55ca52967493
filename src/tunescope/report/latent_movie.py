"""The latent space over a training as a picture that turns: all steps in one aligned frame, three axes."""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from tunescope.report import moving
from tunescope.report.evidence import arm_seeds
from tunescope.report.figures import maps, style
from tunescope.report.figures.select import only, values
from tunescope.report.read import RunFolder, read_examples
from tunescope.report.text import visible

SIZE, MARGIN = 440, 46
TURNS = 6  # frames a step; the whole movie is one turn
MILLISECONDS = 130
MOST = 400  # rows drawn
ELEVATION = math.radians(18)


def latent_gifs(run: RunFolder) -> dict[str, bytes]:
    """Return ``watch-latent-space-N.gif`` for every training whose steps were drawn with three axes.

    Raises:
        MissingDependencyError: Pillow, which draws the pictures, is not installed.
        RunError: The coordinates are damaged.
    """
    result = run.results.get("steps")
    points = None if result is None else read_examples(run, "steps", (*maps.EXAMPLE_COLUMNS, "step"))
    if result is None or points is None:
        return {}
    made = {}
    for number, (arm, seed, _rows, _main) in enumerate(arm_seeds(result.table, run.arm_names)):
        own = only(points, arm=arm, axes=3)
        own = only(own, seed=seed) if values(own, "seed") else own
        if own["step"].n_unique() > 1:
            own = own.filter(pl.col("layer") == pl.col("layer").max())
            method = next(name for name in maps.METHOD_NAMES if name in values(own, "method"))
            title = f"{arm}, {maps.METHOD_NAMES[method]}"
            made[f"watch-latent-space-{number}.gif"] = turning(only(own, method=method), title)
    return made


def turning(points: pl.DataFrame, title: str) -> bytes:
    """Return an animated picture: rows as dots in the colour of their label, step by step, while the frame turns.

    Places are the stored ones, in one frame and at one scale for all steps; nothing is drawn between two steps.

    Args:
        points: ``row_id, label, step, x, y, z`` of one place and method.
        title: What stands over it.

    Raises:
        MissingDependencyError: Pillow is not installed.
    """
    draws = moving.pillow()
    ids = points["row_id"].unique(maintain_order=True).head(MOST)
    shown = points.filter(pl.col("row_id").is_in(ids.to_list()))
    reach = float(np.linalg.norm(shown.select("x", "y", "z").to_numpy(), axis=1).max()) or 1.0
    steps, labels = sorted(values(shown, "step")), sorted(map(str, values(shown, "label")))
    inks = {label: style.ARM_COLOURS[place % len(style.ARM_COLOURS)] for place, label in enumerate(labels)}
    font, frames = draws.ImageFont.load_default(), []
    for place, step in enumerate(steps):
        here = only(shown, step=step)
        spots = here.select("x", "y", "z").to_numpy() / reach
        colours = [inks.get(str(label), style.BASE_COLOUR) for label in here["label"]]
        for turn in range(TURNS):
            angle = 2 * math.pi * (place * TURNS + turn) / (len(steps) * TURNS)
            image = draws.Image.new("RGB", (SIZE, SIZE + 18 * math.ceil(len(labels) / 3)), "white")
            draw = draws.ImageDraw.Draw(image)
            draw.text((8, 6), visible(title, 60), fill="black", font=font)
            draw.text((8, 22), f"step {step}", fill="black", font=font)
            flat = seen_from(spots, angle)
            for index in np.argsort(-flat[:, 2], kind="stable"):  # the nearest is drawn last
                x, y = (MARGIN + (SIZE - 2 * MARGIN) * (1 + flat[index, axis]) / 2 for axis in (0, 1))
                draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colours[index], outline="white")
            for number, label in enumerate(labels):
                left, top = 10 + SIZE // 3 * (number % 3), SIZE + 18 * (number // 3)
                draw.ellipse((left, top, left + 8, top + 8), fill=inks[label])
                draw.text((left + 13, top - 2), visible(label, 18), fill="black", font=font)
            frames.append(image)
    return moving.animated(frames, MILLISECONDS)


def seen_from(spots: np.ndarray, angle: float) -> np.ndarray:
    """Return points [N, 3] as they are seen from a side: right, down, and how far behind, each -1 to 1.

    Args:
        spots: Points within the unit sphere; z is up.
        angle: How far the viewer has gone round the z axis, in radians.
    """
    x, y, z = spots.T
    right = math.cos(angle) * x + math.sin(angle) * y
    behind = -math.sin(angle) * x + math.cos(angle) * y
    up = math.cos(ELEVATION) * z + math.sin(ELEVATION) * behind
    return np.stack([right, -up, math.cos(ELEVATION) * behind - math.sin(ELEVATION) * z], axis=1)
