"""What happens beside the optimiser: the log file, the dropout stream, Ctrl-C, progress."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunescope import processes
from tunescope.config.fitting import VALIDATION_METRICS
from tunescope.files import write_atomic
from tunescope.progress import Progress, Task
from tunescope.seeds import derive_seed, seed_torch

STOPS: dict[int, str] = {
    signal.SIGINT: "Ctrl-C",
    signal.SIGTERM: "SIGTERM",
}  # what ends a run cleanly, by signal
# A launcher passes a Ctrl-C on that the terminal has sent to every process already: one within this time is the same.
PASSED_ON_SECONDS = 10.0
KEPT = ("loss", *(f"eval_{name}" for name in VALIDATION_METRICS), "learning_rate", "grad_norm")


class StepStream(TrainerCallback):
    """Makes dropout a function of (seed, step, micro-batch) alone.

    Evaluating, saving or continuing then never changes what a later step draws, so a continued training is
    the same bit for bit, whatever happened in between; and a micro-batch draws the same in whichever process.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.step = 0

    def reseed(self, number: int = 0) -> None:
        """Seed torch as at the start of a micro-batch of the step that is being computed."""
        seed_torch(derive_seed(self.seed, "step", self.step, *([number] if number else [])))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Seed torch for the step that begins."""
        self.step = state.global_step
        self.reseed()


class LogFile(TrainerCallback):
    """Writes every logged event as one line of JSON as soon as it is known.

    Args:
        path: The file; what a checkpoint does not know of is dropped from it when training continues.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the file with the events that the checkpoint remembers."""
        known = events(state)
        write_atomic(self.path, "".join(json.dumps(event) + "\n" for event in known))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Append the newest event."""
        event = event_of(state.log_history[-1])
        if event is not None:
            with self.path.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(event) + "\n")


def events(state: TrainerState) -> list[dict[str, float]]:
    """Return the logged events of a training, in order."""
    return [event for event in map(event_of, state.log_history) if event is not None]


def event_of(entry: dict[str, Any]) -> dict[str, float] | None:
    """Return what ``log.jsonl`` keeps of an entry of transformers' history; None for its last summary."""
    if not any(name in entry for name in ("loss", "eval_loss")):
        return None
    kept = {name: entry[name] for name in KEPT if name in entry}
    return {"step": entry["step"], "epoch": entry["epoch"], **kept}


class StopCleanly(TrainerCallback):
    """Ends training after the step during which Ctrl-C or SIGTERM came, with a checkpoint; a second one ends at once.

    It also moves a save that falls on the last step of an epoch behind that epoch's evaluation, so that no
    checkpoint lies between the two: a training continued from there would miss the evaluation.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.asked = False
        self.by = "Ctrl-C"
        self._asked_at = 0.0
        self._save_later = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take Ctrl-C and SIGTERM while the block runs; only the main thread may."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in STOPS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.asked and processes.several() and now - self._asked_at < PASSED_ON_SECONDS:
            return
        if self.asked:
            raise KeyboardInterrupt
        self.asked, self.by, self._asked_at = True, STOPS[number], now
        self.progress.say(f"  {self.by}: finishing this step and saving; once more stops at once")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask for a checkpoint and the end, if a signal to stop came."""
        ends_epoch = float(state.epoch).is_integer() or state.global_step >= state.max_steps
        if self.asked:
            control.should_training_stop = True
            control.should_save = True
        if ends_epoch and control.should_save:
            control.should_save, self._save_later = False, True
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Leave the epoch alone where it was not finished: no evaluation, no second checkpoint."""
        ends_epoch = float(state.epoch).is_integer() or state.global_step >= state.max_steps
        if self.asked and not ends_epoch:
            control.should_evaluate = control.should_save = control.should_log = False
        if self._save_later:
            control.should_save, self._save_later = True, False
        return control


class ShowProgress(TrainerCallback):
    """Feeds a progress bar with steps."""

    def __init__(self, progress: Progress, name: str) -> None:
        self.progress, self.name = progress, name
        self.stack = contextlib.ExitStack()
        self.task: Task | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar, with the steps of an earlier session done."""
        self.task = self.stack.enter_context(self.progress.task(self.name, state.max_steps, "steps"))
        self.task.advance(state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Advance by one step."""
        if self.task is not None:
            self.task.advance()
