"""How a run was made: its stages in order, with the rows that each saw and the time that it took."""

from __future__ import annotations

from dataclasses import dataclass

from tunescope.files import read_json
from tunescope.report.read import SPLITS, RunFolder
from tunescope.report.tables import Table
from tunescope.report.text import duration, finite, listed, number, plural

# Step: (its heading, beginnings of its stages' names).
STEPS = {
    "data": ("Data", ("data", "audit", "baselines")),
    "tune": ("Tune", ("train-",)),
    "evaluate": ("Evaluate", ("evaluate-", "comparison", "elsewhere", "cross_validation")),
    "look": ("Look inside", ("look-", "across-", "behaviour")),
    "report": ("Report", ("results", "summary", "report", "expect", "claims")),
}


@dataclass(frozen=True)
class Step:
    """One step: its heading, what went through it, its time in words (empty where no stage recorded one)."""

    title: str
    lines: tuple[str, ...]
    time: str


@dataclass(frozen=True)
class Pipeline:
    """The steps, the time of all, and every stage with its time."""

    steps: tuple[Step, ...]
    total: str
    stages: Table


def pipeline(run: RunFolder) -> Pipeline | None:
    """Return the steps of a run, or None where the folder records no stages."""
    seconds = stage_seconds(run)
    if not seconds:
        return None
    lines = {
        "data": _data(run), "tune": _tune(run, seconds), "evaluate": _evaluate(run), "look": _look(run),
        "report": ["one file, read from the folder alone"],
    }  # fmt: skip
    steps = []
    for name, (title, begins) in STEPS.items():
        own = [value for stage, value in seconds.items() if stage.startswith(begins)]
        timed = [value for value in own if value is not None]
        if own:
            steps.append(Step(title, tuple(lines[name]), duration(sum(timed)) if timed else ""))
    timed_stages = {stage: value for stage, value in seconds.items() if value is not None}
    slowest = sorted(timed_stages.items(), key=lambda item: -item[1])
    cells = tuple(((stage, stage), (duration(value), repr(value))) for stage, value in slowest)
    table = Table(("stage", "time"), (False, True), cells, len(cells))
    return Pipeline(tuple(steps), duration(sum(timed_stages.values())), table)


def stage_seconds(run: RunFolder) -> dict[str, float | None]:
    """Return the seconds that each stage of the run took; None where it was not timed by itself.

    Lenses that share one pass over the rows are not.
    """
    found = {}
    for path in sorted((run.folder / "stages").glob("*.json")):
        record = read_json(path)
        notes = record.get("notes")
        taken = finite(notes.get("seconds")) if isinstance(notes, dict) else None
        found[str(record.get("stage") or path.stem)] = taken
    return found


def _data(run: RunFolder) -> list[str]:
    counts = (run.summary or {}).get("counts") or {}
    rows = (run.summary or {}).get("rows") or {}  # of summaries, which have no classes to count by
    splits = [split for split in reversed(SPLITS) if split in counts]
    said = [f"{split} {number(sum(counts[split].values()) or rows.get(split, 0))}" for split in splits]
    return [f"rows: {listed(said)}"] if said else []


def _tune(run: RunFolder, seconds: dict[str, float | None]) -> list[str]:
    trainings = sum(stage.startswith("train-") for stage in seconds)
    arms = len(run.arm_names)
    many = f", {plural(len(run.seeds), 'seed')}" if run.seeds else ""
    return [f"{plural(arms, 'arm')}{many}: {plural(trainings, 'training')}"]


def _evaluate(run: RunFolder) -> list[str]:
    rows = {item.predictions.height for item in run.arms if item.predictions is not None}
    return [f"{number(max(rows))} rows predicted by each"] if rows else []


def _look(run: RunFolder) -> list[str]:
    measured = [name for name in run.results if name not in ("planted", "claims")]
    return (
        [f"{plural(len(measured), 'lens').replace('lenss', 'lenses')}", ", ".join(measured)]
        if measured
        else []
    )
