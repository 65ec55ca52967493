"""What the first stages of a study do: rows, models from nothing, and counts."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from tunescope.config import ArmConfig
from tunescope.data.load import load_rows
from tunescope.data.tokens import length_summary, truncation_by_label
from tunescope.files import write_atomic, write_json
from tunescope.folders import remove
from tunescope.study.context import ROWS, Context, is_prompted
from tunescope.study.inputs import PLANTED_FOLDER, planted_name, scratch_key

# What the record of a model from nothing keeps; bits per byte compare across tokenizers.
LEARNT = (
    "heldout_loss", "unigram_loss", "heldout_bits_per_byte", "unigram_bits_per_byte", "steps", "tokens",
    "parameters", "seconds",
)  # fmt: skip


def make_data(context: Context) -> None:
    """Read, split and identify the rows; generate them first where the study's data is planted."""
    data = context.study.data
    name = planted_name(context.study)
    if name is not None:
        from tunescope.planted.corpus import write_planted

        folder = context.path / PLANTED_FOLDER
        write_planted(name, folder, data.seed)
        paths = {split: str(folder / f"{split}.parquet") for split in ("train", "validation", "test")}
        data = data.model_copy(update={"path": paths})
    rows = load_rows(data, data.seed, context.progress)
    if name is not None:
        from tunescope.planted.truth import TRUTH_COLUMNS

        rows = dataclasses.replace(rows, frame=rows.frame.drop(TRUTH_COLUMNS))
    rows.save(context.path / ROWS)
    context.forget_rows()


def make_scratch(context: Context, arm: ArmConfig) -> dict[str, Any]:
    """Train a small model from nothing; stopped, it continues from its own checkpoint."""
    from tunescope.training.scratch import pretrain

    assert arm.scratch is not None
    folder = context.path / "scratch" / scratch_key(context.study, arm.scratch)
    corpus = Path(arm.scratch.corpus) if arm.scratch.corpus else context.path / PLANTED_FOLDER / "corpus.txt"
    if not arm.scratch.corpus and planted_name(context.study) is None:
        corpus = folder / "corpus.txt"
        texts = context.rows().split("train").frame["text"].to_list()
        write_atomic(corpus, "".join(" ".join(text.split()) + "\n" for text in texts))
    record = pretrain(
        corpus, arm.scratch, folder / "work", context.study.seeds[0], context.progress, context.device
    )
    os.replace(folder / "work", folder / "model")
    kept = ("heldout_loss", "unigram_loss", "heldout_bits_per_byte", "unigram_bits_per_byte", "parameters")
    return {name: record[name] for name in kept}


def make_summary(context: Context) -> None:
    """Count rows, labels, tokens and truncation, per arm, split and class."""
    truncated: dict[str, Any] = {}
    lengths: dict[str, Any] = {}
    labels = context.rows().labels
    for arm in context.study.arms:
        if is_prompted(arm):
            continue  # what a prompt cuts is known, and written, when it is asked
        parts = context.base_splits(arm)
        truncated[arm.name] = {name: truncation_by_label(tokens, labels) for name, tokens in parts.items()}
        lengths[arm.name] = {name: length_summary(tokens) for name, tokens in parts.items()}
    summary = {**context.rows().summary(), "truncated": truncated, "tokens": lengths}
    write_json(context.path / "data" / "summary.json", summary)


def clear_scratch_work(context: Context) -> None:
    """Remove unfinished from-scratch work of other settings."""
    keys = {scratch_key(context.study, arm.scratch) for arm in context.study.arms if arm.scratch is not None}
    for folder in (context.path / "scratch").glob("*"):
        if folder.name not in keys and not (folder / "model").exists():
            remove(folder)
