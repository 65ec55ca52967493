"""Checkpoints that are whole, belong to this training, and can be opened by transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from tunescope.errors import RunError
from tunescope.files import read_json, sha256_of, write_json
from tunescope.fingerprints import changed_keys
from tunescope.folders import remove, whole_folder
from tunescope.models import Classifier, load
from tunescope.models.language import LanguageModel
from tunescope.models.summariser import open_language_model
from tunescope.progress import SILENT, Progress

SEAL, STATE, BEST = "complete.json", "training_state.safetensors", "best"
NOTES = {"identity", "fingerprint", "files", "seconds", "meter", "parts", "stopping", "best"}


def seal(checkpoint: Path, fingerprint: str, notes: Mapping[str, Any]) -> None:
    """Write the checksums of a checkpoint's files: the last file, so a checkpoint without it is not whole."""
    files = {
        path.relative_to(checkpoint).as_posix(): {"sha256": sha256_of(path), "size": path.stat().st_size}
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name != SEAL
    }
    write_json(checkpoint / SEAL, {"fingerprint": fingerprint, "files": files, **notes})


def step_of(checkpoint: Path) -> int:
    """Return the optimiser step of a ``checkpoint-N`` folder."""
    return int(checkpoint.name.rpartition("-")[2])


def all_checkpoints(folder: Path) -> list[Path]:
    """Return the ``checkpoint-N`` folders of ``folder``, newest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=step_of, reverse=True)


def latest(
    folder: Path, fingerprint: str, identity: Mapping[str, Any], progress: Progress = SILENT
) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest usable checkpoint with its seal, removing and naming what cannot be used.

    Args:
        folder: Folder of the checkpoints.
        fingerprint: What the training is; checkpoints of another are not continued.
        identity: The same in words: settings, rows and model. What differs from a checkpoint's is said.
        progress: Told of what was removed.
    """
    for checkpoint in all_checkpoints(folder):
        reason, notes = _problem(checkpoint, fingerprint, identity)
        if reason is None:
            return checkpoint, notes
        progress.say(f"  {checkpoint.name}: {reason}; not continued from it")
        remove(checkpoint)
    return None


def _problem(
    checkpoint: Path, fingerprint: str, identity: Mapping[str, Any]
) -> tuple[str | None, dict[str, Any]]:
    if not (checkpoint / SEAL).is_file():
        return "it was not written to its end", {}
    try:
        notes = read_json(checkpoint / SEAL)
    except RunError:
        return f"{SEAL} is damaged", {}
    if not notes.keys() >= NOTES:
        return "it is of another version of tunescope", {}
    changes = changed_keys(notes["identity"], identity)
    if changes or notes["fingerprint"] != fingerprint:
        said = f" ({'; '.join(changes)})" if changes else ""
        return f"it belongs to other settings{said}", {}
    for name, expected in notes["files"].items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing", {}
        if path.stat().st_size != expected["size"] or sha256_of(path) != expected["sha256"]:
            return f"{name} is damaged", {}
    best = notes["best"]
    if best is not None and not (checkpoint.parent / best_name(best)).is_dir():
        return f"{best_name(best)}, the best step before it, is missing", {}
    return None, notes


def rotate(folder: Path, keep: int | None) -> None:
    """Remove all but the newest ``keep`` checkpoints; the best step is kept apart from them."""
    for checkpoint in [] if keep is None else all_checkpoints(folder)[max(keep, 1) :]:
        remove(checkpoint)


# ---- weights ----


def save_state(classifier: Classifier, folder: Path, record: dict[str, Any]) -> None:
    """Write a classifier as a model folder, and beside it the bits of an adapter that lives in place."""
    classifier.save(folder, record)
    if classifier.adapter_config is not None:  # merged weights do not give the adapter back exactly
        state = {name: value.contiguous() for name, value in classifier.training_state().items()}
        save_file(state, folder / STATE)


def restore(classifier: Classifier, folder: Path) -> None:
    """Fill a classifier with the weights of a checkpoint folder of the same architecture, exactly."""
    if (folder / STATE).is_file():
        classifier.load_training_state(load_file(folder / STATE))
        return
    saved = open_language_model(str(folder)) if isinstance(classifier, LanguageModel) else load(str(folder))
    classifier.model.load_state_dict(saved.model.state_dict(), strict=True)


def best_name(step: int) -> str:
    """Return the name of the folder that keeps the best step."""
    return f"{BEST}-{step}"


def save_best(classifier: Classifier, folder: Path, step: int, record: dict[str, Any]) -> None:
    """Keep the weights of a step that is the best so far, apart from the periodic checkpoints."""
    with whole_folder(folder / best_name(step)) as best:
        save_state(classifier, best, record)


def keep_only_best(folder: Path, step: int | None) -> None:
    """Remove the best steps of before; called once a checkpoint remembers the new one."""
    for other in folder.glob(f"{BEST}-*"):
        if step is None or other.name != best_name(step):
            remove(other)


def restore_best(classifier: Classifier, folder: Path, step: int) -> None:
    """Fill a classifier with the weights of the best step.

    Raises:
        RunError: They are not there any more.
    """
    best = folder / best_name(step)
    if not best.is_dir():
        raise RunError(f"{best} is missing: the best step's weights are gone.", hint="Train again.")
    restore(classifier, best)
