"""Ablation of every head and of every attention and MLP sublayer: what the model's answer loses without it.

Effects are changes of the logit margin ``z_y - logsumexp(z_c, c != y)`` of the true class y, and of its probability,
per example and paired, so that intervals and tests are paired too. Zero ablation takes a component away; mean
ablation replaces it by its mean over real tokens and so keeps what it adds to every input alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field

from tunescope.data.tokens import Tokens
from tunescope.evaluation.metrics import margin
from tunescope.lenses.subject import LensRows, Subject, clusters
from tunescope.lenses.sweep import EditKind, Sweep, Variant, component_means, variants
from tunescope.models.classifier import Classifier
from tunescope.progress import Task
from tunescope.stats.intervals import bootstrap_means
from tunescope.stats.results import result_table
from tunescope.stats.tests import benjamini_hochberg, sign_flip_p

WHAT = (
    "Change of the true class's logit margin (and probability) when one head, attention sublayer or MLP sublayer is "
    "replaced by zero or by its mean; paired per example, base under its base head beside tuned."
)
METRICS = ("margin_change", "probability_change")


class AblationOptions(BaseModel):
    """Options of the lens ``ablation``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: LensRows = Field(default_factory=LensRows, description="which rows to look at")
    edits: tuple[EditKind, ...] = Field(("zero", "mean"), min_length=1, description="zero, mean, or both")
    random_control: bool = Field(True, description="whether to sweep random directions of equal norm too")
    reference_rows: int = Field(512, ge=4, description="train rows that the mean is taken over: 4 or more")
    tokens_at_once: int = Field(8192, ge=64, description="padded tokens in one pass; bounds the memory")


@dataclass(frozen=True)
class Effects:
    """What a sweep of one model gave, per example.

    Attributes:
        variants: The V changes.
        margin_change: [N, V], in logits; negative where the true class loses.
        probability_change: [N, V].
    """

    variants: list[Variant]
    margin_change: np.ndarray
    probability_change: np.ndarray


def sweep_effects(
    model: Classifier, tokens: Tokens, reference: Tokens, options: AblationOptions, seed: int, task: Task
) -> Effects:
    """Run the sweep of one model and return paired effects, in the order of ``tokens``."""
    chosen = variants(model, options.edits, options.random_control)
    sweep = Sweep(model, chosen, component_means(model, reference, task), seed, options.tokens_at_once)
    margins = np.empty((len(tokens), len(chosen)))
    probabilities = np.empty_like(margins)
    for index, clean, changed in sweep.run(tokens, task):
        labels = torch.as_tensor(tokens.labels[index])
        before, after = _margin(clean, labels), _margin(changed.flatten(0, 1), labels.repeat(len(chosen)))
        margins[index] = (after.unflatten(0, (len(chosen), -1)) - before).T.numpy()
        chance = _true_probability(changed, labels) - _true_probability(clean.unsqueeze(0), labels)
        probabilities[index] = chance.T.numpy()
    return Effects(chosen, margins, probabilities)


