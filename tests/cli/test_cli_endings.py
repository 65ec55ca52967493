"""How commands end: a sentence, an exit code, and no bare traceback."""

from __future__ import annotations

import errno
import re
import sys
from pathlib import Path

import pytest

from tunescope.commands.guard import explain, guarded
from tunescope.errors import DataError, Interrupted, MissingDependencyError, ModelError


def raising(error: BaseException):
    @guarded
    def command() -> None:
        raise error

    return command


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device", "/data/model.safetensors")


class OutOfMemoryError(RuntimeError):
    """As torch calls its own."""


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (DataError("No rows.", hint="Add rows."), 3, "Error: No rows.\nNext: Add rows."),
        (ModelError("No weights."), 4, "Error: No weights."),
        (MissingDependencyError("peft is missing.", hint="pip install x"), 7, "Next: pip install x"),
        (Interrupted("Stopped after stage data."), 130, "Stopped after stage data."),
        (KeyboardInterrupt(), 130, "Stopped. What was finished is kept; run the same command to continue."),
        (full_disk(), 6, "The disk is full while writing /data/model.safetensors."),
        (PermissionError(errno.EACCES, "Permission denied", "a.csv"), 6, "Error: a.csv: permission denied."),
        (MemoryError(), 6, "The memory is not enough."),
        (
            OutOfMemoryError("CUDA out of memory. Tried"),
            6,
            "The memory is not enough (CUDA out of memory. Tried).",
        ),
    ],
)
def test_expected_ends(error, code, text, capsys):
    with pytest.raises(SystemExit) as caught:
        raising(error)()
    assert caught.value.code == code
    said = capsys.readouterr()
    assert text in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


def test_a_bug_is_called_one_and_its_traceback_is_kept(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(SystemExit) as caught:
        raising(ZeroDivisionError("division\nby zero"))()
    assert caught.value.code == 70
    said = capsys.readouterr().err
    assert said.startswith("Error: ZeroDivisionError: division by zero\nThis is a bug in tunescope;")
    file = Path(re.search(r"traceback in (.*)", said)[1])
    assert file.parent == tmp_path
    assert "raise error" in file.read_text()


def test_a_bug_is_told_even_where_nothing_can_be_written(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise full_disk()

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    assert "TUNESCOPE_TRACEBACK=1 shows" in explain(ValueError("x"))[0]


def test_tracebacks_can_be_asked_for(capsys, monkeypatch):
    monkeypatch.setenv("TUNESCOPE_TRACEBACK", "1")
    with pytest.raises(SystemExit):
        raising(DataError("No rows."))()
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_left_to_typer():
    with pytest.raises(BrokenPipeError):
        raising(BrokenPipeError())()


def test_ctrl_c_in_a_real_process_ends_with_130(tmp_path):
    import subprocess

    code = (
        "import os, signal, sys, types\n"
        "def run(*a, **k): os.kill(os.getpid(), signal.SIGINT)\n"
        "import tunescope\n"
        "fake = types.ModuleType('tunescope.study'); fake.run = run; fake.METHODS = {}; fake.LENSES = {}\n"
        "sys.modules['tunescope.study'] = tunescope.study = fake\n"
        "from tunescope.commands.recipes import Wanted\n"
        "Wanted.load = lambda self: (types.SimpleNamespace(name='x'), None)\n"
        "sys.argv = ['tunescope', 'run', 'x']\n"
        "from tunescope.cli import main\nmain()\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert answer.returncode == 130
    assert answer.stderr.strip() == "Stopped. What was finished is kept; run the same command to continue."
