"""From effects per example to the table of an ablation: intervals, tests, and the pick on one half of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import polars as pl

from tunescope.data.tokens import Tokens
from tunescope.lenses.ablation.components import Variant
from tunescope.lenses.ablation.effects import UNSIGNED, Effects
from tunescope.lenses.subject import Subject, clusters
from tunescope.stats.intervals import bootstrap_means
from tunescope.stats.maximum import max_t_p
from tunescope.stats.tests import benjamini_hochberg, sign_flip_p

PERMUTATIONS = 1999
FEWEST_TEXTS = 8  # fewer are not split into halves
HEADS, SUBLAYERS = ("head_out", "cross_head_out"), ("attn_out", "cross_attn_out", "mlp_out")


@dataclass(frozen=True)
class Summary:
    """Says how effects become records.

    Attributes:
        subject: Whose effects they are.
        metrics: Which metrics.
        correction: ``bh`` or ``max_t``.
    """

    subject: Subject
    metrics: Sequence[str]
    correction: str = "bh"

    def records(self, which: str, effects: Effects, tokens: Tokens) -> list[dict[str, Any]]:
        """Summarise the effects of one model over all rows and by true class; controls over all rows alone."""
        groups = clusters(tokens)
        found: list[dict[str, Any]] = []
        classes: list[int | None] = [None, *np.unique(tokens.labels).tolist()]
        for metric, values, of in self._arrays(effects):
            for label in classes:
                rows = np.arange(len(tokens)) if label is None else np.flatnonzero(tokens.labels == label)
                wanted = [
                    index for index, variant in enumerate(effects.variants)
                    if variant.control == "none" or (label is None and which != "tuned_minus_base")
                ]  # fmt: skip
                chosen = [effects.variants[index] for index in wanted]
                axes = {"class": None if label is None else self.subject.tuned.labels.names[label], "of": of}
                found += [
                    {**record, **axes}
                    for record in self.of(which, metric, chosen, values[rows][:, wanted], groups[rows])
                ]
        return found

    def _arrays(self, effects: Effects) -> list[tuple[str, np.ndarray, str | None]]:
        found: list[tuple[str, np.ndarray, str | None]] = []
        for metric in self.metrics:
            values = getattr(effects, metric)
            if metric == "class_probability_change":
                names = self.subject.tuned.labels.names
                found += [(metric, values[..., c], name) for c, name in enumerate(names)]
            else:
                found.append((metric, values, None))
        return found

    def of(
        self, which: str, metric: str, chosen: Sequence[Variant], values: np.ndarray, groups: np.ndarray
    ) -> list[dict[str, Any]]:
        """Summarise effects [N, V] of some variants: one record each, corrected per edit over the sweep."""
        subject = self.subject
        intervals = bootstrap_means(values, groups, seed=subject.sampling_seed)
        # Flips and divergences are never negative; only their difference between models has a sign to test.
        tested = metric not in UNSIGNED or which == "tuned_minus_base"
        p = (
            sign_flip_p(values, groups, permutations=PERMUTATIONS, seed=subject.sampling_seed)
            if tested
            else np.full(len(chosen), np.nan)
        )
        q = np.full(len(chosen), np.nan)
        for edit in dict.fromkeys(variant.edit for variant in chosen):
            family = [i for i, one in enumerate(chosen) if one.edit == edit and one.control == "none"]
            if self.correction == "max_t" and tested:
                q[family] = max_t_p(values[:, family], groups, PERMUTATIONS, subject.sampling_seed)
            else:
                q[family] = benjamini_hochberg(p[family])
        head = {"base": subject.base_head, "tuned": "tuned"}.get(which, f"tuned and {subject.base_head}")
        return [
            {
                "arm": subject.arm, "seed": subject.seed, "model": which, "base_head": head, "site": variant.site,
                "layer": variant.layer, "head": variant.head, "metric": metric,
                "value": interval.value, "low": interval.low, "high": interval.high, "n": interval.n,
                "p": p[i], "q": q[i], "edit": variant.edit, "control": variant.control, "note": interval.note,
                "component": variant.name, "scope": variant.scope, "step": variant.step, "order": variant.order,
                **({} if variant.stack is None else {"stack": variant.stack}),
            }
            for i, (variant, interval) in enumerate(zip(chosen, intervals, strict=True))
        ]  # fmt: skip


def halves(tokens: Tokens, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into two halves by their text, so that equal texts are in one half; order and file do not matter."""
    keys = [
        blake2b(f"half:{seed}:".encode() + np.asarray(ids, dtype=np.int64).tobytes(), digest_size=8).digest()
        for ids in tokens.input_ids
    ]
    distinct = sorted(set(keys))
    chosen = set(distinct[: (len(distinct) + 1) // 2])
    inside = np.array([key in chosen for key in keys])
    return np.flatnonzero(inside), np.flatnonzero(~inside)


def split_half(subject: Subject, effects: dict[str, Effects], tokens: Tokens) -> list[dict[str, Any]]:
    """Pick the strongest head, sublayer and change on one half of the rows, and summarise it on the other.

    What is picked and shown on the same rows looks larger than it is. Records have the control ``split_half`` (and
    ``split_half_random`` for the random direction), and the column ``pick``.
    """
    if len(set(clusters(tokens).tolist())) < FEWEST_TEXTS:
        return []
    first, second = halves(tokens, subject.sampling_seed)
    found: list[dict[str, Any]] = []
    for edit in dict.fromkeys(variant.edit for variant in effects["tuned"].variants):
        for name, sites in (("strongest head", HEADS), ("strongest sublayer", SUBLAYERS)):
            picked = _pick(effects["tuned"].margin_change[first], effects["tuned"].variants, sites, edit)
            if picked is not None:
                found += _shown(subject, effects, picked, second, tokens, name)
        if "base" in effects:
            change = effects["tuned"].margin_change - effects["base"].margin_change
            picked = _pick(
                -np.abs(change[first].mean(0, keepdims=True)), effects["tuned"].variants, HEADS, edit
            )
            if picked is not None:
                found += _shown(subject, effects, picked, second, tokens, "most changed head")
    return found


def _pick(values: np.ndarray, variants: Sequence[Variant], sites: Sequence[str], edit: str) -> Variant | None:
    """Return the single component with the largest mean loss of margin."""
    usable = [
        index for index, one in enumerate(variants)
        if one.control == "none" and one.scope == "one" and one.edit == edit and one.site in sites
    ]  # fmt: skip
    return variants[min(usable, key=lambda index: float(values[:, index].mean()))] if usable else None


def _shown(
    subject: Subject,
    effects: dict[str, Effects],
    picked: Variant,
    rows: np.ndarray,
    tokens: Tokens,
    pick: str,
) -> list[dict[str, Any]]:
    summary, groups = Summary(subject, ("margin_change",)), clusters(tokens)[rows]
    arrays = {name: (one.variants, one.margin_change) for name, one in effects.items()}
    if "base" in effects:
        change = effects["tuned"].margin_change - effects["base"].margin_change
        arrays["tuned_minus_base"] = (effects["tuned"].variants, change)
    found = []
    for which, (variants, values) in arrays.items():
        for index, one in enumerate(variants):
            same = one.name == picked.name and one.edit == picked.edit and one.scope == "one"
            if (
                not same
                or one.control == "no_op"
                or (one.control == "random" and which == "tuned_minus_base")
            ):
                continue
            (record,) = summary.of(which, "margin_change", [one], values[rows][:, [index]], groups)
            control = "split_half" if one.control == "none" else "split_half_random"
            found.append({**record, "class": None, "q": None, "control": control, "pick": pick})
    return found


def examples(
    subject: Subject, which: str, effects: Effects, tokens: Tokens, metrics: Sequence[str]
) -> pl.DataFrame:
    """Return the effects of every example on every component, long form, without controls."""
    wanted = [index for index, variant in enumerate(effects.variants) if variant.control == "none"]
    chosen = [effects.variants[index] for index in wanted]
    rows, width = len(tokens), len(chosen)
    layer = np.array([-1 if variant.layer is None else variant.layer for variant in chosen])
    head = np.array([-1 if variant.head is None else variant.head for variant in chosen])
    names = list(dict.fromkeys(["margin_change", "probability_change", *metrics]))
    columns: dict[str, Any] = {}
    for name in names:
        values = getattr(effects, name)[:, wanted]
        if name == "class_probability_change":
            for c, label in enumerate(subject.tuned.labels.names):
                columns[f"probability_change_{label}"] = values[..., c].astype(np.float32).ravel()
        else:
            columns[name] = values.astype(np.float32).ravel()
    frame = pl.DataFrame({
        "row_id": np.repeat(np.array(tokens.row_ids, dtype=object), width).tolist(),
        "site": [variant.site for variant in chosen] * rows,
        "component": [variant.name for variant in chosen] * rows,
        "edit": [variant.edit for variant in chosen] * rows,
        "layer": np.tile(layer, rows),
        "head": np.tile(head, rows),
        "stack": [variant.stack for variant in chosen] * rows,
        **columns,
    })  # fmt: skip
    return frame.select(
        pl.lit(subject.arm).alias("arm"), pl.lit(subject.seed, dtype=pl.Int64).alias("seed"),
        pl.lit(which).alias("model"), "row_id", "site",
        *(pl.when(pl.col(axis) >= 0).then(pl.col(axis)).cast(pl.Int64).alias(axis) for axis in ("layer", "head")),
        "edit", "component", *(["stack"] if subject.tuned.is_encoder_decoder else []), *columns,
    )  # fmt: skip
