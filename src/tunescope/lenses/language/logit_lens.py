"""The logit lens of a language model: what it would predict if it stopped at a layer, token by token.

Every layer's stream goes through the model's own final norm and head (nostalgebraist 2020). Per row, over the tokens
that it has to predict: the mean log-probability of the true token (minus the loss), how often the first answer is
right, and the Kullback-Leibler divergence of the layer's answer from the final one, all in nats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch

from tunescope.capture.hooks import reading
from tunescope.capture.sites import Site
from tunescope.data.batches import batches
from tunescope.errors import LensError
from tunescope.lenses.language.language import MOST_TOKENS, asked, language
from tunescope.lenses.logits.logit_lens import (
    Curve,
    LogitLensOptions,
    change_of_place,
    differences,
    place_of,
    settled,
)
from tunescope.lenses.subject import Subject, Which, clusters
from tunescope.models.language import LanguageModel
from tunescope.models.questions import AT_ONCE, NOTHING, Questions, final_norm
from tunescope.progress import Task
from tunescope.stats.intervals import bootstrap_means, percentile_interval
from tunescope.stats.results import result_table

METRICS = ("accuracy", "log_likelihood", "kl_to_final")
Record = dict[str, Any]


@dataclass(frozen=True)
class _Batch:
    """The asked tokens of one batch: their rows and places in it [A], targets [A], rows of the whole [B]."""

    rows: torch.Tensor
    places: torch.Tensor
    targets: torch.Tensor
    index: np.ndarray


class TokenCurve:
    """Sums of the measures over a row's asked tokens at every place of the stream, and under dealt targets.

    Args:
        model: The model.
        questions: What it is asked.
    """

    def __init__(self, model: LanguageModel, questions: Questions) -> None:
        self.model, self.questions = model, questions
        shape = (len(METRICS), len(questions), model.n_layers + 1)
        self.sums = np.zeros(shape)
        self.dealt = np.zeros(shape)
        targets = np.concatenate([one[one != NOTHING] for one in questions.targets])
        share = np.bincount(targets, minlength=model.vocabulary) / len(targets)
        self.share = torch.as_tensor(share, dtype=torch.float32)

    def read(self, task: Task) -> Curve:
        """Run all rows and return the curve.

        Raises:
            LensError: A layer's stream is NaN or infinite; the place and the rows are named.
        """
        sites = [Site("embeddings"), *(Site("resid_post", layer) for layer in range(self.model.n_layers))]
        self.share = self.share.to(self.model.device)
        for batch in batches(self.questions.tokens, max_tokens=MOST_TOKENS):
            moved = batch.to(self.model.device).inputs()
            targets = self.questions.batch(batch.index, moved["input_ids"].shape[1]).to(self.model.device)
            found: dict[Site, torch.Tensor] = {}
            with torch.inference_mode():
                with reading(self.model, sites, found.__setitem__):
                    self.model.hidden(**moved)
                rows, places = (targets != NOTHING).nonzero(as_tuple=True)
                self._add([found[site] for site in sites], sites, _Batch(
                    rows, places, targets[rows, places], batch.index
                ), batch.row_ids)  # fmt: skip
            task.advance(len(batch))
        asked_of = self.questions.asked[:, None]
        values = {name: self.sums[i] / asked_of for i, name in enumerate(METRICS)}
        chance = {name: self.dealt[i].sum(0) / asked_of.sum() for i, name in enumerate(METRICS)}
        return Curve(values, chance)

    def _add(self, streams: list[torch.Tensor], sites: list[Site], batch: _Batch, row_ids: list[str]) -> None:
        for site, stream in zip(sites, streams, strict=True):
            bad = ~torch.isfinite(stream[batch.rows, batch.places]).all(-1)
            if bool(bad.any()):
                names = sorted({row_ids[int(row)] for row in batch.rows[bad]})
                raise LensError(
                    f"{site} is NaN or infinite in {len(names)} of {len(row_ids)} rows of a batch: "
                    f"{', '.join(names[:5])}."
                )
        for first in range(0, len(batch.rows), AT_ONCE):
            part = slice(first, first + AT_ONCE)
            final = self._log_probabilities(streams[-1], batch, part)
            for place, stream in enumerate(streams):
                here = final if place == len(streams) - 1 else self._log_probabilities(stream, batch, part)
                self._measure(here, final, batch, part, place)

    def _log_probabilities(self, stream: torch.Tensor, batch: _Batch, part: slice) -> torch.Tensor:
        states = final_norm(self.model, stream[batch.rows[part], batch.places[part]])
        return torch.log_softmax(self.model.head.forward(states), -1)

    def _measure(
        self, here: torch.Tensor, final: torch.Tensor, batch: _Batch, part: slice, place: int
    ) -> None:
        targets, first = batch.targets[part], here.argmax(-1)
        other = final.roll(1, 0)  # the final answer at another token
        measures = (
            (first == targets, self.share[first]),
            (here.gather(-1, targets[:, None])[:, 0], here @ self.share),
            ((final.exp() * (final - here)).sum(-1).clamp(min=0), (other.exp() * (other - here)).sum(-1)),
        )
        rows = batch.index[batch.rows[part].cpu().numpy()]
        for metric, (own, dealt) in enumerate(measures):
            np.add.at(self.sums[metric, :, place], rows, own.double().cpu().numpy())
            np.add.at(self.dealt[metric, :, place], rows, dealt.double().cpu().numpy())


def run(subject: Subject, options: LogitLensOptions) -> tuple[pl.DataFrame, None]:
    """Read the answer at every layer of both models.

    Raises:
        LensError: A layer's stream is NaN or infinite.
    """
    rows = asked(subject, subject.draw(options.rows, labelled=False), "logit_lens")
    groups = clusters(rows.rows)
    models = subject.models_with_logits()
    curves: dict[Which, Curve] = {}
    with subject.progress.task(f"{subject.arm}: logit lens", len(rows) * len(models), "rows") as task:
        for which, model in models:
            curves[which] = TokenCurve(language(model), rows).read(task)
    records: list[Record] = []
    drawn: dict[Which, np.ndarray] = {}
    about = {"arm": subject.arm, "seed": subject.seed, "n": len(rows)}
    for which, found in curves.items():
        mine = {**about, "model": which, "base_head": subject.base_head if which == "base" else None}
        for metric in METRICS:
            ends = bootstrap_means(found.values[metric], groups, seed=subject.sampling_seed)
            records += [
                {**mine, **place_of(index), "metric": metric, **end.record(),
                 "control": float(found.chance[metric][index])}
                for index, end in enumerate(ends)
            ]  # fmt: skip
        drawn[which], record = settled(found, groups, options, subject)
        records.append({**mine, **record})
    if len(curves) == 2:
        pair = (curves["base"], curves["tuned"])
        mine = {**about, "model": "tuned_minus_base", "base_head": subject.base_head}
        records += [{**mine, **record} for record in differences(*pair, groups, subject)]
        change = percentile_interval(
            *change_of_place(pair, options, drawn["tuned"] - drawn["base"]), len(rows), "paired bootstrap"
        )
        records.append({**mine, "metric": "settled_layer", **change.record()})
    return result_table(records), None
