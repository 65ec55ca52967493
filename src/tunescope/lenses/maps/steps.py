"""Maps over training steps: where each row stands at every saved checkpoint, all steps in one frame.

The states of all steps are laid down together (one PCA, one t-SNE or UMAP of all points), so a row that moves from
one step to the next has moved; separately fitted maps, as study 004 has them, cannot be compared. Step 0 is the base.
Beside each frame stand its trustworthiness and, from the full space, how far the rows have gone and CKA with the base.

Formula:
    As in ``maps``, all steps laid down together; movement: mean distance of a row from its place at step 0 in
    the full space.

Range:
    Positions without unit; movement from 0; CKA with the base about 0 to 1.

How to read:
    See when rows part by class, and whether they moved before accuracy rose.

Cost:
    One pass of the model at every kept checkpoint.

Limits:
    Needs saved checkpoints. As in all maps, read numbers, not distances.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tunescope.capture.sites import Site
from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.lenses.geometry.pooled import depth, site_name
from tunescope.lenses.maps import numbers as map_numbers
from tunescope.lenses.maps.frames import Drawn, Frames, Stage
from tunescope.lenses.maps.lens import MapStates, chosen_sites
from tunescope.lenses.maps.options import MOST_ROWS, StepOptions
from tunescope.lenses.reading import read_model
from tunescope.lenses.subject import Subject, clusters
from tunescope.models.classifier import Classifier
from tunescope.models.load import load
from tunescope.stats.embedding import MINIMUM_POINTS, require_libraries
from tunescope.stats.hsic import BlockHSIC
from tunescope.stats.intervals import wilson
from tunescope.stats.results import Finding, result_table

WHAT = (
    "Where the rows stand at every saved step of training, all steps in one frame, with each frame's trustworthiness, "
    "CKA with the base and accuracy; step 0 is the base."
)
AXES = ("x", "y", "z")
Record = dict[str, Any]


def step_folders(subject: Subject, folder: str | None, lens: str = "steps") -> list[tuple[int, Path]]:
    """Return the checkpoints of a training by step, ascending as numbers.

    Args:
        subject: What is looked at; its tuned model's folder says where checkpoints may lie.
        folder: The folder that holds them, or None for ``checkpoints`` beside a study's model, or the ``checkpoint-*``
            folders beside one that was given as the tuned model.
        lens: The lens that asks, for the message.

    Raises:
        LensError: There are fewer than two.
    """
    own = Path(str(subject.tuned.record.get("path", "")))
    where = (
        Path(folder)
        if folder
        else own.parent
        if own.name.startswith("checkpoint-")
        else own.parent / "checkpoints"
    )
    named = [path for path in where.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    found = sorted((int(path.name.rpartition("-")[2]), path) for path in named if path.is_dir())
    if len(found) < 2:
        raise LensError(
            f"{subject.arm}: {lens} needs two checkpoints or more; {where} holds {len(found)}.",
            hint="In a study set training.save_strategy to steps, save_steps to a number and save_total_limit to null.",
        )
    return found


def run(subject: Subject, options: StepOptions) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read every step, draw them together, and return numbers and coordinates.

    Raises:
        LensError: Too few checkpoints or rows, too many points, or states that are not finite.
        ModelError: A checkpoint cannot be read.
        MissingDependencyError: The library of a method is not installed.
    """
    require_libraries(options.methods)
    folders = step_folders(subject, options.folder)
    chosen = np.unique(np.linspace(0, len(folders) - 1, min(options.most, len(folders))).round().astype(int))
    tokens = subject.draw(options.rows, labelled=False)
    points = len(tokens) * (len(chosen) + 1)
    if len(tokens) < MINIMUM_POINTS:
        raise LensError(f"A map needs at least {MINIMUM_POINTS} rows; there are {len(tokens)}.")
    if points > MOST_ROWS:
        raise LensError(
            f"{len(chosen) + 1} steps of {len(tokens)} rows are {points:,} points; at most {MOST_ROWS:,} are drawn "
            "together.",
            hint="Take fewer rows (rows.n) or steps (most).",
        )
    layers = (
        options.layers
        if options.layers
        else (subject.tuned.n_layers - (subject.tuned.family.final_norm is None),)
    )
    sites = chosen_sites(subject.tuned, layers)
    read = [(0, _read(subject, subject.base, tokens, sites, "step 0"))]
    for index in chosen.tolist():
        step, path = folders[index]
        read.append((step, _read(subject, _loaded(subject, path), tokens, sites, f"step {step}")))
    records, frames = [], []
    for site in sites:
        found, drawn = _site(subject, options, site, read, tokens)
        records += found
        frames += drawn
    return result_table(records), pl.concat(frames)


