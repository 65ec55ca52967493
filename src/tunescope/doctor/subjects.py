"""What the doctor looks at: rows with a planted rule, and pairs of models before and after a planted change."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from tunescope.data.labels import LabelMap
from tunescope.data.rows import Rows
from tunescope.data.tokens import tokenize
from tunescope.lenses import LENSES, LensOutput, look
from tunescope.lenses.subject import Subject
from tunescope.models import Classifier, load
from tunescope.planted.decisive import LABELS, planted_head_rows
from tunescope.planted.random_models import LABELS as RANDOM_LABELS
from tunescope.planted.random_models import WORDS, RandomModel, random_model


def rows_of(texts: Sequence[str], labels: Sequence[int], names: Sequence[str], every: int = 2) -> Rows:
    """Return rows of which every so many-th stands in train and the others in validation.

    Whole pairs of neighbours go to one split, so that classes that take turns stand in both.
    """
    order = np.arange(len(texts))
    frame = pl.DataFrame({
        "row_id": [f"row-{index}" for index in order],
        "position": pl.Series(order, dtype=pl.Int64),
        "split": ["train" if (index // 2) % every == 0 else "validation" for index in order],
        "text": list(texts),
        "label": pl.Series(list(labels), dtype=pl.Int64),
    })  # fmt: skip
    return Rows(frame, LabelMap(tuple(names)), {})


def keyword_rows(n: int = 80, seed: int = 3) -> Rows:
    """Return rows whose label is the sign of their good minus bad words: what the planted heads read."""
    drawn = planted_head_rows(n, seed)
    return rows_of([text for text, _ in drawn], [label for _, label in drawn], LABELS)


def random_rows(n: int = 120, classes: int = 3, seed: int = 0) -> Rows:
    """Return rows of random words with random labels."""
    generator = np.random.default_rng(seed)
    texts = [" ".join(generator.choice(WORDS, size=generator.integers(2, 12))) for _ in range(n)]
    return rows_of(texts, generator.integers(0, classes, n).tolist(), RANDOM_LABELS[:classes])


def subject_of(
    base: Classifier, tuned: Classifier, rows: Rows, base_head: str = "tuned", **more: Any
) -> Subject:
    """Return a subject of two models on the same rows."""
    splits = {
        name: tokenize(rows.split(name), tuned.tokenizer, tuned.max_length)
        for name in ("train", "validation")
    }
    texts = rows.frame.select("row_id", "text")
    return Subject("planted", 0, base, tuned, base_head, splits, texts=texts, **more)


def seen(subject: Subject, lens: str, **options: Any) -> LensOutput:
    """Return what one lens sees of a subject."""
    return look(subject, [(lens, options)], LENSES)[0]


def a_model(folder: Path, kind: str = "gpt2", **more: Any) -> Classifier:
    """Return a tiny random model."""
    wish = RandomModel(kind, **more)
    return load(str(random_model(wish, folder / f"{kind}-{wish.seed}-{len(wish.labels)}-{wish.layers}")))


def perturbed(model: Classifier, scale: float, seed: int, only: str = "") -> Classifier:
    """Return a copy whose weights have random numbers added, of a share of each tensor's own spread.

    Args:
        model: The model.
        scale: The share.
        seed: Seeds the numbers.
        only: Part of the names of the parameters that are changed.
    """
    changed = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in changed.trunk.named_parameters():
            if only in name and parameter.numel() > 1:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(noise * scale * parameter.std())
    return changed


def noisy_heads(
    model: Classifier,
    strength: float,
    noise: float,
    seed: int,
    place: tuple[int, int],
    layers: Sequence[int] = (0, 1, 2),
) -> Classifier:
    """Return a copy of a hand-set GPT-2 whose planted head writes weakly while every other head writes noise.

    Args:
        model: A model of :func:`tunescope.planted.decisive.planted_head_model`, family ``gpt2``.
        strength: What the planted head writes, as a share of what it wrote.
        noise: Standard deviation of the other heads' output weights.
        seed: Seeds them.
        place: Layer and head of the planted head.
        layers: Layers whose heads write noise.
    """
    changed = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    width = model.head_width
    with torch.no_grad():
        for layer in range(model.n_layers):
            projection: Any = changed.trunk.get_submodule(model.family.path("attention_projection", layer))
            weight = projection.weight
            for head in range(model.n_heads):
                own = weight[head * width : (head + 1) * width]  # Conv1D keeps [in, out]
                if (layer, head) == place:
                    own.mul_(strength)
                elif layer in layers:
                    own.add_(torch.randn(own.shape, generator=generator) * noise)
    return changed
