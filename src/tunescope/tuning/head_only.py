"""Head-only tuning: the pretrained trunk stays as it is, and only the head is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from tunescope.tuning.parameters import finish, start

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
    kind: Literal["train", "prompt"] = "train"

    def prepare(self, classifier: Classifier, options: BaseModel) -> None:
        """Let only the head's parameters require gradients."""
        start(classifier)
        classifier.head.requires_grad_(True)
        finish(classifier, self.frozen_blocks(classifier, options))

    def frozen_blocks(self, classifier: Classifier, options: BaseModel) -> int:
        """Return the number of all blocks."""
        return classifier.n_layers
