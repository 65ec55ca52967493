"""The fields under ``training:`` that are tunescope's own, beside those of transformers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from tunescope.config.problems import unknown
from tunescope.config.strict import Count, LabelValue, Name, Positive, Strict, no_boolean

NotNegative = Annotated[float, BeforeValidator(no_boolean), Field(ge=0)]
Dimension = Annotated[int, BeforeValidator(no_boolean), Field(ge=0)]
Tracker = Literal["tensorboard", "wandb", "none"]

# Metrics of the validation rows that every evaluation of a training logs, and whether more is better.
VALIDATION_METRICS = {
    "loss": False, "accuracy": True, "f1_macro": True, "balanced_accuracy": True, "mcc": True,
}  # fmt: skip


def metric_name(name: str) -> str:
    """Return a validation metric's name without the ``eval_`` that transformers puts before it.

    Raises:
        ValueError: No evaluation logs such a metric; the nearest name is said.
    """
    short = name.removeprefix("eval_")
    if short not in VALIDATION_METRICS:
        raise ValueError(unknown("validation metric", name, VALIDATION_METRICS))
    return short


class EarlyStoppingConfig(Strict):
    """End a training when a validation metric has stopped getting better; the best step's model is kept.

    Whether more or less is better follows from the metric.
    """

    metric: Name = Field("loss", description="one of " + ", ".join(VALIDATION_METRICS))
    patience: Count = Field(3, description="evaluations without a better value before the end: 1 or more")
    least_change: NotNegative = Field(
        0.0, description="a value counts as better if it is better by more than this: a number from 0"
    )

    @field_validator("metric")
    @classmethod
    def _is_logged(cls, value: str) -> str:
        return metric_name(value)


class VarianceLossConfig(Strict):
    """An auxiliary loss on the share of variance that chosen dimensions of the pooled vector hold.

    See :func:`tunescope.training.losses.variance_share` for the formula.
    """

    weight: Positive = Field(0.01, description="how much it weighs beside the cross entropy: above 0")
    dimensions: list[Dimension] | None = Field(
        None, min_length=1, description="a list of different dimensions (from 0), or null with top"
    )
    top: Count | None = Field(
        None,
        description="how many dimensions of largest variance of the untuned model on the train rows (1 or "
        "more), or null with dimensions",
    )
    site: Literal["final"] = Field(
        "final", description="final: the vector that the head reads, pooled after the last block"
    )
    direction: Literal["encourage", "discourage"] = Field(description="encourage or discourage")

    @model_validator(mode="after")
    def _one_choice(self) -> VarianceLossConfig:
        if (self.dimensions is None) == (self.top is None):
            raise ValueError("give either dimensions, a list, or top, a number")
        if self.dimensions is not None and len(set(self.dimensions)) < len(self.dimensions):
            raise ValueError("a dimension stands in dimensions twice")
        return self


class FittingConfig(Strict):
    """How a classifier is fitted, where transformers has no field for it."""

    class_weights: Literal["balanced"] | dict[str, Positive] | None = Field(
        None, description="balanced, a mapping from every label to a number above 0, or null"
    )
    sampling: Literal["balanced", "balanced_subset"] | None = Field(
        None, description="balanced, balanced_subset or null"
    )
    logit_adjustment: NotNegative = Field(
        0.0, description="a number from 0: tau of the logit-adjusted loss (Menon et al. 2021); 0 is none"
    )
    early_stopping: EarlyStoppingConfig | None = Field(
        None, description="a mapping with metric, patience and least_change, or null"
    )
    variance_loss: VarianceLossConfig | None = Field(
        None, description="a mapping with weight, dimensions or top, site and direction, or null"
    )
    report_to: Tracker | list[Tracker] = Field(
        "tensorboard", description="tensorboard, wandb, none, or a list of them"
    )
    padding: Literal["none", "bucket", "auto"] = Field(
        "auto",
        description="bucket (rows of about equal length, padded), none (no padding at all), or auto (none where "
        "the architecture can)",
    )
    activation_store: Literal["auto", "always", "never"] = Field(
        "auto",
        description="auto (what frozen blocks give is computed once and kept on disk where that can be done and "
        "fits), always (or an error), or never",
    )
    activation_store_bytes: Count | None = Field(
        None,
        description="the most bytes the activation store may hold: 1 or more, or null for what the disk has",
    )

    @field_validator("class_weights", mode="before")
    @classmethod
    def _labels_are_text(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if not value:
            raise ValueError("it is empty")
        return {label_text(label): weight for label, weight in value.items()}

    @model_validator(mode="after")
    def _one_remedy(self) -> FittingConfig:
        remedies = [
            name for name, on in (
                ("class_weights: balanced", self.class_weights == "balanced"),
                ("sampling", self.sampling is not None),
                ("logit_adjustment", self.logit_adjustment > 0),
            ) if on
        ]  # fmt: skip
        if len(remedies) > 1:
            raise ValueError(f"{' and '.join(remedies)} correct for the same imbalance twice; choose one")
        return self

    @property
    def trackers(self) -> tuple[str, ...]:
        """The trackers to report to, without ``none``."""
        asked = self.report_to if isinstance(self.report_to, list) else [self.report_to]
        return tuple(dict.fromkeys(name for name in asked if name != "none"))


def label_text(value: LabelValue) -> str:
    """Return a label of a study as the data names it: YAML reads ``0`` and ``true`` as other than text."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


OWN_FIELDS: tuple[str, ...] = tuple(FittingConfig.model_fields)
