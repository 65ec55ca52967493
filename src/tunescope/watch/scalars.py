"""What lenses see during a training, as scalars that TensorBoard draws beside the training's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from tunescope.errors import MissingDependencyError

FOLDER = "tensorboard"


class Scalars:
    """Writes one scalar a lens, metric, model and layer at every look: means over heads, matrices or sites.

    Tags are ``lens/metric/model`` for the mean over layers and ``lens/metric/model/layer-03`` for one layer.

    Args:
        folder: The watched folder; event files go to its ``tensorboard``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self._writer: Any = None

    def open(self) -> None:
        """Begin to write.

        Raises:
            MissingDependencyError: TensorBoard is not installed.
        """
        if self._writer is not None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingDependencyError(
                "TensorBoard is not installed, so no scalars can be written for it.",
                hint="pip install tensorboard, or set callback.tensorboard = False.",
            ) from error
        self._writer = SummaryWriter(str(self.folder))

    def write(self, step: int, tables: Mapping[str, pl.DataFrame]) -> None:
        """Write one look's scalars."""
        for lens, table in tables.items():
            for tag, value in scalars(lens, table).items():
                self._writer.add_scalar(tag, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def scalars(lens: str, table: pl.DataFrame) -> dict[str, float]:
    """Return tag -> mean of one lens's table at one step; curves of one place with another (CKA) by equal places."""
    known = table.filter(pl.col("value").is_not_null())
    if "layer_other" in known.columns:
        known = known.filter(
            pl.col("layer_other").is_null()
            | ((pl.col("layer") == pl.col("layer_other")) & (pl.col("site") == pl.col("site_other")))
        )
    found: dict[str, float] = {}
    whole = known.group_by("metric", "model").agg(pl.col("value").mean()).sort("metric", "model")
    for metric, model, value in whole.rows():
        found["/".join(filter(None, (lens, metric, model)))] = value
    layers = known.filter(pl.col("layer").is_not_null() & (pl.col("layer") >= 0))
    each = layers.group_by("metric", "model", "layer").agg(pl.col("value").mean())
    for metric, model, layer, value in each.sort("metric", "model", "layer").rows():
        found["/".join(filter(None, (lens, metric, model, f"layer-{layer:02d}")))] = value
    return found
