"""Probes: from which layer on can a linear classifier read the task, before and after tuning?

A logistic regression per layer is fitted on pooled states of train rows and scored on other rows, beside a control
task (Hewitt and Liang 2019), the majority class, and the same probe on an untrained model of the same shape.

Formula:
    Accuracy of a logistic regression (L2) on standardised pooled states of one layer. Selectivity: accuracy on
    the task minus accuracy on the control task.

Range:
    0 to 1; selectivity -1 to 1.

How to read:
    The layer from which the probe does well says where the task can be read, not where it is used. Hold it
    against the majority, the control task and the untrained model of the same shape.

Cost:
    One pass over train and scored rows; then one regression a layer and model.

Limits:
    What a probe reads may be there without the model using it; what a linear probe misses may still be there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tunescope.capture.sites import Site
from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.lenses.geometry.pooled import KeptRows, depth, stream_sites
from tunescope.lenses.reading import read_model, read_pass
from tunescope.lenses.subject import LensRows, Subject
from tunescope.models.classifier import Classifier
from tunescope.models.untrained import untrained
from tunescope.seeds import derive_seed
from tunescope.stats.intervals import bootstrap_mean, wilson
from tunescope.stats.linear_probe import control_labels, fit_linear_probe
from tunescope.stats.paired import tango
from tunescope.stats.results import result_table
from tunescope.stats.tests import benjamini_hochberg, mcnemar_exact

WHAT = (
    "Accuracy of a logistic regression on the pooled states of every layer, base, tuned and an untrained model of the "
    "same shape; selectivity is what is left of it after a control task of random labels by token."
)
Record = dict[str, Any]
Token = Literal["first", "last", "most_frequent"]


class ProbeOptions(BaseModel):
    """Options of the lens ``probes``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: LensRows = Field(default_factory=lambda: LensRows(n=2000), description="which rows are scored")
    train_rows: int = Field(2000, ge=10, description="how many train rows probes are fitted on: 10 or more")
    strength: float = Field(
        0.1, gt=0, description="inverse of the L2 penalty, on standardised features: above 0"
    )
    control: Token = Field(
        "first",
        description="the token of a text that its label in the control task depends on: first, last or most_frequent",
    )
    untrained: bool = Field(True, description="probe an untrained model of the same shape as well")


@dataclass(frozen=True)
class Task:
    """What probes are fitted to and scored on.

    Attributes:
        train: Labels of the train rows, `[M]`.
        labels: Labels of the scored rows, `[N]`.
        seen: Whether each scored row's label, or the type it depends on, was among the train rows, `[N]`.
        types: How many types the labels of the control task depend on; None for the task itself.
    """

    train: np.ndarray
    labels: np.ndarray
    seen: np.ndarray
    types: int | None = None

    @property
    def majority(self) -> np.ndarray:
        """Whether the most frequent label of the train rows is right, bool `[N]`."""
        return self.labels == np.bincount(self.train).argmax()


@dataclass(frozen=True)
class Scored:
    """Which rows the two probes of one model and site got right, bool `[N]`; what to know of the features."""

    task: np.ndarray
    control: np.ndarray
    note: str | None


def run(subject: Subject, options: ProbeOptions) -> tuple[pl.DataFrame, None]:
    """Probe every layer of all models; each model reads every row once.

    Raises:
        LensError: Train rows are to be scored, or a class is missing from the train rows.
    """
    if options.rows.split == "train":
        raise LensError(
            "Probes are fitted on train rows, so train rows cannot score them; look at validation."
        )
    rows, train = subject.draw(options.rows), subject.draw(LensRows(split="train", n=options.train_rows))
    task, control = _tasks(subject, options, train, rows)
    models: dict[str, Classifier] = {"base": subject.base, "tuned": subject.tuned}
    if options.untrained:
        models["untrained"] = untrained(subject.base, derive_seed(subject.sampling_seed, "untrained"))
    found: dict[tuple[str, Site], Scored] = {}
    shared = [KeptRows(len(each)) for each in (train, rows)]
    for each, keeper in zip((train, rows), shared, strict=True):
        read_pass(subject, each, [keeper])  # blocks that tuning left alone are run once
    for name, model in models.items():
        kept = shared if name in ("base", "tuned") else _read(model, subject, (train, rows))
        for site, scored in _probe(name, kept, subject, (task, control), options.strength):
            found[name, site] = scored
    places = [(site, depth(site, subject.base)) for site in stream_sites(subject.base)]
    about = {"arm": subject.arm, "seed": subject.seed, "n": len(rows), "train_rows": len(train)}
    records = [_majority(task, about)]
    for site, layer in places:
        here = {**about, "site": site.name, "layer": layer}
        for name in models:
            records += _alone({**here, "model": name}, found[name, site], task, control)
        records += _paired(here, {name: found[name, site] for name in models}, subject.sampling_seed)
    return result_table(_corrected(records)), None


