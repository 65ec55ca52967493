"""What several commands are asked for: rows and lenses, and where an answer goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunescope.errors import ConfigError

if TYPE_CHECKING:
    from tunescope.config import DataConfig, LensConfig

ALL = "all"


@dataclass(frozen=True)
class Ending:
    """Where an answer goes: a file or folder, the screen, or JSON; and on which device it is computed."""

    output: Path | None = None
    device: str = "auto"
    quiet: bool = False
    as_json: bool = False


@dataclass(frozen=True)
class LookWish:
    """Which rows are looked at through which lenses, as written on the command line.

    Attributes:
        data: A file, glob, folder or hub id; None where nothing but a model was named.
        text: One column, or two for a pair.
        label: The label column.
        label_map: Labels of the model and of the data, as ``MODEL=DATA``.
        lenses: Names, or names with options; none given is the usual ones.
        rows: How many rows are kept.
        max_length: The most tokens of a text.
        template: How fields become a text.
        seed: Of the draw of rows and of every random control.
    """

    data: str | None
    text: Sequence[str] = ()
    label: str = "label"
    label_map: Sequence[str] = ()
    lenses: Sequence[str] = ()
    rows: int | None = None
    max_length: int | None = None
    template: str | None = None
    seed: int = 0

    def section(self) -> DataConfig:
        """Return the data section of a study that means these rows.

        Raises:
            ConfigError: There are more than two text columns.
        """
        from tunescope.config import load_data

        values: dict[str, Any] = {"path": self.data, "text": text_columns(self.text), "label": self.label}
        optional = {"rows": self.rows, "max_length": self.max_length, "template": self.template}
        values.update({name: value for name, value in optional.items() if value is not None})
        return load_data(values)

    def chosen(self) -> list[LensConfig] | None:
        """Return the lenses that were named, or None.

        Raises:
            ConfigError: There is no such lens, or no such option.
        """
        return lens_configs(self.lenses) if self.lenses else None


def lens_configs(wanted: Sequence[str]) -> list[LensConfig]:
    """Return lenses by name or with options; ``all`` means every lens that can look at any two models.

    Args:
        wanted: As typed.

    Raises:
        ConfigError: There is no such lens, or no such option.
    """
    from tunescope.config import load_lenses
    from tunescope.config.text import parse_value
    from tunescope.lenses import NOT_OF_TWO
    from tunescope.study import LENSES

    if list(wanted) == [ALL]:
        return load_lenses([name for name in LENSES if name not in NOT_OF_TWO], LENSES)
    return load_lenses([parse_value(text) for text in wanted], LENSES)


def text_columns(columns: Sequence[str]) -> str | dict[str, str]:
    """Return one text column as it is, and a pair as ``first`` and ``second``.

    Raises:
        ConfigError: More than two columns.
    """
    if len(columns) == 1:
        return columns[0]
    if len(columns) == 2:
        return {"first": columns[0], "second": columns[1]}
    raise ConfigError(
        f"Expected one --text column, or two for a pair of texts; came {len(columns)}.",
        hint="Write a study with `text: {field: column, ...}` and a template for more.",
    )


def label_map(pairs: Sequence[str]) -> dict[str, str]:
    """Return ``MODEL_LABEL=DATA_LABEL`` pairs as a mapping.

    Raises:
        ConfigError: A pair has no ``=``, or a label stands in it twice.
    """
    mapping: dict[str, str] = {}
    for pair in pairs:
        theirs, equals, ours = pair.partition("=")
        if not equals or not theirs or not ours:
            raise ConfigError(
                f"--label-map expected MODEL_LABEL=DATA_LABEL; came {pair!r}.",
                hint="For example --label-map LABEL_0=negative --label-map LABEL_1=positive.",
            )
        if theirs in mapping:
            raise ConfigError(
                f"--label-map names {theirs!r} twice.", hint="Give each label of the model once."
            )
        mapping[theirs] = ours
    return mapping
