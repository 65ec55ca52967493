"""What an entry of the activation store is, how its rows are told apart, and how it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from tunescope.data.tokens import Tokens
from tunescope.fingerprints import sha256_of_json
from tunescope.models.classifier import Classifier

Number = Literal["float32", "float16"]
Kind = Literal["states", "pooled"]
ABOUT, STATES, OFFSETS, ROWS = "about.json", "states.bin", "offsets.npy", "rows.npy"


@dataclass(frozen=True)
class StoreEntry:
    """One entry of a store, as its ``about.json`` says.

    Attributes:
        folder: Where it is.
        kind: ``states`` before a block, one vector a token; or ``pooled`` final states, one vector a row.
        depth: The block that the states enter; the number of blocks for ``pooled``.
        rows: Rows held.
        tokens: Vectors held.
        bytes: Size of the vectors on disk.
        key: The SHA-256 of everything that the vectors depend on, rows apart.
    """

    folder: Path
    kind: Kind
    depth: int
    rows: int
    tokens: int
    bytes: int
    key: str


@dataclass(frozen=True)
class StoredStates:
    """The stored vectors of some rows, in the order of those rows.

    Attributes:
        depth: The block that the states enter.
        values: All vectors of the entry, [T, D], mapped from disk.
        offsets: Where each of its rows starts, and the end of the last, int64 [rows + 1].
        places: Place in the entry of each row that was asked for, int64 [N].
    """

    depth: int
    values: np.ndarray
    offsets: np.ndarray
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    def take(self, index: np.ndarray) -> StoredStates:
        """Return the rows at ``index``, positions among those asked for, in that order."""
        return StoredStates(self.depth, self.values, self.offsets, self.places[np.asarray(index)])

    def row(self, position: int) -> np.ndarray:
        """Return the vectors of one row, [tokens, D]: a view of the file."""
        place = int(self.places[position])
        return self.values[self.offsets[place] : self.offsets[place + 1]]

    def read(self, positions: Sequence[int] | np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return float32 vectors [1, T, D] of rows one after another, and their lengths, int64 [B]."""
        rows = [self.row(int(one)) for one in positions]
        values = np.concatenate(rows).astype(np.float32, copy=False)
        return torch.from_numpy(values)[None], torch.tensor([len(row) for row in rows])


def tokenizer_digest(classifier: Classifier) -> str:
    """Return the SHA-256 of a tokenizer's vocabulary and special tokens."""
    tokenizer = classifier.tokenizer
    vocabulary = sorted(tokenizer.get_vocab().items())
    return sha256_of_json([vocabulary, sorted((k, str(v)) for k, v in tokenizer.special_tokens_map.items())])


def open_entry(entry: StoreEntry, width: int, number: Number, wanted: np.ndarray) -> StoredStates | None:
    """Map an entry and find the wanted rows in it; None where one is not there or a file cannot be read."""
    try:
        known = np.load(entry.folder / ROWS)
        offsets = np.load(entry.folder / OFFSETS)
    except (OSError, ValueError):
        return None
    place_of = {digest: place for place, digest in enumerate(known.tolist())}
    places = [place_of.get(digest, -1) for digest in wanted.tolist()]
    if min(places, default=0) < 0:
        return None
    shape = (entry.tokens, width)
    values = np.memmap(entry.folder / STATES, dtype=number, mode="r", shape=shape)
    return StoredStates(entry.depth, values, offsets, np.asarray(places, dtype=np.int64))


def row_digests(tokens: Tokens) -> np.ndarray:
    """Return a digest of every row's id, tokens and segment ids, bytes [N]."""
    types = tokens.token_type_ids
    digests = []
    for i, row_id in enumerate(tokens.row_ids):
        state = hashlib.blake2b(row_id.encode() + b"\0", digest_size=16)
        windows = [tokens.input_ids[i]] if tokens.windows is None else tokens.windows[i]
        for ids in windows:
            state.update(np.asarray(ids, dtype=np.int32).tobytes() + b"\0")
        if types is not None:
            state.update(np.asarray(types[i], dtype=np.int32).tobytes())
        digests.append(state.hexdigest())
    return np.asarray(digests, dtype="S32")
