"""BitFit: only the biases and the head are trained (Ben Zaken et al. 2022, arXiv 2106.10199)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from tunescope.errors import ModelError
from tunescope.tuning.parameters import finish, frozen_always, require_one_stack, start

if TYPE_CHECKING:
    from tunescope.models import Classifier


class BitFitOptions(BaseModel):
    """BitFit has no options of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def biases(classifier: Classifier) -> list[str]:
    """Return the names of the trunk's biases that BitFit trains: of projections and of layer norms, in order."""
    never = {id(one) for one in frozen_always(classifier)}
    return [
        name
        for name, parameter in classifier.trunk.named_parameters()
        if name.rpartition(".")[2] == "bias" and id(parameter) not in never
    ]


class BitFit:
    """Trains every bias of the trunk (projections and layer norms, embeddings' norm included) and the whole head.

    :func:`biases` says which; :func:`tunescope.tuning.trainable` itemises them with the rest.
    """

    name = "bitfit"
    options: type[BaseModel] = BitFitOptions
    frozen_trunk = False
    kind: Literal["train", "prompt"] = "train"

    def prepare(self, classifier: Classifier, options: BaseModel) -> None:
        """Let biases and the head require gradients.

        Raises:
            ModelError: The trunk has no biases to train.
        """
        require_one_stack(classifier, self.name)
        start(classifier)
        names = biases(classifier)
        if not names:
            raise ModelError(
                "bitfit trains biases, and this model was made without any (bias: false).",
                hint="Choose head_only or lora, or train the scratch model with bias: true.",
            )
        for name in names:
            classifier.trunk.get_parameter(name).requires_grad_(True)
        classifier.head.requires_grad_(True)
        finish(classifier, 0)

    def frozen_blocks(self, classifier: Classifier, options: BaseModel) -> int:
        """Return 0: every block has biases that are trained."""
        return 0
