"""Labelled rows from any source, and their way into batches.

``load_rows`` makes :class:`Rows` of a study's ``data`` section, ``tokenize`` makes :class:`Tokens` of them,
and ``batches`` yields padded batches. ``LengthGroupedSampler`` is in ``tunescope.data.sampler``, which
imports torch.
"""

from __future__ import annotations

from tunescope.data.batches import Batch, batches, collate
from tunescope.data.fold import folds
from tunescope.data.labels import LabelMap
from tunescope.data.load import load_rows
from tunescope.data.read import read_table
from tunescope.data.rows import Rows
from tunescope.data.tokens import Tokens, length_summary, tokenize, truncation_by_label

__all__ = [
    "Batch",
    "LabelMap",
    "Rows",
    "Tokens",
    "batches",
    "collate",
    "folds",
    "length_summary",
    "load_rows",
    "read_table",
    "tokenize",
    "truncation_by_label",
]
