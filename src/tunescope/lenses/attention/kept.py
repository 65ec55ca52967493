"""Whole attention maps of a few short texts, for the heads that changed most; the tokens name the axes."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from tunescope.data.tokens import Tokens
from tunescope.lenses.reading import View
from tunescope.lenses.subject import Subject


class KeptMaps:
    """Keeps the patterns of some rows, and gives those of chosen heads as one long table.

    Args:
        tokens: The rows looked at.
        texts: How many to keep: the first in the order of the draw that are short enough.
        longest: The most tokens of a text that is kept.
    """

    def __init__(self, tokens: Tokens, texts: int, longest: int) -> None:
        self.tokens = tokens
        short = [row for row, ids in enumerate(tokens.input_ids) if 3 <= len(ids) <= longest]
        self.rows = short[:texts]
        self._maps: dict[tuple[int, str, int], np.ndarray] = {}

    def update(self, view: View, pattern: Any) -> None:
        """Keep the patterns [B, H, T, T] of the chosen rows among a batch's."""
        for place, rank in enumerate(view.ranks):
            if int(rank) in self.rows:
                size = len(self.tokens.input_ids[int(rank)])
                own = pattern[place, :, :size, :size].float().cpu().numpy()
                self._maps[int(rank), view.which, int(view.site.layer or 0)] = own.astype(np.float32)

    def table(self, subject: Subject, heads: list[tuple[int, int]]) -> pl.DataFrame | None:
        """Return one row a query and key of every kept text, model and chosen (layer, head); None without texts."""
        parts = []
        for row in self.rows:
            names = token_names(subject, self.tokens.input_ids[row])
            size = len(names)
            for layer, head in heads:
                for which in ("base", "tuned"):
                    parts.append(pl.DataFrame({
                        "query": np.repeat(np.arange(size), size), "key": np.tile(np.arange(size), size),
                        "query_token": np.repeat(names, size), "key_token": np.tile(names, size),
                        "value": self._maps[row, which, layer][head].ravel().astype(np.float64),
                    }).with_columns(
                        arm=pl.lit(subject.arm), seed=pl.lit(subject.seed, dtype=pl.Int64),
                        row_id=pl.lit(self.tokens.row_ids[row]), model=pl.lit(which),
                        layer=pl.lit(layer, dtype=pl.Int64), head=pl.lit(head, dtype=pl.Int64),
                    ))  # fmt: skip
        return pl.concat(parts) if parts else None


def token_names(subject: Subject, ids: np.ndarray) -> list[str]:
    """Return how tokens are written on an axis: what each stands for, a leading space left away, a lone one drawn."""
    tokenizer = subject.tuned.tokenizer
    names = []
    for one in ids:
        text = str(tokenizer.decode([int(one)], clean_up_tokenization_spaces=False))
        stripped = text.strip() or repr(text)[1:-1].replace(" ", "␣")
        names.append(stripped if stripped.strip("\ufffd") else str(tokenizer.convert_ids_to_tokens(int(one))))
    return names
