"""Folders in the place of hub data and models: what ``--data DIR`` and ``--model NAME=DIR`` change in a study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunescope.config import ArmConfig, StudyConfig
from tunescope.config.problems import unknown
from tunescope.config.text import to_yaml
from tunescope.data.read import read_table, split_of_name
from tunescope.errors import ConfigError

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".arrow")


@dataclass(frozen=True)
class Places:
    """What the command line puts in the place of hub ids.

    Attributes:
        data: A folder with one file a split (train, validation, test), or None.
        models: Texts ``NAME=DIR``; the name is an arm's, a hub id or its last word, under the profile or without
            one, or what one of them has before its first dash (``bert`` for ``bert-lora``). ``DIR`` alone serves all.
    """

    data: Path | None = None
    models: Sequence[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return self.data is not None or bool(self.models)


def folder_overrides(study: StudyConfig, places: Places, full: StudyConfig | None = None) -> list[str]:
    """Return the overrides ``key=value`` that put folders in the place of a study's data and models.

    Args:
        study: The study, under the profile that was asked for.
        places: The folders.
        full: The study without a profile, whose models may be named too.

    Raises:
        ConfigError: A folder is not there or holds no data, a column is missing, or a name is no model of the study.
    """
    found = [] if places.data is None else list(_data(study, places.data))
    models = {arm.name: arm.model for arm in full.arms} if full is not None else {}
    return [*found, *_models(study, places.models, models)]


def _line(key: str, value: Any) -> str:
    return f"{key}={to_yaml({'v': value}, flow=True).strip()[4:-1]}"


def _data(study: StudyConfig, folder: Path) -> Iterator[str]:
    files = files_of(folder)
    splits = study.recipe.splits if study.recipe is not None else {}
    wanted: dict[str, str] = {str(split): str(source) for split, source in splits.items()}
    wanted = wanted or {name: name for name in files}
    missing = [source for source in wanted.values() if source not in files]
    if missing:
        raise ConfigError(
            f"{folder} has no file of the split {missing[0]}; it has {', '.join(sorted(files))}.",
            hint=f"The study reads {', '.join(wanted.values())}; name the files so, as in {missing[0]}.parquet.",
        )
    yield _line("data.path", {split: str(files[source].resolve()) for split, source in wanted.items()})
    for key in ("name", "revision", "format"):
        if getattr(study.data, key) is not None:
            yield _line(f"data.{key}", None)
    columns = read_table(str(files[next(iter(wanted.values()))])).columns
    others = study.recipe.columns if study.recipe is not None else {}
    yield from _columns(study, folder, columns, others)


def _columns(
    study: StudyConfig, folder: Path, columns: Sequence[str], others: dict[str, list[str]]
) -> Iterator[str]:
    def named(column: str) -> str:
        return next((one for one in (column, *others.get(column, [])) if one in columns), "")

    text = study.data.text
    own = {"data.text": text} if isinstance(text, str) else {f"data.text.{k}": v for k, v in text.items()}
    own |= {f"data.{key}": str(getattr(study.data, key)) for key in ("label", "summary", "group_by")
            if getattr(study.data, key) not in (None, "duplicates")}  # fmt: skip
    if study.data.summary is not None:
        own.pop("data.label", None)
    for key, column in own.items():
        there = named(column)
        if not there:
            also = ", ".join(others.get(column, []))
            raise ConfigError(
                f"{folder} has no column {column!r} ({key}){f', nor {also}' if also else ''}; it has "
                f"{', '.join(columns)}.",
                hint=f"Say which column it is: --set {key}=COLUMN, with --set data.path=... in place of --data.",
            )
        if there != column:
            yield _line(key, there)


def files_of(folder: Path) -> dict[str, Path]:
    """Return the data file of each split in a folder.

    Raises:
        ConfigError: The folder is not there, or it has no or several files of a split.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"--data: there is no folder {folder}.",
            hint="Give a folder with train.parquet and so on; `tunescope recipes download NAME --to DIR` fills one.",
        )
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        split = split_of_name(file.name) if file.suffix.lower() in SUFFIXES else None
        if split in found:
            raise ConfigError(
                f"--data: {folder} has two files of the split {split}: {found[split].name} and {file.name}.",
                hint="Leave one of them, or set data.path by --set.",
            )
        if split is not None:
            found[split] = file
    if not found:
        raise ConfigError(
            f"--data: {folder} has no file whose name begins with train, validation or test.",
            hint=f"Name the files so ({', '.join(SUFFIXES)}), or set data.path by --set.",
        )
    return found


def _models(study: StudyConfig, wanted: Sequence[str], full: Mapping[str, str]) -> Iterator[str]:
    arms = [arm for arm in study.arms if arm.scratch is None or arm.scratch.like is not None]
    for text in wanted:
        name, equals, folder = text.partition("=")
        name, folder = (name, folder) if equals else ("", text)
        if not Path(folder).is_dir():
            raise ConfigError(
                f"--model {text}: there is no folder {folder!r}.",
                hint="Give NAME=DIR, where DIR is a model folder with config.json.",
            )
        place = str(Path(folder).resolve())
        named = [arm for arm in arms if name == "" or name in _called(arm, full.get(arm.name))]
        if not named:
            known = [*dict.fromkeys(one for arm in arms for one in (*_names(arm.model)[-1:], arm.name))]
            raise ConfigError(
                f"--model {text}: {unknown('model or arm', name, known)}", hint="Give NAME=DIR."
            )
        for arm in {arm.grid or arm.name: arm for arm in named}.values():
            key = f"arms.{arm.grid or arm.name}"
            if arm.scratch is not None:
                yield _line(f"{key}.scratch.like", place)
                continue
            yield _line(f"{key}.model", place)
            if arm.revision is not None:
                yield _line(f"{key}.revision", None)


def _called(arm: ArmConfig, full: str | None) -> set[str]:
    """Return every name by which ``--model`` may mean an arm."""
    names = {arm.name, *([arm.grid] if arm.grid else []), *_names(arm.model), *_names(full or "")}
    names |= set(_names(str(arm.scratch.like))) if arm.scratch is not None else set()
    return (names | {name.partition("-")[0] for name in names if "/" not in name}) - {""}


def _names(model: str) -> tuple[str, ...]:
    return model, model.rstrip("/").rpartition("/")[2]
