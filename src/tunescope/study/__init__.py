"""A study from end to end: stages over a run folder, each done once and done again only when it must be."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from tunescope import lenses as _lenses
from tunescope import tuning as _tuning
from tunescope.config import StudyConfig
from tunescope.progress import SILENT, Progress

METHODS: dict[str, type[BaseModel]] = {name: method.options for name, method in _tuning.METHODS.items()}
LENSES: dict[str, type[BaseModel]] = {name: lens.options for name, lens in _lenses.LENSES.items()}

REFUSED_METHODS: dict[str, str] = {
    **_tuning.UNSUITABLE,
    "scratch": "a model from nothing is written as 'model: scratch' with 'scratch:' and, say, method: full",
}
"""Methods that a study may not name, each with the reason."""


def run(
    study: StudyConfig,
    folder: Path,
    *,
    device: str = "auto",
    progress: Progress = SILENT,
    source: Path | None = None,
    keep_checkpoints: bool = False,
    workers: int | None = None,
    keep_store: bool = False,
    restart: bool = False,
) -> Path:
    """Run a study in a folder, or continue it; what is done and unchanged is left alone.

    Args:
        study: The validated study.
        folder: The run folder.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        progress: Where to report.
        source: The study file, copied into the run as it was given.
        keep_checkpoints: Leave the checkpoints of finished trainings in place.
        workers: Processes that train at the same time; None is one for each visible CUDA device, else 1.
        keep_store: Leave the activation store (``store/``) in place, for runs to come in this folder.
        restart: Train from the beginning what is half finished in this folder and belongs to another study or other
            data; without it such a folder is refused.

    Returns:
        The run folder.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came; the same call continues.
        RunError: The folder is in use, is not a run folder, holds a half-finished training of another study, or
            cannot be written.
        TunescopeError: Data, model, training field or lens cannot be used.
    """
    from tunescope.study.execute import RunOptions, run_stages

    options = RunOptions(device, source, keep_checkpoints, workers, keep_store, restart)
    return run_stages(study, folder, options, progress)


def validate(study: StudyConfig, progress: Progress = SILENT) -> str:
    """Check data and models of a study, say what a run will need and how precise it can be; train nothing.

    Raises:
        TunescopeError: Data or a model cannot be used.
    """
    from tunescope.study.estimate import estimate

    return estimate(study, progress)


__all__ = ["LENSES", "METHODS", "REFUSED_METHODS", "run", "validate"]
