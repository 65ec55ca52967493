"""Direct logit attribution: which part wrote the answer, base and tuned.

Every head, attention bias, MLP and the embeddings write a vector into the residual stream; with the scales of the norms
held fixed (:mod:`tunescope.capture.direct`) their shares sum to the logits. A share says what a part writes itself, not
what later blocks make of it: that is what ablation shows.

Formula:
    ``logit_c = sum_p w_c . (s p)`` over parts p of the stream, with the norms' scales s held at what they were;
    the contrast is the true class's share minus the mean of the others'.

Range:
    Logits, any sign; parts add up to the logit (``sum_gap`` says how exactly).

How to read:
    A large share says that a part writes towards the class by itself. The same part with a small ablation
    effect is compensated for.

Cost:
    One pass of each model over the rows.

Limits:
    In an encoder-decoder the parts are the decoder's: no part of the encoder writes into the stream that the head
    reads. Says nothing of what later blocks make of a part. Held norms are exact for the sum, not for what would
    happen without a part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tunescope.capture.direct import direct
from tunescope.capture.direct_parts import Component, components_of
from tunescope.data.batches import batches
from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.lenses.subject import LensRows, Subject, Which, clusters
from tunescope.models.classifier import Classifier
from tunescope.models.language import LanguageModel
from tunescope.progress import Task
from tunescope.stats.intervals import Intervals, bootstrap_means
from tunescope.stats.results import Finding, result_table
from tunescope.stats.tests import benjamini_hochberg, sign_flip_p

WHAT = (
    "What the embeddings, every head and every MLP write directly into the logits at the pooled position, with the "
    "scale of the norms held fixed: the shares sum to the logits. Beside each, a random vector of equal norm."
)
TOLERANCE = 1e-3
MOST_TOKENS = 1024
TEST = (
    "bootstrap over rows, equal texts together; sign-flip permutation, Benjamini-Hochberg over all parts; the part was "
    "picked on the rows it is shown on, so its size is flattering"
)
Record = dict[str, Any]


class DirectOptions(BaseModel):
    """Options of the lens ``attribution_direct``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: LensRows = Field(default_factory=lambda: LensRows(n=512), description="which rows to look at")
    tokens: Literal["all", "last"] = Field(
        "all", description="of a language model: every token to predict (all), or the last of a row"
    )


class Shares:
    """What every part wrote into every logit, row by row.

    Attributes:
        components: The K parts; the last is the constant.
        shares: `[N, K, C]`.
        random: `[N, K - 1, C]`, a random vector of equal norm in each part's place.
        logits: `[N, C]`, the model's own.
    """

    def __init__(self, components: list[Component], rows: int, classes: int) -> None:
        self.components = components
        self.shares = np.empty((rows, len(components), classes))
        self.random = np.empty((rows, len(components) - 1, classes))
        self.logits = np.empty((rows, classes))

    @property
    def gap(self) -> float:
        """The largest distance between a logit and the sum of its shares."""
        return float(np.abs(self.shares.sum(axis=1) - self.logits).max())


