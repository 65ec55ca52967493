"""Means over train tokens, in pieces: the same values as one pass gives, without holding a worker for long."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from tunescope.capture.sites import Site
from tunescope.data.tokens import Tokens
from tunescope.lenses.ablation.replacement import Statistics, statistics
from tunescope.models.classifier import Classifier
from tunescope.progress import SILENT

TOKENS_AT_ONCE = 512


def switched_sites(model: Classifier) -> list[Site]:
    """Return the sites whose means replace heads, attention and MLP sublayers."""
    names = ("head_z", "attn_out", "mlp_out")
    return [Site(name, layer) for layer in range(model.n_layers) for name in names]


def means_in_pieces(model: Classifier, reference: Tokens, into: Statistics) -> Iterator[float]:
    """Average every switched site over the real tokens of reference rows, a few rows at a time.

    Args:
        model: The classifier.
        reference: Train rows.
        into: Gets the means when the last piece is done; before that it is left as it is.

    Yields:
        The share of rows that is done, from 0 to 1.
    """
    sites, total, done = switched_sites(model), 0, 0
    sums: dict[Site, torch.Tensor] = {}
    with SILENT.task("means", len(reference), "rows") as silent:
        for piece in _pieces(reference):
            part = reference.take(piece)
            found, count = statistics(model, part, sites, False, silent), int(part.kept.sum())
            for site in sites:
                share = found.mean[site].double() * count
                sums[site] = sums[site] + share if site in sums else share
            total, done = total + count, done + len(piece)
            yield done / len(reference)
    into.mean.update({site: (value / total).to(torch.float32) for site, value in sums.items()})


def _pieces(reference: Tokens) -> Iterator[np.ndarray]:
    order = np.argsort(reference.kept, kind="stable")
    start = 0
    while start < len(order):
        longest = int(reference.kept[order[start]])
        stop = start + max(1, TOKENS_AT_ONCE // max(1, longest))
        yield order[start:stop]
        start = stop
