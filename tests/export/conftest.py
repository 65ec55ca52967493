"""A run made of invented numbers, as the tests of the report make it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "report"))


@pytest.fixture(scope="session")
def made_run(tmp_path_factory) -> Path:
    from report_run import make_run

    return make_run(tmp_path_factory.mktemp("export") / "run")