def _loaded(subject: Subject, path: Path) -> Classifier:
    known = subject.tuned.record  # what the tuned model's folder did not say holds for its steps too
    return load(
        str(path),
        labels=subject.tuned.labels,
        label_map=known.get("label_map"),
        base=known.get("adapter_of"),
        tokenizer_of=known.get("path"),
        device=subject.tuned.device,
    )


def _read(subject: Subject, model: Classifier, tokens: Tokens, sites: Sequence[Site], name: str) -> MapStates:
    states = MapStates(len(tokens), tuple(depth(site, subject.tuned) for site in sites))
    with subject.progress.task(f"{subject.arm}: reading {name}", len(tokens), "rows") as task:
        read_model("base", model, tokens, [states], task)
    return states


def _site(
    subject: Subject, options: StepOptions, site: Site, read: Sequence[tuple[int, MapStates]], tokens: Tokens
) -> tuple[list[Record], list[pl.DataFrame]]:
    """Return one place's numbers and coordinates, step by step."""
    layer, count = depth(site, subject.tuned), len(tokens)
    features = [states.features("base", site) for _, states in read]
    for (step, states), values in zip(read, features, strict=True):
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            raise LensError(
                f"{subject.arm}: the states of step {step} at {site_name(site.name, layer)} are not finite in "
                f"{len(bad)} of {count} rows, the first is {states.row_ids[int(bad[0])]!r}."
            )
    values, place = np.unique(np.vstack(features), axis=0, return_inverse=True)
    values, place = values.astype(np.float64), place.reshape(-1)
    if len(values) < MINIMUM_POINTS:
        raise LensError(f"{subject.arm}: only {len(values)} different states; {MINIMUM_POINTS} are needed.")
    if options.standardised:
        centred = values - np.bincount(place) @ values / len(place)
        deviation = np.sqrt(np.bincount(place) @ centred**2 / len(place))
        values = centred / np.where(deviation > 0, deviation, 1.0)
    about = {"arm": subject.arm, "seed": subject.seed, "site": site.name, "layer": layer, "n": count}
    drawn = Frames(options, subject.sampling_seed).draw(Stage(about, values, place))
    records = list(_alike(subject, about, read, features))
    frames = []
    for number, (step, states) in enumerate(read):
        here = slice(number * count, (number + 1) * count)
        both = np.concatenate([place[:count], place[here]])
        maps = {key: np.vstack([spots[:count], spots[here]]) for key, spots in drawn.maps.items()}
        judged = map_numbers.judged(
            Stage(about, values, both), Drawn(maps, drawn.explained), options.trusted, clusters(tokens),
            subject.sampling_seed,
        )  # fmt: skip
        records += [{**one, "step": step} for one in judged]
        records += list(_accuracy(about, step, states.predictions["base"], tokens, subject, number == 0))
        frames += [
            _frame(subject, tokens, states, about, step).with_columns(
                method=pl.lit(method), axes=pl.lit(axes, dtype=pl.Int64),
                **{name: pl.Series(spots[here][:, k] if k < axes else [None] * count, dtype=pl.Float64)
                   for k, name in enumerate(AXES)},
            )
            for (method, axes), spots in drawn.maps.items()
        ]  # fmt: skip
    return records, frames


