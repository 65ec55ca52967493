"""Rows in a prompt: each text in a template, behind examples from the train rows, as a language model is asked.

What study 001 leaves to future work: whether the geometry that tuning makes is there when a language model is only
asked. Every row gets the same examples, so rows differ in their text alone.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
import polars as pl
from pydantic import Field, field_validator, model_validator

from tunescope.config.window import WindowConfig
from tunescope.data.rows import Rows
from tunescope.data.tokens import Tokens, tokenize
from tunescope.errors import LensError
from tunescope.lenses.subject import LensRows, Subject

PLACE = "{text}"
BETWEEN = "\n\n"


class PromptedRows(LensRows):
    """Which rows a lens looks at, as they stand or in a prompt."""

    template: str | None = Field(
        default=None,
        description="a prompt with {text} in it, such as 'Review: {text}\\nSentiment:', that every text is put into; "
        "or null for the texts as they stand",
    )
    examples: int = Field(
        default=0,
        ge=0,
        description="train rows with their labels that stand before each text, classes in turn: 0 or more; they need "
        "a template",
    )

    @model_validator(mode="before")
    @classmethod
    def _plain_rows_will_do(cls, value: Any) -> Any:
        return value.model_dump() if isinstance(value, LensRows) else value

    @field_validator("template")
    @classmethod
    def _has_one_place(cls, value: str | None) -> str | None:
        if value is not None and value.count(PLACE) != 1:
            raise ValueError(f"it must hold {PLACE} once; it holds it {value.count(PLACE)} times")
        return value

    def prepared(self, subject: Subject, tokens: Tokens) -> Tokens:
        """Return the same rows in their prompts; of what is too long the end is kept, where the text stands.

        Raises:
            LensError: Examples without a template, texts that are not known, or too few train rows with labels.
        """
        if self.template is None:
            if self.examples:
                raise LensError(
                    "rows.examples needs rows.template: it says where a text and its label stand."
                )
            return tokens
        texts = texts_of(subject, tokens.row_ids)
        before = "".join(one + BETWEEN for one in self._shown(subject))
        whole = [before + self.template.replace(PLACE, text) for text in texts]
        model = subject.tuned
        frame = pl.DataFrame({
            "row_id": tokens.row_ids, "text": whole,
            "label": pl.Series(tokens.labels, dtype=pl.Int64).replace(-1, None),
        })  # fmt: skip
        tail = WindowConfig.model_validate("tail")
        found = tokenize(Rows(frame, model.labels, {}), model.tokenizer, model.max_length, window=tail)
        cut = int(found.truncated.sum())
        if cut:
            note = f"{subject.arm}: {cut} of {len(found)} prompts are longer than {model.max_length} tokens and lose "
            note += "their beginning"
            if note not in subject.notes:
                subject.notes.append(note)
        return found

    def _shown(self, subject: Subject) -> list[str]:
        """Return the examples as they stand before a text: classes in turn, in an order that ids and a seed decide."""
        if not self.examples:
            return []
        assert self.template is not None
        train = subject.tokens("train")
        names = subject.tuned.labels.names
        order = sorted(range(len(train)), key=lambda row: _hash(subject.sampling_seed, train.row_ids[row]))
        of_class = [[row for row in order if train.labels[row] == index] for index in range(len(names))]
        turns = [row for turn in range(self.examples) for rows in of_class for row in rows[turn : turn + 1]]
        chosen = turns[: self.examples]
        if len(chosen) < self.examples:
            raise LensError(f"There are {len(chosen)} labelled train rows for {self.examples} examples.")
        texts = texts_of(subject, [train.row_ids[row] for row in chosen])
        labels = [names[int(index)] for index in train.labels[np.array(chosen)]]
        return [
            f"{self.template.replace(PLACE, text)} {label}" for text, label in zip(texts, labels, strict=True)
        ]


def texts_of(subject: Subject, row_ids: list[str]) -> list[str]:
    """Return the texts of rows in their order.

    Raises:
        LensError: A text is not known.
    """
    if subject.texts is None:
        raise LensError(f"{subject.arm}: the texts of the rows are not known, so they cannot be put anew.")
    found = pl.DataFrame({"row_id": row_ids}).join(
        subject.texts, on="row_id", how="left", maintain_order="left"
    )
    if found["text"].null_count():
        raise LensError(
            f"{subject.arm}: {found['text'].null_count()} of {len(row_ids)} rows have no known text."
        )
    return [str(text) for text in found["text"]]


def _hash(seed: int, row_id: str) -> bytes:
    return blake2b(f"examples:{seed}:{row_id}".encode(), digest_size=8).digest()
