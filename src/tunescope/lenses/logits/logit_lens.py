"""The logit lens: the model's own final norm and head at every layer, base and tuned.

nostalgebraist (2020) read a language model's answer out of its middle layers with its own unembedding; Belrose et al.
(2023, arXiv 2303.08112) say where that misleads: a layer that the head cannot read may still hold the answer. For a
classifier the head is the classifier's, pooling included.

Formula:
    ``head(norm(h_l))`` of the stream h_l behind block l, pooled as the classifier pools.

Range:
    Accuracy 0 to 1; margins in logits; the last layer is the model's own answer.

How to read:
    The depth from which on accuracy is within ``within`` of the final one says where the answer stands in the
    head's own terms.

Cost:
    One pass of each model over the rows.

Limits:
    A layer that the head cannot read may hold the answer all the same; early layers of the base under a head
    that was made for the last one say little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field

from tunescope.capture.sites import Site
from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.evaluation.margins import margin
from tunescope.evaluation.predict import probabilities_of
from tunescope.lenses.geometry.pooled import depth, stack_axes
from tunescope.lenses.reading import PerModel, ReadingLens, View, read_model, read_pass
from tunescope.lenses.subject import LensRows, Subject, Which, clusters
from tunescope.models.classifier import Classifier
from tunescope.stats.clustered import wilson_clustered
from tunescope.stats.intervals import bootstrap_means, group_sums, percentile_interval
from tunescope.stats.results import result_table
from tunescope.stats.tests import benjamini_hochberg, sign_flip_p

WHAT = (
    "What the model would answer if it stopped at a layer: its own final norm (where it has one), pooling and head on "
    "the residual stream after every block, base and tuned."
)
METRICS = ("accuracy", "margin", "probability_of_final")
RESAMPLES = 1000
TOLERANCE = 1e-4
Record = dict[str, Any]


class LogitLensOptions(BaseModel):
    """Options of the lens ``logit_lens``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: LensRows = Field(default_factory=lambda: LensRows(n=1000), description="which rows to look at")
    within: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="how near the final accuracy counts as settled, a share from 0 to below 1",
    )


def lens_logits(model: Classifier, activation: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Return the logits [B, C] that the model's own final norm, pooling and head make of a residual stream [B, T, D].

    A pre-norm model's stream goes through the final norm; a post-norm model's has been through a norm at the end of
    its block (the embeddings through theirs), so nothing more is applied. Hooks of norm and head do not see this.
    """
    # .forward, not a call: other lenses may read the final norm and the head in this same pass.
    if model.family.final_norm is not None:
        activation = model.trunk.get_submodule(model.family.final_norm).forward(activation)
    logits: torch.Tensor = model.head.forward(model.pool(activation, attention_mask))
    return logits


class StreamLogits(ReadingLens):
    """Keeps the logits of every row at every place of the stream; activations are reduced in the hook."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.found: dict[int, np.ndarray] = {}
        self.final: np.ndarray | None = None

    def sites(self, model: Classifier) -> list[Site]:
        """Return embeddings, the stream after every block, and the model's logits; of two stacks, the decoder's."""
        stack = model.stacks[-1].name
        blocks = [Site("resid_post", layer, stack) for layer in range(model.n_layers)]
        return [Site("embeddings", stack=stack), *blocks, Site("logits")]

    def update(self, view: View) -> None:
        """Turn one activation into logits.

        Raises:
            LensError: A logit is NaN or infinite; the place and the row are named.
        """
        last = view.site.name == "logits"
        logits = view.activation if last else lens_logits(view.model, view.activation, view.attention_mask)
        numbers = logits.double().cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(numbers).all(axis=1))
        if len(bad):
            raise LensError(
                f"{view.which}: the logits read at {view.site} are NaN or infinite in {len(bad)} rows of a batch, the "
                f"first is row {view.row_ids[int(bad[0])]}."
            )
        if last:
            self.final = np.empty((self.rows, numbers.shape[1])) if self.final is None else self.final
            self.final[view.ranks] = numbers
            return
        place = depth(view.site, view.model)
        self.found.setdefault(place, np.empty((self.rows, numbers.shape[1])))[view.ranks] = numbers

    def table(self) -> pl.DataFrame:
        """Return nothing: the lens makes its own table of :meth:`stacked`."""
        return result_table([])

    def stacked(self) -> np.ndarray:
        """Return logits `[places, N, C]`: the embeddings, then every block.

        Raises:
            LensError: The last block's logits are not the model's.
        """
        logits = np.stack([self.found[place] for place in sorted(self.found)])
        assert self.final is not None
        gap = float(np.abs(logits[-1] - self.final).max())
        if gap > TOLERANCE * max(1.0, float(np.abs(self.final).max())):
            raise LensError(
                "After the last block the model's own norm and head give other logits than the model (off by "
                f"{gap:.2g})."
            )
        return logits


