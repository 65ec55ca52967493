"""Partial tuning: the last blocks, the final norm and the head are trained; what lies below stays as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tunescope.config.strict import no_boolean
from tunescope.errors import ModelError
from tunescope.tuning.parameters import finish, require_one_stack, start

if TYPE_CHECKING:
    from tunescope.models import Classifier


class LastKOptions(BaseModel):
    """How much of the trunk is trained.

    Attributes:
        k: The number of trained blocks, counted from the last: from 1 to the number of the model's blocks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    k: Annotated[int, BeforeValidator(no_boolean), Field(ge=1)] = Field(
        2, description="how many of the last blocks are trained: 1 to the number of the model's blocks"
    )


class LastK:
    """Trains the last ``k`` blocks, the final norm where the architecture has one, and the head.

    The embeddings and all blocks below are frozen and, where there is such a block, run without dropout: what they
    give is the same in every epoch and can be stored. With ``k`` equal to the number of blocks only the
    embeddings are frozen.
    """

    name = "last_k"
    options: type[BaseModel] = LastKOptions
    frozen_trunk = False
    kind: Literal["train", "prompt"] = "train"

    def prepare(self, classifier: Classifier, options: BaseModel) -> None:
        """Let the last blocks, the final norm and the head require gradients.

        Raises:
            ModelError: ``k`` is larger than the model.
        """
        frozen = self.frozen_blocks(classifier, options)
        start(classifier)
        family, trunk = classifier.family, classifier.trunk
        for layer in range(frozen, classifier.n_layers):
            trunk.get_submodule(family.path("block", layer)).requires_grad_(True)
        if family.final_norm is not None:
            trunk.get_submodule(family.final_norm).requires_grad_(True)
        classifier.head.requires_grad_(True)
        finish(classifier, frozen)

    def frozen_blocks(self, classifier: Classifier, options: BaseModel) -> int:
        """Return how many leading blocks are frozen: all but ``k``.

        Raises:
            ModelError: ``k`` is larger than the model.
        """
        require_one_stack(classifier, self.name)
        k, blocks = cast(LastKOptions, options).k, classifier.n_layers
        if k > blocks:
            raise ModelError(
                f"last_k: k is {k}, and the model has {blocks} blocks; k can be 1 to {blocks}.",
                hint=f"Set k to {blocks} or less; head_only trains no block at all.",
            )
        return blocks - k
