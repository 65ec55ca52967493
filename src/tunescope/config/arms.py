"""The arms of a study: one model with one tuning method each."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from tunescope.config.scratch import ScratchConfig
from tunescope.config.strict import NAME_RULE, BaseHead, Name, Pooling, Strict, is_safe_name, no_boolean

HeadKind = Literal["softmax", "sigmoid"]
Note = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
TrainShare = Annotated[float, BeforeValidator(no_boolean), Field(gt=0, le=1)]


class ArmConfig(Strict):
    """One model with one tuning method; a method's own options stand beside these keys in the file."""

    name: str = Field(description=NAME_RULE)
    model: Name = Field(description="a model folder, a hub id, or 'scratch'")
    revision: Name | None = Field(
        None, description="the revision of a hub model (branch, tag or commit), or null"
    )
    method: Name = Field("full", description="the tuning method, for example full or head_only")
    pooling: Pooling | None = Field(
        None,
        description="last, mean, first or first_raw, or null for the family's own pooling; last_padded is study "
        "001's slip (the last position of the padded batch), for its published form alone",
    )
    head: HeadKind = Field(
        "softmax",
        description="softmax, or sigmoid for one logit with a bias that tells two labels apart",
    )
    train_share: TrainShare = Field(
        1.0, description="the share of the train rows that the arm sees: above 0, at most 1"
    )
    base_head: BaseHead = Field(
        "probe", description="probe, tuned or none: what gives the base model its logits"
    )
    note: Note | None = Field(
        None, description="one sentence that every reader of the arm's results must know, or null"
    )
    training: dict[str, Any] = Field(
        default_factory=dict, description="a mapping of fields of transformers.TrainingArguments"
    )
    summarise: dict[str, Any] = Field(
        default_factory=dict,
        description="a mapping of fields of the study's 'summarise' that this arm changes",
    )
    scratch: ScratchConfig | None = Field(None, description="the architecture of 'model: scratch', or null")
    grid: Name | None = Field(
        None, description="the arm that this trial of a grid was made from; a run writes it, or null"
    )
    point: dict[Name, Any] = Field(
        default_factory=dict, description="the values that this trial of a grid tries; a run writes it"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="the options of the method, complete")

    @field_validator("name")
    @classmethod
    def _safe_name(cls, value: str) -> str:
        if not is_safe_name(value):
            raise ValueError("it cannot be a folder's name everywhere")
        return value

    @model_validator(mode="before")
    @classmethod
    def _scratch_defaults(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("model") == "scratch" and value.get("scratch") is None:
            return {**value, "scratch": {}}
        return value

    @model_validator(mode="after")
    def _scratch_has_its_model(self) -> ArmConfig:
        if self.scratch is not None and self.model != "scratch":
            raise ValueError(f"scratch belongs to 'model: scratch', and the model is {self.model!r}")
        return self

    @model_validator(mode="after")
    def _grid_has_its_point(self) -> ArmConfig:
        if (self.grid is None) != (not self.point):
            raise ValueError("'grid' and 'point' are written by a run, both or neither; write a list instead")
        return self
