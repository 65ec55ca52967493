"""Long work says how far it is: bars on a terminal, lines elsewhere, nothing when quiet."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
from tunescope import progress
progress.SECONDS_BETWEEN_LINES = 0.0
shown = progress.Progress(quiet={quiet})
with shown.task("tokenise", total=4, unit="rows") as task:
    for _ in range(4):
        task.advance(1)
shown.say("done [not markup]")
"""


@pytest.mark.parametrize(
    ("terminal", "quiet", "expected"),
    [
        (False, False, ["tokenise: 2/4 rows", "s left", "tokenise: 4/4 rows", "/s in", "done [not markup]"]),
        (True, False, ["tokenise", "━", "4/4", "rows", "/s", "done [not markup]"]),
        (False, True, []),
        (True, True, []),
    ],
)
def test_what_is_shown_where(terminal, quiet, expected):
    environment = {**os.environ, "COLUMNS": "120"} | ({"FORCE_COLOR": "1"} if terminal else {})
    answer = subprocess.run(
        [sys.executable, "-c", CODE.format(quiet=quiet)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert answer.stdout == ""
    for part in expected:
        assert part in answer.stderr
    if quiet:
        assert answer.stderr == ""
