"""Models: families, loading, pooling by mask, heads."""

from __future__ import annotations

from tunescope.models.classifier import Classifier, right_padded
from tunescope.models.families import FAMILIES, POOLINGS, Family, Pooling, family_of
from tunescope.models.load import load, load_trunk, position_limit
from tunescope.models.probe import features, fit_probe

__all__ = [
    "FAMILIES", "POOLINGS", "Classifier", "Family", "Pooling", "family_of", "features", "fit_probe", "load",
    "load_trunk", "position_limit", "right_padded",
]  # fmt: skip
