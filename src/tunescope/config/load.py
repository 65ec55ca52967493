"""Reading a study: the file, what it extends, overrides, and paths that hold wherever it is run."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tunescope.config.behaviour import anchored_suites
from tunescope.config.check import OptionModels, build_study, note_errors, read_lens
from tunescope.config.data import DataConfig
from tunescope.config.extend import NAMED, expanded, extended, forget, item_name, read_chain, with_profile
from tunescope.config.models import LensConfig, StudyConfig
from tunescope.config.problems import Key, Origin, Problem, Problems, nearest, shown_value
from tunescope.config.text import Document, parse_value
from tunescope.errors import ConfigError

STUDY_SUFFIXES = (".yaml", ".yml")


def load_study(
    source: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    methods: OptionModels,
    lenses: OptionModels,
    refused: Mapping[str, str] | None = None,
    profile: str | None = None,
) -> StudyConfig:
    """Return the complete study that a file, a recipe's name or a mapping says.

    Relative paths of data, models and corpora that exist beside the study file, or in the working folder,
    become absolute, so that the resolved study means the same in every folder.

    Args:
        source: A study file, the name of a recipe, or the study as plain values.
        overrides: Texts ``key=value`` with a dotted key, as in ``arms.lora.training.learning_rate=1e-4``;
            arms and lenses are named by name or index, values are YAML.
        methods: The tuning methods by name, each with the model of its options.
        lenses: The lenses by name, each with the model of its options.
        refused: Methods that exist elsewhere and cannot serve here, each with the reason.
        profile: The name of one of the study's ``profiles``, merged into it; None for the study itself.

    Raises:
        ConfigError: The study is not valid, or has no such profile; the message tells every problem with its
            file, line and key.
    """
    if isinstance(source, Mapping):
        document = Document(_plain(source), {(): Origin()})
        if "extends" in document.value:
            document = extended(document, None, (), recipes())
    else:
        document = read_chain(find_study(source), (), recipes())
    document = with_profile(document, profile)
    problems = Problems(document.origins, list(document.problems))
    for override in overrides:
        _override(document, override, problems)
    _name_items(document.value, problems)
    _anchor_paths(document)
    return build_study(document.value, methods, lenses, problems, refused)


def load_data(values: Mapping[str, Any]) -> DataConfig:
    """Return a ``data:`` section alone, as the command line gives it.

    Raises:
        ConfigError: A value is not valid.
    """
    document = Document({"data": _plain(values)})
    _anchor_paths(document)
    problems = Problems(subject="The data options are")
    try:
        return DataConfig.model_validate(document.value["data"])
    except ValidationError as error:
        note_errors(error, DataConfig, document.value["data"], (), problems)
        problems.raise_all()
        raise


def load_lenses(values: Sequence[Any], lenses: OptionModels) -> list[LensConfig]:
    """Return lenses that were given as in a study: names, or mappings with ``lens`` and its options.

    Raises:
        ConfigError: A lens or one of its options is not known.
    """
    problems = Problems(subject="The choice of lenses is")
    read = [read_lens(_plain(value), index, lenses, problems) for index, value in enumerate(values)]
    _name_items({"lenses": read}, problems)
    problems.raise_all()
    return [LensConfig.model_validate(lens) for lens in read]


def recipes() -> dict[str, Path]:
    """Return the studies that are shipped with tunescope, by name."""
    folder = Path(str(resources.files("tunescope"))) / "recipes"
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def find_study(name: str | Path) -> Path:
    """Return the study file that ``name`` means: a path, or the name of a recipe.

    Raises:
        ConfigError: It is neither.
    """
    path = expanded(name)
    shipped = recipes()
    if path.is_file():
        return path
    if str(name) in shipped:
        return shipped[str(name)]
    if path.suffix in STUDY_SUFFIXES or len(path.parts) > 1 or path.exists():
        return path  # reading it tells what is wrong with it
    match = nearest(str(name), shipped)
    raise ConfigError(
        f"There is no study file and no recipe {str(name)!r}; recipes: {', '.join(shipped) or 'none'}.",
        hint=f"Did you mean {match!r}?" if match else "Give a study file, or see `tunescope recipes`.",
    )


def _plain(value: Any) -> Any:
    """Copy a Python value, with tuples as lists and paths as text."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _override(document: Document, override: str, problems: Problems) -> None:
    """Set one dotted key of the study to a value."""
    origin = Origin(override=override)
    name, equals, text = override.partition("=")
    if not equals or not name.strip():
        problems.found.append(
            Problem(origin, "", "expected KEY=VALUE, for example training.num_train_epochs=1")
        )
        return
    try:
        value = parse_value(text)
    except ValueError as error:
        problems.found.append(Problem(origin, name, f"the value {text!r} is not readable as YAML: {error}"))
        return
    if name.strip() == "extends":
        problems.found.append(
            Problem(origin, name, "extends stands in the study file; it cannot be overridden")
        )
        return
    here: Any = document.value
    rest = name.strip()
    key: Key = ()
    while True:
        try:
            part, rest, identifier = _next_part(here, key, rest)
        except LookupError as error:
            problems.found.append(Problem(origin, name, str(error.args[0])))
            return
        key = (*key, str(part))
        if not rest:
            break
        if isinstance(here, dict) and here.get(part) is None:
            here[part] = {}
        if isinstance(here[part], str) and key[:-1] == ("lenses",):
            here[part] = {"lens": identifier}
        here = here[part]
    here[part] = value
    forget(document.origins, key)
    document.origins[key] = origin


