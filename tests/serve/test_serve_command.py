"""``tunescope serve``: prints the address, answers, ends cleanly with Ctrl-C, and says what is missing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import httpx
import pytest

from tunescope.errors import MissingDependencyError
from tunescope.serve import serve


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as on POSIX")
def test_it_prints_its_address_answers_and_ends_with_ctrl_c(moods):
    command = [sys.executable, "-m", "tunescope", "serve", str(moods), "--port", "0", "--device", "cpu"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        line = running.stdout.readline()
        found = re.fullmatch(r"1 run: (http://127\.0\.0\.1:(\d+)/\?token=([\w-]{32}))\n", line)
        assert found, line
        with httpx.Client(follow_redirects=True, timeout=60) as client:
            page = client.get(found[1])
            assert page.status_code == 200
            assert "moods" in page.text
            assert found[3] not in page.text
            assert client.get(f"http://127.0.0.1:{found[2]}/runs/moods/report.html").status_code == 200
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 0, err
    assert out.endswith("Stopped.\n")
    assert err == ""


@pytest.mark.parametrize("name", ["uvicorn", "starlette"])
def test_a_missing_library_is_said_with_what_installs_it(moods, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        MissingDependencyError, match=f"`tunescope serve` needs {name}.*\n.*tunescope\\[serve\\]"
    ):
        serve([moods])
