"""Head-only tuning: the pretrained trunk stays as it is, and only the head is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from tunescope.models import Classifier


class HeadOnlyOptions(BaseModel):
    """Head-only tuning has no options of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HeadOnly:
    """Trains the head on the frozen trunk's features.

    A frozen trunk runs without dropout, so its features are computed once and are exact. What counts as head
    is what the architecture puts after pooling: for BERT with its own pooling that includes the pooler.
    """

    name = "head_only"
    options: type[BaseModel] = HeadOnlyOptions
    frozen_trunk = True

    def prepare(self, classifier: Classifier, options: BaseModel) -> None:
        """Let only the head's parameters require gradients."""
        classifier.requires_grad_(False)
        classifier.head.requires_grad_(True)
