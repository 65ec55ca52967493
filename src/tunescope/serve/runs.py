"""The runs that are served: what each holds, what the bench can open of it, or why it cannot."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunescope.errors import RunError, TunescopeError
from tunescope.report.read import ArmRun, RunFolder, read_run

MARKS = ("study.resolved.yaml", "compare.json")
PAGES = {
    "report.html": "Report",
    "maps.html": "Maps",
    "steps.html": "Training steps",
    "watch.html": "Training as it happened",
}
MOVIE = re.compile(r"watch-[A-Za-z0-9._-]+\.gif")  # moving pictures that watch.html offers
PROMPTED = "zero_shot"


@dataclass(frozen=True)
class Training:
    """One arm and seed of a run.

    Attributes:
        arm: The arm.
        seed: The seed; 0 for a checkpoint that was trained elsewhere.
        accuracy: Accuracy on the headline split with its interval, or None.
        split: That split.
        why_not: Why the bench cannot open it, or None.
    """

    arm: str
    seed: int
    accuracy: tuple[float, float | None, float | None] | None
    split: str | None
    why_not: str | None


@dataclass(frozen=True)
class ServedRun:
    """A run folder as the first page lists it.

    Attributes:
        key: Its name in addresses.
        folder: Where it lies.
        name: The study's name.
        question: The study's question, or None.
        trainings: Its arms and seeds.
        pages: Its written pages: file name and title.
        problem: Why it cannot be read (another format_version, no study), or None.
        damaged: What is wrong with single files.
        why_no_bench: Why the bench offers nothing in this kind of run, or None.
    """

    key: str
    folder: Path
    name: str
    question: str | None = None
    trainings: tuple[Training, ...] = ()
    pages: tuple[tuple[str, str], ...] = ()
    problem: str | None = None
    why_no_bench: str | None = None
    damaged: tuple[str, ...] = ()

    def training(self, arm: str, seed: int) -> Training | None:
        """Return the training of an arm and seed, or None."""
        return next((one for one in self.trainings if (one.arm, one.seed) == (arm, seed)), None)


def is_run(folder: Path) -> bool:
    """Whether a folder is one that ``run`` or ``compare`` wrote."""
    return any((folder / mark).is_file() for mark in MARKS)


def find_runs(paths: Sequence[Path]) -> list[ServedRun]:
    """Read the given run folders, and the run folders directly inside the others.

    A run that is damaged or of another version is listed with the reason.

    Raises:
        RunError: A path is not there, or neither is a run folder nor holds one.
    """
    folders: list[Path] = []
    for path in paths:
        if not path.is_dir():
            raise RunError(f"There is no folder {path}.", hint="Give folders that `tunescope run` wrote.")
        inside = [path] if is_run(path) else sorted(one for one in path.iterdir() if is_run(one))
        if not inside:
            raise RunError(
                f"{path} is not a run folder and holds none (no {' or '.join(MARKS)}).",
                hint="Give folders that `tunescope run` or `tunescope compare` wrote, or the folder around them.",
            )
        folders += inside
    taken: set[str] = set()
    return [served(folder, _key(folder, taken)) for folder in dict.fromkeys(one.resolve() for one in folders)]


def served(folder: Path, key: str) -> ServedRun:
    """Read one run folder; what is wrong with it is said in ``problem``."""
    pages = tuple((name, title) for name, title in PAGES.items() if (folder / name).is_file())
    try:
        run = read_run(folder)
        task = str((run.study or {}).get("task") or "classify")
        trainings = tuple(_training(run, one) for one in run.arms)
    except TunescopeError as error:
        return ServedRun(key, folder, folder.name, pages=pages, problem=str(error.message))
    question = (run.study or {}).get("question")
    why = None
    if task == "summarise":
        why = (
            "This run writes summaries. The bench compares the probabilities of classes, so it offers nothing here; "
            "the report shows the written summaries and what the lenses saw."
        )
    elif run.compare is not None and not run.compare.get("tuned"):
        why = "This run looks at one model alone. The bench holds a base against a tuned one and offers nothing here."
    elif len(run.labels) < 2:
        why = (
            "This run holds language models without classes. The bench compares the probabilities of classes, so it "
            "offers nothing here; the report shows losses and what the lenses saw."
        )
    return ServedRun(
        key, folder, run.name, str(question) if question else None, trainings, pages, None, why,
        tuple(run.damaged.values()),
    )  # fmt: skip


def _key(folder: Path, taken: set[str]) -> str:
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.name).strip("-")[:60] or "run"
    key, number = plain, 1
    while key in taken:
        number += 1
        key = f"{plain}-{number}"
    taken.add(key)
    return key


def _training(run: RunFolder, one: ArmRun) -> Training:
    metrics = one.metrics or {}
    record = _accuracy(run, metrics)
    seed = one.seed or 0
    why = None
    if metrics.get("method") == PROMPTED:
        why = "nothing was tuned: a language model is asked in words"
    elif run.compare is None and not (run.folder / "arms" / one.arm / f"seed-{seed}" / "model").is_dir():
        why = "its model is not in the run folder"
    return Training(one.arm, seed, record, run.split, why)


def _accuracy(run: RunFolder, metrics: dict[str, Any]) -> tuple[float, float | None, float | None] | None:
    for record in metrics.get("records", []):
        wanted = record.get("metric") == "accuracy" and record.get("split") == run.split
        if wanted and record.get("class") is None and record.get("value") is not None:
            return float(record["value"]), record.get("low"), record.get("high")
    return None