def _tasks(subject: Subject, options: ProbeOptions, train: Tokens, rows: Tokens) -> tuple[Task, Task]:
    names = subject.tuned.labels.names
    missing = sorted(set(range(len(names))) - set(train.labels.tolist()))
    if missing:
        raise LensError(
            f"No train row of class {names[missing[0]]!r} was drawn, so no probe can learn it.",
            hint="Raise train_rows, or give the train split rows of every class.",
        )
    special = frozenset(subject.tuned.tokenizer.all_special_ids)
    types = [
        np.array([token_type(ids, options.control, special) for ids in tokens.input_ids])
        for tokens in (train, rows)
    ]
    shares = np.bincount(train.labels, minlength=len(names))
    seed = derive_seed(subject.sampling_seed, "probes")
    random = [control_labels(each, shares, seed) for each in types]
    kinds = len(np.unique(types[0]))
    if len(np.unique(random[0])) < 2:
        raise LensError(
            f"The control task has one label only: the {options.control} token of the train rows takes {kinds} values.",
            hint="Choose another token for the option control.",
        )
    task = Task(train.labels, rows.labels, np.isin(rows.labels, train.labels))
    return task, Task(random[0], random[1], np.isin(types[1], types[0]), kinds)


def token_type(ids: np.ndarray, which: Token, special: frozenset[int]) -> int:
    """Return the token of a text that its control label depends on; special tokens do not count, unless alone.

    Among equally frequent tokens the one that comes first is taken.
    """
    text = [int(token) for token in ids if int(token) not in special] or [int(token) for token in ids]
    if which == "most_frequent":
        return max(dict.fromkeys(text), key=text.count)
    return text[0] if which == "first" else text[-1]


def _read(model: Classifier, subject: Subject, tokens: tuple[Tokens, Tokens]) -> list[KeptRows]:
    """Return the states of a third model, kept as if it were a base."""
    kept = [KeptRows(len(each)) for each in tokens]
    title = f"{subject.arm}: reading an untrained model for probes"
    with subject.progress.task(title, sum(map(len, tokens)), "rows") as task:
        for each, keeper in zip(tokens, kept, strict=True):
            read_model("base", model, each, [keeper], task)
    return kept


def _probe(
    name: str, kept: list[KeptRows], subject: Subject, tasks: tuple[Task, Task], strength: float
) -> Iterator[tuple[Site, Scored]]:
    """Yield every site with what its two probes got right."""
    sites, which = stream_sites(subject.base), "tuned" if name == "tuned" else "base"
    with subject.progress.task(f"{subject.arm}: probes of {name}", len(sites), "layers") as task:
        for site in sites:
            train, rows = (keeper.features(which, site) for keeper in kept)
            right, control = (
                fit_linear_probe(train, each.train, strength).predict(rows) == each.labels for each in tasks
            )
            constant = bool((np.ptp(train, axis=0) == 0).all())
            yield site, Scored(right, control, "every row has the same features" if constant else None)
            task.advance()


def _majority(task: Task, about: Record) -> Record:
    interval = wilson(int(task.majority.sum()), len(task.labels))
    return {**about, "metric": "majority_accuracy", **interval.record()}


def _alone(about: Record, scored: Scored, task: Task, control: Task) -> Iterator[Record]:
    """Return accuracy on the task and on the control task, each beside its majority, and selectivity."""
    for metric, right, aim in (
        ("probe_accuracy", scored.task, task),
        ("control_accuracy", scored.control, control),
    ):
        yield {
            **about, "metric": metric, **wilson(int(right.sum()), len(right)).record(), "note": scored.note,
            "control": float(aim.majority.mean()), "p": _mcnemar(right, aim.majority), "types": aim.types,
            "seen": float(aim.seen.mean()),
        }  # fmt: skip
    yield {**about, "metric": "selectivity", **_difference(scored.task, scored.control), "note": scored.note}


def _paired(about: Record, models: dict[str, Scored], seed: int) -> Iterator[Record]:
    """Return tuned minus base, and what both have over the untrained model, on the same rows."""
    base, tuned = models["base"], models["tuned"]
    difference = {**about, "model": "tuned_minus_base"}
    yield {
        **difference, "metric": "probe_accuracy", **_difference(tuned.task, base.task),
        "p": _mcnemar(tuned.task, base.task),
    }  # fmt: skip
    change = [scored.task.astype(float) - scored.control for scored in (base, tuned)]
    yield {**difference, "metric": "selectivity", **bootstrap_mean(change[1] - change[0], seed=seed).record()}
    if "untrained" in models:
        for name in ("base", "tuned"):
            right, control = models[name].task, models["untrained"].task
            yield {
                **about, "model": name, "metric": "over_untrained", **_difference(right, control),
                "p": _mcnemar(right, control),
            }  # fmt: skip


def _difference(first: np.ndarray, second: np.ndarray) -> Record:
    return tango(int((first & ~second).sum()), int((second & ~first).sum()), len(first)).record()


def _mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    return mcnemar_exact(int((first & ~second).sum()), int((second & ~first).sum()))


def _corrected(records: Sequence[Record]) -> list[Record]:
    """Add q: each question is asked at every layer, and its p values are corrected together."""
    asked: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if record.get("p") is not None:
            asked.setdefault((record["metric"], record["model"]), []).append(record)
    for group in asked.values():
        for record, q in zip(group, benjamini_hochberg([one["p"] for one in group]), strict=True):
            record["q"] = float(q)
    return list(records)
