"""Several processes of a command that has nothing to share: the first one says so, once."""

from __future__ import annotations

import pytest

from tunescope.commands.guard import guarded


def command() -> None:
    raise AssertionError("it must not run")


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_launcher_of_several_processes_is_refused_once(rank, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(SystemExit) as ended:
        guarded(command)()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("2 processes were started, and `tunescope command` has nothing for them to share") == (
        rank == "0"
    )
    assert ("Next: Start it once, without torchrun or accelerate launch." in said) == (rank == "0")


def test_one_process_of_a_launcher_runs(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert guarded(lambda: 7)() == 7
