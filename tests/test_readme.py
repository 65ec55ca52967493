"""What the README says is true: its study loads, its commands exist, its tree is the tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from tunescope.cli import app
from tunescope.config import load_study
from tunescope.study import LENSES, METHODS

PROJECT = Path(__file__).resolve().parent.parent
README = (PROJECT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_study_in_the_readme_loads():
    study = load_study(yaml.safe_load(blocks("yaml")[0]), methods=METHODS, lenses=LENSES)
    assert [arm.name for arm in study.arms] == ["full", "head-only", "lora-r4", "lora-r16"]


@pytest.mark.parametrize("line", [line for line in "\n".join(blocks("sh")).splitlines() if line])
def test_every_command_in_the_readme_exists(line):
    words = line.split("#")[0].split()
    if words[0] == "tunescope":
        answer = CliRunner().invoke(app, [words[1], "--help"])
        assert answer.exit_code == 0
        options = [word for word in words if word.startswith("--")]
        assert all(option in answer.output for option in options)
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    else:
        assert words[:2] == ["pip", "install"]


def test_the_python_snippet_names_what_is_there():
    import tunescope

    names = re.findall(r"from tunescope import (.*)", "\n".join(blocks("python")))
    assert names
    assert all(hasattr(tunescope, name.strip()) for name in names[0].split(","))


def test_the_tree_in_the_readme_is_the_tree():
    tree = README[README.index("src/tunescope/\n") :]
    named = set(re.findall(r"([a-z_]+(?:\.py|/))", tree)) - {"tunescope/", "src/"}
    source = PROJECT / "src" / "tunescope"
    for name in named:
        places = [folder / name for folder in (source, PROJECT, PROJECT / "tests", PROJECT / "docs")]
        assert any(place.exists() for place in places), name
    parts = {
        path.name + ("/" if path.is_dir() else "") for path in source.iterdir() if path.name[0] not in "_."
    }
    assert parts <= named, parts - named


def test_pictures_are_there():
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (PROJECT / path).is_file()
