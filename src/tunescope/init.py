"""What ``tunescope init`` makes of a data file: its columns, guessed with reasons, and a commented study."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunescope.config.problems import unknown
from tunescope.config.text import to_yaml
from tunescope.errors import DataError

if TYPE_CHECKING:
    import polars as pl

SAMPLE = 2000  # rows that text columns are judged by
MOST_CLASSES = 100
LABEL_NAMES = (
    "label", "labels", "class", "target", "category", "sentiment", "emotion", "stars", "rating", "topic", "y",
)  # fmt: skip
PAIRS = (
    ("question", "sentence"), ("premise", "hypothesis"), ("sentence1", "sentence2"),
    ("question1", "question2"), ("first", "second"), ("text1", "text2"), ("query", "passage"),
    ("title", "body"), ("title", "text"),
)  # fmt: skip
OFFLINE = ("1", "on", "yes", "true")


@dataclass(frozen=True)
class Look:
    """What was seen in a data file.

    Attributes:
        source: The file, glob, folder or hub id as it was given.
        text: The text column, or two for a pair.
        label: The label column.
        text_reason: Why this is the text, as part of a sentence.
        label_reason: Why this is the label.
        rows: Number of rows.
        counts: Rows per label, the most frequent first.
        columns: All columns.
        notes: What a reader of the study should know about the data.
        split_column: The column that names each row's split, where a file has one.
        split_note: Where the splits come from, as a sentence.
    """

    source: str
    text: tuple[str, ...]
    label: str
    text_reason: str
    label_reason: str
    rows: int
    counts: dict[str, int]
    columns: tuple[str, ...]
    notes: list[str] = field(default_factory=list)
    split_column: str | None = None
    split_note: str = ""


def look_at(source: str, *, text: Sequence[str] = (), label: str | None = None) -> Look:
    """Look at a data file and say which column holds the text and which the label.

    Args:
        source: A file, glob, folder of text files per class, URL or hub id.
        text: The text column, or two for a pair, where the user said it.
        label: The label column, where the user said it.

    Raises:
        DataError: The data cannot be read, a column is missing, or none looks like a text or a label.
    """
    from tunescope.data.read import read_table

    frame = read_table(source)
    for column in [*text, *([label] if label else [])]:
        if column not in frame.columns:
            raise DataError(
                f"{source}: {unknown('column', column, frame.columns)}", hint="Name a column that exists."
            )
    if len(text) > 2:
        raise DataError(
            f"Expected one --text column, or two for a pair; came {len(text)}.", hint="Give --text once."
        )
    lengths = _mean_lengths(frame)
    chosen, text_reason = (tuple(text), "as you said") if text else _guess_text(source, frame, lengths, label)
    counts_of = {
        name: _counts(frame, name) for name in frame.columns if name not in chosen and name != "split"
    }
    if label is None:
        label, label_reason = _guess_label(source, frame, counts_of)
    else:
        label_reason = "as you said"
    counts = counts_of.get(label) or _counts(frame, label)
    notes = _notes(frame, chosen, label, counts, lengths)
    split_column, split_note = _splits(source, frame)
    return Look(
        source, chosen, label, text_reason, label_reason, frame.height, counts, tuple(frame.columns), notes,
        split_column, split_note,
    )  # fmt: skip


def _mean_lengths(frame: pl.DataFrame) -> dict[str, float]:
    """Return the mean number of characters of every column of texts, over the first rows."""
    import polars as pl

    sample = frame.head(SAMPLE)
    strings = [name for name, kind in sample.schema.items() if kind == pl.String]
    means = sample.select(pl.col(strings).str.len_chars().mean()).row(0) if strings else ()
    return {name: float(mean or 0.0) for name, mean in zip(strings, means, strict=True)}


def _guess_text(
    source: str, frame: pl.DataFrame, lengths: dict[str, float], label: str | None
) -> tuple[tuple[str, ...], str]:
    possible = {name: mean for name, mean in lengths.items() if name != label and mean > 0}
    if not possible:
        raise DataError(
            f"{source}: no column holds text; columns: {', '.join(frame.columns)}.",
            hint="Name the text column with --text.",
        )
    best = max(possible, key=lambda name: possible[name])
    by_lower = {name.lower(): name for name in possible}
    for first, second in PAIRS:
        if first in by_lower and second in by_lower and best in (by_lower[first], by_lower[second]):
            return (
                by_lower[first],
                by_lower[second],
            ), f"columns named {first!r} and {second!r} are a pair of texts"
    return (best,), f"{best!r} has the longest texts, {possible[best]:.0f} characters on average"


def _counts(frame: pl.DataFrame, column: str) -> dict[str, int]:
    """Return the rows per value, most frequent first; missing values are not counted."""
    values = frame[column].drop_nulls()
    if values.dtype.is_nested():
        return {}
    table = values.value_counts(sort=True)
    return {str(value): int(count) for value, count in table.iter_rows()}


def _guess_label(source: str, frame: pl.DataFrame, counts_of: dict[str, dict[str, int]]) -> tuple[str, str]:
    """Prefer a column that is named like a label, then the one with the fewest values that all come again."""
    possible = {}
    for name, counts in counts_of.items():
        fractions = frame[name].dtype.is_float() and bool((frame[name].drop_nulls() % 1 != 0).any())
        if 2 <= len(counts) <= min(MOST_CLASSES, frame.height // 2) and not fractions:
            possible[name] = counts
    named = [name for wanted in LABEL_NAMES for name in possible if name.lower() == wanted]
    if named:
        return named[
            0
        ], f"{named[0]!r} is named like a label and has {len(possible[named[0]])} different values"
    if not possible:
        raise DataError(
            f"{source}: no column looks like a label: 2 to {MOST_CLASSES} different values that come again; "
            f"columns: {', '.join(frame.columns)}.",
            hint="Name the label column with --label.",
        )
    best = min(possible, key=lambda name: len(possible[name]))
    return best, f"{best!r} has the fewest different values, {len(possible[best])}"


def _split_of(name: str) -> str | None:
    from tunescope.data.read import SPLIT_NAMES

    return SPLIT_NAMES.get(name.lower())


def _splits(source: str, frame: pl.DataFrame) -> tuple[str | None, str]:
    """Return the column that names splits, and a sentence on the splits that were seen, or nothing."""
    file = Path(source)
    column = next((name for name in frame.columns if name.lower() in ("split", "fold", "set")), None)
    values = [str(value) for value in frame[column].drop_nulls().unique()] if column else []
    if values and all(_split_of(value) for value in values):
        counts = ", ".join(f"{name} {count:,}" for name, count in _counts(frame, str(column)).items())
        said = f"Splits of the data: {counts}."
        return (column if "://" not in source and not file.is_dir() and file.suffix else None), said
    if file.is_file() and _split_of(file.stem):
        beside = [
            other.name for other in sorted(file.parent.iterdir()) if other != file and _split_of(other.stem)
        ]
        if beside:
            names = ", ".join(beside)
            return None, f"Beside this file: {names}; `path: {file.parent}` takes them as splits."
    return None, ""


def _notes(
    frame: pl.DataFrame, text: tuple[str, ...], label: str, counts: dict[str, int], lengths: dict[str, float]
) -> list[str]:
    notes = []
    if counts:
        largest = next(iter(counts))
        notes.append(
            f"Always saying {largest!r} would be right for {counts[largest] / sum(counts.values()):.1%}."
        )
    rare = [name for name, count in counts.items() if count < 3]
    if rare:
        notes.append(f"Labels with fewer than 3 rows, too few for three splits: {_some(rare)}.")
    missing = frame[label].null_count()
    if missing:
        notes.append(f"Rows without a label: {missing}.")
    repeated = frame.height - frame.select(text).n_unique()
    if repeated:
        notes.append(f"Rows that repeat the text of another: {repeated}; equal texts never cross splits.")
    others = [name for name in lengths if name not in text and name != label and lengths[name] > 20]
    if others:
        notes.append(
            f"Other columns of text: {_some(others)}; `text: {{first: ..., second: ...}}` joins two."
        )
    return notes


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(repr(name) for name in names[:most]) + (", ..." if len(names) > most else "")


def draft_study(look: Look, *, folder: Path, model: str | None = None) -> str:
    """Return a commented study for what was seen.

    Args:
        look: What was seen.
        folder: The folder of the study, which a relative data path is relative to.
        model: The model to tune; None chooses one that can be reached.
    """
    model, why = (model, "as you said") if model else _reachable_model()
    text: Any = look.text[0] if len(look.text) == 1 else {"first": look.text[0], "second": look.text[1]}
    counts = ", ".join(f"{name!r} {count:,}" for name, count in list(look.counts.items())[:12])
    more = f", and {len(look.counts) - 12} more" if len(look.counts) > 12 else ""
    lines = [
        f"# A study of {_comment(look.source)}",
        "# written by `tunescope init`. Change what does not fit; `tunescope validate` checks it, and",
        "# `tunescope run` runs it.",
        f"name: {_name_for(look.source)}",
        "question: What does tuning change inside the model?",
        "",
        "data:",
        f"  path: {_scalar(_path_from(look.source, folder))}",
        f"  # {look.rows:,} rows; columns: {_comment(', '.join(look.columns))}",
        f"  # Text: {_comment(look.text_reason)}.",
        f"  text: {_scalar(text)}",
        f"  # Label: {_comment(look.label_reason)}.",
        f"  # Rows per label: {_comment(counts)}{more}.",
        f"  label: {_scalar(look.label)}",
        *(f"  # {_comment(note)}" for note in look.notes),
        *([f"  # {_comment(look.split_note)}"] if look.split_note else []),
        *([f"  split_column: {_scalar(look.split_column)}"] if look.split_column else []),
        "  # Where the data gives no split, these shares are made: seeded, stratified, equal texts together.",
        "  validation: 0.1",
        "  test: 0.1",
        "  # rows: 20000         # keep so many, chosen by their content",
        "  # max_length: 128     # tokens; the rest of a longer text is cut and counted",
        "  # window: head        # or tail, head_tail, sliding: which part of a longer text is read",
        "  # group_by: COLUMN    # rows of one value never cross splits",
        "",
        *_arm_lines(look, model, why),
        "",
        "# Any field of transformers.TrainingArguments; an arm may have its own `training:`.",
        "training:",
        "  num_train_epochs: 3",
        f"  learning_rate: {'5.0e-4' if model == 'scratch' else '5.0e-5'}",
        "  # early_stopping: {metric: loss, patience: 3}   # also: class_weights: balanced",
        "",
        "# Each seed trains every arm once more; several tell chance from effect.",
        "seeds: [0]",
        "",
        "# What to look at inside, base against tuned.",
        "lenses:",
        "  - cka",
        "  - ablation",
        "",
        "# What you expect; `tunescope run --strict` fails where it is not met.",
        "# expect: [{metric: accuracy, split: test, lower: 0.9}]",
    ]
    return "\n".join(lines) + "\n"


def _arm_lines(look: Look, model: str, why: str) -> list[str]:
    """Return an arm, and commented ones to compare it with."""
    return [
        "arms:",
        f"  # This model: {_comment(why)}.",
        "  # Also possible: a folder, another hub id, or scratch, a small GPT-2 architecture that learns",
        "  # from your texts alone and needs no download.",
        f"  - {{name: full, model: {_scalar(model)}, method: full}}",
        "  # Other ways to tune it, on the same rows; a list, as k: [1, 2], tries each and keeps the best on",
        "  # validation rows.",
        f"  # - {{name: head, model: {_scalar(model)}, method: head_only}}",
        f"  # - {{name: last-2, model: {_scalar(model)}, method: last_k, k: 2}}",
        f"  # - {{name: lora, model: {_scalar(model)}, method: lora, peft: {{r: 8, lora_alpha: 16}}}}",
        *_zero_shot_lines(look, model),
    ]


def _zero_shot_lines(look: Look, model: str) -> list[str]:
    """Return a commented arm that trains nothing; its words for the labels are to be chosen by the reader."""
    if model == "scratch" or len(look.text) != 1:
        return []
    words = ", ".join(f"{_scalar(name)}: {_scalar(f' {name}')}" for name in list(look.counts)[:8])
    more = ", ..." if len(look.counts) > 8 else ""
    return [
        "  # Nothing trained, a prompt asked; choose words that the model would say:",
        f'  # - {{name: zero-shot, model: {_scalar(model)}, method: zero_shot, prompt: "{{text}}\\nLabel:",',
        f"  #    verbalizers: {{{_comment(words)}{more}}}}}",
    ]


def _reachable_model() -> tuple[str, str]:
    """Return GPT-2, or a model that needs no download where the hub was switched off."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in OFFLINE:
        from huggingface_hub import try_to_load_from_cache

        if not isinstance(try_to_load_from_cache("gpt2", "config.json"), str):
            return "scratch", "HF_HUB_OFFLINE is set and gpt2 is not in the cache, so it starts from nothing"
    return "gpt2", "gpt2 is small and well studied"


def _name_for(source: str) -> str:
    parts = re.sub(r"[?*\[\]]", "", source).replace("\\", "/").rstrip("/.").split("/")
    stem = parts[-1].split(".")[0]
    if _split_of(stem) and len(parts) > 1:
        stem = parts[-2]  # a folder says more than the name of a split
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:50]
    return f"{name}-study" if name else "study"


def _path_from(source: str, folder: Path) -> str:
    """Write a local path so that the study can be moved together with its data."""
    if "://" in source or not (Path(source).exists() or any(mark in source for mark in "*?[")):
        return source
    try:
        relative = os.path.relpath(source, folder)
    except ValueError:  # another drive on Windows
        return str(Path(source).resolve())
    return Path(relative).as_posix() if not relative.startswith("..") else str(Path(source).resolve())


def _scalar(value: Any) -> str:
    """Return a value as YAML on one line, quoted where it must be."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_scalar(item)}" for name, item in value.items()) + "}"
    text = to_yaml({"x": [value]}, flow=True).strip()
    return text[text.index("[") + 1 : text.rindex("]")]


def _comment(text: str) -> str:
    """Keep text from a data file on one line of a comment."""
    return "".join(letter if letter.isprintable() else " " for letter in text)[:300]
