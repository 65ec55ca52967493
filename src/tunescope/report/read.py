"""A run folder as plain values: what is there, what is missing, and a clear error for what is damaged.

Nothing here loads a model. A missing file is ``None`` (the page says what is missing); of a damaged file nothing is
used, and the page says which it is. A run of another ``format_version`` is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from tunescope.errors import RunError
from tunescope.files import require_format
from tunescope.report.run_files import REBUILD, Files, first_line, parquet_of
from tunescope.report.run_files import reading as reading
from tunescope.report.run_files import require as require
from tunescope.report.texts import Texts, Withheld, withhold
from tunescope.stats.results import Result

SPLITS = ("test", "validation", "train")


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
    inspection: dict[str, Any] | None = None  # where one model was inspected and nothing compared
    texts: Texts = "all"
    damaged: Mapping[str, str] = field(default_factory=dict)  # by file: what is wrong with it
    withheld: Withheld | None = None  # set where texts is "none"

    @property
    def name(self) -> str:
        """The study's name, or the folder's."""
        return str((self.study or {}).get("name") or (self.compare or {}).get("name") or self.folder.name)

    @property
    def inspected(self) -> bool:
        """Whether one model was looked at and nothing was compared."""
        return bool((self.compare or {}).get("inspected"))

    @property
    def refused(self) -> dict[str, list[tuple[str, str]]]:
        """Lenses that could not look at an arm: by lens, the arms and the reasons."""
        found: dict[str, list[tuple[str, str]]] = {}
        for one in (self.compare or {}).get("refused") or []:
            if isinstance(one, dict) and one.get("lens"):
                why = str(one.get("why") or "no reason is recorded")
                found.setdefault(str(one["lens"]), []).append((str(one.get("arm") or ""), why))
        return found

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


def read_run(folder: Path, texts: Texts = "all") -> RunFolder:
    """Read a run folder.

    Args:
        folder: What ``run``, ``compare`` or ``test`` wrote.
        texts: ``none`` leaves out every text, word and value of the data, so that only row ids remain; ``examples``
            leaves them in and tells those who draw to show chosen ones only; ``all`` leaves everything in.

    Raises:
        FormatError: The run is of another ``format_version``.
        RunError: The folder does not exist, or its study is not readable.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(
            f"{folder} is not a run folder: there is no such folder.", hint="Check the path of the run."
        )
    require_format(folder)
    files = Files(folder)
    study, study_text = _study(folder)
    findings = files.json("findings.json", {"findings": list})
    run = RunFolder(
        folder=folder,
        study=study,
        study_text=study_text,
        compare=files.json("compare.json"),
        environment=files.json("environment.json"),
        summary=files.json("data/summary.json"),
        arms=tuple(_arms(files)),
        results=_results(files),
        findings=None
        if findings is None
        else [item for item in findings["findings"] if isinstance(item, dict)],
        rows=files.parquet("data/rows.parquet", ("row_id", "text")),
        baselines=tuple(_baselines(files)),
        left_out=files.json("baselines/left_out.json"),
        audit=files.json("data/audit.json", {"findings": list}),
        cross_validation=files.json("data/cross_validation.json"),
        comparison=files.json("comparison.json"),
        expect=files.json("expect.json", {"verdicts": list}),
        grids=files.json("grids.json", {"grids": list}),
        elsewhere=files.json("elsewhere.json"),
        inspection=files.json("inspect.json", {"architecture": dict, "parameters": dict}),
        texts=texts,
        damaged=files.damaged,
    )
    return withhold(run) if texts == "none" else run


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
        raise RunError(f"{path} is not readable YAML ({first_line(error)}).", hint=REBUILD) from error
    if not isinstance(document, dict):
        raise RunError(f"{path}: expected a mapping, found {type(document).__name__}.", hint=REBUILD)
    return document, text


def _arms(files: Files) -> list[ArmRun]:
    runs = []
    for place in sorted((files.folder / "arms").glob("*/seed-*")):
        suffix = place.name.removeprefix("seed-")
        if not place.is_dir() or not suffix.isdigit():
            continue
        name = place.relative_to(files.folder).as_posix()
        metrics = files.json(f"{name}/metrics.json", {"records": list})
        writes = (metrics or {}).get("task") == "summarise"
        needed = ("row_id", "split", "generated") if writes else ("row_id", "prediction")
        predictions = files.parquet(f"{name}/predictions.parquet", needed)
        runs.append(
            ArmRun(
                arm=str((metrics or {}).get("arm", place.parent.name)),
                seed=int(suffix) if metrics is None or metrics.get("seed", suffix) is not None else None,
                metrics=metrics,
                log=files.log(f"{name}/log.jsonl"),
                predictions=None if writes else predictions,
                matrices=(files.json(f"{name}/parameters.json", {"matrices": list}) or {}).get("matrices"),
                written=predictions if writes else None,
            )
        )
    return runs


def _baselines(files: Files) -> list[Baseline]:
    found = []
    for path in sorted((files.folder / "baselines").glob("*/metrics.json")):
        metrics = files.json(path.relative_to(files.folder).as_posix(), {"records": list})
        if metrics is not None:
            found.append(
                Baseline(
                    str(metrics.get("baseline", path.parent.name)), str(metrics.get("about") or ""), metrics
                )
            )
    # The one that everything is measured against stands first.
    return sorted(found, key=lambda one: one.name != "majority")


def _results(files: Files) -> dict[str, LensResult]:
    results = {}
    folder = files.folder / "results"
    for path in sorted(folder.glob("*.parquet")):
        with files.noting(f"results/{path.name}"):
            if path.with_suffix(".json").is_file():
                result = Result.load(folder, path.stem)
                results[path.stem] = LensResult(path.stem, result.table, result.provenance)
            elif (table := parquet_of(path, ())) is not None:
                results[path.stem] = LensResult(path.stem, table, {})
    return results


def read_examples(run: RunFolder, lens: str, wanted: tuple[str, ...]) -> pl.DataFrame | None:
    """Return a lens's table per example, or None where it has none.

    Raises:
        RunError: The file is damaged, or lacks a column.
    """
    found = parquet_of(run.folder / "results" / "examples" / f"{lens}.parquet", wanted)
    return found if found is None or run.withheld is None else run.withheld.table(found)
