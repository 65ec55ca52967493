"""A run folder made ready to leave: figures for a paper, tables, a methods section, references, model cards."""

from __future__ import annotations

from tunescope.export.export import ExportOptions, export_run

__all__ = ["ExportOptions", "export_run"]
