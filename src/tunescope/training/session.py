"""The one call that trains a classifier, or continues where an earlier call was stopped."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import set_seed

from tunescope.data.tokens import Tokens
from tunescope.errors import DataError
from tunescope.folders import disk_errors, remove, whole_folder
from tunescope.models import Classifier, features
from tunescope.models.source import quiet_transformers
from tunescope.progress import SILENT, Progress
from tunescope.training.callbacks import LogFile, ShowProgress, StepStream, StopCleanly, events
from tunescope.training.checkpoints import latest
from tunescope.training.options import TrainLog, TrainOptions, prepare_arguments, streams
from tunescope.training.rows import FeatureRows, TokenRows, label_problem
from tunescope.training.trainer import ClassifierTrainer, HeadOnFeatures, Job, RestoreLoss


def train(
    classifier: Classifier,
    train: Tokens,
    validation: Tokens | None,
    folder: Path,
    options: TrainOptions | None = None,
    progress: Progress = SILENT,
) -> TrainLog:
    """Train the parameters of a classifier that require gradients, and save it.

    Writes ``folder/model`` (a transformers model folder), ``folder/log.jsonl`` and, while it works,
    ``folder/checkpoints``. If that holds a checkpoint of the same training, continues from it, and ends with
    the same weights bit for bit as if it had not been stopped (on one machine and device).

    Args:
        classifier: Trained in place; left in evaluation mode.
        train: Labelled train rows.
        validation: Labelled validation rows, for the curves and the choice of the best step; None for none.
        folder: Where to write.
        options: What the training is told.
        progress: Where to report.

    Raises:
        ConfigError: A training field cannot be used.
        DataError: Rows without labels, or no rows.
        Interrupted: Ctrl-C came; a checkpoint was saved.
        RunError: The disk is full, or the device is not there.
    """
    options = options or TrainOptions()
    validation = None if validation is None or len(validation) == 0 else validation
    for tokens, what in ((train, "train"), (validation, "validation")):
        problem = None if tokens is None else label_problem(tokens, what)
        if problem is not None:
            raise DataError(problem, hint="Give every row of the split a label, or leave the row out.")
    folder = Path(folder)
    with disk_errors(folder), quiet_training():
        checkpoints = folder / "checkpoints"
        found = latest(checkpoints, options.fingerprint, progress)
        job = _job(classifier, train, validation, checkpoints, options, progress)
        set_seed(options.seed)
        trainer = _trainer(job, folder / "log.jsonl", found[1] if found else None, progress)
        try:
            with trainer.stop.listening():
                trainer.train(resume_from_checkpoint=str(found[0]) if found else None)
        finally:
            _leave_no_trace(classifier, job)
            _close(trainer)
        log = _log(trainer, int(found[0].name.rpartition("-")[2]) if found else None)
        with whole_folder(folder / "model") as model_folder:
            classifier.save(model_folder, {**options.record, "seed": options.seed, "steps": log.steps})
        if not options.keep_checkpoints:
            remove(checkpoints)
    return log


def _job(
    classifier: Classifier,
    train: Tokens,
    validation: Tokens | None,
    checkpoints: Path,
    options: TrainOptions,
    progress: Progress,
) -> Job:
    prepared = prepare_arguments(options, checkpoints, validation is not None)
    classifier.to(prepared.arguments.device)
    if prepared.recompute:
        _recompute(classifier, "enable")
    if not options.frozen_trunk:
        rows = None if validation is None else TokenRows(validation)
        return Job(classifier, classifier, TokenRows(train), rows, options, prepared)
    classifier.eval()
    known = (
        None if validation is None else FeatureRows(validation, features(classifier, validation, progress))
    )
    rows = FeatureRows(train, features(classifier, train, progress))
    return Job(classifier, HeadOnFeatures(classifier.head), rows, known, options, prepared)


def _recompute(classifier: Classifier, verb: str) -> None:
    """Switch recomputing of activations; the method's older name is deprecated in newer transformers."""
    model = classifier.model
    names = (f"activation_checkpointing_{verb}", f"gradient_checkpointing_{verb}")
    getattr(model, next(name for name in names if hasattr(model, name)))()


def _trainer(job: Job, log: Path, notes: dict[str, Any] | None, progress: Progress) -> ClassifierTrainer:
    callbacks = [
        StepStream(streams(job.options.seed)["dropout"]),
        LogFile(log),
        ShowProgress(progress, "training"),
        StopCleanly(progress),
    ]
    if notes is not None:
        callbacks.append(RestoreLoss(notes, lambda: trainer))
    trainer = ClassifierTrainer(job, callbacks)
    trainer.seconds_before = float(notes["seconds"]) if notes else 0.0
    return trainer


def _close(trainer: ClassifierTrainer) -> None:
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, ShowProgress):
            callback.stack.close()


def _leave_no_trace(classifier: Classifier, job: Job) -> None:
    """Undo what accelerate and transformers leave on the modules: wrapped forwards, training mode."""
    for module in (classifier, job.trained):
        for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
            module.__dict__.pop(name, None)
    if job.prepared.recompute:
        _recompute(classifier, "disable")
    classifier.zero_grad(set_to_none=True)
    classifier.eval()


def _log(trainer: ClassifierTrainer, continued_from: int | None) -> TrainLog:
    parameters = list(trainer.job.classifier.parameters())
    return TrainLog(
        events=events(trainer.state),
        steps=trainer.state.global_step,
        epochs=float(trainer.state.epoch or 0.0),
        seconds=trainer.seconds(),
        parameters=sum(one.numel() for one in parameters),
        trainable_parameters=sum(one.numel() for one in parameters if one.requires_grad),
        seeds=streams(trainer.job.options.seed),
        continued_from=continued_from,
        best_step=trainer.state.best_global_step if trainer.args.load_best_model_at_end else None,
    )


@contextlib.contextmanager
def quiet_training() -> Iterator[None]:
    """Keep transformers' own notes from the screen; errors still come through."""
    accelerate = logging.getLogger("accelerate")
    level = accelerate.level
    accelerate.setLevel(logging.ERROR)
    try:
        with quiet_transformers(), warnings.catch_warnings():
            # The optimiser's state is restored after the schedule was made: the order is right all the same.
            warnings.filterwarnings("ignore", message=".*lr_scheduler.step\\(\\).*before.*optimizer.step")
            yield
    finally:
        accelerate.setLevel(level)
