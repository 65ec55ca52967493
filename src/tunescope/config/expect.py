"""What a study expects, how it compares its arms, and where else it looks: three sections of a study file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, field_validator, model_validator

from tunescope.config.strict import (
    NAME_RULE,
    Count,
    LabelValue,
    Name,
    Number,
    Positive,
    Seed,
    Share,
    Split,
    Strict,
    is_safe_name,
    no_boolean,
)

Correction = Literal["holm", "bh"]
Judged = Literal["interval", "value"]
Axis = Annotated[int, BeforeValidator(no_boolean)] | str


class SliceConfig(Strict):
    """One group of rows: those that have a value in a column."""

    column: Name = Field(description="the column that the rows are grouped by, for example length")
    group: Axis | bool = Field(description="the value of that column")


class NumberOf(Strict):
    """Which number of a run: a metric of an arm or baseline, a paired difference, or a value that a lens found."""

    metric: Name = Field(description="the name of a metric, as in metrics.json or a lens's table")
    split: Split | None = Field(
        None, description="train, validation or test; null means test for metrics and is unused for lenses"
    )
    label: Name | None = Field(
        None,
        validation_alias=AliasChoices("label", "class"),
        description="the label of the class that the number is about, or null for the number over all classes",
    )
    arm: Name | None = Field(None, description="the name of an arm, or null for every arm")
    seed: Seed | None = Field(None, description="one of the study's seeds, or null for every seed")
    baseline: Name | None = Field(None, description="the name of a baseline in place of an arm, or null")
    against: Name | None = Field(
        None, description="another arm: the bound is then on the paired difference arm minus this, or null"
    )
    slice: SliceConfig | None = Field(
        None, description="a mapping with column and group: the rows that the metric is over, or null for all"
    )
    lens: Name | None = Field(None, description="the name of a lens whose table holds the number, or null")
    model: Name | None = Field(
        None, description="base, tuned, base_tuned or tuned_minus_base (of a lens), or null"
    )
    site: Name | None = Field(None, description="the name of a site (of a lens), or null")
    layer: Annotated[int, BeforeValidator(no_boolean)] | None = Field(
        None, description="the number of a layer (of a lens), or null"
    )
    head: Annotated[int, BeforeValidator(no_boolean)] | None = Field(
        None, description="the number of a head (of a lens), or null"
    )
    where: dict[Name, Axis | float | bool | None] = Field(
        default_factory=dict,
        description="a mapping from further columns of the lens's table to their values, for example {edit: zero}",
    )

    @model_validator(mode="after")
    def _axes_fit(self) -> NumberOf:
        of_lens = [
            key for key in ("model", "site", "layer", "head", "where") if getattr(self, key) not in (None, {})
        ]
        of_metric = [
            key for key in ("split", "slice", "baseline", "against") if getattr(self, key) is not None
        ]
        if self.lens is None and of_lens:
            raise ValueError(f"{_listed(of_lens)} only to a rule that names a lens")
        if self.lens is not None and of_metric:
            raise ValueError(f"{_listed(of_metric)} only to a rule that names no lens")
        if self.baseline is not None and (self.arm is not None or self.against is not None):
            raise ValueError("'baseline' stands in place of 'arm' and 'against'")
        if self.against is not None and self.against == self.arm:
            raise ValueError(f"an arm cannot be held against itself ({self.arm!r})")
        if self.against is not None and (self.slice is not None or self.label is not None):
            raise ValueError("'against' compares arms on all rows; it goes with no slice and no label")
        return self


class ExpectRule(NumberOf):
    """A bound on one number of a run: a metric of an arm or baseline, or a value that a lens found.

    Without ``arm`` (and ``baseline`` and ``against``) the rule holds for every arm that has the number; without
    ``seed`` for every seed. The verdict is *met* where the whole interval keeps the bounds, *not met* where the
    whole interval breaks one, *undecided* where the interval straddles one.
    """

    name: Name | None = Field(None, description="what the report calls the rule, or null")
    lower: Number | None = Field(None, description="the least that the number may be, or null")
    upper: Number | None = Field(None, description="the most that the number may be, or null")
    equals: Number | None = Field(
        None, description="what the number should be, give or take tolerance, or null"
    )
    tolerance: Annotated[float, BeforeValidator(no_boolean)] = Field(
        0.0, ge=0, description="how far from 'equals' the number may be: 0 or more"
    )
    judge: Judged = Field(
        "interval",
        description="interval, or value for a fact of these very rows, such as a count, that has no sampling error",
    )
    source: Name | None = Field(
        None, description="where the expected number comes from, for example a paper and its table, or null"
    )

    @model_validator(mode="after")
    def _bounds_make_sense(self) -> ExpectRule:
        if self.lower is None and self.upper is None and self.equals is None:
            raise ValueError("a rule needs a bound: lower, upper or equals")
        if self.equals is not None and (self.lower is not None or self.upper is not None):
            raise ValueError("'equals' stands alone: with 'tolerance' it is a lower and an upper bound")
        if self.equals is None and self.tolerance:
            raise ValueError("'tolerance' belongs to 'equals'")
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise ValueError(f"lower ({self.lower:g}) is above upper ({self.upper:g})")
        return self

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """The least and the most that the number may be; None where it has no such bound."""
        if self.equals is None:
            return self.lower, self.upper
        return self.equals - self.tolerance, self.equals + self.tolerance


def _listed(keys: list[str]) -> str:
    return " and ".join(repr(key) for key in keys) + (" belongs" if len(keys) == 1 else " belong")


class CompareConfig(Strict):
    """How the arms of a study are compared with one another."""

    metric: Name = Field("accuracy", description="the metric that arms are compared by, for example f1_macro")
    split: Split = Field("test", description="the split that arms are compared on: train, validation or test")
    correction: Correction = Field("holm", description="holm or bh: the correction for several comparisons")
    equivalent_within: Positive = Field(
        0.01, description="the difference that would not matter, in units of the metric: a number above 0"
    )
    level: Annotated[float, BeforeValidator(no_boolean)] = Field(
        0.95, gt=0.5, lt=1, description="the coverage of intervals: above 0.5, below 1"
    )


class ElsewhereData(Strict):
    """Another labelled data set that every arm is evaluated on, its labels mapped to the study's."""

    name: str = Field(description=NAME_RULE)
    path: Name | list[Name] = Field(description="a file, glob, folder, URL or hub id, or a list of them")
    text: Name | dict[Name, Name] = Field(
        description="the column that holds the text, or a mapping from field to column"
    )
    template: str | None = Field(
        None, description="how the fields of a text become one text; null means the study's own template"
    )
    label: Name = Field(description="the column that holds the label")
    map: dict[LabelValue, Name] = Field(
        min_length=1,
        description="a mapping from their labels to the study's; rows of other labels are left out and counted",
    )
    format: Name | None = Field(None, description="the format of the files, or null to go by the extension")
    encoding: Name = Field("utf-8", description="the text encoding of the files")
    rows: Count | None = Field(None, description="the most rows to evaluate (1 or more), or null for all")

    @field_validator("name")
    @classmethod
    def _safe_name(cls, value: str) -> str:
        if not is_safe_name(value):
            raise ValueError("it cannot be a folder's name everywhere")
        return value


