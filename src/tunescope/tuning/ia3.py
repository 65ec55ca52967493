"""IA3 through peft (Liu et al. 2022, arXiv 2205.05638): learned scales of keys, values and neurons.

It is a method of its own, not a ``peft_type`` of LoRA: it has no rank, no scale and no dropout, so a study that
sets those would mean something else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import BaseModel, Field, field_validator, model_validator

from tunescope.config.strict import Strict
from tunescope.errors import ModelError
from tunescope.tuning.injection import Found, Wanted, find, inject, known_to_peft, need_peft
from tunescope.tuning.lora import REASONS
from tunescope.tuning.parameters import require_one_stack

if TYPE_CHECKING:
    from tunescope.models import Classifier


class IA3Peft(Strict):
    """The fields of ``peft.IA3Config`` that a study may set, by peft's names."""

    target_modules: list[str] | str | None = Field(
        None,
        description="names of projections, a pattern for their whole paths, all-linear, or null for keys, values and "
        "the MLP's second projection",
    )
    feedforward_modules: list[str] | str | None = Field(
        None,
        description="those of the targets whose input is scaled, not their output, or null for the MLP's second "
        "projection",
    )
    exclude_modules: list[str] | str | None = Field(
        None, description="names of projections to leave out, a pattern, or null"
    )
    modules_to_save: list[str] = Field(
        default_factory=list,
        description="names of further modules that are trained whole; the head always is",
    )

    @model_validator(mode="before")
    @classmethod
    def _peft_knows_them(cls, given: Any) -> Any:
        reasons = {
            **REASONS,
            "init_ia3_weights": "the scales start at 1, so that the model starts as the base",
        }
        return known_to_peft("IA3Config", given, cls.model_fields, reasons)

    @field_validator("target_modules")
    @classmethod
    def _not_empty(cls, value: Any) -> Any:
        if value is not None and not value:
            raise ValueError("it is empty")
        return value


class IA3Options(Strict):
    """How IA3 is set up.

    Attributes:
        peft: Fields of ``peft.IA3Config`` by peft's names.
        train_head_bias: Whether the bias of the last linear layer is trained, where it has one.
    """

    peft: IA3Peft = Field(
        default_factory=lambda: IA3Peft.model_validate({}),
        description="a mapping of fields of peft.IA3Config",
    )
    train_head_bias: bool = Field(True, description="whether the head's bias is trained: true or false")


class IA3:
    """Trains one scale for each output of the key and value projections and each neuron, and the head.

    Scales start at exactly 1. Where an architecture keeps query, key and value in one matrix (GPT-2), the scales
    cover its whole output, queries included, as peft's own default does.
    """

    name = "ia3"
    options: type[BaseModel] = IA3Options
    frozen_trunk = False
    kind: Literal["train", "prompt"] = "train"

    def prepare(self, classifier: Classifier, options: BaseModel) -> None:
        """Put IA3 layers in place and let them and the head require gradients.

        Raises:
            MissingDependencyError: peft is not installed.
            ModelError: A module that the model does not have.
        """
        need_peft(self.name)
        from peft import IA3Config

        chosen = cast(IA3Options, options)
        found, feedforward = _resolve(classifier, chosen)
        config = IA3Config(
            target_modules=list(found.targets),
            feedforward_modules=list(feedforward),
            fan_in_fan_out=classifier.family.projection_is_conv1d,
            modules_to_save=list(found.save) or None,
        )
        inject(classifier, config, found, chosen.train_head_bias)

    def frozen_blocks(self, classifier: Classifier, options: BaseModel) -> int:
        """Return the number of blocks below the first adapted one.

        Raises:
            ModelError: A module that the model does not have.
        """
        return _resolve(classifier, cast(IA3Options, options))[0].frozen


def _resolve(classifier: Classifier, options: IA3Options) -> tuple[Found, tuple[str, ...]]:
    """Return what is adapted, and which of it is scaled at its input."""
    require_one_stack(classifier, IA3.name)
    family, given = classifier.family, options.peft
    # "output.dense" also ends BERT's attention, so the MLP's projections are named by their whole paths.
    neurons = [family.path("mlp_projection", layer) for layer in range(classifier.n_layers)]
    targets: list[str] | str = given.target_modules or [
        *dict.fromkeys(family.path(part).rpartition("{layer}.")[2] for part in ("key", "value")),
        *neurons,
    ]
    wanted = Wanted(targets, given.exclude_modules, None, tuple(given.modules_to_save))
    found = find(classifier, wanted)
    if given.feedforward_modules is None:
        return found, tuple(name for name in found.targets if name in neurons)
    if not given.feedforward_modules:
        return found, ()
    at_input = find(classifier, Wanted(given.feedforward_modules)).targets
    outside = sorted(set(at_input) - set(found.targets))
    if outside:
        raise ModelError(
            f"feedforward_modules: {outside[0]} is none of the target modules.",
            hint=f"Name targets only, for example {found.targets[0]}.",
        )
    return found, at_input
