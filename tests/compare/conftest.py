"""What tests of comparisons share."""

from __future__ import annotations

import pytest


@pytest.fixture
def no_page(monkeypatch):
    """Leave the page out where it is not what is tested: it takes seconds."""
    monkeypatch.setattr(
        "tunescope.checkpoints.outcome.write_report",
        lambda folder: (folder / "report.html").write_text("page"),
    )
