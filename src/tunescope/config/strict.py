"""What every section of a study is made of: the strict model and the types of its fields.

The description of a field is a noun phrase that states its valid values; it is the "expected" part of every
message about that field and the tooltip in editors that read the JSON schema.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Split = Literal["train", "validation", "test"]
Format = Literal["csv", "tsv", "json", "jsonl", "parquet", "arrow", "text_folder", "hub"]
Pooling = Literal["last", "mean", "first", "first_raw", "last_padded"]
BaseHead = Literal["probe", "tuned", "none"]

SAFE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?")
NAME_RULE = "a name of at most 64 letters, digits, '-', '_' and '.' that starts with a letter or digit"
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul"} | {
    f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)
}


def is_safe_name(name: str) -> bool:
    """Say whether ``name`` can be a folder's name on Linux, macOS and Windows."""
    return bool(SAFE_NAME.fullmatch(name)) and name.split(".")[0].lower() not in _WINDOWS_DEVICES


def no_boolean(value: Any) -> Any:
    """Refuse true and false where a number is meant.

    Raises:
        ValueError: The value is a boolean.
    """
    if isinstance(value, bool):  # Python counts True as 1; a study never means that
        raise ValueError("a true or false is not a number")
    return value


Name = Annotated[str, Field(min_length=1)]
Count = Annotated[int, BeforeValidator(no_boolean), Field(ge=1)]
Seed = Annotated[int, BeforeValidator(no_boolean), Field(ge=0, lt=2**32)]
Share = Annotated[float, BeforeValidator(no_boolean), Field(ge=0, lt=1)]
Positive = Annotated[float, BeforeValidator(no_boolean), Field(gt=0)]
NotNegative = Annotated[float, BeforeValidator(no_boolean), Field(ge=0)]
Number = Annotated[float, BeforeValidator(no_boolean)]
LabelValue = str | int | float | bool


class Strict(BaseModel):
    """A frozen model that refuses unknown keys and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())
