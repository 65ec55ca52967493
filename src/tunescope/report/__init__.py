"""One self-contained HTML page about a run, made from the run folder's files alone."""

from __future__ import annotations

from tunescope.report.page import write_report

__all__ = ["write_report"]
