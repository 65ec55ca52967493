"""Full tuning: every parameter of trunk and head is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from tunescope.tuning.parameters import finish, start

if TYPE_CHECKING:
    from tunescope.models import Classifier


class FullOptions(BaseModel):
    """Full tuning has no options of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Full:
    """Trains every parameter that a logit depends on."""

    name = "full"
    options: type[BaseModel] = FullOptions
    frozen_trunk = False
    kind: Literal["train", "prompt"] = "train"

    def prepare(self, classifier: Classifier, options: BaseModel) -> None:
        """Let every parameter require gradients."""
        start(classifier)
        classifier.requires_grad_(True)
        finish(classifier, 0)

    def frozen_blocks(self, classifier: Classifier, options: BaseModel) -> int:
        """Return 0: every block is trained."""
        return 0
