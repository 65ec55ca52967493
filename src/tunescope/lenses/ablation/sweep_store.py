"""Finished parts of a sweep on disk, so that an interrupted sweep goes on where it was."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tunescope import __version__
from tunescope.data.tokens import Tokens
from tunescope.files import atomic_path
from tunescope.fingerprints import sha256_of_json
from tunescope.folders import remove
from tunescope.lenses.ablation.components import Variant
from tunescope.lenses.ablation.options import AblationOptions
from tunescope.models.classifier import Classifier
from tunescope.models.stored import row_digests

Logits = tuple[torch.Tensor, torch.Tensor]


def sweep_key(
    model: Classifier, variants: Sequence[Variant], tokens: Sequence[Tokens], options: dict[str, object]
) -> str:
    """Return one text for all that a sweep's logits depend on: weights, changes, rows, and what edits are made from.

    Args:
        model: The classifier, head included.
        variants: The changes.
        tokens: The rows, and the reference rows.
        options: What else the logits depend on, JSON-able.
    """
    weights = hashlib.blake2b(digest_size=16)
    for name, value in sorted(model.state_dict().items()):
        weights.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        weights.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    changes = hashlib.blake2b("\n".join(map(repr, variants)).encode(), digest_size=16)
    rows = [
        hashlib.blake2b(b"".join(row_digests(one).tolist()), digest_size=16).hexdigest() for one in tokens
    ]
    return sha256_of_json(
        {
            "weights": weights.hexdigest(), "changes": changes.hexdigest(), "rows": rows, "options": options,
            "family": model.family.name, "pooling": model.pooling, "tunescope": __version__,
        }
    )[:32]  # fmt: skip


@dataclass(frozen=True)
class SweepStore:
    """The finished batches of one sweep; each is a whole file or not there.

    Attributes:
        folder: Where the sweeps of a run are kept.
        key: What :func:`sweep_key` gave for this one: another sweep never reads these files.
    """

    folder: Path
    key: str

    def get(self, index: np.ndarray) -> Logits | None:
        """Return clean logits [B, C] and those of every variant [V, B, C] of a batch, or None where it is not done."""
        path = self._path(index)
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as found:
                return torch.from_numpy(found["clean"]), torch.from_numpy(found["changed"])
        except (OSError, ValueError, KeyError, EOFError):  # cut short by a full disk or a crash: done again
            return None

    def put(self, index: np.ndarray, clean: torch.Tensor, changed: torch.Tensor) -> None:
        """Keep what a batch gave.

        Raises:
            RunError: The disk is full or the folder cannot be written.
        """
        with atomic_path(self._path(index)) as temporary, temporary.open("wb") as file:
            np.savez(file, clean=clean.numpy(), changed=changed.numpy())

    def _path(self, index: np.ndarray) -> Path:
        name = hashlib.blake2b(np.asarray(index, dtype=np.int64).tobytes(), digest_size=12).hexdigest()
        return self.folder / self.key / f"{name}.npz"


def sweep_store(
    folder: Path | None, model: Classifier, variants: Sequence[Variant], rows: Sequence[Tokens],
    options: AblationOptions, seed: int,
) -> SweepStore | None:  # fmt: skip
    """Return where a sweep keeps what it has done; None where nothing is to be kept."""
    if folder is None:
        return None
    # Of the options only these change a logit, or how rows are put together.
    about = options.model_dump(mode="json", include={"directions", "edits", "tokens_at_once"})
    return SweepStore(folder, sweep_key(model, variants, rows, {**about, "seed": seed}))


def forget(folder: Path) -> None:
    """Remove what sweeps have kept: they are done, and their effects are kept elsewhere."""
    if folder.exists():
        remove(folder)
