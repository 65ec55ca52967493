"""The commands around recipes: listing, showing, downloading, and the verdicts that a run ends with."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunescope.config import StudyConfig, find_study, load_study, recipes
from tunescope.config.problems import nearest
from tunescope.errors import ConfigError
from tunescope.recipes import Places, described, folder_overrides, listed

ACTIONS = ("show", "download")
WIDTHS = (26, 9, 30, 40)  # of the columns claim, arm, they reported, we measured
LOUD = "!!"


@dataclass(frozen=True)
class Wanted:
    """A study as the command line asks for it.

    Attributes:
        study: A study file, or the name of a recipe.
        overrides: Texts ``key=value``; they stand above profile and folders.
        profile: The name of one of its profiles, or None.
        places: Folders in the place of data and models.
    """

    study: str
    overrides: Sequence[str] = ()
    profile: str | None = None
    places: Places = field(default_factory=Places)

    def load(self) -> tuple[StudyConfig, Path]:
        """Return the study and its file.

        Raises:
            ConfigError: It is not valid, or a folder does not fit it.
        """
        from tunescope.study import LENSES, METHODS, REFUSED_METHODS

        def read(overrides: Sequence[str], profile: str | None) -> StudyConfig:
            return load_study(
                source,
                overrides,
                methods=METHODS,
                lenses=LENSES,
                refused=REFUSED_METHODS,
                profile=profile,
            )

        source = find_study(self.study)
        study = read(self.overrides, self.profile)
        if self.places:
            full = read([], None) if self.profile is not None else study
            study = read([*folder_overrides(study, self.places, full), *self.overrides], self.profile)
        return study, source


def recipe_command(action: str | None, name: str | None, to: Path | None, as_json: bool) -> None:
    """List recipes, show one, or download what one needs.

    Raises:
        ConfigError: The action, or the recipe, is not known.
    """
    if action is None:
        list_recipes(as_json)
        return
    if action not in ACTIONS:
        match = nearest(action, ACTIONS)
        raise ConfigError(
            f"`tunescope recipes` knows {' and '.join(ACTIONS)}; came {action!r}.",
            hint=f"Did you mean `tunescope recipes {match}`?"
            if match
            else f"Show a recipe with `tunescope recipes show {action}`.",
        )
    if name is None:
        raise ConfigError(
            f"`tunescope recipes {action}` needs the name of a recipe.",
            hint="List them with `tunescope recipes`.",
        )
    study, file = Wanted(name).load()
    if action == "show":
        show_recipe(name, study, file)
        return
    if to is None:
        raise ConfigError(
            "`tunescope recipes download` needs a folder to write to.",
            hint=f"For example: tunescope recipes download {name} --to recipes-data",
        )
    from tunescope.progress import Progress
    from tunescope.recipes.download import download

    options = download(study, to, Progress(as_json))
    print(f"tunescope run {name} {' '.join(options)}")


def show_recipe(name: str, study: StudyConfig, file: Path) -> None:
    """Print a recipe in full, with its cost under every profile."""
    from tunescope.recipes.show import Arithmetic, profiles_of
    from tunescope.study.recipe_cost import STATED, cost_lines

    profiles = {one: Wanted(name, profile=one).load()[0] for one in profiles_of(file)}
    print(described(name, study, profiles, Arithmetic(cost_lines, STATED)))


def list_recipes(as_json: bool) -> None:
    """Print the shipped studies, a line each."""
    found = listed()
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    width = max((len(name) for name in found), default=0)
    for name, question in found.items():
        print(f"{name:<{width}}  {question}")
    print("Run one with `tunescope run NAME`." if recipes() else "No recipes are installed.")


def verdict_lines(folder: Path) -> list[str]:
    """Return the table of verdicts on a study's claims, as a run prints it at its end; empty where it judges none."""
    import polars as pl

    path = folder / "results" / "claims.parquet"
    if not path.is_file():
        return []
    rows = pl.read_parquet(path).to_dicts()
    lines = ["", "Published claims: they reported, we measured, verdict"]
    for row in rows:
        lines += _row(row)
    outside = [row for row in rows if row.get("outside")]
    for row in outside:
        lower, upper = ("any" if row[end] is None else f"{row[end]:g}" for end in ("lower", "upper"))
        lines.append(
            f"{LOUD} OUTSIDE THE EXPECTED BAND: claim {row['claim']} ({row['arms']}) is {row['value']:.3f}, expected "
            f"{lower} to {upper}"
        )
    return lines


def _row(row: dict[str, Any]) -> list[str]:
    cells = [f"{row['claim']}. {row['statement']}", row["arms"] or "-", row["theirs"], row["ours"] or "-"]
    wrapped = [textwrap.wrap(str(cell), width) or [""] for cell, width in zip(cells, WIDTHS, strict=True)]
    lines = []
    for index in range(max(len(cell) for cell in wrapped)):
        parts = [
            (cell[index] if index < len(cell) else "").ljust(width)
            for cell, width in zip(wrapped, WIDTHS, strict=True)
        ]
        lines.append(("  " + "  ".join(parts)).rstrip())
    late = [f"    (its bounds were set after {row['set_after']} were seen)"] if row.get("set_after") else []
    return [*lines, f"    -> {row['verdict'].upper()}", *late, ""]


def unmet_lines(found: dict[str, Any]) -> list[str]:
    """Return a loud line for every expectation of a run that is not met."""
    return [
        f"{LOUD} OUTSIDE THE EXPECTED BAND: {one['sentence']}"
        for one in found.get("verdicts", [])
        if one["verdict"] == "not met"
    ]