class ElsewhereConfig(Strict):
    """What tuning cost elsewhere: the trunk's language model on general text, and other data sets."""

    text: Name | None = Field(
        None, description="a file of held-out general text (txt, or parquet with a column), or null"
    )
    text_column: Name = Field("text", description="the column that holds the text of a parquet file")
    documents: Count = Field(200, description="the most documents of the general text: 1 or more")
    window: Annotated[int, BeforeValidator(no_boolean)] = Field(
        128, ge=8, description="the tokens in a window of the general text: 8 or more"
    )
    windows: Count = Field(2, description="the most windows of one document: 1 or more")
    mask_share: Share = Field(
        0.15, gt=0, description="the share of tokens that are masked for models with a masked language model"
    )
    data: list[ElsewhereData] = Field(
        default_factory=list, description="a list of other data sets, each with a name and a map of labels"
    )

    @field_validator("data")
    @classmethod
    def _names_differ(cls, value: list[ElsewhereData]) -> list[ElsewhereData]:
        seen: set[str] = set()
        for one in value:
            if one.name.lower() in seen:
                raise ValueError(f"two data sets are named {one.name!r}; each needs its own name")
            seen.add(one.name.lower())
        return value

    @model_validator(mode="before")
    @classmethod
    def _says_something(cls, value: Any) -> Any:
        if isinstance(value, dict) and not value.get("text") and not value.get("data"):
            raise ValueError("it names neither a text nor data")
        return value
