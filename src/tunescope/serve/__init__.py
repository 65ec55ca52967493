"""The local page: runs, their reports, and the bench, on this machine alone."""

from __future__ import annotations

from tunescope.serve.server import ServeOptions, serve

__all__ = ["ServeOptions", "serve"]
