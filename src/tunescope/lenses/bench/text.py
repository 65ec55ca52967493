"""A typed text as the models read it: its tokens, what was cut, and its words."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tunescope.config.window import WindowConfig
from tunescope.data.batches import collate
from tunescope.data.labels import LabelMap
from tunescope.data.rows import rows_of_texts
from tunescope.data.tokens import Tokens, tokenize
from tunescope.errors import DataError
from tunescope.evaluation.words import word_spans
from tunescope.models.classifier import Classifier

MOST_CHARACTERS = 50_000  # more than any window holds; tokenising longer texts would only take time


@dataclass(frozen=True)
class ReadText:
    """A text as a model reads it.

    Attributes:
        text: The text as it was typed.
        tokens: One row: what the window keeps; of sliding windows the first.
        pieces: What each kept token stands for, T strings.
        cut: How many tokens the window left out.
        words: Where each word stands in the text, as (start, end) in characters.
    """

    text: str
    tokens: Tokens
    pieces: list[str]
    cut: int
    words: list[tuple[int, int]]

    def inputs(self, device: torch.device) -> dict[str, torch.Tensor]:
        """Return a model's arguments: one row without padding."""
        import numpy as np

        return collate(self.tokens, np.array([0])).to(device).inputs()


def read_text(model: Classifier, text: str, window: WindowConfig | None = None) -> ReadText:
    """Tokenise one text as a study does.

    Args:
        model: Whose tokenizer and window count.
        text: What was typed.
        window: Which part of a long text is kept; None follows the tokenizer.

    Raises:
        DataError: The text is empty, has no token, or is longer than any window by far.
    """
    if not text.strip():
        raise DataError("The text is empty; the bench needs at least one word.")
    if len(text) > MOST_CHARACTERS:
        raise DataError(
            f"The text has {len(text):,} characters; the bench takes up to {MOST_CHARACTERS:,}.",
            hint="Give the part that matters; no model here reads more.",
        )
    rows = rows_of_texts([text], LabelMap(tuple(model.labels.names)))
    tokens = tokenize(rows, model.tokenizer, model.max_length, window=window).first_windows()
    cut = int(tokens.lengths[0] - len(tokens.input_ids[0]))
    return ReadText(text, tokens, _pieces(model, tokens), cut, word_spans(text))


def _pieces(model: Classifier, tokens: Tokens) -> list[str]:
    found = []
    for identifier in tokens.input_ids[0]:
        piece = str(model.tokenizer.decode([int(identifier)]))
        if "\ufffd" in piece:  # a part of a character: bytes alone have no letter of their own
            piece = str(model.tokenizer.convert_ids_to_tokens(int(identifier)))
        found.append(piece)
    return found
