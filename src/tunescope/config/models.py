"""The study as strict pydantic models: what a study file may say, and nothing else.

The description of a field is a noun phrase that states its valid values; it is the "expected" part of every
message about that field and the tooltip in editors that read the JSON schema.
"""

from __future__ import annotations

import re
import string
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

Split = Literal["train", "validation", "test"]
Format = Literal["csv", "tsv", "json", "jsonl", "parquet", "arrow", "text_folder", "hub"]
Pooling = Literal["last", "mean", "first", "first_raw"]
BaseHead = Literal["probe", "tuned", "none"]

SAFE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?")
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul"} | {
    f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)
}
_NAME_RULE = "a name of at most 64 letters, digits, '-', '_' and '.' that starts with a letter or digit"


def is_safe_name(name: str) -> bool:
    """Say whether ``name`` can be a folder's name on Linux, macOS and Windows."""
    return bool(SAFE_NAME.fullmatch(name)) and name.split(".")[0].lower() not in _WINDOWS_DEVICES


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):  # Python counts True as 1; a study never means that
        raise ValueError("a true or false is not a number")
    return value


Name = Annotated[str, Field(min_length=1)]
Count = Annotated[int, BeforeValidator(_no_boolean), Field(ge=1)]
Seed = Annotated[int, BeforeValidator(_no_boolean), Field(ge=0, lt=2**32)]
Share = Annotated[float, BeforeValidator(_no_boolean), Field(ge=0, lt=1)]
Positive = Annotated[float, BeforeValidator(_no_boolean), Field(gt=0)]
LabelValue = str | int | float | bool


class Strict(BaseModel):
    """A frozen model that refuses unknown keys and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


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
    label: Name = Field(description="the column that holds the label")
    labels: list[LabelValue] | dict[LabelValue, Name] | None = Field(
        None,
        description="the labels in class order, a mapping from value to name, or null for those in the data",
    )
    id: Name | None = Field(None, description="the column that holds the source's own row id, or null")
    validation: Share = Field(
        0.1, description="the share of rows for validation where it is not given: 0 to below 1"
    )
    test: Share = Field(0.1, description="the share of rows for test where it is not given: 0 to below 1")
    group_by: Name | None = Field(
        None, description="the column whose equal values never cross splits, or null"
    )
    rows: Count | dict[Split, Count] | None = Field(
        None,
        description="how many rows to keep (1 or more), a mapping from split to that number, or null for all",
    )
    max_length: Count | None = Field(
        None, description="the most tokens of a text (1 or more), or null for the model's limit, at most 512"
    )
    seed: Seed = Field(0, description="the seed of splitting and sampling rows: a whole number from 0")

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


class ScratchConfig(Strict):
    """A small GPT-2 architecture and its tokenizer, trained from nothing before it is tuned."""

    n_layer: Count = Field(4, description="the number of layers: 1 or more")
    n_head: Count = Field(4, description="the number of attention heads: 1 or more, a divisor of n_embd")
    n_embd: Count = Field(128, description="the width: 1 or more, a multiple of n_head")
    n_positions: Count = Field(128, description="the most tokens of a text: 1 or more")
    vocab_size: Annotated[int, BeforeValidator(_no_boolean)] = Field(
        2000, ge=260, description="the number of tokens of the byte-level BPE: 260 or more"
    )
    corpus: Name | None = Field(
        None, description="a text file to learn the language from, or null for the study's texts"
    )
    epochs: Positive = Field(3.0, description="passes over the corpus: a number above 0")
    learning_rate: Positive = Field(1e-3, description="the peak learning rate: a number above 0")
    batch_size: Count = Field(32, description="windows of n_positions tokens in a batch: 1 or more")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ScratchConfig:
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd ({self.n_embd}) must be a multiple of n_head ({self.n_head})")
        return self


class ArmConfig(Strict):
    """One model with one tuning method; a method's own options stand beside these keys in the file."""

    name: str = Field(description=_NAME_RULE)
    model: Name = Field(description="a model folder, a hub id, or 'scratch'")
    revision: Name | None = Field(
        None, description="the revision of a hub model (branch, tag or commit), or null"
    )
    method: Name = Field("full", description="the tuning method, for example full or head_only")
    pooling: Pooling | None = Field(
        None, description="last, mean, first or first_raw, or null for the family's own pooling"
    )
    base_head: BaseHead = Field(
        "probe", description="probe, tuned or none: what gives the base model its logits"
    )
    training: dict[str, Any] = Field(
        default_factory=dict, description="a mapping of fields of transformers.TrainingArguments"
    )
    scratch: ScratchConfig | None = Field(None, description="the architecture of 'model: scratch', or null")
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


class LensConfig(Strict):
    """One lens and its options; in the file a bare name, or a mapping ``{lens: NAME, ...options}``."""

    lens: Name = Field(description="the name of a lens")
    options: dict[str, Any] = Field(default_factory=dict, description="the options of the lens, complete")


class StudyConfig(Strict):
    """Everything a run depends on."""

    name: str = Field(description=_NAME_RULE)
    question: str | None = Field(None, description="one sentence that says what the study asks, or null")
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

    @field_validator("name")
    @classmethod
    def _safe_name(cls, value: str) -> str:
        if not is_safe_name(value):
            raise ValueError("it cannot be a folder's name everywhere")
        return value

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