def _alike(
    subject: Subject, about: Record, read: Sequence[tuple[int, MapStates]], features: Sequence[np.ndarray]
) -> Iterator[Record]:
    """Yield CKA of every step with the base."""
    names = [str(step) for step, _ in read]
    state = BlockHSIC(names, len(features[0]), permutation_seed=subject.sampling_seed)
    state.update(np.arange(len(features[0])), dict(zip(names, features, strict=True)))
    for one in state.matrix().records():
        if one["first"] == "0":
            kept = {key: one[key] for key in ("value", "low", "high", "control", "method", "note")}
            yield {**about, "metric": "cka", "model": "base_tuned", "step": int(one["second"]), **kept}


def _accuracy(
    about: Record, step: int, predictions: np.ndarray, tokens: Tokens, subject: Subject, base: bool
) -> Iterator[Record]:
    known = tokens.labels >= 0
    if known.any() and not (base and subject.base_head == "none"):
        interval = wilson(int((predictions == tokens.labels)[known].sum()), int(known.sum()))
        yield {**about, "metric": "accuracy", "model": "tuned", "step": step, **interval.record()}


def _frame(subject: Subject, tokens: Tokens, states: MapStates, about: Record, step: int) -> pl.DataFrame:
    names = subject.tuned.labels.names
    predicted = states.predictions["base"]
    silent = step == 0 and subject.base_head == "none"

    def named(indices: np.ndarray) -> pl.Series:
        return pl.Series([names[one] if one >= 0 else None for one in indices.tolist()], dtype=pl.String)

    guess = np.full(len(tokens), -1) if silent else predicted
    wrong = [
        None if truth < 0 or one < 0 else truth != one
        for truth, one in zip(tokens.labels.tolist(), guess.tolist(), strict=True)
    ]
    return pl.DataFrame({
        "row_id": tokens.row_ids, "model": "tuned", "label": named(tokens.labels), "prediction": named(guess),
        "error": pl.Series(wrong, dtype=pl.Boolean),
    }).with_columns(
        kmeans=pl.lit(None, dtype=pl.Int64), hdbscan=pl.lit(None, dtype=pl.Int64),
        arm=pl.lit(subject.arm), seed=pl.lit(subject.seed, dtype=pl.Int64), site=pl.lit(about["site"]),
        layer=pl.lit(about["layer"], dtype=pl.Int64), step=pl.lit(step, dtype=pl.Int64),
    )  # fmt: skip


def findings(table: pl.DataFrame, subject: Subject) -> Sequence[Finding]:
    """Say by which step half of the whole change of the last place was done."""
    own = table.filter((pl.col("arm") == subject.arm) & pl.col("seed").eq_missing(pl.lit(subject.seed)))
    rows = own.filter((pl.col("metric") == "cka") & pl.col("value").is_not_null())
    rows = rows.filter(pl.col("layer") == pl.col("layer").max()).sort("step")
    if rows.height < 3:
        return []
    last = rows.row(-1, named=True)
    half = rows.filter(1 - pl.col("value") >= (1 - last["value"]) / 2).row(0, named=True)
    interval = "" if half["low"] is None else f" [{half['low']:.2f}, {half['high']:.2f}]"
    place = site_name(last["site"], last["layer"])
    sentence = (
        f"Half of the change at {place} was done by step {half['step']} of {last['step']}: CKA with the base is "
        f"{half['value']:.2f}{interval} then, {last['value']:.2f} at the end."
    )
    changed = last["high"] is not None and last["high"] < 0.99
    verdict = "found" if changed else "undecided"
    return [
        Finding(
            lens="steps", arm=subject.arm, sentence=sentence, metric="cka", value=half["value"], low=half["low"],
            high=half["high"], n=half["n"], test="delete-a-group jackknife",
            control=f"rows shuffled: {half['control'] or 0:.3f}", rows=f"{half['n']} rows",
            verdict="task not learned" if subject.learned is False else verdict,
        )
    ]  # fmt: skip
