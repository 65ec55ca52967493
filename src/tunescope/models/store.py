"""The activation store: what frozen blocks make of every row, computed once and kept on disk.

An entry holds the states before one block for a set of rows: one file of all real tokens [T, D] without padding,
which is mapped into memory and not read into it. Its key covers the weights before that block, the tokenizer, the
rows and their tokens, the number format and the block, so that a stale entry is never used; it is simply not found.

An entry at block *j* also serves training that freezes more than *j* blocks: that runs from *j* on.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock

from tunescope.data.packed import packed_batches
from tunescope.data.tokens import Tokens
from tunescope.errors import ModelError, RunError
from tunescope.files import read_json, write_json
from tunescope.fingerprints import sha256_of_json
from tunescope.folders import remove, whole_folder
from tunescope.models.activations import fast_activations
from tunescope.models.classifier import Classifier
from tunescope.models.packed import packing_problem
from tunescope.models.prefix import prefix_digests, states_before
from tunescope.models.stored import (
    ABOUT,
    OFFSETS,
    ROWS,
    STATES,
    Kind,
    Number,
    StoredStates,
    StoreEntry,
    open_entry,
    row_digests,
    tokenizer_digest,
)  # fmt: skip
from tunescope.progress import SILENT, Progress

Filling = Literal["required", "optional", "none"]
SPARE = 64 * 2**20  # bytes of the disk that the store leaves to everything else


class ActivationStore:
    """Entries in one folder; each is whole or not there.

    Args:
        folder: Where entries are kept; a run keeps its own in ``store/`` and removes it at its end.
        most_bytes: The store never holds more than this; None leaves it to the free space of the disk.
        number: How a value is stored. ``float32`` is exact; ``float16`` halves the disk and moves the loss by
            about 4e-4.
        progress: Where filling reports.
        filling: What happens to what does not fit: ``required`` (an error) or ``optional`` (it is said, and not
            kept). ``none`` keeps nothing new.
    """

    def __init__(
        self,
        folder: Path,
        most_bytes: int | None = None,
        number: Number = "float32",
        progress: Progress = SILENT,
        filling: Filling = "required",
    ) -> None:
        self.folder = Path(folder)
        self.most_bytes = most_bytes
        self.number: Number = number
        self.progress = progress
        self.filling: Filling = filling

    # ---- what is there ----

    def entries(self) -> list[StoreEntry]:
        """Return the whole entries, by folder name; damaged ones are left out."""
        found = []
        for path in sorted(self.folder.glob(f"*/{ABOUT}")):
            try:
                about = read_json(path)
                entry = StoreEntry(path.parent, **{
                    name: about[name] for name in ("kind", "depth", "rows", "tokens", "bytes", "key")
                })  # fmt: skip
                size = (path.parent / STATES).stat().st_size
            except (RunError, KeyError, OSError):
                continue
            if size == entry.bytes:
                found.append(entry)
        return found

    def evict(self, folders: Iterable[Path] | None = None) -> int:
        """Remove entries (None: everything, half-written ones included) and return the bytes set free."""
        chosen = None if folders is None else {Path(one) for one in folders}
        freed = 0
        for entry in self.entries():
            if chosen is None or entry.folder in chosen:
                freed += entry.bytes
                remove(entry.folder)
        if chosen is None:
            remove(self.folder)
            remove(self._lock)
        return freed

    def needed_bytes(self, classifier: Classifier, tokens: Tokens, kind: Kind = "states") -> int:
        """Return the size of an entry for these rows."""
        vectors = len(tokens) if kind == "pooled" else int(tokens.kept.sum())
        return vectors * classifier.width * np.dtype(self.number).itemsize

    def check_room(self, needed: int) -> None:
        """Compare what an entry needs with what the disk and the budget leave.

        Raises:
            RunError: It does not fit; both numbers and the field to change are named.
        """
        free = shutil.disk_usage(_existing(self.folder)).free
        held = sum(entry.bytes for entry in self.entries())
        if self.most_bytes is not None and held + needed > self.most_bytes:
            raise RunError(
                f"The activation store needs {needed:,} more bytes; it holds {held:,}, and its budget is "
                f"{self.most_bytes:,}.",
                hint="Set training.activation_store_bytes higher, or training.activation_store to never.",
            )
        if needed + SPARE > free:
            raise RunError(
                f"The activation store needs {needed:,} bytes in {self.folder}, and {free:,} are free there.",
                hint="Free some space, choose another disk with --output-dir, lower data.max_length, or set "
                "training.activation_store to never.",
            )

    def has_room(self, classifier: Classifier, tokens: Tokens, kind: Kind = "states") -> bool:
        """Whether an entry for these rows would be kept; where that is optional, why not is said.

        Raises:
            RunError: It is required and does not fit the disk or the budget.
        """
        if self.filling == "none":
            return False
        try:
            self.check_room(self.needed_bytes(classifier, tokens, kind))
        except RunError as error:
            if self.filling == "required":
                raise
            self.progress.say(f"  not kept in the activation store: {error.message}")
            return False
        return True

    # ---- states before a block ----

    def find(
        self, classifier: Classifier, tokens: Tokens, depth: int, compute: str = "float32"
    ) -> StoredStates | None:
        """Return the deepest stored states of these rows that enter block ``depth`` or an earlier one, or None.

        Args:
            classifier: The model whose states are wanted; only what lies before the block counts.
            tokens: The rows; an entry may hold more of them.
            depth: The block from which the rest is to be run.
            compute: The precision that the states were computed in.
        """
        usable = [one for one in self.entries() if one.kind == "states" and one.depth <= depth]
        if not usable:
            return None
        with fast_activations(classifier):  # as they are filled, and as a training computes
            digests = prefix_digests(classifier)
        wanted: np.ndarray | None = None
        for entry in sorted(usable, key=lambda one: -one.depth):
            if entry.key != self._key(classifier, digests[entry.depth], "states", entry.depth, compute):
                continue
            wanted = row_digests(tokens) if wanted is None else wanted
            states = open_entry(entry, classifier.width, self.number, wanted)
            if states is not None:
                return states
        return None

    def obtain(
        self, classifier: Classifier, tokens: Tokens, depth: int, compute: str = "float32"
    ) -> StoredStates:
        """Return stored states as :meth:`find` does, computing and storing those that enter ``depth`` if none serve.

        Raises:
            ModelError: The model cannot run without padding, the rows have sliding windows, or a parameter before
                the block is trained.
            RunError: The entry does not fit the disk or the budget.
        """
        problem = self.problem(classifier, tokens, depth)
        if problem is not None:
            raise ModelError(f"The activation store cannot serve this training: {problem}.")
        with self._alone():
            found = self.find(classifier, tokens, depth, compute)
            return self._filled(classifier, tokens, depth, compute) if found is None else found

    def _filled(self, classifier: Classifier, tokens: Tokens, depth: int, compute: str) -> StoredStates:
        self.check_room(self.needed_bytes(classifier, tokens))
        was_training = classifier.training
        classifier.eval()
        try:
            with _precision(classifier, compute), fast_activations(classifier):
                key = self._key(classifier, prefix_digests(classifier)[depth], "states", depth, compute)
                entry = self._fill(classifier, tokens, depth, key)
        finally:
            classifier.train(was_training)
        states = open_entry(entry, classifier.width, self.number, row_digests(tokens))
        assert states is not None
        return states

    def problem(self, classifier: Classifier, tokens: Tokens, depth: int) -> str | None:
        """Say why these rows cannot be trained from stored states that enter block ``depth``, or None."""
        reason = packing_problem(classifier.model, classifier.family)
        if reason is not None:
            return reason
        if not 0 < depth < classifier.n_layers:
            return f"{depth} of {classifier.n_layers} blocks are frozen, and it needs at least one block on each side"
        if tokens.windows is not None:
            return "rows have sliding windows"
        return None

    def _fill(self, classifier: Classifier, tokens: Tokens, depth: int, key: str) -> StoreEntry:
        lengths = tokens.kept
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        shape = (int(offsets[-1]), classifier.width)
        with whole_folder(self._place(key, tokens)) as folder:
            values = np.memmap(folder / STATES, dtype=self.number, mode="w+", shape=shape)
            with self.progress.task("storing what frozen blocks give", len(tokens), "rows") as task:
                for batch in packed_batches(tokens):
                    inputs = batch.to(classifier.device).inputs()
                    states = states_before(classifier, depth, **inputs)[0].float().cpu().numpy()
                    start = 0
                    for position in batch.index:
                        stop = start + lengths[position]
                        values[offsets[position] : offsets[position + 1]] = states[start:stop]
                        start = stop
                    task.advance(len(batch))
            values.flush()
            del values
            self._finish(folder, offsets, tokens, {"kind": "states", "depth": depth, "tokens": shape[0],
                                                   "bytes": self.needed_bytes(classifier, tokens),
                                                   "key": key})  # fmt: skip
        return self._entry(key, tokens)

    def serve(self, classifier: Classifier, tokens: Tokens) -> StoredStates | None:
        """Return what is stored of these rows and leaves the least to compute: pooled vectors, states, or None.

        What it gives is what running the whole model gives, on a CPU bit for bit.
        """
        if not self.can_serve(classifier, tokens):
            return None
        return self._find_pooled(classifier, tokens) or self.find(classifier, tokens, classifier.n_layers - 1)

    def can_serve(self, classifier: Classifier, tokens: Tokens) -> bool:
        """Whether rows of this kind may be predicted from what is stored: exact, not padded, one window a row."""
        unpadded = packing_problem(classifier.model, classifier.family) is None
        return unpadded and tokens.windows is None and self.number == "float32"

    # ---- pooled vectors ----

    def pooled(self, classifier: Classifier, tokens: Tokens) -> np.ndarray | None:
        """Return the stored pooled vectors of these rows, [N, D] float32, or None where there are none."""
        states = self._find_pooled(classifier, tokens)
        return None if states is None else np.asarray(states.values[states.places], dtype=np.float32)

    def _find_pooled(self, classifier: Classifier, tokens: Tokens) -> StoredStates | None:
        usable = [entry for entry in self.entries() if entry.kind == "pooled"]
        key = self._pooled_key(classifier) if usable else None
        for entry in usable:
            if entry.key == key:
                states = open_entry(entry, classifier.width, self.number, row_digests(tokens))
                if states is not None:
                    return states
        return None

    def keep_pooled(self, classifier: Classifier, tokens: Tokens, vectors: np.ndarray) -> None:
        """Store pooled vectors [N, D] of these rows; :meth:`has_room` says first whether there is room."""
        key = self._pooled_key(classifier)
        with self._alone(), whole_folder(self._place(key, tokens)) as folder:
            values = np.ascontiguousarray(vectors, dtype=self.number)
            (folder / STATES).write_bytes(values.tobytes())
            about = {
                "kind": "pooled",
                "depth": classifier.n_layers,
                "tokens": len(tokens),
                "bytes": values.nbytes,
            }
            self._finish(folder, np.arange(len(tokens) + 1), tokens, {**about, "key": key})

    def _pooled_key(self, classifier: Classifier) -> str:
        norm = classifier.family.final_norm
        parts = {} if norm is None else classifier.trunk.get_submodule(norm).state_dict()
        values = {
            name: hashlib.sha256(one.cpu().numpy().tobytes()).hexdigest() for name, one in parts.items()
        }
        about = sha256_of_json([prefix_digests(classifier)[-1], values, classifier.pooling])
        return self._key(classifier, about, "pooled", classifier.n_layers, "float32")

    # ---- keys and places ----

    def _key(self, classifier: Classifier, model: str, kind: Kind, depth: int, compute: str) -> str:
        return sha256_of_json({
            "model": model, "tokenizer": tokenizer_digest(classifier), "kind": kind, "depth": depth,
            "number": self.number, "compute": compute, "width": classifier.width,
        })  # fmt: skip

    def _place(self, key: str, tokens: Tokens) -> Path:
        rows = hashlib.sha256(row_digests(tokens).tobytes()).hexdigest()
        return self.folder / f"{key[:16]}-{rows[:16]}"

    def _finish(self, folder: Path, offsets: np.ndarray, tokens: Tokens, about: dict[str, Any]) -> None:
        np.save(folder / OFFSETS, offsets)
        np.save(folder / ROWS, row_digests(tokens))
        write_json(folder / ABOUT, {**about, "rows": len(tokens), "number": self.number})

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one process fill at a time: trainings beside one another then share an entry, not write it twice."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._lock):
            yield

    @property
    def _lock(self) -> Path:
        return self.folder.with_name(f".{self.folder.name}.lock")

    def _entry(self, key: str, tokens: Tokens) -> StoreEntry:
        place = self._place(key, tokens)
        return next(entry for entry in self.entries() if entry.folder == place)


def _existing(path: Path) -> Path:
    return path if path.exists() or path == path.parent else _existing(path.parent)


def _precision(classifier: Classifier, compute: str) -> AbstractContextManager[Any]:
    if compute == "float32":
        return nullcontext()
    return torch.autocast(classifier.device.type, dtype=getattr(torch, compute))
