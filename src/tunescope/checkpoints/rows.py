"""The rows of a comparison: labelled ones in two parts, or texts alone for language models."""

from __future__ import annotations

from typing import Any

from tunescope.config import DataConfig
from tunescope.data.load import load_rows
from tunescope.data.rows import Rows
from tunescope.data.unlabelled import unlabelled_rows
from tunescope.errors import DataError
from tunescope.progress import Progress

FIT_SHARE = 0.4  # of the rows: the base's probe head and the means of mean ablation come from these


def rows_for(data: DataConfig, speaks: bool, seed: int, progress: Progress) -> Rows:
    """Load rows; a single split is divided into rows to fit the base's head on and rows to look at.

    Args:
        data: Where the rows are.
        speaks: Whether the models are language models, which need no labels.
        seed: Seeds division and sample.
        progress: Where to report.

    Raises:
        DataError: The rows cannot be read, or lack a part.
    """
    if speaks:
        return unlabelled_rows(data, FIT_SHARE, seed, progress)
    update: dict[str, Any] = {"seed": seed}
    if not isinstance(data.path, dict) and data.split_column is None:
        update |= {"validation": 1 - FIT_SHARE, "test": 0.0}
    rows = load_rows(data.model_copy(update=update), seed, progress)
    missing = [split for split in ("train", "validation") if split not in rows.splits]
    if missing:
        raise DataError(
            f"A comparison needs train rows, to fit the base's head on, and validation rows, to look at; there are no "
            f"{' and no '.join(missing)} rows.",
            hint="Give one file; it is divided by content, and which rows were which is written into the run.",
        )
    return rows
