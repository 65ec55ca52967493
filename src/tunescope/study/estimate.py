"""What a run will need and how precise it can be, by arithmetic that is stated; nothing is trained."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from tunescope.config import ArmConfig, StudyConfig
from tunescope.data.load import load_rows
from tunescope.data.rows import Rows
from tunescope.data.tokens import tokenize
from tunescope.device import resolve_device
from tunescope.models.families import Family, family_of
from tunescope.models.load import position_limit
from tunescope.models.source import Source, check_source, read_config, read_tokenizer
from tunescope.progress import SILENT, Progress
from tunescope.stats.intervals import wilson
from tunescope.study.check import check_elsewhere, check_rows, check_study
from tunescope.study.choose import say_trials
from tunescope.study.context import is_prompted
from tunescope.study.inputs import planted_name
from tunescope.study.lens_cost import ARITHMETIC as LENS_ARITHMETIC
from tunescope.study.lens_cost import lens_precision
from tunescope.study.operations import Shape, lens_rows, operations, padded_tokens
from tunescope.training.scratch_model import architecture
from tunescope.tuning import METHODS

TOKENS_PER_WORD = 1.4  # assumed where the tokenizer is yet to be trained
ACTIVATION_BYTES = 68  # per token, unit of width and layer, in float32
LOWEST_USE, HIGHEST_USE = 0.3, 0.8  # of the matrix-multiply rate, in a real loop
WRITTEN = (
    4  # what a written token costs against a read one: 8 rows at once reach a third to a fifth of the rate
)
PROBE_SECONDS = 1.0

ARITHMETIC = (
    "Arithmetic: training takes 6 x N x tokens floating-point operations (head_only: 2 x N x tokens, once;",
    "frozen blocks 2 x N, once where the activation store keeps them, adapters 4 x N), a forward pass 2 x N x",
    "tokens; N counts parameters outside the embeddings, tokens include padding, and the part of attention that",
    "grows with the square of the length is left out. Times are for 80 % to 30 % of the measured rate of a",
    "1024 x 1024 matrix product (60 % was measured in training, docs/checks.md). Memory: 4 bytes",
    "a parameter, 12 more if trained (gradient and two moments), and 68 bytes x tokens of a batch x width x",
    "layers of activations (Korthikanti et al. 2022, in float32, attention weights not stored); Python and torch",
    "take 0.6 GB more.",
)


def estimate(study: StudyConfig, progress: Progress = SILENT) -> str:
    """Return the text that ``tunescope validate`` prints.

    Raises:
        TunescopeError: Data or a model cannot be used.
    """
    check_study(study)
    if study.task == "summarise":
        from tunescope.study.summary_estimate import describe

        return describe(study, progress)
    rows, planted_words = _rows(study, progress)
    check_rows(study, rows)
    check_elsewhere(study, rows)
    device = resolve_device("auto")
    rate = matrix_rate(device)
    lines = [f"{study.name}: the study is valid.", "", *_data_lines(rows)]
    total, runs, said = 0.0, 0, set()
    shapes: dict[Any, Shape] = {}
    for arm in study.arms:
        key = (arm.model, arm.revision, None if arm.scratch is None else arm.scratch.model_dump_json())
        shape = shapes[key] = shapes.get(key) or _shape(study, arm, rows, progress)
        cost = operations(study, arm, shape)
        if arm.scratch is not None:
            words = planted_words or _words(arm.scratch.corpus, rows)
            cost = {"pretrain": 6.0 * shape.inner * words * TOKENS_PER_WORD * arm.scratch.epochs, **cost}
        total += sum(cost.values()) * len(study.seeds)
        runs += 0 if is_prompted(arm) else len(study.seeds)
        if arm.grid is None or arm.grid not in said:  # of a grid the first trial stands for all
            lines += ["", *_arm_lines(study, arm, shape, cost, rate)]
        said.add(arm.grid)
    lines += ["", *(line.strip() for line in say_trials(study))] if any(said) else []
    lines += [
        "",
        f"All of it: {runs} trainings, about {_span(total, rate)} on {device} ({rate / 1e9:.0f} GFLOP/s).",
    ]
    lines += [
        "",
        "Expected half-widths of 95 % intervals:",
        *_precision(study, rows),
        "",
        *ARITHMETIC,
        *LENS_ARITHMETIC,
    ]
    return "\n".join([*lines, "Nothing was trained."])


def _rows(study: StudyConfig, progress: Progress) -> tuple[Rows, int]:
    """Return the rows, and the words of the planted corpus (0 where nothing is planted)."""
    name = planted_name(study)
    if name is None:
        return load_rows(study.data, study.data.seed, progress), 0
    from tunescope.planted.corpus import write_planted

    with tempfile.TemporaryDirectory() as folder:
        write_planted(name, Path(folder), study.data.seed)
        paths = {split: f"{folder}/{split}.parquet" for split in ("train", "validation", "test")}
        data = study.data.model_copy(update={"path": paths})
        words = len(Path(folder, "corpus.txt").read_text(encoding="utf-8").split())
        return load_rows(data, study.data.seed, progress), words


def _words(corpus: str | None, rows: Rows) -> int:
    """Count the words that a from-scratch model learns the language from."""
    if corpus is not None:
        return len(Path(corpus).read_text(encoding="utf-8").split())
    return int(rows.split("train").frame["text"].str.count_matches(r"\S+").sum())


def _data_lines(rows: Rows) -> Iterator[str]:
    summary = rows.summary()
    for split, count in summary["rows"].items():
        counts = summary["counts"][split]
        most = max(counts, key=counts.get)
        known = sum(counts.values())
        majority = f"majority {most} {counts[most] / known:.1%}" if known else "no labels"
        listed = ", ".join(f"{name} {number:,}" for name, number in list(counts.items())[:8])
        more = f" and {len(counts) - 8} more" if len(counts) > 8 else ""
        yield f"{split}: {count:,} rows, {majority} ({listed}{more})"
    yield from (f"note: {note}" for note in summary["notes"])


def _shape(study: StudyConfig, arm: ArmConfig, rows: Rows, progress: Progress) -> Shape:
    config, family, tokenizer = _config(arm, len(rows.labels))
    limit = min(position_limit(config, family), study.data.max_length or 512)
    lengths, cut = {}, {}
    for split in rows.splits:
        if tokenizer is None:
            words = rows.split(split).frame["text"].str.count_matches(r"\S+").to_numpy()
            raw = np.maximum(1, np.round(words * TOKENS_PER_WORD)).astype(np.int64)
        else:
            raw = tokenize(rows.split(split), tokenizer, limit, progress).lengths
        most = limit * study.data.window.most_windows
        lengths[split], cut[split] = np.minimum(raw, most), float((raw > most).mean())
    kind: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    with torch.device("meta"):  # shapes without weights
        model = kind(config)
    parameters = sum(one.numel() for one in model.parameters())
    embeddings = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Embedding))
    return Shape(
        parameters, parameters - embeddings, int(config.hidden_size), int(config.num_hidden_layers),
        int(config.num_attention_heads), lengths, cut, tokenizer is None,
    )  # fmt: skip


def _config(arm: ArmConfig, classes: int) -> tuple[PretrainedConfig, Family, Any]:
    """Read a model's configuration and tokenizer; neither weights nor a tokenizer exist for a scratch arm."""
    if arm.scratch is not None:
        config: PretrainedConfig = architecture(arm.scratch)
        config.num_labels = classes
        return config, family_of("gpt2"), None
    source = Source(arm.model, arm.revision)
    check_source(source)
    config, family, _ = read_config(source)
    config.num_labels = classes
    return config, family, read_tokenizer(source, config)


