"""tunescope: tune language models on text, and see what tuning changed inside."""

from __future__ import annotations

__version__ = "0.1.0"
