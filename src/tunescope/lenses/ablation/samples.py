"""Which rows an ablation looks at: drawn by class, the most confident, by bins of confidence, or listed in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.evaluation.predict import logits_of
from tunescope.lenses.subject import LensRows, Subject, clusters


class Sample(BaseModel):
    """How rows are chosen from a split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["stratified", "most_confident", "confidence_bins", "ids"] = Field(
        default="stratified",
        description="stratified (drawn evenly by class), most_confident (per predicted class), confidence_bins "
        "(evenly over bins of confidence) or ids (listed in a file)",
    )
    per_class: int = Field(
        default=100, ge=1, description="most_confident: rows per predicted class, 1 or more"
    )
    bins: int = Field(
        default=4, ge=2, le=20, description="confidence_bins: number of bins with equally many rows, 2 to 20"
    )
    ids: Path | None = Field(default=None, description="ids: a text file with one row id a line")

    @model_validator(mode="after")
    def _has_file(self) -> Sample:
        if (self.kind == "ids") != (self.ids is not None):
            raise ValueError(
                "the sample 'ids' needs the key ids (a text file with one row id a line), no other does"
            )
        return self


def sample_rows(
    subject: Subject, rows: LensRows, sample: Sample, *, labelled: bool = True
) -> tuple[Tokens, str | None]:
    """Return labelled rows of a split, and what must be said about how they were chosen.

    Confidence is the tuned model's probability of the class that it predicts. With ``labelled`` false rows without a
    label are taken too, where no class is needed to choose them (``stratified``, ``ids``).

    Raises:
        LensError: There are no labelled rows, or a listed id is not in the split.
    """
    if sample.kind == "stratified":
        return subject.draw(rows, labelled=labelled), None
    tokens = subject.tokens(rows.split)
    known = np.flatnonzero(tokens.labels >= 0)
    if len(known) == 0 and labelled:
        raise LensError(f"No {rows.split} row has a label, so no effect on the true class can be measured.")
    if sample.kind == "ids":
        return _listed(tokens, rows.split, sample, labelled)
    tokens = tokens.take(known)
    logits = logits_of(subject.tuned, tokens)
    chances = np.exp(logits - logits.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    predicted, confidence = chances.argmax(1), chances.max(1)
    if sample.kind == "most_confident":
        return _most_confident(tokens, predicted, confidence, sample)
    return _binned(subject, tokens, confidence, rows, sample)


def _listed(tokens: Tokens, split: str, sample: Sample, labelled: bool) -> tuple[Tokens, str | None]:
    assert sample.ids is not None
    if not sample.ids.is_file():
        raise LensError(f"There is no file {sample.ids} with row ids.")
    wanted = [line.strip() for line in sample.ids.read_text(encoding="utf-8").splitlines() if line.strip()]
    place = {row_id: index for index, row_id in enumerate(tokens.row_ids)}
    missing = [row_id for row_id in wanted if row_id not in place]
    if missing or not wanted:
        raise LensError(
            f"{sample.ids}: {len(missing)} of {len(wanted)} ids are not in the {split} split"
            + (f", the first is {missing[0]!r}." if missing else "; the file is empty."),
        )
    index = np.array([place[row_id] for row_id in dict.fromkeys(wanted)])
    if labelled and (tokens.labels[index] < 0).any():
        raise LensError(
            f"{sample.ids}: a listed row has no label, so no effect on its true class can be measured."
        )
    return tokens.take(index), f"ablation: the {len(index)} rows are those listed in {sample.ids.name}."


def _most_confident(
    tokens: Tokens, predicted: np.ndarray, confidence: np.ndarray, sample: Sample
) -> tuple[Tokens, str]:
    order = np.argsort(-confidence, kind="stable")
    _, first = np.unique(clusters(tokens)[order], return_index=True)  # each text once
    order = order[np.sort(first)]
    picked = np.concatenate([order[predicted[order] == c][: sample.per_class] for c in np.unique(predicted)])
    note = (
        f"ablation: a selection, not a random sample: of every predicted class the {sample.per_class} rows of "
        f"highest confidence at most ({len(picked)} rows, confidence {confidence[picked].min():.6f} or more, each "
        "text once). Effects on other rows may differ."
    )
    return tokens.take(picked), note


def _binned(
    subject: Subject, tokens: Tokens, confidence: np.ndarray, rows: LensRows, sample: Sample
) -> tuple[Tokens, str]:
    order = np.argsort(confidence, kind="stable")
    generator = np.random.default_rng(subject.sampling_seed)
    parts = np.array_split(order, sample.bins)
    each = max(1, rows.n // sample.bins)
    drawn = [np.sort(generator.permutation(len(part))[:each]) for part in parts]
    picked = [part[chosen] for part, chosen in zip(parts, drawn, strict=True)]
    ends = ", ".join(
        f"{confidence[p].min():.3f} to {confidence[p].max():.3f} ({len(p)})" for p in picked if len(p)
    )
    return tokens.take(
        np.concatenate(picked)
    ), f"ablation: rows drawn evenly from bins of confidence: {ends}."
