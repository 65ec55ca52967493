"""The study: strict models, and reading them from YAML with every problem reported at once."""

from __future__ import annotations

from tunescope.config.arms import ArmConfig
from tunescope.config.data import DataConfig
from tunescope.config.load import find_study, load_data, load_lenses, load_study, recipes
from tunescope.config.models import LensConfig, StudyConfig
from tunescope.config.scratch import ScratchConfig
from tunescope.config.strict import BaseHead, Format, Pooling, Split, is_safe_name
from tunescope.config.training import stated_defaults, training_fields
from tunescope.config.write import dump_study, study_document, study_schema

__all__ = [
    "ArmConfig",
    "BaseHead",
    "DataConfig",
    "Format",
    "LensConfig",
    "Pooling",
    "ScratchConfig",
    "Split",
    "StudyConfig",
    "dump_study",
    "find_study",
    "is_safe_name",
    "load_data",
    "load_lenses",
    "load_study",
    "recipes",
    "stated_defaults",
    "study_document",
    "study_schema",
    "training_fields",
]
