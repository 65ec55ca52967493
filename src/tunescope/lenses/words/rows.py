"""The rows that the lens ``words`` takes apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.evaluation.words import word_spans
from tunescope.lenses.subject import LensRows, Subject, clusters
from tunescope.lenses.words.effects import Worded, worded
from tunescope.seeds import derive_seed


class WordOptions(BaseModel):
    """Options of the lens ``words``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: LensRows = Field(default_factory=lambda: LensRows(n=200), description="which rows to look at")
    at_least: int = Field(5, ge=2, description="rows that a word must stand in to be listed: 2 or more")
    most_words: int = Field(
        80,
        ge=2,
        description="words left out of one row at most, a random sample of a longer row's: 2 or more",
    )
    gradient_rows: int = Field(
        64, ge=0, description="rows that integrated gradients are computed for at most; 0 leaves them out"
    )
    most_steps: int = Field(
        256, ge=16, description="points at which a row's gradient is taken at most: 16 or more"
    )
    examples: int = Field(4, ge=0, description="rows that are shown word by word, drawn at random")


@dataclass(frozen=True)
class Drawn:
    """The rows that are looked at.

    Attributes:
        tokens: Their tokens, N rows.
        words: Their words.
        groups: `[N]`; equal texts share one.
    """

    tokens: Tokens
    words: list[Worded]
    groups: np.ndarray


def draw(subject: Subject, options: WordOptions) -> Drawn:
    """Draw labelled rows whose whole text the model reads, with two words or more.

    Raises:
        LensError: The texts are not known, no row has a label, or every row is cut or has one word.
    """
    tokens = subject.draw(options.rows)
    if subject.texts is None:
        raise LensError("The lens words rewrites texts, and the texts of these rows are not known.")
    texts = dict(
        subject.texts.filter(pl.col("row_id").is_in(tokens.row_ids)).select("row_id", "text").iter_rows()
    )
    missing = [row_id for row_id in tokens.row_ids if row_id not in texts]
    if missing:
        raise LensError(f"{len(missing)} of {len(tokens)} rows have no text, the first is row {missing[0]}.")
    counts = np.array([len(word_spans(texts[row_id])) for row_id in tokens.row_ids])
    kept = ~tokens.truncated & (counts >= 2)
    if not kept.any():
        raise LensError(
            f"No row can be taken apart: of {len(tokens)} rows {int(tokens.truncated.sum())} are longer than the model "
            f"reads and {int((counts < 2).sum())} have fewer than two words.",
            hint="Raise data.max_length, or look at other rows.",
        )
    _say_rows(subject, options, len(tokens), tokens.truncated, counts)
    tokens, counts = tokens.take(kept), counts[kept]
    found = []
    for index, row_id in enumerate(tokens.row_ids):
        generator = np.random.default_rng(derive_seed(subject.sampling_seed, "words", row_id))
        places = np.sort(generator.permutation(counts[index])[: options.most_words])
        ids = np.asarray(tokens.input_ids[index])
        found.append(worded(subject.tuned, row_id, texts[row_id], ids, places))
    return Drawn(tokens, found, clusters(tokens))


def _say_rows(subject: Subject, options: WordOptions, rows: int, cut: np.ndarray, counts: np.ndarray) -> None:
    said = []
    if cut.any():
        said.append(f"{int(cut.sum())} of {rows} rows are longer than the model reads and were left out")
    if (counts < 2).any():
        said.append(f"{int((counts < 2).sum())} of {rows} rows have fewer than two words and were left out")
    long = int((counts[~cut] > options.most_words).sum())
    if long:
        said.append(f"of {long} rows only {options.most_words} words, drawn at random, were left out in turn")
    if subject.tuned.tokenizer.mask_token_id is None:
        said.append(
            "the tokenizer has no mask token, so no word is masked and the neutral text of integrated gradients is the "
            "mean of the token embeddings"
        )
    if options.gradient_rows < rows:
        said.append(f"integrated gradients are of {min(options.gradient_rows, rows)} rows")
    for note in said:
        note = f"words: {note}."
        if note not in subject.notes:
            subject.notes.append(note)