def read_shares(model: Classifier, tokens: Tokens, seed: int, task: Task) -> Shares:
    """Split the logits of every row.

    Raises:
        LensError: The shares do not sum to the logits.
        SiteError: An activation is NaN, or the head cannot be split.
    """
    classes = len(model.labels)
    found = Shares(components_of(model), len(tokens), classes)
    for batch in batches(tokens, max_tokens=max(64, min(MOST_TOKENS, 8 * MOST_TOKENS // classes))):
        split = direct(model, batch.to(model.device).inputs(), batch.row_ids, seed)
        found.shares[batch.index] = split.shares.cpu().numpy()
        found.random[batch.index] = split.random.cpu().numpy()
        found.logits[batch.index] = split.logits.cpu().numpy()
        task.advance(len(batch))
    if found.gap > TOLERANCE * max(1.0, float(np.abs(found.logits).max())):
        raise LensError(
            f"{model.family.name}: the shares of its parts do not sum to the logits (off by {found.gap:.2g}), so they "
            "say nothing about who wrote them.",
            hint="The family's table does not describe this model; see docs/adding-an-architecture.md.",
        )
    return found


def contrast(shares: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return each part's share in `z_y - mean of the other logits`, `[N, K]`, from `[N, K, C]`.

    Unlike a share in one logit it does not change when the same is added to all logits, which changes no answer.
    """
    classes = shares.shape[2]
    own = np.take_along_axis(shares, labels[:, None, None], axis=2)[:, :, 0]
    return (own * classes - shares.sum(axis=2)) / (classes - 1)


def run(subject: Subject, options: DirectOptions) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split the logits of both models; the base drops out where its head is ``none``.

    Raises:
        LensError: No row has a label, or the shares do not sum to the logits.
        SiteError: An activation is NaN, or the head cannot be split.
    """
    tokens = subject.draw(options.rows)
    groups = clusters(tokens)
    models = subject.models_with_logits()
    read: dict[Which, Shares] = {}
    title = f"{subject.arm}: direct attribution"
    with subject.progress.task(title, len(tokens) * len(models), "rows") as task:
        for which, model in models:
            read[which] = read_shares(model, tokens, subject.sampling_seed, task)
    _say_path(subject)
    records: list[Record] = []
    contrasts: dict[Which, np.ndarray] = {}
    for which, found in read.items():
        about = {"arm": subject.arm, "seed": subject.seed, "model": which}
        about["base_head"] = subject.base_head if which == "base" else None
        contrasts[which] = contrast(found.shares, tokens.labels)
        made = _records(found, tokens.labels, groups, subject)
        records += [{**about, **record} for record in made]
    if len(read) == 2:
        records += difference_records(read["tuned"].components, contrasts, groups, subject)
    return result_table(records), examples(subject, tokens, read, contrasts)


def difference_records(
    parts: Sequence[Component], contrasts: Mapping[Which, np.ndarray], groups: np.ndarray, subject: Subject
) -> list[Record]:
    """Return tuned minus base of every part's contrast, row by row.

    Args:
        parts: The components, in the order of the columns.
        contrasts: Of base and tuned, [n, K].
        groups: The text of each row.
        subject: Whose they are.
    """
    about: Record = {
        "arm": subject.arm, "seed": subject.seed, "model": "tuned_minus_base", "base_head": subject.base_head,
    }  # fmt: skip
    change = contrasts["tuned"] - contrasts["base"]
    return [{**about, **record} for record in tested_records(parts, change, groups, subject)]


def _say_path(subject: Subject) -> None:
    model = subject.tuned
    norms = (
        "one norm, the final one, is on the path, and its scale is held at each row's own"
        if model.family.norm_order == "pre"
        else f"{model.family.name} normalises after every sublayer: on the residual path from a part to the head every "
        "later norm is passed, each with its scale held at each row's own; embeddings count behind their norm"
    )
    note = f"attribution_direct: {norms}."
    if model.is_encoder_decoder:
        note += (
            " The head reads the decoder, so the parts are the decoder's; what the encoder found is in what the heads "
            "of cross-attention write."
        )
    if sum(1 for one in model.head.modules() if type(one).__name__ == "Linear") > 1:
        note += (
            " The head has a nonlinearity, which is taken as its gain (output over input) at each row; shares through "
            "it still sum to the logits, but hang on that choice."
        )
    if note not in subject.notes:
        subject.notes.append(note)


def _records(found: Shares, labels: np.ndarray, groups: np.ndarray, subject: Subject) -> list[Record]:
    """Return shares in every logit, contrasts over all rows and by true class, and the control."""
    seed, names = subject.sampling_seed, subject.tuned.labels.names
    records: list[Record] = [
        {"metric": "sum_gap", "value": found.gap, "n": len(labels), "control": "none"},
        *tested_records(found.components, contrast(found.shares, labels), groups, subject),
    ]
    random = bootstrap_means(contrast(found.random, labels), groups, seed=seed)
    records += [
        {**one, "control": "random"} for one in level_records(found.components[:-1], random, "contrast")
    ]
    for index, name in enumerate(names):
        logit = bootstrap_means(found.shares[:, :, index], groups, seed=seed)
        records += [{**one, "class": name} for one in level_records(found.components, logit, "logit_share")]
        mine = labels == index
        if mine.any():
            own = bootstrap_means(contrast(found.shares[mine], labels[mine]), groups[mine], seed=seed)
            records += [{**one, "class": name} for one in level_records(found.components, own, "contrast")]
    return records


def level_records(components: Sequence[Component], ends: Intervals, metric: str) -> list[Record]:
    """Return a record with its interval for every part."""
    return [
        {**part.axes, "metric": metric, "control": "none", **end.record()}
        for part, end in zip(components, ends, strict=True)
    ]


def tested_records(
    components: Sequence[Component], table: np.ndarray, groups: np.ndarray, subject: Subject
) -> list[Record]:
    """Return contrasts over all rows with p and q; the constant is no part that could have done otherwise."""
    records = level_records(
        components, bootstrap_means(table, groups, seed=subject.sampling_seed), "contrast"
    )
    p = sign_flip_p(table[:, :-1], groups, seed=subject.sampling_seed)
    q = benjamini_hochberg(p)
    for index, record in enumerate(records[:-1]):
        record |= {"p": p[index], "q": q[index]}
    return records


def examples(
    subject: Subject, tokens: Tokens, read: dict[Which, Shares], contrasts: dict[Which, np.ndarray]
) -> pl.DataFrame:
    """Return every row's share of every part, long form."""
    parts = []
    for which, found in read.items():
        rows, count = contrasts[which].shape
        parts.append(pl.DataFrame({
            "arm": [subject.arm] * (rows * count), "seed": pl.Series([subject.seed] * (rows * count), dtype=pl.Int64),
            "model": [which] * (rows * count),
            "row_id": [row_id for row_id in tokens.row_ids for _ in range(count)],
            "component": [part.name for part in found.components] * rows, "contrast": contrasts[which].ravel(),
        }))  # fmt: skip
    return pl.concat(parts)


def findings(table: pl.DataFrame, subject: Subject) -> list[Finding]:
    """Say which head and which other part wrote most of the answer, and whose share tuning changed most."""
    mine = table.filter(
        (pl.col("arm") == subject.arm) & pl.col("seed").eq_missing(pl.lit(subject.seed))
        & (pl.col("metric") == "contrast") & pl.col("class").is_null() & (pl.col("site") != "constant")
    )  # fmt: skip
    heads = ["head_out", "cross_head_out"]
    kinds = {"head": heads, "other part": ["embeddings", "mlp_out", "attention_bias", "cross_attention_bias"]}
    found = []
    for kind, sites in kinds.items():
        own = mine.filter(
            (pl.col("model") == "tuned") & (pl.col("control") == "none") & pl.col("site").is_in(sites)
        )
        if own.height:
            found.append(
                _strongest(mine, own.sort("value", descending=True).row(0, named=True), kind, subject)
            )
    change = mine.filter((pl.col("model") == "tuned_minus_base") & pl.col("site").is_in(heads))
    if change.height and not subject.same_trunk:
        found.append(_most_changed(mine, change.sort(pl.col("value").abs()).row(-1, named=True), subject))
    return found


def _strongest(mine: pl.DataFrame, best: Record, kind: str, subject: Subject) -> Finding:
    random, base = _beside(mine, best, "tuned", "random"), _beside(mine, best, "base", "none")
    beyond = random is not None and best["low"] is not None and best["low"] > random["high"]
    clear = best["q"] is not None and best["q"] <= 0.05 and (best["low"] or 0.0) > 0 and beyond
    sentence = (
        f"In the tuned model {best['component']} writes {_number(best)} logits towards the true {_unit(subject)} "
        f"(over the mean of the others), the most of any {kind}."
    )
    control = f"random vector of equal norm: {_number(random)}"
    if base is not None:
        control += f"; base under its {subject.base_head} head: {_number(base)}"
    return _finding(best, sentence, control, bool(clear), subject)


def _unit(subject: Subject) -> str:
    return "token" if isinstance(subject.tuned, LanguageModel) else "class"


def _most_changed(mine: pl.DataFrame, most: Record, subject: Subject) -> Finding:
    base, tuned = (_beside(mine, most, model, "none") for model in ("base", "tuned"))
    sentence = (
        f"Tuning changed what {most['component']} writes into the answer most of all heads: from {_number(base)} to "
        f"{_number(tuned)} logits towards the true {_unit(subject)} (difference {_number(most)})."
    )
    clear = most["q"] is not None and most["q"] <= 0.05
    return _finding(most, sentence, f"base under its {subject.base_head} head", clear, subject)


def _beside(mine: pl.DataFrame, row: Record, model: str, control: str) -> Record | None:
    same = mine.filter(
        (pl.col("model") == model)
        & (pl.col("control") == control)
        & (pl.col("component") == row["component"])
    )
    return same.row(0, named=True) if same.height else None


def _number(row: Record | None) -> str:
    if row is None or row["value"] is None:
        return "not measured"
    interval = "" if row["low"] is None else f" [{row['low']:+.2f}, {row['high']:+.2f}]"
    return f"{row['value']:+.2f}{interval}"


def _finding(row: Record, sentence: str, control: str, clear: bool, subject: Subject) -> Finding:
    verdict = "task not learned" if subject.learned is False else ("found" if clear else "undecided")
    return Finding(
        lens="attribution_direct", arm=subject.arm, sentence=sentence, metric="contrast", value=row["value"],
        low=row["low"], high=row["high"], n=row["n"], test=TEST, control=control, rows=f"{row['n']} rows",
        verdict=verdict,
    )  # fmt: skip
