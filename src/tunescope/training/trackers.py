"""Where a training reports to beside its own log: TensorBoard, and Weights & Biases."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunescope.errors import ConfigError, MissingDependencyError

TENSORBOARD_FOLDER = "tensorboard"
WANDB_FOLDER = "wandb"
SAID_ONCE = ("train_runtime", "train_loss", "total_flos")  # transformers' closing summary: not a course


class Tracker(TrainerCallback):
    """Hands every logged number on; :meth:`close` is called however the training ends."""

    def close(self) -> None:
        """Write what is left, and let go."""


class TensorBoard(Tracker):
    """Writes scalars that TensorBoard reads.

    Args:
        folder: The folder of the event files. Continued, a training takes back the events of steps that it does
            again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the event file."""
        from torch.utils.tensorboard import SummaryWriter

        step = state.global_step
        self.writer = SummaryWriter(str(self.folder), purge_step=step + 1 if step else None)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the numbers of this step."""
        for name, value in scalars(kwargs.get("logs") or {}).items():
            self.writer.add_scalar(name, value, state.global_step)
        self.writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None


class WeightsAndBiases(Tracker):
    """Writes to Weights & Biases, offline unless a key is set; never asks for a login.

    Args:
        folder: Where its files go.
        names: Project, group (the arm) and run.
        config: What the run is about.
    """

    def __init__(self, folder: Path, names: Sequence[str], config: dict[str, Any]) -> None:
        self.folder, self.names, self.config = folder, names, config
        self.run: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the run."""
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)
        project, group, name = self.names
        self.run = wandb.init(
            mode=wandb_mode(), dir=str(self.folder), project=project, group=group, name=name,
            config=self.config, reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )  # fmt: skip

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the numbers of this step."""
        values = scalars(kwargs.get("logs") or {})
        if values:
            self.run.log({**values, "step": state.global_step})

    def close(self) -> None:
        """End the run."""
        if self.run is not None:
            self.run.finish()
            self.run = None


def wandb_mode() -> Any:
    """Return the mode: what ``WANDB_MODE`` says, else online where ``WANDB_API_KEY`` is set, else offline.

    A login that the library keeps elsewhere is not looked for: an offline run is uploaded by ``wandb sync``.

    Raises:
        ConfigError: ``WANDB_MODE`` is online and no key is set: the library might ask for a login.
    """
    asked = os.environ.get("WANDB_MODE") or None
    known = bool(os.environ.get("WANDB_API_KEY"))
    if asked in ("online", "run") and not known:
        raise ConfigError(
            f"WANDB_MODE is {asked}, and WANDB_API_KEY is not set.",
            hint="Set WANDB_API_KEY, or WANDB_MODE=offline, or report_to: tensorboard.",
        )
    return asked or ("online" if known else "offline")


def scalars(logs: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a logged event under ``train/`` and ``eval/``, as TensorBoard groups them."""
    if any(name in logs for name in SAID_ONCE):
        return {}
    named = {
        f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}": value
        for name, value in logs.items()
    }
    return {name: float(value) for name, value in named.items() if isinstance(value, int | float)}


def trackers(
    wanted: Sequence[str], folder: Path, record: dict[str, Any], fields: dict[str, Any]
) -> list[Tracker]:
    """Return the trackers that a study asks for.

    Args:
        wanted: Of tensorboard and wandb.
        folder: The folder of one training.
        record: What is known about the training: ``study``, ``arm`` and ``seed`` name the run.
        fields: Its training fields.

    Raises:
        MissingDependencyError: The library of a tracker is not installed.
        ConfigError: Weights & Biases would ask for a login.
    """
    for name in wanted:
        if importlib.util.find_spec(name) is None:
            raise MissingDependencyError(
                f"training.report_to: {name} needs the library {name}, which is not installed.",
                hint=f"pip install {name}, or set report_to: none.",
            )
    makers: dict[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: TensorBoard(folder / TENSORBOARD_FOLDER),
        "wandb": lambda: _wandb(folder, record, fields),
    }
    return [makers[name]() for name in wanted]


def _wandb(folder: Path, record: dict[str, Any], fields: dict[str, Any]) -> Tracker:
    wandb_mode()  # a login that is missing is said before anything is computed
    arm, seed = str(record.get("arm", "arm")), record.get("seed", 0)
    names = (str(record.get("study", "tunescope")), arm, f"{arm}-seed-{seed}")
    return WeightsAndBiases(folder / WANDB_FOLDER, names, {**record, "training": fields})
