"""A run folder as plain values: what is there, what is missing, and a clear error for what is damaged.

Nothing here loads a model. A missing file is ``None`` (the page says what is missing); a damaged file raises
:class:`~tunescope.errors.RunError` with its name, so that no page is made from half-read numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from tunescope.errors import RunError
from tunescope.files import read_json
from tunescope.stats.results import Result

SPLITS = ("test", "validation", "train")
_REBUILD = "Remove it and run the same command again; it rebuilds what is missing."


@dataclass(frozen=True)
class ArmRun:
    """One training of one arm: what its folder holds (``None`` where a file is missing).

    The seed is ``None`` for a checkpoint that was trained elsewhere.
    """

    arm: str
    seed: int | None
    metrics: dict[str, Any] | None
    log: list[dict[str, Any]] | None
    predictions: pl.DataFrame | None
    matrices: list[dict[str, Any]] | None = None
    written: pl.DataFrame | None = None  # summaries, where the arm writes and does not classify


@dataclass(frozen=True)
class Baseline:
    """What needs no tuning, measured on the same rows: its name, what it is, and its metrics."""

    name: str
    about: str
    metrics: dict[str, Any]


@dataclass(frozen=True)
class LensResult:
    """One lens's table and where it came from (an empty mapping where the JSON is missing)."""

    lens: str
    table: pl.DataFrame
    provenance: dict[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """Everything of a run that the report shows."""

    folder: Path
    study: dict[str, Any] | None
    study_text: str | None
    compare: dict[str, Any] | None
    environment: dict[str, Any] | None
    summary: dict[str, Any] | None
    arms: tuple[ArmRun, ...]
    results: Mapping[str, LensResult]
    findings: list[dict[str, Any]] | None
    rows: pl.DataFrame | None
    baselines: tuple[Baseline, ...] = ()
    left_out: Mapping[str, Any] | None = None
    audit: dict[str, Any] | None = None
    cross_validation: dict[str, Any] | None = None
    comparison: dict[str, Any] | None = None
    expect: dict[str, Any] | None = None
    grids: dict[str, Any] | None = None
    elsewhere: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """The study's name, or the folder's."""
        return str((self.study or {}).get("name") or (self.compare or {}).get("name") or self.folder.name)

    @property
    def arm_names(self) -> tuple[str, ...]:
        """Arms in the study's order; those known only from files follow by name.

        Trials of a grid that were not chosen are no arms: they stand in the grid's own table.
        """
        trained = {run.arm for run in self.arms if run.metrics is not None}
        declared = [
            str(arm.get("name"))
            for arm in (self.study or {}).get("arms") or []
            if isinstance(arm, dict) and (not arm.get("grid") or str(arm.get("name")) in trained)
        ]
        declared += [str(name) for name in (self.compare or {}).get("tuned") or {}]
        trials = {
            str(arm["name"])
            for arm in (self.study or {}).get("arms") or []
            if isinstance(arm, dict) and arm.get("grid") and arm.get("name")
        }
        found = {run.arm for run in self.arms} - (trials - trained)
        for result in self.results.values():
            if "arm" in result.table.columns:
                found |= {str(arm) for arm in result.table["arm"].drop_nulls().unique()}
        return (*dict.fromkeys(declared), *sorted(found - set(declared)))

    def of_arms(self, what: str) -> dict[str, Any]:
        """What data/summary.json says of each arm (``tokens``, ``truncated``), without trials that were not chosen."""
        found = dict((self.summary or {}).get(what) or {})
        shown = set(self.arm_names)
        return {arm: value for arm, value in found.items() if self.grids is None or arm in shown}

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names in class index order; empty where the run does not say."""
        return tuple(str(name) for name in (self.summary or {}).get("labels") or ())

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds that were trained in this run."""
        return tuple(sorted({run.seed for run in self.arms if run.seed is not None}))

    @property
    def split(self) -> str | None:
        """The split of the headline numbers: test where it was measured, else validation, else train."""
        measured = {
            record.get("split") for run in self.arms for record in (run.metrics or {}).get("records", [])
        }
        return next((split for split in SPLITS if split in measured), None)

    def of(self, arm: str) -> list[ArmRun]:
        """The trainings of one arm, by seed."""
        return sorted((run for run in self.arms if run.arm == arm), key=lambda run: run.seed or 0)


def read_run(folder: Path) -> RunFolder:
    """Read a run folder.

    Raises:
        RunError: The folder does not exist, or a file in it is damaged (the message names it).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(
            f"{folder} is not a run folder: there is no such folder.", hint="Check the path of the run."
        )
    study, study_text = _study(folder)
    findings = _json(folder / "findings.json", {"findings": list})
    return RunFolder(
        folder=folder,
        study=study,
        study_text=study_text,
        compare=_json(folder / "compare.json", {}),
        environment=_json(folder / "environment.json", {}),
        summary=_json(folder / "data" / "summary.json", {}),
        arms=tuple(_arms(folder / "arms")),
        results=_results(folder / "results"),
        findings=None
        if findings is None
        else [item for item in findings["findings"] if isinstance(item, dict)],
        rows=_parquet(folder / "data" / "rows.parquet", ("row_id", "text")),
        baselines=tuple(_baselines(folder / "baselines")),
        left_out=_json(folder / "baselines" / "left_out.json", {}),
        audit=_json(folder / "data" / "audit.json", {"findings": list}),
        cross_validation=_json(folder / "data" / "cross_validation.json", {}),
        comparison=_json(folder / "comparison.json", {}),
        expect=_json(folder / "expect.json", {"verdicts": list}),
        grids=_json(folder / "grids.json", {"grids": list}),
        elsewhere=_json(folder / "elsewhere.json", {}),
    )


@contextmanager
def reading(folder: Path, name: str) -> Iterator[None]:
    """Name the file where what it holds is not what the page expects to find in it.

    Raises:
        RunError: An entry is missing or of another kind; the message says which file.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        what = f"no entry {error}" if isinstance(error, KeyError) else _first_line(error)
        raise RunError(f"{folder / name} does not hold what it should: {what}.", hint=_REBUILD) from error


def _study(folder: Path) -> tuple[dict[str, Any] | None, str | None]:
    path = next(
        (folder / name for name in ("study.resolved.yaml", "study.yaml") if (folder / name).is_file()), None
    )
    if path is None:
        return None, None
    try:
        text = path.read_text(encoding="utf-8")
        document = yaml.safe_load(text)
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise RunError(f"{path} is not readable YAML ({_first_line(error)}).", hint=_REBUILD) from error
    if not isinstance(document, dict):
        raise RunError(f"{path}: expected a mapping, found {type(document).__name__}.", hint=_REBUILD)
    return document, text


def _arms(folder: Path) -> list[ArmRun]:
    runs = []
    for place in sorted(folder.glob("*/seed-*")):
        suffix = place.name.removeprefix("seed-")
        if not place.is_dir() or not suffix.isdigit():
            continue
        metrics = _json(place / "metrics.json", {"records": list})
        writes = (metrics or {}).get("task") == "summarise"
        needed = ("row_id", "split", "generated") if writes else ("row_id", "prediction")
        predictions = _parquet(place / "predictions.parquet", needed)
        runs.append(
            ArmRun(
                arm=str((metrics or {}).get("arm", place.parent.name)),
                seed=int(suffix) if metrics is None or metrics.get("seed", suffix) is not None else None,
                metrics=metrics,
                log=_log(place / "log.jsonl"),
                predictions=None if writes else predictions,
                matrices=(_json(place / "parameters.json", {"matrices": list}) or {}).get("matrices"),
                written=predictions if writes else None,
            )
        )
    return runs


def _baselines(folder: Path) -> list[Baseline]:
    found = []
    for path in sorted(folder.glob("*/metrics.json")):
        metrics = _json(path, {"records": list}) or {}
        found.append(
            Baseline(str(metrics.get("baseline", path.parent.name)), str(metrics.get("about") or ""), metrics)
        )
    # The one that everything is measured against stands first.
    return sorted(found, key=lambda one: one.name != "majority")


def _results(folder: Path) -> dict[str, LensResult]:
    results = {}
    for path in sorted(folder.glob("*.parquet")):
        if path.with_suffix(".json").is_file():
            result = Result.load(folder, path.stem)
            results[path.stem] = LensResult(path.stem, result.table, result.provenance)
        elif (table := _parquet(path, ())) is not None:
            results[path.stem] = LensResult(path.stem, table, {})
    return results


def _json(path: Path, wanted: Mapping[str, type]) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    document = read_json(path)
    for key, kind in wanted.items():
        if not isinstance(document.get(key), kind):
            found = type(document.get(key)).__name__
            raise RunError(f"{path}: expected a {kind.__name__} under {key!r}, found {found}.", hint=_REBUILD)
    return document


def _log(path: Path) -> list[dict[str, Any]] | None:
    if not path.is_file():
        return None
    events = []
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if line.strip():
                events.append(json.loads(line))
                if not isinstance(events[-1], dict):
                    raise RunError(
                        f"{path}, line {number}: expected a JSON object, found {line[:60]!r}.", hint=_REBUILD
                    )
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunError(
            f"{path} is not readable as JSON lines ({_first_line(error)}).", hint=_REBUILD
        ) from error
    return events


def _parquet(path: Path, wanted: tuple[str, ...]) -> pl.DataFrame | None:
    if not path.is_file():
        return None
    try:
        table = pl.read_parquet(path, glob=False, hive_partitioning=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RunError(f"{path} is not readable Parquet ({_first_line(error)}).", hint=_REBUILD) from error
    require(table, wanted, str(path))
    return table


def read_examples(run: RunFolder, lens: str, wanted: tuple[str, ...]) -> pl.DataFrame | None:
    """Return a lens's table per example, or None where it has none.

    Raises:
        RunError: The file is damaged, or lacks a column.
    """
    return _parquet(run.folder / "results" / "examples" / f"{lens}.parquet", wanted)


def require(table: pl.DataFrame, wanted: tuple[str, ...], name: str) -> None:
    """Check that a table has the columns that the page reads by name.

    Raises:
        RunError: A column is missing; the message names the table, the columns and what is there.
    """
    missing = [column for column in wanted if column not in table.columns]
    if missing:
        raise RunError(
            f"{name}: expected the columns {', '.join(missing)}, found {', '.join(table.columns) or 'none'}.",
            hint=_REBUILD,
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