@dataclass(frozen=True)
class Curve:
    """One model's answers at every place: `[N, K]` each, K = layers + 1; place 0 is the embeddings.

    Attributes:
        values: Per metric: whether the true class is first, its margin in logits, and the probability of the class
            that the whole model predicts.
        chance: Per metric `[K]`, the same with labels (predictions) dealt to the rows at random, in expectation.
    """

    values: dict[str, np.ndarray]
    chance: dict[str, np.ndarray]


def curve(logits: np.ndarray, labels: np.ndarray) -> Curve:
    """Return the three measures at every place, and what random labels would give, exactly.

    Args:
        logits: `[K, N, C]`; the last place is the model's own.
        labels: `[N]` true classes.
    """
    places, rows, classes = logits.shape
    final = logits[-1].argmax(axis=1)
    predicted = logits.argmax(axis=2)  # [K, N]
    probabilities = probabilities_of(logits.reshape(-1, classes)).reshape(logits.shape)
    margins = np.stack([margin(logits, np.full((places, rows), c)) for c in range(classes)], axis=2)
    share = np.bincount(labels, minlength=classes) / rows
    final_share = np.bincount(final, minlength=classes) / rows
    predicted_share = np.stack([(predicted == c).mean(axis=1) for c in range(classes)], axis=1)
    every = np.arange(rows)
    return Curve(
        {
            "accuracy": (predicted == labels).T.astype(np.float64),
            "margin": margins[:, every, labels].T,
            "probability_of_final": probabilities[:, every, final].T,
        },
        {
            "accuracy": predicted_share @ share,
            "margin": margins.mean(axis=1) @ share,
            "probability_of_final": probabilities.mean(axis=1) @ final_share,
        },
    )


def settled_place(accuracy: np.ndarray, within: float) -> np.ndarray:
    """Return the first place from which on accuracy stays within a distance of the last, for `[..., K]` accuracies."""
    far = np.abs(accuracy - accuracy[..., -1:]) > within + 1e-12
    places = np.arange(accuracy.shape[-1])
    return np.where(far, places + 1, 0).max(axis=-1)