def _next_part(here: Any, key: Key, rest: str) -> tuple[Any, str, str]:
    """Return the next index or key of a dotted path, what is left of the path, and the part as written.

    Raises:
        LookupError: With a sentence that says why the path leads nowhere.
    """
    where = ".".join(key) or "the study"
    if isinstance(here, list):
        names = [item_name(item, NAMED[key]) if key in NAMED else None for item in here]
        for index, name in sorted(enumerate(names), key=lambda pair: -len(pair[1] or "")):
            if name and (rest == name or rest.startswith(name + ".")):
                return index, rest[len(name) + 1 :], name
        part, _, rest = rest.partition(".")
        if part.isdigit() and int(part) < len(here):
            return int(part), rest, names[int(part)] or part
        known = ", ".join(name for name in names if name) or f"0 to {len(here) - 1}"
        raise LookupError(f"{where} has no item {part!r}; items: {known}")
    part, _, rest = rest.partition(".")
    if not part:
        raise LookupError("a part of the dotted key is empty")
    if not isinstance(here, dict):
        raise LookupError(f"{where} is {shown_value(here)}, so it has no key {part!r}")
    known_key: Any = next((name for name in here if str(name) == part), part)
    return known_key, rest, part


def _name_items(value: dict[Any, Any], problems: Problems) -> None:
    """Let messages call arms and lenses by name where a name means one of them."""
    for (section,), holds in NAMED.items():
        items = value.get(section)
        listed = items if isinstance(items, list) else []
        names = [
            item_name(item, holds) if section == "lenses" or isinstance(item, dict) else None
            for item in listed
        ]
        for index, name in enumerate(names):
            if name and names.count(name) == 1:
                problems.names[(section, str(index))] = name


def _anchor_paths(document: Document) -> None:
    """Make relative paths absolute where they exist beside the file that says them, or in this folder."""

    def anchored(value: Any, key: Key) -> Any:
        if isinstance(value, list):
            return [anchored(item, (*key, str(index))) for index, item in enumerate(value)]
        if isinstance(value, dict):
            return {name: anchored(item, (*key, str(name))) for name, item in value.items()}
        return _anchor(value, _file_of(document.origins, key)) if isinstance(value, str) else value

    study = document.value
    if isinstance(study.get("data"), dict) and "path" in study["data"]:
        study["data"] = {**study["data"], "path": anchored(study["data"]["path"], ("data", "path"))}
    elsewhere = study.get("elsewhere")
    if isinstance(elsewhere, dict):
        elsewhere = study["elsewhere"] = dict(elsewhere)
        if "text" in elsewhere:
            elsewhere["text"] = anchored(elsewhere["text"], ("elsewhere", "text"))
        if isinstance(elsewhere.get("data"), list):
            elsewhere["data"] = [
                {**one, "path": anchored(one["path"], ("elsewhere", "data", str(index), "path"))}
                if isinstance(one, dict) and "path" in one
                else one
                for index, one in enumerate(elsewhere["data"])
            ]
    if isinstance(behaviour := study.get("behaviour"), dict) and "suites" in behaviour:
        file = _file_of(document.origins, ("behaviour", "suites"))
        suites = anchored_suites(behaviour["suites"], lambda path: _anchor(path, file))
        study["behaviour"] = {**behaviour, "suites": suites}
    if isinstance(study.get("arms"), list):
        for index, arm in enumerate(study["arms"]):
            if isinstance(arm, dict) and arm.get("model") != "scratch" and "model" in arm:
                arm["model"] = anchored(arm["model"], ("arms", str(index), "model"))
            if isinstance(arm, dict) and isinstance(arm.get("scratch"), dict):
                for name in {"corpus", "like", "tokenizer"} & arm["scratch"].keys():
                    key = ("arms", str(index), "scratch", name)
                    arm["scratch"] = {**arm["scratch"], name: anchored(arm["scratch"][name], key)}


def _file_of(origins: dict[Key, Origin], key: Key) -> Path | None:
    found = (origins[key[:end]] for end in range(len(key), -1, -1) if key[:end] in origins)
    return next(found, Origin()).file


def _anchor(value: str, file: Path | None) -> str:
    if not value or "://" in value or value.startswith("planted:") or "\0" in value:
        return value
    path = expanded(value)
    if path.is_absolute():
        return str(path)
    folders = [Path.cwd()] if file is None else [file.resolve().parent, Path.cwd()]
    for folder in folders:
        whole = folder / path
        plain = Path(os.path.normpath(whole))  # without '..', unless a link makes that another file
        if whole.exists() and plain.exists() and plain.samefile(whole):
            return str(plain)
        if whole.exists() or (glob.has_magic(value) and glob.glob(str(whole), recursive=True)):
            return str(whole)
    return value
