"""Grids: a list where a field takes none unfolds an arm into trials, one for every combination of values.

Unfolding works on plain values, before they are checked, so that each trial is checked like any other arm. A
trial is named after its arm and what it tries (``lora-r8-learning_rate0.0002``) and carries ``grid``, the arm
it comes from, and ``point``, its values by dotted key.
"""

from __future__ import annotations

import collections.abc
import copy
import itertools
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from tunescope.config.arms import ArmConfig
from tunescope.config.problems import Problems, shown_value
from tunescope.config.scratch import ScratchConfig
from tunescope.config.strict import is_safe_name
from tunescope.config.training import training_fields
from tunescope.fingerprints import sha256_of_json

UNTRAINED = ("zero_shot",)  # arms of these methods take no part in grids over training fields
NO_AXES = ("name", "note", "grid", "point", "options", "scratch", "training", "peft")
# Fields of peft's configurations that are lists themselves.
PEFT_LISTS = frozenset(
    {"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save",
     "feedforward_modules", "target_parameters", "trainable_token_indices", "layer_replication"}
)  # fmt: skip
LONGEST_NAME = 64
DEFAULT_MOST = 100
TRAIN_SHARE = "train_share"

Path = tuple[str, ...]
OptionModels = Mapping[str, type[BaseModel]]


@dataclass(frozen=True)
class Axis:
    """One field of an arm and the values it takes."""

    path: Path
    values: tuple[Any, ...]

    @property
    def key(self) -> str:
        """The field as a dotted key."""
        return ".".join(self.path)


def unfold(draft: dict[str, Any], methods: OptionModels, problems: Problems) -> None:
    """Replace every arm of a draft whose fields are lists by its trials, in the order of the file.

    The lists of the study's own ``training:`` first go to every arm that is trained and does not set the
    field itself. Notes of where things were written follow the arms to their new places.

    Args:
        draft: The study as plain values; ``arms`` and ``training`` are changed.
        methods: The tuning methods by name, each with the model of its options.
        problems: Where lists that cannot be grids are noted.
    """
    if not isinstance(draft.get("arms"), list):
        return
    arms = [copy.deepcopy(arm) for arm in draft["arms"]]
    _push_down(draft, arms, problems)
    most = _most_trainings(draft)
    seeds = len(draft["seeds"]) if isinstance(draft.get("seeds"), list) and draft["seeds"] else 1
    unfolded: list[Any] = []
    sources: list[tuple[int, list[Axis]]] = []
    total = 0
    for index, arm in enumerate(arms):
        axes = _axes_of(arm, methods) if isinstance(arm, dict) else []
        axes = [axis for axis in axes if _usable(axis, index, problems)]
        trials = math.prod(len(axis.values) for axis in axes) if axes else 0
        total += trials * seeds
        if trials and total > most:
            problems.add(
                ("arms", str(index)),
                f"its grid of {trials:,} trials and {seeds} seed{'s' if seeds > 1 else ''} brings the "
                f"trainings of grids to {total:,}; selection.most_trainings allows {most:,}",
            )
            axes = [Axis(axis.path, axis.values[:1]) for axis in axes]
        points = list(_trials(arm, axes)) if axes else [arm]
        unfolded += points
        sources += [(index, axes)] * len(points)
    draft["arms"] = unfolded
    _move_notes(sources, problems)


def _push_down(draft: dict[str, Any], arms: list[Any], problems: Problems) -> None:
    """Give lists of the study's training section to the arms that they apply to."""
    shared = draft.get("training")
    if not isinstance(shared, dict):
        return
    annotations = {name: field.annotation for name, field in training_fields().items()}
    fields = list(dict.fromkeys(axis.path[0] for axis in _axes(shared, annotations, ())))
    draft["training"] = {name: value for name, value in shared.items() if name not in fields}
    for index, arm in enumerate(arms):
        if not isinstance(arm, dict) or arm.get("method") in UNTRAINED:
            continue
        own = arm.get("training")
        own = {} if own is None else own
        if not isinstance(own, dict):
            continue
        for name in fields:
            if name not in own:
                own = {**own, name: copy.deepcopy(shared[name])}
                _copy_notes(problems, ("training", name), ("arms", str(index), "training", name))
        if own:
            arm["training"] = own


def _most_trainings(draft: Mapping[str, Any]) -> int:
    selection = draft.get("selection")
    most = selection.get("most_trainings") if isinstance(selection, dict) else None
    return most if isinstance(most, int) and not isinstance(most, bool) and most > 0 else DEFAULT_MOST


def _axes_of(arm: dict[Any, Any], methods: OptionModels) -> list[Axis]:
    method = arm.get("method", ArmConfig.model_fields["method"].default)
    tried = method if isinstance(method, list) else [method]
    annotations: dict[str, Any] = {
        name: field.annotation for name, field in ArmConfig.model_fields.items() if name not in NO_AXES
    }
    for name in tried:
        options = methods.get(name) if isinstance(name, str) else None
        if options is not None:
            annotations |= {name: field.annotation for name, field in options.model_fields.items()}
    annotations = {name: value for name, value in annotations.items() if name not in NO_AXES}
    found: list[Axis] = []
    for name, value in arm.items():
        if name == "training" and isinstance(value, dict):
            fields = {key: field.annotation for key, field in training_fields().items()}
            found += _axes(value, fields, ("training",))
        elif name == "scratch" and isinstance(value, dict):
            fields = {key: field.annotation for key, field in ScratchConfig.model_fields.items()}
            found += _axes(value, fields, ("scratch",))
        elif name == "peft" and isinstance(value, dict):
            fields = {str(key): list if key in PEFT_LISTS else None for key in value}
            found += _axes(value, fields, ("peft",))
        elif name in annotations:
            found += _axes({name: value}, annotations, ())
    return found


