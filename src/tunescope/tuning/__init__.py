"""Tuning methods by name: each says which parameters of a classifier are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import BaseModel

from tunescope.tuning.bitfit import BitFit
from tunescope.tuning.full import Full
from tunescope.tuning.head_only import HeadOnly
from tunescope.tuning.ia3 import IA3
from tunescope.tuning.last_k import LastK
from tunescope.tuning.lora import Lora
from tunescope.tuning.parameters import frozen_always, trainable
from tunescope.tuning.zero_shot import ZeroShot

if TYPE_CHECKING:
    from tunescope.models import Classifier


class Method(Protocol):
    """A way to tune a classifier.

    Attributes:
        name: The name that a study uses.
        options: Model of the method's own options.
        frozen_trunk: Whether only the head is trained, so that features are computed once.
        kind: ``train`` where parameters are trained, ``prompt`` where a language model is only asked.
    """

    name: str
    options: type[BaseModel]
    frozen_trunk: bool
    kind: Literal["train", "prompt"]

    def prepare(self, classifier: Classifier, options: BaseModel) -> None:
        """Choose the parameters that are trained, by ``requires_grad``; may put adapters in place."""

    def frozen_blocks(self, classifier: Classifier, options: BaseModel) -> int:
        """Return how many leading blocks (and the embeddings) get no gradient and run without dropout."""


METHODS: dict[str, Method] = {
    method.name: method for method in (ZeroShot(), HeadOnly(), LastK(), BitFit(), Lora(), IA3(), Full())
}

UNSUITABLE: dict[str, str] = dict.fromkeys(
    ("prompt_tuning", "prefix_tuning", "p_tuning", "multitask_prompt_tuning"),
    "virtual tokens stand before every text, so base and tuned would not see the same tokens row by row",
)
"""Methods that exist elsewhere and cannot serve a comparison of base and tuned, each with the reason."""

__all__ = ["METHODS", "UNSUITABLE", "Method", "frozen_always", "trainable"]
