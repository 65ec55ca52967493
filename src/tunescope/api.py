"""tunescope in Python: compare, inspect, run and open what they wrote; each returns an object to work with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunescope.progress import SILENT, Progress
from tunescope.report.opened import Run, RunArm, RunLens, load_run

if TYPE_CHECKING:
    from tunescope.config import DataConfig, StudyConfig

__all__ = ["Comparison", "Inspection", "Run", "RunArm", "RunLens", "compare", "inspect", "load_run", "run"]


class Comparison(Run):
    """A finished comparison: a :class:`Run` that also says what was compared, and what was left out."""

    @property
    def about(self) -> dict[str, Any]:
        """The record of the comparison: pairs, base head, notes, assumptions, seconds of every part."""
        return dict(self.files.compare or {})

    @property
    def refused(self) -> list[dict[str, str]]:
        """The lenses that were left out, with the reasons: ``arm``, ``lens``, ``why``."""
        return list(self.about.get("refused") or [])

    @property
    def notes(self) -> list[str]:
        """What the reader must know."""
        return [str(note) for note in self.about.get("notes") or []]


class Inspection(Comparison):
    """One model looked at: facts, weight statistics, and with data the lenses of a single model."""

    @property
    def facts(self) -> dict[str, Any]:
        """Architecture, head, pooling, precision, tokenizer, parameters, and what can be done with the model."""
        from tunescope.files import read_json

        return read_json(self.folder / "inspect.json")


def compare(
    base: str | Path,
    tuned: str | Path | Sequence[str | Path],
    *,
    data: str | Path | Mapping[str, Any] | DataConfig,
    text: str | None = None,
    label: str | None = None,
    folder: str | Path = "runs/compare",
    lenses: Sequence[Any] | None = None,
    **options: Any,
) -> Comparison:
    """Compare a base with one or more tuned checkpoints, and write the run folder and its report.

    Classifiers are compared on labelled rows; language models (what a checkpoint is, it says itself) on texts alone.
    The same call again does only what is missing.

    Args:
        base: Folder or hub id of the model before tuning, or a run folder.
        tuned: Tuned checkpoints, adapters, folders of ``checkpoint-*``, run folders, or ``NAME=FOLDER,FOLDER``.
        data: A file (with ``text`` and ``label``), or a whole data section.
        text: The column of texts, where ``data`` is a file.
        label: The column of labels, where ``data`` is a file.
        folder: Where to write.
        lenses: Names, mappings such as ``{"lens": "cka", "block": 128}``, or configurations of lenses.
        options: ``progress``, ``device``, ``seed``, ``base_head`` and ``label_map``, as in
            :class:`tunescope.checkpoints.CompareRequest`.

    Raises:
        TunescopeError: Data, a checkpoint or a lens cannot be used.
    """
    from tunescope.checkpoints import CompareRequest, compare_folders

    progress = options.pop("progress", SILENT)
    paths = [str(tuned)] if isinstance(tuned, str | Path) else [str(path) for path in tuned]
    wanted = None if lenses is None else _lenses(lenses)
    request = CompareRequest(
        str(base), paths, _data(data, text, label), Path(folder), lenses=wanted, **options
    )
    return Comparison(compare_folders(request, progress))


def inspect(
    model: str | Path,
    *,
    data: str | Path | Mapping[str, Any] | DataConfig | None = None,
    text: str | None = None,
    label: str | None = None,
    folder: str | Path = "runs/inspect",
    lenses: Sequence[Any] | None = None,
    **options: Any,
) -> Inspection:
    """Look at one model: what it is, what its weights are like, and with data what it does with the rows.

    Args:
        model: Folder or hub id.
        data: A file (with ``text`` and ``label``), a whole data section, or None for the model alone.
        text: The column of texts, where ``data`` is a file.
        label: The column of labels, where ``data`` is a file.
        folder: Where to write.
        lenses: As in :func:`compare`; by default those that look at one model.
        options: ``progress``, ``device``, ``seed`` and ``label_map``.

    Raises:
        TunescopeError: The model, the data or a lens cannot be used.
    """
    from tunescope.checkpoints import InspectRequest, inspect_folder

    progress = options.pop("progress", SILENT)
    section = None if data is None else _data(data, text, label)
    if lenses is not None:
        options["lenses"] = _lenses(lenses)
    return Inspection(inspect_folder(InspectRequest(str(model), Path(folder), section, **options), progress))


def run(
    study: str | Path | Mapping[str, Any] | StudyConfig,
    folder: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    progress: Progress = SILENT,
    **options: Any,
) -> Run:
    """Run a study, or continue it, and return what it wrote; what is done and unchanged is left alone.

    Args:
        study: A study file, the name of a recipe, a mapping, or a validated study.
        folder: The run folder; None is ``runs/NAME``.
        overrides: ``KEY=VALUE``, as on the command line.
        progress: Where to report.
        options: As in :func:`tunescope.study.run`.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came; the same call continues.
        TunescopeError: The study, its data, a model or a lens cannot be used.
    """
    from tunescope import study as stages
    from tunescope.config import StudyConfig, find_study, load_study

    if isinstance(study, StudyConfig):
        loaded = study
    else:
        source: Any = study if isinstance(study, Mapping) else find_study(str(study))
        if not isinstance(study, Mapping):
            options.setdefault("source", source)
        loaded = load_study(
            source, overrides, methods=stages.METHODS, lenses=stages.LENSES, refused=stages.REFUSED_METHODS
        )
    target = Path(folder) if folder is not None else Path("runs") / loaded.name
    return Run(stages.run(loaded, target, progress=progress, **options))


def _data(data: Any, text: str | None, label: str | None) -> DataConfig:
    from tunescope.config import DataConfig, load_data

    if isinstance(data, DataConfig):
        return data
    if isinstance(data, Mapping):
        return load_data(dict(data))
    return load_data({"path": str(data), "text": text or "text", "label": label or "label"})


def _lenses(lenses: Sequence[Any]) -> Sequence[Any]:
    from tunescope.config import LensConfig, load_lenses
    from tunescope.study import LENSES

    if all(isinstance(one, LensConfig) for one in lenses):
        return list(lenses)
    return load_lenses(list(lenses), LENSES)
