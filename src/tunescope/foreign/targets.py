"""From what was asked for to pairs of checkpoints: runs, arms, seeds, steps of a training, single models."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tunescope.errors import ModelError
from tunescope.foreign.layouts import is_sentence_export
from tunescope.foreign.names import arm_names
from tunescope.models.source import ADAPTER

STEP = re.compile(r"checkpoint-(\d+)")
SEED = re.compile(r"seed-(\d+)")
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")


@dataclass(frozen=True)
class Checkpoint:
    """One tuned model.

    Attributes:
        arm: Its arm's name; models of one arm are seeds of one recipe.
        seed: Its seed; None where there is one model of the arm alone.
        path: Its folder or hub id.
        steps: The folder whose ``checkpoint-*`` it is the last of, or None.
        of_run: Whether it came from a run folder.
    """

    arm: str
    seed: int | None
    path: str
    steps: str | None = None
    of_run: bool = False


@dataclass(frozen=True)
class Pair:
    """A tuned model, and the base that it is compared with."""

    base: str
    tuned: Checkpoint

    @property
    def name(self) -> str:
        """The arm, with the seed where there are several."""
        return self.tuned.arm if self.tuned.seed is None else f"{self.tuned.arm}, seed {self.tuned.seed}"


@dataclass(frozen=True)
class Pairs:
    """What is compared with what.

    Attributes:
        pairs: In the order in which they are looked at; seeds of an arm follow one another.
        notes: What the reader must know of how they were found.
        bases_of_run: The bases are tuned models of a run, with trained heads of their own.
    """

    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]
    bases_of_run: bool


def pairs_of(base: str, tuned: Sequence[str]) -> Pairs:
    """Return which base is compared with which tuned models.

    Each of ``tuned`` is a model folder, hub id or adapter; a folder of ``checkpoint-*`` folders (its own model, else
    the last step, is compared; the lens ``steps`` goes through all); a run folder, or one of its arms (every arm and
    seed); or ``NAME=FOLDER,FOLDER``: seeds of one arm. ``base`` is one model, or a run (or arm), whose models are then
    the bases of those of the same arm and seed.

    Raises:
        ModelError: A folder holds none of these, or no model of one run has a counterpart in the other.
    """
    found = _unique([_expanded(spec) for spec in _by_step(tuned)])
    bases = _expanded(base)
    if not bases[0].of_run:
        return Pairs(tuple(Pair(bases[0].path, one) for one in found), (), False)
    matched, notes = _matched(base, bases, found)
    return Pairs(tuple(matched), tuple(notes), True)


def _expanded(spec: str) -> list[Checkpoint]:
    """Return the models that one argument means."""
    name, equals, listed = spec.partition("=")
    if equals and not Path(spec).exists():
        return _seeds(name, [part for part in listed.split(",") if part])
    if "," in spec and not Path(spec).exists():
        raise ModelError(
            f"{spec} lists several folders without a name for them.",
            hint=f"Name the arm whose seeds they are: NAME={spec}",
        )
    folder = Path(spec)
    if not folder.is_dir() or is_sentence_export(spec):
        return [Checkpoint("", None, spec)]
    if (folder / "arms").is_dir():
        return _of_run(folder)
    if _models(folder):
        return _of_arm(folder)
    steps = _steps(folder)
    if (folder / "config.json").is_file() or (folder / ADAPTER).is_file():
        return [Checkpoint("", None, spec, str(folder) if len(steps) > 1 else None)]
    if steps:
        return [Checkpoint("", None, str(steps[-1]), str(folder) if len(steps) > 1 else None)]
    return [Checkpoint("", None, spec)]  # refused at loading, with what the folder holds


def _seeds(name: str, paths: Sequence[str]) -> list[Checkpoint]:
    """Return the seeds of one named arm; their numbers are those of their paths, or their places in the list."""
    if not _SAFE.fullmatch(name):
        raise ModelError(
            f"{name!r} cannot be an arm's name: expected letters, digits, dots, dashes and underscores.",
            hint="For example --tuned lora=run-1/checkpoint-500,run-2/checkpoint-500",
        )
    if not paths:
        raise ModelError(f"{name}= names no folder.", hint=f"Give its models: {name}=FOLDER,FOLDER")
    models = [one for path in paths for one in _expanded(path)]
    numbers = [_seed_in(one.path) if one.seed is None else one.seed for one in models]
    if None in numbers or len(set(numbers)) < len(numbers):
        numbers = list(range(len(models)))
    several = len(models) > 1
    return [
        replace(
            one,
            arm=name,
            seed=number if several else None,
            steps=None if several else one.steps,
            of_run=False,
        )
        for one, number in zip(models, numbers, strict=True)
    ]


def _seed_in(path: str) -> int | None:
    found = [match for part in Path(path).parts if (match := SEED.fullmatch(part))]
    return int(found[-1][1]) if found else None


def _of_run(folder: Path) -> list[Checkpoint]:
    """Return every arm and seed of a run folder that holds a model."""
    found = [one for arm in sorted((folder / "arms").iterdir()) if arm.is_dir() for one in _of_arm(arm)]
    if not found:
        raise ModelError(
            f"The run folder {folder} holds no models (arms/NAME/seed-N/model).",
            hint="Give the run of a study that trained some; a comparison's own folder holds results alone.",
        )
    return found


def _of_arm(folder: Path) -> list[Checkpoint]:
    """Return the seeds of one arm's folder, sorted as numbers."""
    models = _models(folder)
    return [Checkpoint(folder.name, number, str(path), None, True) for number, path in models]