def _arm_lines(
    study: StudyConfig, arm: ArmConfig, shape: Shape, cost: Mapping[str, float], rate: float
) -> Iterator[str]:
    training = study.training_of(arm)
    batch = int(training.get("per_device_train_batch_size", 16))
    train = shape.lengths["train"]
    yield f"arm {arm.name}: {arm.model}, {arm.method}, {shape.parameters:,} parameters"
    guess = f" (guessed: {TOKENS_PER_WORD} a word, the tokenizer is trained first)" if shape.assumed else ""
    cut = ", ".join(f"{split} {share:.1%}" for split, share in shape.cut.items())
    yield f"  tokens a row: median {np.median(train):.0f}, longest {train.max()}{guess}; truncated: {cut}"
    share = 1 - float(train.sum()) / padded_tokens(train, batch)
    if not is_prompted(arm):
        yield f"  padding in train batches of {batch}: {share:.1%}"
    yield f"  memory: about {_bytes(memory(arm, shape, batch))}"
    parts = ", ".join(f"{name} {_span(value, rate)}" for name, value in cost.items())
    yield f"  time for each of {len(study.seeds)} seeds: {parts}"


def memory(arm: ArmConfig, shape: Shape, batch: int) -> float:
    """Return the bytes that training an arm takes, by the stated arithmetic."""
    frozen = METHODS[arm.method].frozen_trunk or is_prompted(arm)
    activations = ACTIVATION_BYTES * batch * float(shape.lengths["train"].max()) * shape.width * shape.layers
    trained = 0.0 if frozen else 12.0 * shape.parameters + activations
    return 4.0 * shape.parameters + trained


def _precision(study: StudyConfig, rows: Rows) -> Iterator[str]:
    counts = rows.summary()["counts"]
    for split in ("test", "validation"):
        known = sum(counts.get(split, {}).values())
        if known:
            share = max(counts[split].values()) / known
            low, high = (half_width(at, known) for at in (share, 0.9))
            yield (
                f"  accuracy on {known:,} {split} rows: ±{low:.3f} at the majority's {share:.2f}, "
                f"±{high:.3f} at 0.90 (Wilson)"
            )
    lengths = {split: np.ones(sum(of.values())) for split, of in counts.items()}
    for lens in study.lenses:
        _, count = lens_rows(lens, lengths)
        yield from lens_precision(lens, count, half_width)
    if study.behaviour is not None:
        names = ", ".join(one.suite for one in study.behaviour.suites)
        yield f"  behaviour ({names}): known once its rows are rewritten; tuned and base predict these rows alone"


def half_width(share: float, n: int) -> float:
    """Return half the width of the Wilson interval of a share of ``n`` rows."""
    interval = wilson(round(share * n), n)
    return ((interval.high or 0.0) - (interval.low or 0.0)) / 2


def matrix_rate(device: str) -> float:
    """Measure the operations a second of a 1024 x 1024 float32 matrix product, for about a second."""
    size = 1024
    left, right = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    (left @ right).sum().item()
    start, count = time.monotonic(), 0
    while time.monotonic() - start < PROBE_SECONDS:
        for _ in range(4):
            product = left @ right
        product[0, 0].item()
        count += 4
    return 2.0 * size**3 * count / (time.monotonic() - start)


def _span(operations: float, rate: float) -> str:
    quick, slow = operations / rate / HIGHEST_USE, operations / rate / LOWEST_USE
    return "under 1 s" if slow < 1 else f"{_time(quick)} to {_time(slow)}"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _bytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
