"""A base and a tuned language model as a subject, and how well each predicts the texts that are looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tunescope.capture.verify import verify
from tunescope.data.rows import Rows
from tunescope.data.tokens import tokenize
from tunescope.errors import ModelError
from tunescope.lenses.language.language import log_likelihoods
from tunescope.lenses.subject import LensRows, Subject, clusters
from tunescope.models.language import LanguageModel, load_language_model
from tunescope.models.questions import questions
from tunescope.models.source import Source
from tunescope.progress import Progress
from tunescope.stats.intervals import Interval, bootstrap_means

MEASURED_ROWS = 2000


@dataclass(frozen=True)
class LanguagePair:
    """Two language models to load.

    Attributes:
        base: Folder or hub id of the base.
        tuned: Folder, hub id or adapter of the tuned model.
        name: The tuned model's name in the run.
        max_length: Longest input in tokens; None means the model's limit, at most 512.
        device: Where to put the parameters.
        seed: Seeds which rows are drawn, masks and random controls.
    """

    base: str
    tuned: str
    name: str
    max_length: int | None = None
    device: Any = "cpu"
    seed: int = 0


def language_subject(pair: LanguagePair, rows: Rows, progress: Progress) -> Subject:
    """Load a tuned language model and its base, and prove both on a probe batch.

    Raises:
        ModelError: A checkpoint is no language model, or one is causal and the other masked.
    """
    adapted = pair.base if Source(pair.tuned).is_adapter else None
    tuned = load_language_model(pair.tuned, base=adapted, max_length=pair.max_length, device=pair.device)
    before = load_language_model(
        pair.base, pooling=tuned.pooling, max_length=tuned.max_length, device=pair.device
    )
    if before.kind != tuned.kind:
        raise ModelError(
            f"{pair.base} is a {before.kind} language model and {pair.tuned} a {tuned.kind} one; they are not asked "
            "the same.",
            hint="Compare a tuned model with the base that it was tuned from.",
        )
    verify(tuned)
    verify(before)
    splits = {
        one: tokenize(rows.split(one), tuned.tokenizer, tuned.max_length, progress) for one in rows.splits
    }
    return Subject(
        pair.name, None, before, tuned, "own", splits, sampling_seed=pair.seed, progress=progress,
        notes=["Both are language models and are read with their own heads; effects are in nats per predicted token."],
        texts=rows.frame.select("row_id", "text"),
    )  # fmt: skip


def loss_per_token(subject: Subject) -> tuple[list[dict[str, Any]], str]:
    """Return records of both models' loss per token and of its change, and a sentence that says them.

    The loss is the mean over a row's predicted tokens, then over rows, on at most 2,000 of the rows looked at;
    intervals are bootstraps over rows, equal texts together, and paired for the change.
    """
    tokens = subject.draw(LensRows(n=MEASURED_ROWS), labelled=False)
    models: dict[str, LanguageModel] = {}
    for which, model in (("base", subject.base), ("tuned", subject.tuned)):
        assert isinstance(model, LanguageModel)
        models[which] = model
    asked = questions(models["tuned"], tokens, subject.sampling_seed)
    groups = clusters(asked.rows)
    losses = {}
    with subject.progress.task(f"{subject.arm}: loss per token", 2 * len(asked), "rows") as task:
        for which, model in models.items():
            losses[which] = -log_likelihoods(model, asked, task)
    ends = {
        which: bootstrap_means(values[:, None], groups, seed=subject.sampling_seed)[0]
        for which, values in {**losses, "difference": losses["tuned"] - losses["base"]}.items()
    }
    about = {"split": "validation", "class": None, "n_tokens": int(asked.asked.sum())}
    names = {
        "tuned": "loss_per_token",
        "base": "loss_per_token_of_base",
        "difference": "loss_per_token_change",
    }
    records = [{**about, "metric": name, **ends[which].record()} for which, name in names.items()]
    said = (
        f"{subject.arm}: loss per token {_said(ends['tuned'])} nats (perplexity {_perplexity(ends['tuned'])}); "
        f"the base {_said(ends['base'])} (perplexity {_perplexity(ends['base'])}); difference "
        f"{_said(ends['difference'])}, on the same {len(asked):,} rows."
    )
    return records, said


def _said(end: Interval) -> str:
    return "not known" if end.value is None else f"{end.value:.3f} [{end.low:.3f}, {end.high:.3f}]"


def _perplexity(end: Interval) -> str:
    return "not known" if end.value is None else f"{float(np.exp(end.value)):.1f}"
