"""Plain values to a validated study: sections are checked one by one, so that every problem is found."""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from tunescope.config.arms import ArmConfig
from tunescope.config.grid import OptionModels, unfold
from tunescope.config.models import StudyConfig
from tunescope.config.problems import Problems, nearest, shown_value, unknown
from tunescope.config.summaries import summary_methods
from tunescope.config.training import check_together, read_training, stated_defaults, training_fields

ARM_KEYS = [name for name in ArmConfig.model_fields if name != "options"]


def build_study(
    raw: dict[Any, Any],
    methods: OptionModels,
    lenses: OptionModels,
    problems: Problems,
    refused: Mapping[str, str] | None = None,
) -> StudyConfig:
    """Return the study that ``raw`` says, complete.

    Raises:
        ConfigError: With every problem that ``problems`` and this check have found.
    """
    draft = {key: value for key, value in raw.items() if key != "extends"}
    for key in ("training", "lenses", "expect", "claims", "as_published", "selection", "compare"):
        if draft.get(key, ...) is None:  # a section whose every line is commented out
            del draft[key]
    if draft.get("task") == "summarise":
        methods, refused = summary_methods(methods, refused or {})
    unfold(draft, methods, problems)
    given = read_training(draft.get("training", {}), ("training",), problems)
    draft["training"] = {**stated_defaults(), **given}
    check_together(draft["training"], ("training",), problems)
    if isinstance(draft.get("arms"), list):
        draft["arms"] = [
            _arm(arm, index, draft["training"], (methods, refused or {}), problems)
            for index, arm in enumerate(draft["arms"])
        ]
    if isinstance(draft.get("lenses"), list):
        draft["lenses"] = [
            read_lens(lens, index, lenses, problems) for index, lens in enumerate(draft["lenses"])
        ]
    study = None
    try:
        study = StudyConfig.model_validate(draft)
    except ValidationError as error:
        note_errors(error, StudyConfig, draft, (), problems)
    problems.raise_all()
    assert study is not None
    return study


def _arm(
    arm: Any,
    index: int,
    shared: dict[str, Any],
    known: tuple[OptionModels, Mapping[str, str]],
    problems: Problems,
) -> Any:
    """Return an arm with its method's options, which stand flat in the file, moved under ``options``."""
    if not isinstance(arm, dict):
        return arm
    methods, refused = known
    key = ("arms", str(index))
    read = {name: value for name, value in arm.items() if name in ARM_KEYS}
    if read.get("training", {}) is None:
        del read["training"]
    if "training" in read:
        before = len(problems.found)
        read["training"] = read_training(read["training"], (*key, "training"), problems)
        if len(problems.found) == before:
            check_together({**shared, **read["training"]}, (*key, "training"), problems)
    method = read.get("method", ArmConfig.model_fields["method"].default)
    given = {name: value for name, value in arm.items() if name not in ARM_KEYS}
    model = methods.get(method) if isinstance(method, str) else None
    if model is None:
        if isinstance(method, str) and method in refused:
            problems.add((*key, "method"), f"{shown_value(method)} cannot be used: {refused[method]}")
        elif isinstance(method, str):
            problems.add((*key, "method"), unknown("method", method, methods))
        possible = {name for options in methods.values() for name in options.model_fields}
        given = {name: value for name, value in given.items() if name not in possible}
    read["options"] = _options(given, model, key, ARM_KEYS, problems)
    return read


def read_lens(lens: Any, index: int, lenses: OptionModels, problems: Problems) -> Any:
    """Return a lens as a mapping with its options, complete, under ``options``."""
    key = ("lenses", str(index))
    if isinstance(lens, str):
        lens = {"lens": lens}
    if not isinstance(lens, dict):
        problems.add(key, f"expected the name of a lens, or a mapping with 'lens'; came {shown_value(lens)}")
        return {"lens": f"#{index}"}
    given = {name: value for name, value in lens.items() if name != "lens"}
    name = lens.get("lens")
    if not isinstance(name, str) or name not in lenses:
        if isinstance(name, str):
            problems.add(
                key if (*key, "lens") not in problems.origins else (*key, "lens"),
                unknown("lens", name, lenses),
            )
        return {"lens": name} if "lens" in lens else {}
    return {"lens": name, "options": _options(given, lenses[name], key, ["lens"], problems)}


def _options(
    given: dict[Any, Any],
    model: type[BaseModel] | None,
    key: tuple[str, ...],
    beside: list[str],
    problems: Problems,
) -> dict[str, Any]:
    fields = list(model.model_fields) if model is not None else []
    for name in given:
        if name not in fields:
            problems.add((*key, name), _unknown_key(name, [*beside, *fields], trains=key[0] == "arms"))
    if model is None:
        return {}
    options = {name: value for name, value in given.items() if name in fields}
    try:
        return model.model_validate(options).model_dump(mode="json")
    except ValidationError as error:
        note_errors(error, model, options, key, problems)
        return {}


