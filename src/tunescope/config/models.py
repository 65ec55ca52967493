"""The study as strict pydantic models: what a study file may say, and nothing else.

The description of a field is a noun phrase that states its valid values; it is the "expected" part of every
message about that field and the tooltip in editors that read the JSON schema.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from tunescope.config.arms import ArmConfig
from tunescope.config.behaviour import BehaviourConfig
from tunescope.config.claims import ClaimConfig, PublishedDifference, RecipeConfig
from tunescope.config.data import DataConfig
from tunescope.config.expect import CompareConfig, ElsewhereConfig, ExpectRule
from tunescope.config.fitting import label_text
from tunescope.config.strict import NAME_RULE, Count, Name, Positive, Seed, Strict, is_safe_name
from tunescope.config.summaries import SummariseConfig


class LensConfig(Strict):
    """One lens and its options; in the file a bare name, or a mapping ``{lens: NAME, ...options}``."""

    lens: Name = Field(description="the name of a lens")
    options: dict[str, Any] = Field(default_factory=dict, description="the options of the lens, complete")


class SelectionConfig(Strict):
    """How the trial of a grid that is kept is chosen: on validation rows, never on test rows."""

    metric: Name = Field(
        "accuracy",
        description="the validation metric that chooses among the trials of a grid, for example f1_macro",
    )
    most_trainings: Count = Field(
        100, description="the most trainings that grids may unfold into, seeds included: 1 or more"
    )


class StudyConfig(Strict):
    """Everything a run depends on."""

    name: str = Field(description=NAME_RULE)
    question: str | None = Field(None, description="one sentence that says what the study asks, or null")
    task: Literal["classify", "summarise"] = Field(
        "classify", description="classify (texts have labels) or summarise (articles have summaries)"
    )
    data: DataConfig = Field(description="a mapping that says where the labelled texts are")
    arms: list[ArmConfig] = Field(min_length=1, description="a list of one or more arms")
    training: dict[str, Any] = Field(
        default_factory=dict, description="a mapping of fields of transformers.TrainingArguments"
    )
    seeds: list[Seed] = Field(
        default=[0], min_length=1, description="a list of one or more different whole numbers from 0"
    )
    lenses: list[LensConfig] = Field(
        default_factory=list, description="a list of lenses: names, or mappings with 'lens' and its options"
    )

    selection: SelectionConfig = Field(
        default_factory=lambda: SelectionConfig.model_validate({}),
        description="a mapping that says how a grid's trial is chosen",
    )
    compare: CompareConfig = Field(
        default_factory=lambda: CompareConfig.model_validate({}),
        description="a mapping that says how arms are compared",
    )
    prior: Literal["uniform", "estimate"] | dict[Name, Positive] | None = Field(
        None,
        description="the classes' shares that test logits are corrected to: uniform, estimate (from test logits, "
        "labels unread), a mapping from every label to a share above 0, or null",
    )
    summarise: SummariseConfig | None = Field(
        None, description="a mapping that says how articles are summarised, for 'task: summarise', or null"
    )
    audit: bool = Field(True, description="true or false: whether the data is audited")
    elsewhere: ElsewhereConfig | None = Field(
        None, description="a mapping with text and data: where else the arms are looked at, or null"
    )
    behaviour: BehaviourConfig | None = Field(
        None, description="a mapping with suites: what is tested of every arm's behaviour, or null"
    )
    expect: list[ExpectRule] = Field(
        default_factory=list, description="a list of expectations, each a metric with bounds"
    )
    claims: list[ClaimConfig] = Field(
        default_factory=list, description="a list of published claims, each with the rules of its verdict"
    )
    as_published: list[PublishedDifference] = Field(
        default_factory=list,
        description="a list of keys in which a published form differs from the corrected one, each with the reason",
    )
    recipe: RecipeConfig | None = Field(
        None, description="a mapping that says which study a recipe repeats and what it needs, or null"
    )

    @field_validator("name")
    @classmethod
    def _safe_name(cls, value: str) -> str:
        if not is_safe_name(value):
            raise ValueError("it cannot be a folder's name everywhere")
        return value

    @field_validator("prior", mode="before")
    @classmethod
    def _labels_are_text(cls, value: Any) -> Any:
        return {label_text(key): share for key, share in value.items()} if isinstance(value, dict) else value

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, value: list[int]) -> list[int]:
        if len(set(value)) < len(value):
            raise ValueError("a seed stands in it twice")
        return value

    @field_validator("arms")
    @classmethod
    def _arm_names_differ(cls, value: list[ArmConfig]) -> list[ArmConfig]:
        _refuse_twice([arm.name for arm in value], "arm", "arms")
        return value

    @field_validator("lenses")
    @classmethod
    def _lenses_differ(cls, value: list[LensConfig]) -> list[LensConfig]:
        _refuse_twice([lens.lens for lens in value], "lens", "lenses")
        return value

    @field_validator("claims")
    @classmethod
    def _claims_differ(cls, value: list[ClaimConfig]) -> list[ClaimConfig]:
        _refuse_twice([one.claim for one in value], "claim", "claims")
        return value

    @model_validator(mode="before")
    @classmethod
    def _summarising_has_its_section(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("task") == "summarise" and value.get("summarise") is None:
            return {**value, "summarise": {}}
        return value

    @model_validator(mode="after")
    def _slips_are_named(self) -> StudyConfig:
        named = {one.key.rpartition(".")[2] for one in self.as_published}
        used = {
            "repeats_cross_splits": self.data.repeats_cross_splits,
            "pooling": any(arm.pooling == "last_padded" for arm in self.arms),
            "fresh_projections": any(arm.options.get("fresh_projections") for arm in self.arms),
        }
        for key, there in used.items():
            if there and key not in named:
                raise ValueError(
                    f"{key}: this repeats a published slip; list the key under 'as_published' with the reason, or take "
                    "it out"
                )
        return self

    @model_validator(mode="after")
    def _task_and_sections_fit(self) -> StudyConfig:
        summarises = self.task == "summarise"
        if summarises and self.data.summary is None:
            raise ValueError("task: summarise needs data.summary, the column that holds the summary")
        if not summarises:
            given = [
                name
                for name, there in (("data.summary", self.data.summary), ("summarise", self.summarise))
                if there is not None
            ]
            given += [f"arms.{arm.name}.summarise" for arm in self.arms if arm.summarise]
            if given:
                raise ValueError(f"{given[0]} belongs to task: summarise")
            return self
        for name, there in (
            ("prior", self.prior), ("elsewhere", self.elsewhere), ("behaviour", self.behaviour),
        ):  # fmt: skip
            if there is not None:
                raise ValueError(f"{name} is about classes, and task: summarise has none; take it out")
        for arm in self.arms:
            if arm.grid is not None or arm.scratch is not None:
                what = "a grid" if arm.grid is not None else "model: scratch"
                raise ValueError(f"arms.{arm.name}: {what} is not available for task: summarise")
            self.summarise_of(arm)
        return self

    def summarise_of(self, arm: ArmConfig) -> SummariseConfig:
        """Return how an arm summarises: the study's section, overridden by the arm's own fields.

        Raises:
            ValueError: The arm's fields are not valid, or the study does not summarise.
        """
        if self.summarise is None:
            raise ValueError("the study has no section 'summarise'")
        try:
            return self.summarise.changed(arm.summarise)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, ("arms", arm.name, "summarise", *first["loc"])))
            raise ValueError(f"{where}: {first['msg'][:1].lower() + first['msg'][1:]}") from error

    def training_of(self, arm: ArmConfig) -> dict[str, Any]:
        """Return the training fields that apply to ``arm``: the study's, overridden by the arm's."""
        return {**self.training, **arm.training}


def _refuse_twice(names: list[str], one: str, many: str) -> None:
    """Refuse names that are equal on a file system that does not see case."""
    seen: dict[str, str] = {}
    for name in names:
        if name.lower() in seen:
            raise ValueError(
                f"two {many} are named {seen[name.lower()]!r} and {name!r}; each {one} needs its own name"
            )
        seen[name.lower()] = name
