"""Full tuning: every parameter of trunk and head is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from tunescope.models import Classifier


class FullOptions(BaseModel):
    """Full tuning has no options of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Full:
    """Trains every parameter."""

    name = "full"
    options: type[BaseModel] = FullOptions
    frozen_trunk = False

    def prepare(self, classifier: Classifier, options: BaseModel) -> None:
        """Let every parameter require gradients."""
        classifier.requires_grad_(True)
