"""One synthetic run and its page, shared by the tests of the report; each test that changes it copies it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from report_browser import Page
from report_run import make_run

from tunescope.report import write_report


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("report") / "run")
    write_report(folder)
    return folder


@pytest.fixture(scope="session")
def page(whole_run) -> Page:
    return Page((whole_run / "report.html").read_text(encoding="utf-8"))


@pytest.fixture
def run_copy(whole_run, tmp_path) -> Path:
    shutil.copytree(whole_run, tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    return tmp_path / "run"
