"""Training a classifier, exactly repeatable and exactly continued."""

from __future__ import annotations

from tunescope.training.options import TrainLog, TrainOptions, streams
from tunescope.training.session import train

__all__ = ["TrainLog", "TrainOptions", "streams", "train"]
