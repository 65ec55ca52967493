"""Recipes in words: the list of them, and one of them in full."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tunescope.config import StudyConfig, recipes
from tunescope.config.extend import extended
from tunescope.config.text import read_document


def listed() -> dict[str, str]:
    """Return the question of every recipe, by name."""
    found = {}
    for name, file in recipes().items():
        study = extended(read_document(file), file, (file.resolve(),), recipes()).value
        form = (study.get("recipe") or {}).get("form")
        mark = f" [{form}]" if form else ""
        found[name] = " ".join(str(study.get("question") or study.get("name") or "").split()) + mark
    return found


def profiles_of(file: Path) -> list[str]:
    """Return the names of the profiles that a recipe, or what it extends, has."""
    study = extended(read_document(file), file, (file.resolve(),), recipes()).value
    profiles = study.get("profiles")
    return [str(name) for name in profiles] if isinstance(profiles, Mapping) else []


@dataclass(frozen=True)
class Arithmetic:
    """How a recipe's cost is computed: lines on one study, and what they assume."""

    lines: Callable[[StudyConfig], Iterable[str]]
    stated: str


def described(
    name: str, study: StudyConfig, profiles: Mapping[str, StudyConfig], arithmetic: Arithmetic
) -> str:
    """Return a recipe in words: what it repeats, on what, at what cost, its slips, claims and expectations.

    Args:
        name: The recipe's name.
        study: The recipe.
        profiles: The recipe under each of its profiles.
        arithmetic: Of its cost.
    """
    cost = [*arithmetic.lines(study)]
    for profile, small in profiles.items():
        cost += [f" with --profile {profile}:", *arithmetic.lines(small)]
    head = [*_lines(name, study), "\ncost, by arithmetic:", *cost, f"  {arithmetic.stated}"]
    options = f" [--profile {'|'.join(profiles)}]" if profiles else ""
    tail = [
        f"\nRun it: tunescope run {name}{options}",
        "On folders in place of the hub: --data DIR --model NAME=DIR; fill them with",
        f"  tunescope recipes download {name} --to DIR",
    ]
    return "\n".join([*head, *tail])


def _lines(name: str, study: StudyConfig) -> Iterator[str]:
    recipe = study.recipe
    yield f"{name}: {study.question or ''}"
    if recipe is not None:
        yield f"{recipe.study} ({recipe.form})"
    yield ""
    yield f"data: {_data(study)}"
    for arm in study.arms:
        revision = f" at {arm.revision}" if arm.revision else ""
        yield f"arm {arm.name}: {arm.model}{revision}, {arm.method}{f'; {arm.note}' if arm.note else ''}"
    if recipe is not None and recipe.unpinned:
        yield f"not pinned: {recipe.unpinned}"
    yield f"lenses: {', '.join(lens.lens for lens in study.lenses) or 'none'}; seeds: {study.seeds}"
    if study.as_published:
        yield "\nas published, where the corrected form differs:"
        for one in study.as_published:
            yield f"  {one.key}: {one.published} (corrected: {one.corrected})\n    {one.because}"
    if study.claims:
        yield "\nclaims:"
        for claim in study.claims:
            yield f"  {claim.claim}. {claim.statement}\n    reported: {claim.reported} ({claim.source})"
    if study.expect:
        yield "\nexpected:"
        for rule in study.expect:
            low, high = rule.bounds
            ends = " to ".join("any" if end is None else f"{end:g}" for end in (low, high))
            yield f"  {rule.name or rule.metric}: {ends} ({rule.source or 'no source'})"


def _data(study: StudyConfig) -> str:
    path = study.data.path
    shown = path if isinstance(path, str) else ", ".join(
        f"{split} {one}" for split, one in path.items()
    ) if isinstance(path, dict) else ", ".join(path)  # fmt: skip
    name = f", configuration {study.data.name}" if study.data.name else ""
    revision = f", revision {study.data.revision}" if study.data.revision else ""
    return f"{shown}{name}{revision}"