def _unknown_key(name: Any, candidates: list[str], trains: bool) -> str:
    if not isinstance(name, str):
        return f"expected a key that is text; came {shown_value(name)}"
    if trains and nearest(name, candidates) is None and name in training_fields():
        return f"this is a training field; it belongs under 'training:', as training.{name}"
    return unknown("key", name, candidates)


def note_errors(
    error: ValidationError, model: type[BaseModel], raw: Any, prefix: tuple[str, ...], problems: Problems
) -> None:
    """Note what pydantic found, one problem a field: the branches of a union say one thing together."""
    by_field: dict[Any, list[tuple[_Place, Any]]] = {}
    for item in error.errors(include_url=False):
        place = _place(model, _real_key(item["loc"], raw, item["type"]), raw)
        alone = item["type"] in ("extra_forbidden", "missing")
        by_field.setdefault(place.key if alone else place.field, []).append((place, item))
    for items in by_field.values():
        place, item = max(items, key=lambda pair: len(pair[0].key))
        if item["type"] == "extra_forbidden":
            keys = [name for name in place.owner.model_fields if name != "options"]
            top = len(place.key) == 1 and not prefix
            problems.add((*prefix, *place.key), _unknown_key(place.key[-1], keys, trains=top))
        else:
            problems.add((*prefix, *place.key), _text(place, item))


def _real_key(location: tuple[int | str, ...], raw: Any, kind: str) -> tuple[str, ...]:
    """Drop the parts of pydantic's location that name a union's branch and not a key of the study."""
    key: list[str] = []
    here = raw
    for position, part in enumerate(location):
        inside: Any = dict(enumerate(here)) if isinstance(here, list | tuple) else here
        if isinstance(inside, Mapping) and part in inside:
            here = inside[part]
        elif not (kind == "missing" and position == len(location) - 1):
            continue
        key.append(str(part))
    return tuple(key)


@dataclass(frozen=True)
class _Place:
    """Where a key leads to in the models."""

    key: tuple[str, ...]
    field: tuple[str, ...]  # the part of the key that ends in the last named field
    owner: type[BaseModel]  # the model that holds, or should hold, the last key
    description: str | None  # of the last named field
    is_model: bool  # whether the key names a whole model, or a list of them


def _place(model: type[BaseModel], key: tuple[str, ...], raw: Any) -> _Place:
    field: tuple[str, ...] = ()
    description: str | None = None
    owner, is_model = model, not key
    here, inner = raw, [model]
    for position, part in enumerate(key):
        here = _step_into(here, part)
        if part in model.model_fields:
            found = model.model_fields[part]
            field, description, owner = key[: position + 1], found.description, model
            inner = _models_in(found.annotation)
            is_model = bool(inner)
            if not inner:
                break
            model = _branch(inner, here)
        elif part.isdigit() and is_model:  # an item of a list of models is a place of its own
            field, description, model = key[: position + 1], "a mapping", _branch(inner, here)
        else:
            owner, is_model = model, False
            break
    return _Place(key, field, owner, description, is_model)


def _step_into(here: Any, part: str) -> Any:
    inside: Any = dict(enumerate(here)) if isinstance(here, list | tuple) else here
    if not isinstance(inside, Mapping):
        return None
    return next((inside[key] for key in inside if str(key) == part), None)


def _branch(models: list[type[BaseModel]], value: Any) -> type[BaseModel]:
    """Return the model of a union that a mapping names by one of its words, or the first."""
    for model in models if isinstance(value, Mapping) and len(models) > 1 else ():
        for name, info in model.model_fields.items():
            words = typing.get_args(info.annotation) if _is_literal(info.annotation) else ()
            if value.get(name) in words:
                return model
    return models[0]


def _is_literal(annotation: Any) -> bool:
    return typing.get_origin(annotation) is typing.Literal


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]


def _text(place: _Place, item: Any) -> str:
    """Say what was expected and what came."""
    own = str(item["ctx"]["error"]) if item["type"] == "value_error" else None
    if own is not None and (place.is_model or place.description is None):
        return own
    said = item["msg"][:1].lower() + item["msg"][1:]
    expected = f"expected {place.description}" if place.description else said
    if item["type"] == "union_tag_invalid":
        word = item["ctx"]["discriminator"].strip("'")
        return unknown(word, item["ctx"]["tag"], re.findall(r"'([^']*)'", item["ctx"]["expected_tags"]))
    if item["type"] == "union_tag_not_found":
        return f"missing {item['ctx']['discriminator']}, the name of what it is"
    if item["type"] == "missing":
        return f"missing; {expected}" if place.description else "missing"
    if "[key]" in item["loc"]:
        return f"unknown key {shown_value(item['input'])}; {expected}"
    text = f"{expected}; came {shown_value(item['input'])}"
    if item["type"] == "string_type" and isinstance(item["input"], int | float):
        text += "; put it in quotes if it is text"
    return f"{text} ({own})" if own is not None else text
