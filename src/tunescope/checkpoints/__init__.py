"""Models from anywhere: any two checkpoints, or more, compared; and one model inspected."""

from __future__ import annotations

from tunescope.checkpoints.compare import compare_folders
from tunescope.checkpoints.inspect import InspectRequest, inspect_folder
from tunescope.checkpoints.request import BASE_HEADS, BaseHead, CompareRequest

__all__ = [
    "BASE_HEADS", "BaseHead", "CompareRequest", "InspectRequest", "compare_folders", "inspect_folder",
]  # fmt: skip
