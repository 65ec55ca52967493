"""What a watched training leaves behind: one small table a step, and the training's own log."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from tunescope.errors import RunError
from tunescope.files import atomic_path, read_json, write_json
from tunescope.stats.results import Result, result_table

LOG = "log.jsonl"
ABOUT = "watch.json"
STEPS = "steps"
EXAMPLES = "examples"
_STEP = re.compile(r"step-(\d+)\.parquet")
WHAT = "What lenses saw on a fixed set of texts while the model was trained, step by step; step 0 is before training."


@dataclass(frozen=True)
class Watched:
    """A training as it was watched.

    Attributes:
        table: Every lens's rows at every step, with columns ``step`` and ``lens``.
        log: The training's own log, one record each time it logged or evaluated, in order.
        about: Schedule, lenses, number of texts, seconds spent.
    """

    table: pl.DataFrame
    log: list[dict[str, Any]]
    about: dict[str, Any]


class Records:
    """Writes a watched training into a folder, step by step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.latest = max(known_steps(folder), default=-1)

    def add(
        self,
        step: int,
        tables: Mapping[str, pl.DataFrame],
        examples: Mapping[str, pl.DataFrame] | None = None,
    ) -> None:
        """Write one step's tables as one file, whole or not at all; what is kept of single texts as another.

        Raises:
            RunError: The step is not after the latest: the folder holds another training's steps.
        """
        if step <= self.latest:
            raise RunError(
                f"{self.folder} already holds step {self.latest}, and step {step} came after it: steps out of order.",
                hint="Give each training a folder of its own.",
            )
        frames = [table.with_columns(step=pl.lit(step), lens=pl.lit(lens)) for lens, table in tables.items()]
        with atomic_path(self.folder / STEPS / f"step-{step:09d}.parquet") as temporary:
            pl.concat(frames, how="diagonal_relaxed").write_parquet(temporary)
        kept = [
            table.with_columns(step=pl.lit(step), lens=pl.lit(lens))
            for lens, table in (examples or {}).items()
        ]
        if kept:
            with atomic_path(self.folder / EXAMPLES / f"step-{step:09d}.parquet") as temporary:
                pl.concat(kept, how="diagonal_relaxed").write_parquet(temporary)
        self.latest = step

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one record of the training's log."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write what was done, and all steps as one result that the report reads.

        Correlations with what the training evaluated stand in it too, as rows of the lens ``correlation`` without a
        step.
        """
        from tunescope.watch.correlation import every_correlation

        write_json(self.folder / ABOUT, dict(about))
        watched = load_watched(self.folder)
        if watched.table.height:
            provenance = {
                "what": WHAT,
                "notes": [],
                "rows": {"n": about.get("texts")},
                "options": dict(about),
            }
            table = pl.concat([watched.table, every_correlation(watched)], how="diagonal_relaxed")
            Result("watch", table, provenance).save(self.folder / "results")
            kept = [_read(path) for path in sorted((self.folder / EXAMPLES).glob("step-*.parquet"))]
            if kept:
                with atomic_path(self.folder / "results" / EXAMPLES / "watch.parquet") as temporary:
                    pl.concat(kept, how="diagonal_relaxed").write_parquet(temporary)


def known_steps(folder: Path) -> list[int]:
    """Return the steps that a folder holds, ascending as numbers."""
    found = (_STEP.fullmatch(path.name) for path in (folder / STEPS).glob("step-*.parquet"))
    return sorted(int(match.group(1)) for match in found if match)


def load_watched(folder: str | Path) -> Watched:
    """Read a watched training, also while it is going on.

    Raises:
        RunError: The folder holds no steps, or a file in it is damaged.
    """
    folder = Path(folder)
    steps = known_steps(folder)
    if not steps:
        raise RunError(
            f"{folder} holds no watched training.", hint="TunescopeCallback(folder=...) writes one."
        )
    frames: Sequence[pl.DataFrame] = [_read(folder / STEPS / f"step-{step:09d}.parquet") for step in steps]
    about = read_json(folder / ABOUT) if (folder / ABOUT).is_file() else {}
    empty = result_table([])
    return Watched(pl.concat([empty, *frames], how="diagonal_relaxed"), _read_log(folder / LOG), about)


def _read(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise RunError(f"{path} is damaged ({error}).", hint="Delete this step's file.") from error


def _read_log(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]  # a torn last line is left out
