"""Tuning methods by name: each says which parameters of a classifier are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pydantic import BaseModel

from tunescope.tuning.full import Full
from tunescope.tuning.head_only import HeadOnly

if TYPE_CHECKING:
    from tunescope.models import Classifier


class Method(Protocol):
    """A way to tune a classifier.

    Attributes:
        name: The name that a study uses.
        options: Model of the method's own options.
        frozen_trunk: Whether only the head is trained, so that features are computed once.
    """

    name: str
    options: type[BaseModel]
    frozen_trunk: bool

    def prepare(self, classifier: Classifier, options: BaseModel) -> None:
        """Choose the parameters that are trained, by ``requires_grad``."""


METHODS: dict[str, Method] = {method.name: method for method in (Full(), HeadOnly())}
