"""A training over its saved steps: every checkpoint seen by the same lenses on the same texts.

What :class:`tunescope.TunescopeCallback` sees while a model is trained is seen here afterwards, from a folder of
``checkpoint-*`` that any training left: each step is compared with the base (step 0) on fixed rows, steps in the order
of their numbers. Curves, moving pictures and correlations with what the training evaluated are then the same.

Formula:
    Those of the lenses that look. Correlations are Spearman's, of a curve (mean over heads or matrices of a layer)
    with a logged metric over the steps, of levels and of changes.

Range:
    As in each lens; correlations -1 to 1.

How to read:
    A layer whose curve moves first was tuned first. Two curves that both rise agree for that reason alone: believe
    the correlation of changes sooner.

Cost:
    One pass of base and checkpoint for every kept step, and one more to choose the heads whose maps are kept.

Limits:
    Needs saved checkpoints; gradients are not in them (the callback reads those). One training, the same texts in
    every step: neighbouring steps are alike.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tunescope.errors import LensError
from tunescope.lenses.language.language import is_language
from tunescope.lenses.look import Lens, LensOutput, ReadLens, look
from tunescope.lenses.maps.steps import step_folders
from tunescope.lenses.over_steps.correlation import every_curve
from tunescope.lenses.over_steps.room import require_room, room_of
from tunescope.lenses.subject import LensRows, Subject
from tunescope.lenses.suitable import remaining
from tunescope.models.classifier import Classifier
from tunescope.models.language import load_language_model
from tunescope.models.load import load
from tunescope.stats.results import Finding

WHAT = (
    "What reading lenses see of every saved checkpoint on the same texts, each compared with the base: step 0 is the "
    "base. Beside it, how far each curve goes with what the training evaluated."
)
DEFAULT: tuple[str, ...] = ("cka", "attention", "activations", "weights", "similarity")
# What is quick enough for every look: no singular values, CKA as it is.
LIGHT: dict[str, dict[str, Any]] = {
    "cka": {"variants": ["raw"]}, "weights": {"spectra": False}, "attention": {"regions": False, "texts": 0},
    "activations": {"keep": 32}, "similarity": {"measures": ["rsa_cosine"], "resamples": 50, "permutations": 19},
    "probes": {"train_rows": 500, "untrained": False},
}  # fmt: skip
NOT_HERE = ("watch", "steps", "maps", "other_models", "planted")  # they go through models of their own
STATE = "trainer_state.json"


class SeenRows(LensRows):
    """Which rows are looked at in every step."""

    n: int = Field(default=128, ge=4, le=2000, description="how many rows at most: 4 to 2000")


class WatchOptions(BaseModel):
    """Options of the lens ``watch``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: SeenRows = Field(default_factory=SeenRows, description="which rows are looked at in every step")
    lenses: tuple[str, ...] = Field(
        DEFAULT,
        min_length=1,
        description="a list of the lenses that look at every step, such as probes beside the usual ones",
    )
    folder: str | None = Field(
        None,
        description="the folder that holds checkpoint-* folders, or null for those beside the tuned model: a study "
        "keeps its own where this lens is asked for",
    )
    most: int = Field(
        20,
        ge=2,
        description="the most steps that are looked at, evenly spread over those there are: 2 or more",
    )


