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
from tunescope.models import Classifier
from tunescope.models.activations import fast_activations
from tunescope.models.source import quiet_transformers
from tunescope.progress import SILENT, Progress
from tunescope.training.callbacks import LogFile, ShowProgress, StepStream, StopCleanly, events
from tunescope.training.checkpoints import latest
from tunescope.training.crew import shared_steps
from tunescope.training.job import Asked, Job, chosen_rows, identity_of, make_job, recompute
from tunescope.training.options import TrainLog, TrainOptions, prepare_arguments, streams
from tunescope.training.rows import label_problem
from tunescope.training.stopping import EarlyStopping
from tunescope.training.trackers import Tracker, trackers
from tunescope.training.trainer import ClassifierTrainer, RestoreLoss


def train(
    classifier: Classifier,
    train: Tokens,
    validation: Tokens | None,
    folder: Path,
    options: TrainOptions | None = None,
    progress: Progress = SILENT,
) -> TrainLog:
    """Train the parameters of a classifier that require gradients, and save it.

    Writes ``folder/model`` (a transformers model folder), ``folder/log.jsonl``, what trackers write, and, while
    it works, ``folder/checkpoints``. If that holds a checkpoint of the same training, continues from it, and ends
    with the same weights bit for bit as if it had not been stopped (on one machine and device). A checkpoint of
    other settings, rows or model is not continued, and what differs is said.

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
        Interrupted: Ctrl-C or SIGTERM came; a checkpoint was saved.
        MissingDependencyError: The library of a tracker is not installed.
        RunError: The loss is not a number, memory does not suffice for one row, the disk is full, or the device
            is not there.
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
        prepared = prepare_arguments(options, checkpoints, validation is not None)
        for remark in prepared.remarks:
            progress.say(f"  {remark}")
        reporting = trackers(prepared.fitting.trackers, folder, _about(options), dict(options.training))
        train = chosen_rows(train, prepared.fitting, options.seed)
        identity = identity_of(options, prepared, classifier, {"train": train, "validation": validation})
        found = latest(checkpoints, options.fingerprint, identity, progress)
        asked = Asked(options, prepared, identity)
        job = make_job(classifier, train, validation, asked, found[1] if found else None, progress)
        return run_job(job, folder, found, reporting, progress)


def run_job(
    job: Job,
    folder: Path,
    found: tuple[Path, dict[str, Any]] | None,
    reporting: list[Tracker],
    progress: Progress,
    kind: type[ClassifierTrainer] = ClassifierTrainer,
) -> TrainLog:
    """Train what a job says, from a checkpoint with its seal where one is found, and save the model.

    Args:
        job: What is trained, on which rows, by which loss.
        folder: Where ``model``, ``log.jsonl`` and ``checkpoints`` lie.
        found: The checkpoint to continue from and what it remembers, or None.
        reporting: Trackers.
        progress: Where to report.
        kind: The trainer; another one measures validation rows in its own way.
    """
    options, classifier = job.options, job.classifier
    set_seed(options.seed)
    trainer = _trainer(job, folder, found[1] if found else None, reporting, progress, kind)
    try:
        with (
            trainer.stop.listening(),
            fast_activations(classifier),
            shared_steps(job, trainer.micro, progress),
        ):
            trainer.train(resume_from_checkpoint=str(found[0]) if found else None)
    finally:
        _leave_no_trace(classifier, job)
        _close(trainer)
    log = _log(trainer, int(found[0].name.rpartition("-")[2]) if found else None)
    with whole_folder(folder / "model") as model_folder:
        classifier.save(model_folder, {**options.record, "seed": options.seed, "steps": log.steps})
    if not options.keep_checkpoints:
        remove(folder / "checkpoints")
    return log


def _about(options: TrainOptions) -> dict[str, Any]:
    return {**options.record, "seed": options.seed}


def _trainer(
    job: Job,
    folder: Path,
    notes: dict[str, Any] | None,
    reporting: list[Tracker],
    progress: Progress,
    kind: type[ClassifierTrainer],
) -> ClassifierTrainer:
    stopping = job.prepared.fitting.early_stopping
    callbacks = [
        StepStream(streams(job.options.seed)["dropout"]),
        LogFile(folder / "log.jsonl"),
        ShowProgress(progress, "training"),
        StopCleanly(progress),
        *([] if stopping is None else [EarlyStopping(stopping)]),
        *reporting,
    ]
    if notes is not None:
        callbacks.append(RestoreLoss(notes, lambda: trainer))
        job.prepared.arguments.eval_on_start = False  # that was done when the training began
    trainer = kind(job, callbacks)
    if notes is not None:
        trainer.remember(notes)
    return trainer


def _close(trainer: ClassifierTrainer) -> None:
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, ShowProgress):
            callback.stack.close()
        if isinstance(callback, Tracker):
            callback.close()


def _leave_no_trace(classifier: Classifier, job: Job) -> None:
    """Undo what accelerate and transformers leave on the modules: wrapped forwards, training mode."""
    for module in (classifier, job.trained):
        for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
            module.__dict__.pop(name, None)
    if job.prepared.recompute:
        recompute(classifier, "disable")
    classifier.zero_grad(set_to_none=True)
    classifier.eval()


def _log(trainer: ClassifierTrainer, continued_from: int | None) -> TrainLog:
    parameters = list(trainer.job.classifier.parameters())
    meter = trainer.meter
    return TrainLog(
        events=events(trainer.state),
        steps=trainer.state.global_step,
        epochs=float(trainer.state.epoch or 0.0),
        seconds=trainer.seconds(),
        parameters=sum(one.numel() for one in parameters),
        trainable_parameters=sum(one.numel() for one in parameters if one.requires_grad),
        seeds=streams(trainer.job.options.seed),
        continued_from=continued_from,
        best_step=trainer.state.best_global_step if trainer.job.prepared.keeps_best else None,
        real_tokens=meter.real_tokens,
        tokens_per_second=meter.tokens_per_second,
        padding_share=meter.padding_share,
        peak_memory_bytes=meter.memory.peak(),
        memory=meter.memory.points,
        stopped_early=trainer.stopping is not None and trainer.stopping.stopped,
        halved=trainer.micro.halved,
        choices=trainer.choices(),
    )


@contextlib.contextmanager
def quiet_training() -> Iterator[None]:
    """Keep transformers' own notes from the screen; errors still come through."""
    loggers = [logging.getLogger(name) for name in ("accelerate", "torch._dynamo")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with quiet_transformers(), warnings.catch_warnings():
            # The optimiser's state is restored after the schedule was made: the order is right all the same.
            warnings.filterwarnings("ignore", message=".*lr_scheduler.step\\(\\).*before.*optimizer.step")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