def _margin(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(margin(logits.double(), labels))


def _true_probability(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the probability of the true class, [V, B], of logits [V, B, C]."""
    chances = torch.softmax(logits.double(), -1)
    return chances.gather(-1, labels.expand(len(logits), -1).unsqueeze(-1)).squeeze(-1)


def run(subject: Subject, options: AblationOptions) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Sweep base and tuned on the same rows; return the table of effects and the effects per example.

    The base is left out where its base head is ``none``. Tuned against base is the paired difference of effects of
    the same component.

    Raises:
        LensError: There are no labelled rows, or a model gives logits that are not finite.
    """
    tokens = subject.draw(options.rows)
    reference = subject.draw(LensRows(split="train", n=options.reference_rows), labelled=False)
    models = subject.models_with_logits()
    records: list[dict[str, Any]] = []
    examples: list[pl.DataFrame] = []
    effects: dict[str, Effects] = {}
    total = len(models) * (len(tokens) + len(reference))
    with subject.progress.task(f"{subject.arm}: ablating heads and sublayers", total, "rows") as task:
        for name, model in models:
            effects[name] = sweep_effects(model, tokens, reference, options, subject.sampling_seed, task)
    for which, found in effects.items():
        records += _records(subject, which, found, tokens)
        examples.append(_examples(subject, which, found, tokens))
    if len(effects) == 2:
        both = Effects(
            effects["tuned"].variants,
            effects["tuned"].margin_change - effects["base"].margin_change,
            effects["tuned"].probability_change - effects["base"].probability_change,
        )
        records += _records(subject, "tuned_minus_base", both, tokens)
    return result_table(records), pl.concat(examples)


def _records(subject: Subject, which: str, effects: Effects, tokens: Tokens) -> list[dict[str, Any]]:
    groups = clusters(tokens)
    records: list[dict[str, Any]] = []
    classes: list[int | None] = [None, *np.unique(tokens.labels).tolist()]
    for metric in METRICS:
        values = getattr(effects, metric)
        for label in classes:
            rows = np.arange(len(tokens)) if label is None else np.flatnonzero(tokens.labels == label)
            wanted = [
                index for index, variant in enumerate(effects.variants)
                if variant.control == "none" or (label is None and which != "tuned_minus_base")
            ]  # fmt: skip
            records += _summary(
                subject, which, metric, label, effects, values[rows][:, wanted], wanted, groups[rows]
            )
    return records


def _summary(
    subject: Subject, which: str, metric: str, label: int | None, effects: Effects, values: np.ndarray,
    wanted: Sequence[int], groups: np.ndarray,
) -> list[dict[str, Any]]:  # fmt: skip
    """Summarise the effects of one metric on the rows of one class (or all): one record a variant."""
    chosen = [effects.variants[index] for index in wanted]
    intervals = bootstrap_means(values, groups, seed=subject.sampling_seed)
    p = sign_flip_p(values, groups, permutations=1999, seed=subject.sampling_seed)
    q = np.full(len(chosen), np.nan)
    for edit in dict.fromkeys(variant.edit for variant in chosen):
        family = [i for i, variant in enumerate(chosen) if variant.edit == edit and variant.control == "none"]
        q[family] = benjamini_hochberg(p[family])
    head = {"base": subject.base_head, "tuned": "tuned"}.get(which, f"tuned and {subject.base_head}")
    name = None if label is None else subject.tuned.labels.names[label]
    return [
        {
            "arm": subject.arm, "seed": subject.seed, "model": which, "base_head": head, "site": variant.site,
            "layer": variant.layer, "head": variant.head, "class": name, "metric": metric,
            "value": interval.value, "low": interval.low, "high": interval.high, "n": interval.n,
            "p": p[i], "q": q[i], "edit": variant.edit, "control": variant.control, "note": interval.note,
        }
        for i, (variant, interval) in enumerate(zip(chosen, intervals, strict=True))
    ]  # fmt: skip


def _examples(subject: Subject, which: str, effects: Effects, tokens: Tokens) -> pl.DataFrame:
    """Return the effects of every example on every component, long form, without controls."""
    wanted = [index for index, variant in enumerate(effects.variants) if variant.control == "none"]
    chosen = [effects.variants[index] for index in wanted]
    rows, width = len(tokens), len(chosen)
    layer = np.array([variant.layer for variant in chosen])
    head = np.array([-1 if variant.head is None else variant.head for variant in chosen])
    frame = pl.DataFrame({
        "row_id": np.repeat(np.array(tokens.row_ids, dtype=object), width).tolist(),
        "site": [variant.site for variant in chosen] * rows,
        "edit": [variant.edit for variant in chosen] * rows,
        "layer": np.tile(layer, rows),
        "head": np.tile(head, rows),
        "margin_change": effects.margin_change[:, wanted].astype(np.float32).ravel(),
        "probability_change": effects.probability_change[:, wanted].astype(np.float32).ravel(),
    })  # fmt: skip
    return frame.select(
        pl.lit(subject.arm).alias("arm"), pl.lit(subject.seed, dtype=pl.Int64).alias("seed"),
        pl.lit(which).alias("model"), "row_id", "site", pl.col("layer").cast(pl.Int64),
        pl.when(pl.col("head") >= 0).then(pl.col("head")).cast(pl.Int64).alias("head"),
        "edit", "margin_change", "probability_change",
    )  # fmt: skip
