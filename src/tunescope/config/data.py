"""The ``data:`` section of a study: where the labelled texts come from and how they become rows."""

from __future__ import annotations

import string
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from tunescope.config.cleaning import CleaningStep, Deduplicate
from tunescope.config.strict import Count, Format, LabelValue, Name, Seed, Share, Split, Strict, no_boolean
from tunescope.config.window import WINDOW_EXPECTED, WindowConfig


def _capped(value: Any) -> Any:
    """Leave splits out that have no cap, so that a profile can lift the cap of the study it stands on."""
    return (
        {split: cap for split, cap in value.items() if cap is not None} if isinstance(value, dict) else value
    )


class DataConfig(Strict):
    """Where the labelled texts come from and how they become rows."""

    path: Name | list[Name] | dict[Split, Name | list[Name]] = Field(
        description="a file, glob, folder, URL, hub id or 'planted:NAME', a list of them, or a mapping from "
        "train, validation and test to them",
    )
    name: Name | None = Field(None, description="the name of a hub data set's configuration, or null")
    revision: Name | None = Field(
        None, description="the revision of a hub data set (branch, tag or commit), or null"
    )
    format: Format | None = Field(
        None,
        description="csv, tsv, json, jsonl, parquet, arrow, text_folder, hub, or null to go by the extension",
    )
    encoding: Name = Field(
        "utf-8", description="the text encoding of the files, for example utf-8 or latin-1"
    )
    split_column: Name | None = Field(None, description="the column that names each row's split, or null")
    text: Name | dict[Name, Name] = Field(
        description="the column that holds the text, or a mapping from field to column, "
        "for example {first: question, second: sentence}",
    )
    template: str | None = Field(
        None,
        description="how the fields of a text become one text, for example '{first}\\n{second}', or null",
    )
    label: Name = Field(
        description="the column that holds the label; with 'summary' it is that column and need not be named"
    )
    summary: Name | None = Field(
        None, description="the column that holds the summary, for 'task: summarise', or null"
    )
    labels: list[LabelValue] | dict[LabelValue, Name] | None = Field(
        None,
        description="the labels in class order, a mapping from value to name, or null for those in the data",
    )
    id: Name | None = Field(None, description="the column that holds the source's own row id, or null")
    validation: Share = Field(
        0.1, description="the share of rows for validation where it is not given: 0 to below 1"
    )
    test: Share = Field(0.1, description="the share of rows for test where it is not given: 0 to below 1")
    clean: list[CleaningStep] = Field(
        default_factory=list,
        description="a list of cleaning steps in order: lower, whitespace, html, bracketed, "
        "special_characters, speaker_turns, or mappings with 'step' and its options",
    )
    deduplicate: Deduplicate | None = Field(
        None,
        description="exact, normalised, near or null: which repeated texts are dropped, within train and from "
        "train where validation or test has them",
    )
    group_by: Name | None = Field(
        None,
        description="the column whose equal values never cross splits, 'duplicates' for clusters of near "
        "duplicates, or null",
    )
    stratify: bool = Field(True, description="true or false: whether splits keep the shares of the labels")
    repeats_cross_splits: bool = Field(
        False,
        description="false, or true where a study's published form split rows without looking whether texts repeat",
    )
    folds: Annotated[int, BeforeValidator(no_boolean), Field(ge=2)] | None = Field(
        None,
        description="the number of folds (2 or more), of which 'fold' is the test split, or null for one split",
    )
    fold: Annotated[int, BeforeValidator(no_boolean), Field(ge=0)] = Field(
        0, description="the number of the fold that is the test split: a whole number from 0 to below folds"
    )
    rows: Annotated[Count | dict[Split, Count] | None, BeforeValidator(_capped)] = Field(
        None,
        description="how many rows to keep (1 or more), a mapping from split to that number (null: all of that "
        "split), or null for all",
    )
    max_length: Count | None = Field(
        None, description="the most tokens of a text (1 or more), or null for the model's limit, at most 512"
    )
    window: WindowConfig = Field(
        default_factory=lambda: WindowConfig.model_validate({}),
        description="which part of a text that is too long is read: " + WINDOW_EXPECTED,
    )
    seed: Seed = Field(0, description="the seed of splitting and sampling rows: a whole number from 0")

    @model_validator(mode="before")
    @classmethod
    def _summaries_are_the_labels(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("summary") is not None and value.get("label") is None:
            return {**value, "label": value["summary"]}
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> DataConfig:
        if self.summary is not None and self.label != self.summary:
            raise ValueError(
                f"label ({self.label}) and summary ({self.summary}) name two columns; rows have a label or a summary"
            )
        return self

    @field_validator("path", "labels", "rows", "text")
    @classmethod
    def _not_empty(cls, value: Any) -> Any:
        if isinstance(value, list | dict) and not value:
            raise ValueError("it is empty")
        return value

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            "".encode(value)
        except LookupError:
            raise ValueError(f"Python knows no encoding {value!r}") from None
        return value

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, value: Any) -> Any:
        if isinstance(value, list) and len({str(item) for item in value}) < len(value):
            raise ValueError("a label stands in it twice")
        return value

    @model_validator(mode="after")
    def _shares_leave_train(self) -> DataConfig:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation ({self.validation:g}) and test ({self.test:g}) must leave rows for training: "
                "together they stay below 1"
            )
        return self

    @model_validator(mode="after")
    def _fold_is_one_of_them(self) -> DataConfig:
        if self.fold >= (self.folds or 1):
            many = f"there are {self.folds} folds" if self.folds else "there are no folds"
            raise ValueError(f"fold {self.fold} does not exist: {many}, counted from 0")
        return self

    @model_validator(mode="after")
    def _repeats_or_groups(self) -> DataConfig:
        if self.repeats_cross_splits and (self.group_by is not None or self.folds is not None):
            raise ValueError("repeats_cross_splits splits row by row; take group_by and folds out")
        return self

    @model_validator(mode="after")
    def _template_fits(self) -> DataConfig:
        if self.template is None:
            return self
        try:
            used = [field for _, field, _, _ in string.Formatter().parse(self.template) if field is not None]
        except ValueError as error:
            raise ValueError(
                f"template {self.template!r} cannot be read ({error}); write {{{{ for a brace"
            ) from None
        known = set(self.text) if isinstance(self.text, dict) else {"text"}
        unknown = [field for field in used if field not in known]
        if unknown or not used:
            came = ", ".join(f"{{{field}}}" for field in unknown) or "none"
            fields = ", ".join(
                f"{{{field}}}" for field in (self.text if isinstance(self.text, dict) else ["text"])
            )
            raise ValueError(
                f"template {self.template!r} may use {fields}, and must use one; it names {came}"
            )
        return self
