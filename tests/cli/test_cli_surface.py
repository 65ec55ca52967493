"""What the command line shows and how fast, as a real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(sys.executable).with_name("tunescope")
COMMANDS = (
    "init", "audit", "validate", "run", "compare", "inspect", "test", "predict", "report", "export", "serve",
    "recipes", "doctor",
)  # fmt: skip


def tunescope(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def test_help_begins_with_a_first_example():
    answer = tunescope("--help")
    assert answer.returncode == 0
    assert "First example: tunescope run quickstart" in answer.stdout
    assert all(command in answer.stdout for command in COMMANDS)
    assert "Exit codes: 0 done; 2 the study" in answer.stdout


def test_starting_up_imports_nothing_heavy():
    code = (
        "import sys\nsys.argv = ['tunescope', '--help']\nfrom tunescope.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'polars', 'numpy', 'datasets', 'sklearn', 'pydantic', 'plotly'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command):
    answer = tunescope(command, "--help", COLUMNS="110")
    assert answer.returncode == 0
    assert f"Example: tunescope {command}" in answer.stdout


def test_version():
    from tunescope import __version__

    assert tunescope("--version").stdout == f"tunescope {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("rnu",), "rnu"),
        (("run",), "STUDY"),
        (("run", "x.yaml", "--device", "gpu"), "expected auto, cpu, cuda, cuda:N or mps; came 'gpu'"),
        (("compare", "a"), "tuned"),
        (("predict", "m", "--no-such-option"), "--no-such-option"),
    ],
)
def test_wrong_usage_is_a_sentence_and_exit_code_2(arguments, text):
    answer = tunescope(*arguments)
    assert answer.returncode == 2
    assert text.lower() in answer.stderr.lower()
    assert "Traceback" not in answer.stderr


def test_recipes_are_listed_and_readable_by_programs():
    from tunescope.config import recipes

    lines = tunescope("recipes").stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == list(recipes())
    assert set(json.loads(tunescope("recipes", "--json").stdout)) == set(recipes())


def test_doctor_describes_the_machine():
    answer = tunescope("doctor", "--env", HF_HUB_OFFLINE="1")
    assert answer.returncode == 0
    for text in (
        "torch ",
        "Devices",
        "  cpu ",
        "Threads: torch uses",
        "Caches:",
        "Offline: HF_HUB_OFFLINE=1",
    ):
        assert text in answer.stdout
    about = json.loads(tunescope("doctor", "--env", "--json").stdout)
    assert about["libraries"]["torch"]["installed"].startswith("2.")
    assert about["devices"][0]["name"] == "cpu"
    assert {"peft", "minilm"} <= set(about["extras"])


def test_doctor_names_the_nearest_check():
    answer = tunescope("doctor", "--only", "poolin")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "unknown check 'poolin'; did you mean 'pooling'?" in answer.stderr


def test_a_missing_extra_gets_its_exact_command(monkeypatch):
    from tunescope.doctor import environment as doctor

    installed = doctor.installed_version
    monkeypatch.setattr(doctor, "installed_version", lambda name: None if name == "peft" else installed(name))
    assert 'not installed: pip install "tunescope[peft]"' in doctor.environment_text()


def test_all_lenses_are_those_that_any_two_models_allow():
    from tunescope.commands.asked import lens_configs
    from tunescope.lenses import LENSES

    named = {one.lens for one in lens_configs(["all"])}
    assert set(LENSES) - named == {"planted", "steps", "watch"}  # no corpus, no checkpoints of a training