def _axes(value: Mapping[Any, Any], annotations: Mapping[str, Any], path: Path) -> Iterator[Axis]:
    """Yield the fields that hold several values, into mappings that have a model of their own."""
    for name, item in value.items():
        if name not in annotations:
            continue  # an unknown key is reported where keys are checked
        annotation = annotations[name]
        inner = [
            part for part in _parts(annotation) if isinstance(part, type) and issubclass(part, BaseModel)
        ]
        if isinstance(item, list):
            if not takes_list(annotation) or any(isinstance(one, list) for one in item):
                yield Axis((*path, name), tuple(item))
        elif isinstance(item, dict) and inner:
            fields = {key: field.annotation for key, field in inner[0].model_fields.items()}
            yield from _axes(item, fields, (*path, name))


def _parts(annotation: Any) -> Iterator[Any]:
    """Yield the plain types that an annotation is made of, through unions and ``Annotated``."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _parts(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from _parts(part)
    else:
        yield annotation if origin is None else origin


def takes_list(annotation: Any) -> bool:
    """Say whether a field of this type may be a list by itself, so that a plain list is no grid."""
    lists = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Iterable)
    return any(part is Any or part in lists for part in _parts(annotation))


def _usable(axis: Axis, index: int, problems: Problems) -> bool:
    key = ("arms", str(index), *axis.path)
    if not axis.values:
        problems.add(key, "an empty list tries nothing; give one value, or several for a grid")
        return False
    texts = [repr(value) for value in axis.values]
    twice = next((value for value in axis.values if texts.count(repr(value)) > 1), ...)
    if twice is not ...:
        problems.add(key, f"a grid tries each value once; {shown_value(twice)} stands in it twice")
    return True


def _trials(arm: dict[Any, Any], axes: Sequence[Axis]) -> Iterator[dict[Any, Any]]:
    names: set[str] = set()
    for values in itertools.product(*(axis.values for axis in axes)):
        trial = copy.deepcopy(arm)
        for axis, value in zip(axes, values, strict=True):
            here = trial
            for part in axis.path[:-1]:
                here = here[part]
            here[axis.path[-1]] = copy.deepcopy(value)
        point = {axis.key: value for axis, value in zip(axes, values, strict=True)}
        if isinstance(arm.get("name"), str):
            trial["name"] = _trial_name(arm["name"], axes, point, names)
            trial["grid"], trial["point"] = arm["name"], copy.deepcopy(point)
        yield trial


def _trial_name(arm: str, axes: Sequence[Axis], point: Mapping[str, Any], taken: set[str]) -> str:
    """Return a name that says what a trial tries, or ends in a hash of it where that gets too long."""
    last = [axis.path[-1] for axis in axes]
    words = [axis.path[-1] if last.count(axis.path[-1]) == 1 else axis.key for axis in axes]
    parts = [f"{word}{_value_name(value, True)}" for word, value in zip(words, point.values(), strict=True)]
    name = "-".join([arm, *parts])
    if len(name) > LONGEST_NAME or name.lower() in taken or (is_safe_name(arm) and not is_safe_name(name)):
        name = f"{arm[: LONGEST_NAME - 9]}-{sha256_of_json(dict(point))[:8]}"
    taken.add(name.lower())
    return name


def _value_name(value: Any, after_word: bool) -> str:
    if isinstance(value, list):
        return "_".join(_value_name(item, False) for item in value)
    if isinstance(value, str):
        value = value.replace("\\", "/").rstrip("/").split("/")[-1]
        return ("-" if after_word else "") + re.sub(r"[^A-Za-z0-9._-]+", "_", value)
    if value is None or isinstance(value, bool):
        return ("-" if after_word else "") + str(value).lower()
    if isinstance(value, float):
        return format(value, ".10g").replace("+", "")
    return re.sub(r"[^A-Za-z0-9._-]+", "_", str(value))


def _copy_notes(problems: Problems, source: Path, target: Path) -> None:
    for key, origin in list(problems.origins.items()):
        if key[: len(source)] == source:
            problems.origins[(*target, *key[len(source) :])] = origin


def _move_notes(sources: Sequence[tuple[int, list[Axis]]], problems: Problems) -> None:
    """Let places and names of the arms as written speak for the trials that came of them."""
    before, names = dict(problems.origins), dict(problems.names)
    for notes in (problems.origins, problems.names):
        for key in [key for key in notes if key[0:1] == ("arms",) and len(key) > 1]:
            del notes[key]
    for new, (old, axes) in enumerate(sources):
        start, target = ("arms", str(old)), ("arms", str(new))
        inside = [(*start, *axis.path) for axis in axes]
        for key, origin in before.items():
            if key[:2] == start and not any(key[: len(p)] == p and len(key) > len(p) for p in inside):
                problems.origins[(*target, *key[2:])] = origin
        if start in names:
            problems.names[target] = names[start]
