"""Pooled states along the residual stream, kept for statistics that need all rows at once."""

from __future__ import annotations

import numpy as np
import polars as pl

from tunescope.capture.sites import Site, stack_of
from tunescope.errors import LensError
from tunescope.lenses.geometry.positions import Position, pooled_at
from tunescope.lenses.reading import ReadingLens, View
from tunescope.models.classifier import Classifier
from tunescope.stats.blocks import OpenBlock
from tunescope.stats.results import result_table


def stream_sites(model: Classifier) -> list[Site]:
    """Return embeddings, the residual stream after every block, and the final norm's output where there is one.

    Of an encoder-decoder, those of the encoder and then those of the decoder.
    """
    found = []
    for stack in model.stacks:
        found.append(Site("embeddings", stack=stack.name))
        found += [Site("resid_post", layer, stack.name) for layer in range(stack.n_layers)]
        found += [] if stack.family.final_norm is None else [Site("final_norm_out", stack=stack.name)]
    return found


def depth(site: Site, model: Classifier) -> int:
    """Return a site's place on its stack's depth axis: -1 for embeddings, the block's number, L for the final norm."""
    if site.layer is not None:
        return site.layer
    return -1 if site.name == "embeddings" else stack_of(model, site).n_layers


def site_name(site: str, layer: int | None, stack: str | None = None) -> str:
    """Return a place in a sentence."""
    name = {"embeddings": "the embeddings", "final_norm_out": "the final norm's output"}.get(
        site, f"layer {layer}"
    )
    return name if stack is None else f"{name} of the {stack}"


def stack_axes(site: Site, other: Site | None = None) -> dict[str, str]:
    """Return the columns ``stack`` (and ``stack_other``) of a record; none for a model of one stack."""
    named = {"stack": site.stack, "stack_other": None if other is None else other.stack}
    return {name: stack for name, stack in named.items() if stack is not None}


def at_one_place(table: pl.DataFrame) -> pl.Expr:
    """Return whether the two sites of a row are the same place, in the same stack where there are two."""
    same = (pl.col("layer") == pl.col("layer_other")) & (pl.col("site") == pl.col("site_other"))
    return same & pl.col("stack").eq_missing(pl.col("stack_other")) if "stack" in table.columns else same


class KeptRows(ReadingLens):
    """Keeps the pooled states of the first rows at every site of the stream.

    Rows are drawn in an order that depends on their ids alone, so the first of them are a random sample.

    Args:
        rows: How many rows are kept, those of ranks 0 to rows - 1.
        position: What stands for a text; see :mod:`tunescope.lenses.geometry.positions`.
    """

    def __init__(self, rows: int, position: Position = None) -> None:
        self.rows, self.position = rows, position
        self.kept: dict[tuple[str, Site], OpenBlock] = {}
        self.row_ids: dict[int, str] = {}

    def sites(self, model: Classifier) -> list[Site]:
        """Return the sites of the stream."""
        return stream_sites(model)

    def update(self, view: View) -> None:
        """Pool one site's states by the mask and keep those of the first rows.

        Raises:
            LensError: A row came twice, or two models saw different rows.
        """
        here = np.flatnonzero(view.ranks < self.rows)
        for place in here.tolist():
            rank, row_id = int(view.ranks[place]), view.row_ids[place]
            if self.row_ids.setdefault(rank, row_id) != row_id:
                raise LensError(
                    f"The models saw different rows: at place {rank} {self.row_ids[rank]!r} and {row_id!r}."
                )
        pooled = pooled_at(view, self.position).float().cpu().numpy()
        block = self.kept.setdefault((view.which, view.site), OpenBlock(0, 1, self.rows))
        block.put(0, view.ranks[here], pooled[here], f"{view.which}:{view.site}")

    def features(self, which: str, site: Site) -> np.ndarray:
        """Return the kept rows of one site, `[rows, D]` float32.

        Raises:
            LensError: Some of the rows did not come.
        """
        block = self.kept.get((which, site))
        came = 0 if block is None else block.complete_rows
        if block is None or came < self.rows:
            raise LensError(f"{which}:{site}: {self.rows - came} of {self.rows} rows did not come.")
        return block.features[0]

    def table(self) -> pl.DataFrame:
        """Return nothing: this lens serves others."""
        return result_table([])
