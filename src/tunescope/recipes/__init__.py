"""Recipes: studies that come with tunescope, run on the hub's data and models or on folders in their place."""

from __future__ import annotations

from tunescope.recipes.folders import Places, folder_overrides
from tunescope.recipes.show import described, listed

__all__ = ["Places", "described", "folder_overrides", "listed"]