def run(subject: Subject, options: LogitLensOptions) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read the answer at every layer of both models; the base drops out where its head is ``none``.

    Raises:
        LensError: No row has a label, a logit is NaN, or the last block's logits are not the model's.
    """
    tokens = subject.draw(options.rows)
    groups = clusters(tokens)
    curves: dict[Which, Curve] = {}
    models = subject.models_with_logits()
    readers = {which: StreamLogits(len(tokens)) for which, _ in models}
    if len(models) == 2:
        read_pass(subject, tokens, [PerModel(readers)])  # blocks that tuning left alone are run once
    else:
        with subject.progress.task(f"{subject.arm}: logit lens", len(tokens), "rows") as task:
            for which, model in models:
                read_model(which, model, tokens, [readers[which]], task)
    for which, _ in models:
        curves[which] = curve(readers[which].stacked(), tokens.labels)
    _say_norm(subject)
    records, drawn = [], {}
    for which, found in curves.items():
        about = {**_about(subject), "model": which, "n": len(tokens)}
        about["base_head"] = subject.base_head if which == "base" else None
        records += [{**about, **record} for record in _levels(found, groups, subject)]
        drawn[which], record = settled(found, groups, options, subject)
        records.append({**about, **record})
    if len(curves) == 2:
        about = {
            **_about(subject),
            "model": "tuned_minus_base",
            "base_head": subject.base_head,
            "n": len(tokens),
        }
        pair = (curves["base"], curves["tuned"])
        records += [{**about, **record} for record in differences(*pair, groups, subject)]
        change = percentile_interval(
            *change_of_place(pair, options, drawn["tuned"] - drawn["base"]), len(tokens), "paired bootstrap"
        )
        records.append({**about, "metric": "settled_layer", **change.record()})
    return result_table(records), _examples(subject, tokens, curves)


def _about(subject: Subject) -> Record:
    read = Site("embeddings", stack=subject.tuned.stacks[-1].name)
    return {"arm": subject.arm, "seed": subject.seed, **stack_axes(read)}


def _say_norm(subject: Subject) -> None:
    family = subject.tuned.family
    if family.final_norm is None:
        note = (
            f"logit_lens: {family.name} ends every block with a norm and has no final norm, so the head reads each "
            "block's output as it is."
        )
    else:
        note = f"logit_lens: every layer goes through {family.name}'s final norm, then pooling and head."
    if subject.tuned.is_encoder_decoder:
        note += " Of the two stacks this is the decoder; no head reads the encoder."
    if subject.tuned.pooling in ("first", "first_raw"):
        note += " The pooled token's embedding is the same in every text, so the answer there is one for all."
    if note not in subject.notes:
        subject.notes.append(note)


def place_of(index: int) -> Record:
    """Return site and layer of a place of the stream; place 0 is the embeddings, which stand at layer -1."""
    return {"site": "embeddings" if index == 0 else "resid_post", "layer": index - 1}


def _levels(found: Curve, groups: np.ndarray, subject: Subject) -> list[Record]:
    records = []
    for metric in METRICS:
        table = found.values[metric]
        ends = (
            [wilson_clustered(column, groups) for column in table.T]
            if metric == "accuracy"
            else list(bootstrap_means(table, groups, seed=subject.sampling_seed))
        )
        records += [
            {**place_of(index), "metric": metric, **end.record(),
             "control": float(found.chance[metric][index])}
            for index, end in enumerate(ends)
        ]  # fmt: skip
    return records


def settled(
    found: Curve, groups: np.ndarray, options: LogitLensOptions, subject: Subject
) -> tuple[np.ndarray, Record]:
    """Return resampled layers at which the answer is settled, `[R]`, and the record of the layer itself."""
    hits = found.values["accuracy"]
    sums, sizes = group_sums(hits, groups)
    generator = np.random.default_rng(subject.sampling_seed)
    weights = generator.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=RESAMPLES)
    accuracy = (weights @ sums) / (weights @ sizes)[:, None]  # [R, K]
    drawn = settled_place(accuracy, options.within) - 1.0
    value = float(settled_place(hits.mean(axis=0), options.within)) - 1.0
    interval = percentile_interval(value, drawn, len(hits), f"bootstrap of {len(sizes)} groups of rows")
    return drawn, {"metric": "settled_layer", **interval.record(), "within": options.within}


def change_of_place(
    pair: tuple[Curve, Curve], options: LogitLensOptions, drawn: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return by how many layers the answer settles later in the tuned model, beside the resampled changes."""
    base, tuned = (settled_place(one.values["accuracy"].mean(axis=0), options.within) for one in pair)
    return float(tuned) - float(base), drawn


def differences(base: Curve, tuned: Curve, groups: np.ndarray, subject: Subject) -> list[Record]:
    """Return tuned minus base, row by row, at every place; q over the places of each measure."""
    records = []
    for metric in tuned.values:
        change = tuned.values[metric] - base.values[metric]
        ends = bootstrap_means(change, groups, seed=subject.sampling_seed)
        p = sign_flip_p(change, groups, seed=subject.sampling_seed)
        q = benjamini_hochberg(p)
        control = tuned.chance[metric] - base.chance[metric]
        records += [
            {**place_of(index), "metric": metric, **end.record(), "p": p[index], "q": q[index],
             "control": float(control[index])}
            for index, end in enumerate(ends)
        ]  # fmt: skip
    return records


def _examples(subject: Subject, tokens: Tokens, curves: dict[Which, Curve]) -> pl.DataFrame:
    parts = []
    for which, found in curves.items():
        rows, places = found.values["margin"].shape
        parts.append(pl.DataFrame({
            "row_id": np.repeat(np.array(tokens.row_ids, dtype=object), places).tolist(),
            "layer": np.tile(np.arange(places) - 1, rows),
            "margin": found.values["margin"].ravel(), "correct": found.values["accuracy"].ravel() > 0,
        }).select(
            pl.lit(subject.arm).alias("arm"), pl.lit(subject.seed, dtype=pl.Int64).alias("seed"),
            pl.lit(which).alias("model"), pl.all(),
        ))  # fmt: skip
    return pl.concat(parts)
