"""Capture: sites, hooks that read, edits, and running a model from block *k*."""

from __future__ import annotations

from tunescope.capture.edits import Edit, EditReport, constant, editing, zero
from tunescope.capture.hooks import eager_attention, read, reading
from tunescope.capture.partial import Trace, run_from, trace
from tunescope.capture.sites import SITE_NAMES, Site, head_weights, locate
from tunescope.capture.verify import verify

__all__ = [
    "SITE_NAMES", "Edit", "EditReport", "Site", "Trace", "constant", "eager_attention", "editing", "head_weights",
    "locate", "read", "reading", "run_from", "trace", "verify", "zero",
]  # fmt: skip
