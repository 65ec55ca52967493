"""Parts of the input that attention goes from and to: article, prompt and summary, two texts, special tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.lenses.attention.statistics import Visible
from tunescope.lenses.geometry.prompted_rows import texts_of
from tunescope.lenses.subject import Subject

SPECIAL = "special tokens"
TWO_TEXTS = ("first text", "second text")


@dataclass(frozen=True)
class Regions:
    """Which region each token of each row belongs to.

    Attributes:
        names: The regions.
        codes: Per row the number of each token's region, int8 [T].
    """

    names: tuple[str, ...]
    codes: list[np.ndarray]

    def masks(self, rows: np.ndarray, length: int) -> torch.Tensor:
        """Return who belongs where, bool [B, R, T]; padding belongs nowhere."""
        out = np.zeros((len(rows), len(self.names), length), dtype=bool)
        for place, row in enumerate(rows):
            own = self.codes[int(row)]
            out[place, own, np.arange(len(own))] = True
        return torch.from_numpy(out)


def regions_of(subject: Subject, tokens: Tokens, divide_at: str | None) -> Regions | None:
    """Return the regions of rows, or None where all tokens are of one.

    Special tokens are a region of their own. The others divide by what is known of the rows' parts (article, prompt
    and summary), by their segment ids, or at ``divide_at``.

    Raises:
        LensError: A text does not hold ``divide_at``, or was not cut at its end.
    """
    if tokens.parts is not None:
        names, codes = tokens.part_names, [part.copy() for part in tokens.parts]
    elif divide_at is not None:
        names, codes = TWO_TEXTS, _divided(subject, tokens, divide_at)
    elif tokens.token_type_ids is not None and any(types.any() for types in tokens.token_type_ids):
        names, codes = TWO_TEXTS, [(types > 0).astype(np.int8) for types in tokens.token_type_ids]
    else:
        names, codes = ("text",), [np.zeros(len(ids), dtype=np.int8) for ids in tokens.input_ids]
    special = np.array(sorted(getattr(subject.tuned.tokenizer, "all_special_ids", ())), dtype=np.int64)
    for own, ids in zip(codes, tokens.input_ids, strict=True):
        own[np.isin(ids, special)] = len(names)
    there = sorted({int(one) for own in codes for one in np.unique(own)})
    if len(there) < 2:
        return None
    anew = np.zeros(len(names) + 1, dtype=np.int8)
    anew[there] = np.arange(len(there))
    return Regions(tuple((*names, SPECIAL)[one] for one in there), [anew[own] for own in codes])


def _divided(subject: Subject, tokens: Tokens, divide_at: str) -> list[np.ndarray]:
    """Return 0 for tokens before the end of the first occurrence of a piece of text, 1 for those behind."""
    texts = texts_of(subject, tokens.row_ids)
    tokenizer = subject.tuned.tokenizer
    if not tokenizer.is_fast:
        raise LensError(
            "attention: rows.divide_at needs a fast tokenizer, which says where its tokens stand."
        )
    encoded = tokenizer(texts, return_offsets_mapping=True, truncation=False, padding=False, verbose=False)
    found = []
    for row, text in enumerate(texts):
        end = text.find(divide_at) + len(divide_at)
        if end < len(divide_at):
            raise LensError(
                f"attention: row {tokens.row_ids[row]} does not hold {divide_at!r}, so it has no two parts.",
                hint="Set divide_at to what stands between the two texts of every row, or leave it out.",
            )
        whole, own = np.asarray(encoded["input_ids"][row]), tokens.input_ids[row]
        ends = np.array([stop for _, stop in encoded["offset_mapping"][row]])
        same = whole[: len(own)] == own
        if len(same) < len(own) or not same[:-1].all():  # of a cut text the last token may be a closing one
            raise LensError(
                f"attention: row {tokens.row_ids[row]} was not cut at its end, so divide_at cannot be found in it."
            )
        found.append((ends[: len(own)] > end).astype(np.int8))
    return found


def shares(pattern: torch.Tensor, visible: Visible, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the share of attention that goes from each region to each, and what even attention would give.

    Over the queries of the first region with two visible keys or more; the shares of one region sum to 1.

    Args:
        pattern: [B, H, T, T].
        visible: What each query sees.
        masks: Who belongs where, bool [B, R, T].

    Returns:
        Shares [B, H, R, R] and even shares [B, R, R], from (second to last axis) and to; NaN where a row has no query.
    """
    kind = pattern.dtype if pattern.dtype in (torch.float32, torch.float64) else torch.float32
    to = masks.to(kind)
    counts = visible.counts.to(kind)
    queries = (masks & (visible.counts >= 2)[:, None]).to(kind)  # [B, R, T]
    queries = queries / queries.sum(-1, keepdim=True)  # 0 / 0: no query
    seen = to.cumsum(-1) if visible.causal else to.sum(-1, keepdim=True).expand_as(to)
    even = torch.einsum("bfq,btq->bft", queries, seen / counts.clamp_min(1)[:, None])
    each = torch.einsum("bhqk,btk->bhqt", pattern.to(kind), to)
    return torch.einsum("bfq,bhqt->bhft", queries, each), even
