"""Which rows the flow to an answer is followed in, and what the answer is: the true class, or the next token."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from tunescope.capture.edges import Slopes
from tunescope.data.batches import collate
from tunescope.data.tokens import Tokens
from tunescope.lenses.language.direct import token_slopes
from tunescope.lenses.language.language import is_language
from tunescope.lenses.subject import Subject
from tunescope.models.classifier import Classifier
from tunescope.models.language import LanguageModel


def shortened(subject: Subject, tokens: Tokens, longest: int) -> Tokens:
    """Return the rows in which edges are followed: short ones, or the beginnings of a language model's texts.

    What is left out is said in the notes; where nothing is left, no edges are followed.
    """
    whole = len(tokens)
    if not is_language(subject):
        tokens = tokens.take(np.flatnonzero(tokens.kept <= longest))
        left = f"{whole - len(tokens)} of {whole} rows have more than {longest} tokens and no graph of edges"
        _say(subject, left + _raise_it(tokens) if len(tokens) < whole else "")
        return tokens
    if subject.tuned.family.language_kind != "causal":
        _say(
            subject,
            "this model predicts what a mask hides, which has no one place, so no graph of edges is made",
        )
        return tokens.take(np.zeros(0, dtype=np.int64))
    tokens = tokens.take(np.flatnonzero(tokens.kept >= 3))
    cut = sum(len(row) > longest for row in tokens.input_ids)
    parts = None if tokens.parts is None else [part[:longest] for part in tokens.parts]
    note = "in the graph of edges the answer is the last token of each text, over the mean of all others"
    _say(subject, note + (f"; {cut} texts were shortened to {longest} tokens" if cut else ""))
    return replace(tokens, input_ids=[row[:longest] for row in tokens.input_ids], parts=parts)


def _raise_it(tokens: Tokens) -> str:
    return "" if len(tokens) else "; raise the lens's option longest for one"


def _say(subject: Subject, note: str) -> None:
    if note and (said := f"flow: {note}.") not in subject.notes:
        subject.notes.append(said)


def answer_of(model: Classifier, tokens: Tokens, row: int) -> tuple[dict[str, torch.Tensor], Slopes | None]:
    """Return what one row's model is given, and how its answer depends on what the head reads.

    Of a language model the last token is the answer, and is not given; of a classifier None stands for the contrast of
    the row's own class.
    """
    batch = collate(tokens, [row]).to(model.device)
    inputs = batch.inputs()
    if not isinstance(model, LanguageModel):
        return inputs, None
    target = inputs["input_ids"][:, -1]

    def slopes(pooled: torch.Tensor) -> torch.Tensor:
        return token_slopes(model, pooled, target)[0]

    return {
        "input_ids": inputs["input_ids"][:, :-1],
        "attention_mask": inputs["attention_mask"][:, :-1],
    }, slopes
