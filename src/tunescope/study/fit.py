"""The stage that tunes one arm with one seed, or lets a language model choose its prompt."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tunescope.config import ArmConfig
from tunescope.data.rows import Rows
from tunescope.data.tokens import Tokens
from tunescope.errors import RunError
from tunescope.files import write_json
from tunescope.folders import whole_folder
from tunescope.runs import Stage
from tunescope.seeds import derive_seed
from tunescope.study.context import STORE, Context, is_prompted, seen_rows
from tunescope.study.unfinished import note_end, note_start
from tunescope.training import TrainLog, TrainOptions, train
from tunescope.tuning import trainable

# What a stage's record keeps of a training's log; metrics.json repeats it under "cost".
KEPT = (
    "seconds", "steps", "parameters", "trainable_parameters", "seeds", "best_step", "real_tokens",
    "tokens_per_second", "padding_share", "peak_memory_bytes", "memory", "stopped_early", "halved", "choices",
)  # fmt: skip


def make_training(context: Context, arm: ArmConfig, seed: int, stage: Stage) -> dict[str, Any]:
    """Tune one arm with one seed, or continue where it was stopped."""
    if is_prompted(arm):
        return _ask(context, arm, seed)
    method, options = context.method(arm)
    classifier = context.base(arm, seed)
    method.prepare(classifier, options)
    if "train" not in context.rows().splits:
        raise RunError("There are no train rows.", hint="Look at the splits of the data section.")
    rows = context.train_tokens(arm, classifier)
    if not len(rows):
        raise RunError("No train row has a label.", hint="Look at the label column of the data section.")
    validation = None
    if "validation" in context.rows().splits:
        validation = _labelled(context.tokens(arm, classifier, "validation"))
    folder = context.arm_folder(arm, seed)
    write_json(folder / "parameters.json", {"matrices": trainable(classifier)})
    note_start(context.run, stage, folder / "checkpoints")
    log = train(
        classifier,
        rows,
        validation,
        folder,
        _train_options(context, arm, seed, stage, classifier),
        context.progress,
    )
    note_end(folder / "checkpoints")
    return kept_of(log, context)


def _train_options(
    context: Context, arm: ArmConfig, seed: int, stage: Stage, classifier: Any
) -> TrainOptions:
    method, _ = context.method(arm)
    return TrainOptions(
        training=context.study.training_of(arm),
        seed=seed,
        device=context.device,
        frozen_trunk=method.frozen_trunk,
        keep_checkpoints=context.keep_checkpoints,
        fingerprint=context.run.fingerprint(stage),
        store=context.path / STORE,
        record={
            "study": context.study.name,
            "arm": arm.name,
            "method": arm.method,
            "base": arm.model,
            "revision": classifier.record.get("revision"),
            "head": classifier.record.get("head"),
            "template": context.rows().provenance.get("template"),
        },
    )


def kept_of(log: TrainLog, context: Context) -> dict[str, Any]:
    """Return what the stage's record keeps; the run folder's own path is left out, as the folder may move."""
    found = dataclasses.asdict(log)
    choices = {
        name: value.replace(f"{context.path}{os.sep}", "") if isinstance(value, str) else value
        for name, value in found["choices"].items()
    }
    kept = {name: found[name] for name in KEPT if name in found}
    return {**kept, "choices": choices, "devices": [context.device]}


def _ask(context: Context, arm: ArmConfig, seed: int) -> dict[str, Any]:
    """Let a language model choose prompt and calibration on train rows; nothing is trained."""
    from tunescope.prompting import Reading, ZeroShot, load_language_model

    _, options = context.method(arm)
    data = context.study.data
    model = load_language_model(context.model_path(arm), context.device, arm.revision)
    reading = Reading(max_length=data.max_length, window=data.window)
    asked = ZeroShot(model, options, context.rows().labels, reading, seed=derive_seed(seed, "zero_shot"))
    asked.fit(_shared(context.rows().split("train"), arm.train_share, data.seed), context.progress)
    folder = context.arm_folder(arm, seed)
    with whole_folder(folder / "model") as model_folder:
        asked.save(model_folder)
    parameters = int(asked.record.get("parameters") or 0)
    write_json(folder / "parameters.json", {"matrices": []})
    return {
        "steps": 0,
        "parameters": parameters,
        "trainable_parameters": 0,
        "devices": [context.device],
        "prompt": {key: value for key, value in asked.record.items() if key not in ("model", "parameters")},
    }


def _shared(rows: Rows, share: float, seed: int) -> Rows:
    kept = seen_rows(rows, share, seed)
    frame = rows.frame.with_row_index("own").filter(pl.col("own").is_in(kept.tolist())).drop("own")
    return Rows(frame, rows.labels, rows.provenance)


def _labelled(tokens: Tokens) -> Tokens | None:
    """Return the rows that have a label, or None where there are none."""
    known = np.flatnonzero(tokens.labels >= 0)
    return tokens.take(known) if len(known) else None


def stored_bytes(folder: Path) -> int:
    """Return the bytes that must be kept of a tuned model beside its base: an adapter where there is one."""
    adapter = folder / "adapter"
    kept = adapter if adapter.is_dir() else folder
    return sum(path.stat().st_size for path in kept.rglob("*") if path.is_file())