def run(subject: Subject, options: WatchOptions) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Look at every step, and return all tables with their step and lens, and what is kept of single texts.

    Raises:
        LensError: Too few checkpoints, a lens that cannot look here, none that can look at these models, or too
            little memory.
        ModelError: A checkpoint cannot be read.
    """
    from tunescope.lenses import LENSES

    folders = step_folders(subject, options.folder, "watch")
    chosen = np.unique(np.linspace(0, len(folders) - 1, min(options.most, len(folders))).round().astype(int))
    names = _able(subject, options.lenses, LENSES)
    room = room_of(subject.tuned, subject.draw(options.rows, labelled=False), names, copy=True)
    require_room(room, str(subject.tuned.device), "the lens watch with rows: {{n: {n}}}")
    wanted = [(name, _options(name, options, LENSES[name])) for name in names]
    last = _loaded(subject, folders[-1][1])
    wanted = _with_map(subject, last, wanted, LENSES)
    tables, examples = [], []
    for index in (-1, *chosen.tolist()):
        step, path = (0, None) if index < 0 else folders[index]
        if path is None:  # one model cannot run beside itself
            model = copy.deepcopy(subject.base)
        else:
            model = last if index == len(folders) - 1 else _loaded(subject, path)
        for seen in _seen(subject, model, wanted, LENSES):
            marked = {"step": pl.lit(step, dtype=pl.Int64), "lens": pl.lit(seen.lens)}
            tables.append(seen.table.with_columns(**marked))
            if seen.examples is not None:
                examples.append(seen.examples.with_columns(**marked))
    table = pl.concat(tables, how="diagonal_relaxed")
    about = {"arm": pl.lit(subject.arm), "seed": pl.lit(subject.seed, dtype=pl.Int64)}
    beside = every_curve(table, log_of(folders[-1][1]), subject.sampling_seed).with_columns(**about)
    table = pl.concat([table, beside], how="diagonal_relaxed")
    return table, pl.concat(examples, how="diagonal_relaxed") if examples else None


def log_of(checkpoint: Path) -> list[dict[str, Any]]:
    """Return what transformers' Trainer logged until a checkpoint, from the state that lies there; empty without."""
    if not (checkpoint / STATE).is_file():
        return []
    try:
        history = json.loads((checkpoint / STATE).read_text(encoding="utf-8")).get("log_history") or []
    except (OSError, ValueError, AttributeError) as error:
        raise LensError(
            f"watch: {checkpoint / STATE} is damaged ({error}).", hint="Delete this file: curves need no log."
        ) from error
    return [one for one in history if isinstance(one, dict) and "step" in one]


def _able(subject: Subject, wanted: Sequence[str], lenses: Mapping[str, Lens | ReadLens]) -> list[str]:
    """Return the lenses that can look at these models; what the others lack is said in the notes."""
    wrong = [name for name in wanted if name not in lenses or name in NOT_HERE]
    if wrong:
        able = ", ".join(name for name in lenses if name not in NOT_HERE)
        raise LensError(f"watch: the lens {wrong[0]!r} cannot look at every step; those that can: {able}.")
    left, refused = remaining(subject, wanted, {name: lens.two_stacks for name, lens in lenses.items()})
    for name, why in refused.items():
        subject.notes.append(f"watch: without the lens {name}: {why}.")
    if not left:
        raise LensError(f"watch: none of {', '.join(wanted)} can look at {subject.arm}.")
    return left


def _options(name: str, options: WatchOptions, lens: Lens | ReadLens) -> dict[str, Any]:
    """Return a lens's options: what is quick enough for every step, on the rows that all share."""
    rows = {"rows": options.rows.model_dump()} if "rows" in lens.options.model_fields else {}
    return {**rows, **LIGHT.get(name, {})}


def _with_map(
    subject: Subject,
    last: Classifier,
    wanted: Sequence[tuple[str, dict[str, Any]]],
    lenses: Mapping[str, Any],
) -> list[tuple[str, dict[str, Any]]]:
    """Let the attention lens keep, in every step, one text's map of the head that had moved most in the end."""
    own = [one for one in wanted if one[0] == "attention"]
    if not own:
        return list(wanted)
    table = _seen(subject, last, own, lenses)[0].table
    moved = (
        table.filter(pl.col("metric") == "jensen_shannon").drop_nulls("value").sort("value", descending=True)
    )
    if moved.is_empty():
        return list(wanted)
    head = (int(moved["layer"][0]), int(moved["head"][0]))
    return [
        (name, {**chosen, "texts": 1, "of_heads": [head]} if name == "attention" else chosen)
        for name, chosen in wanted
    ]


def _seen(
    subject: Subject,
    model: Classifier,
    wanted: Sequence[tuple[str, dict[str, Any]]],
    lenses: Mapping[str, Any],
) -> list[LensOutput]:
    """Return what the lenses see of one step; its findings are not made."""
    own = dataclasses.replace(subject, tuned=model, notes=[], store=None, unfinished=None, identical=True)
    return look(own, wanted, lenses)


def _loaded(subject: Subject, path: Path) -> Classifier:
    known = subject.tuned.record  # what the tuned model's folder did not say holds for its steps too
    shared: dict[str, Any] = {
        "base": known.get("adapter_of"), "tokenizer_of": known.get("path"), "device": subject.tuned.device,
        "pooling": subject.tuned.pooling,
    }  # fmt: skip
    if is_language(subject):
        return load_language_model(str(path), max_length=subject.tuned.max_length, **shared).eval()
    return load(str(path), labels=subject.tuned.labels, label_map=known.get("label_map"), **shared).eval()


def findings(_table: pl.DataFrame, _subject: Subject) -> Sequence[Finding]:
    """Return nothing: curves of one training have no control that a sentence could be held against."""
    return []
