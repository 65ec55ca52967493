"""Packing encoded texts into windows of equal length, each text closed and kept apart from its neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Windows:
    """Packed texts; all arrays are int64 of shape [windows, T].

    Attributes:
        ids: Token ids; what is left over at the end is filled with the end-of-text token.
        positions: Position of each token in its own text, from 0; it restarts with every text, and is 0 in
            the filling.
        targets: The token that follows within the same text, or -1 where none does.
    """

    ids: np.ndarray
    positions: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_targets(self) -> int:
        """Number of predicted tokens."""
        return int((self.targets >= 0).sum())

    @property
    def n_tokens(self) -> int:
        """Number of tokens without the filling: every text has one token more than it has targets."""
        return self.n_targets + int(((self.positions == 0) & (self.targets >= 0)).sum())


def pack(texts: list[list[int]], end: int, length: int, seed: int) -> Windows:
    """Put whole texts, each closed by ``end``, into windows of ``length`` tokens.

    Texts come in a seeded order, and a window is left when the next text does not fit. A text
    longer than a window is cut into pieces; only its last piece is closed. Pieces of a single token predict
    nothing and are dropped.

    Args:
        texts: Token ids of each text.
        end: The end-of-text token.
        length: Tokens in a window, at least 2.
        seed: Seeds the order of the texts.
    """
    order = np.random.default_rng([seed, 0x9AC]).permutation(len(texts))
    rows: list[list[list[int]]] = [[]]
    room = length
    for number in order:
        closed = [*texts[number], end]
        for start in range(0, len(closed), length):
            piece = closed[start : start + length]
            if len(piece) < 2:
                continue
            if len(piece) > room:
                rows.append([])
                room = length
            rows[-1].append(piece)
            room -= len(piece)
    if not rows[0]:
        raise ValueError("No text has two tokens; there is nothing to predict.")
    ids = np.full((len(rows), length), end, dtype=np.int64)
    positions = np.zeros_like(ids)
    targets = np.full_like(ids, -1)
    for row, pieces in enumerate(rows):
        column = 0
        for piece in pieces:
            here = slice(column, column + len(piece))
            ids[row, here] = piece
            positions[row, here] = np.arange(len(piece))
            targets[row, column : column + len(piece) - 1] = piece[1:]
            column += len(piece)
    return Windows(ids, positions, targets)