def _models(folder: Path) -> list[tuple[int, Path]]:
    """Return seed and model folder of every ``seed-N`` in a folder."""
    found = []
    for place in folder.glob("seed-*"):
        match = SEED.fullmatch(place.name)
        for path in (place / "model", place):
            if match and ((path / "config.json").is_file() or (path / ADAPTER).is_file()):
                found.append((int(match[1]), path))
                break
    return sorted(found)


def _steps(folder: Path) -> list[Path]:
    """Return the ``checkpoint-N`` folders of a training, by step."""
    named = [
        (int(match[1]), one)
        for one in folder.iterdir()
        if (match := STEP.fullmatch(one.name)) and one.is_dir()
    ]
    return [path for _, path in sorted(named)]


def _by_step(tuned: Sequence[str]) -> list[str]:
    """Sort steps of one training as numbers, in the places that they have: a shell gives them as text."""
    parents = {str(Path(one).parent) for one in tuned if STEP.fullmatch(Path(one).name)}
    ordered = list(tuned)
    for parent in parents:
        places = [
            index for index, one in enumerate(tuned)
            if STEP.fullmatch(Path(one).name) and str(Path(one).parent) == parent
        ]  # fmt: skip
        own = sorted(
            (tuned[index] for index in places), key=lambda one: int(Path(one).name.rpartition("-")[2])
        )
        for index, one in zip(places, own, strict=True):
            ordered[index] = one
    return ordered


def _unique(groups: Sequence[list[Checkpoint]]) -> list[Checkpoint]:
    """Name models without an arm by their paths, and set apart groups of one name."""
    unnamed = iter(arm_names([one.path for group in groups for one in group if not one.arm]))
    taken: Counter[str] = Counter()
    found: list[Checkpoint] = []
    for group in groups:
        renamed: dict[str, str] = {}
        for one in group:
            if one.arm not in renamed:
                wanted = one.arm or next(unnamed)
                renamed[one.arm] = wanted if not taken[wanted] else f"{wanted}-again-{taken[wanted]}"
                taken[wanted] += 1
            found.append(replace(one, arm=renamed[one.arm]))
    return _last_step(found)


def _last_step(found: list[Checkpoint]) -> list[Checkpoint]:
    """Let the last of several given steps of one training carry the folder that they lie in."""
    last: dict[str, int] = {}
    counts: Counter[str] = Counter()
    for index, one in enumerate(found):
        if one.steps is None and STEP.fullmatch(Path(one.path).name):
            last[str(Path(one.path).parent)] = index
            counts[str(Path(one.path).parent)] += 1
    for parent, index in last.items():
        if counts[parent] > 1:
            found[index] = replace(found[index], steps=parent)
    return found


def _matched(
    base: str, bases: Sequence[Checkpoint], tuned: Sequence[Checkpoint]
) -> tuple[list[Pair], list[str]]:
    """Pair the models of two runs by arm and seed; where each run has one arm, by seed alone."""
    alone = len({one.arm for one in bases}) == 1 and len({one.arm for one in tuned}) == 1
    known = {("" if alone else one.arm, one.seed): one.path for one in bases}
    single = bases[0].path if len(bases) == 1 else None
    matched, left = [], []
    for one in tuned:
        path = single or known.get(("" if alone else one.arm, one.seed))
        if path is None:
            left.append(one)
        else:
            matched.append(Pair(path, one))
    if not matched:
        raise ModelError(
            f"{base} has the models {_listed(bases)}; none of them has the arm and seed of {_listed(tuned)}.",
            hint="Name one model of the run as BASE (RUN/arms/NAME/seed-N/model), or one arm of each run.",
        )
    notes = (
        [f"Models are paired with those of {base} by {'seed' if alone else 'arm and seed'}."]
        if single is None
        else []
    )
    if left:
        notes.append(f"Without a counterpart in {base}, and left out: {_listed(left)}.")
    return matched, notes


def _listed(models: Sequence[Checkpoint]) -> str:
    shown = [one.arm if one.seed is None else f"{one.arm} seed {one.seed}" for one in models[:8]]
    return ", ".join(shown) + (" ..." if len(models) > 8 else "")
