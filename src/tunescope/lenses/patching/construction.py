"""Which patches carry all or nothing whatever the model has learnt, so that their share is no discovery."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tunescope.capture.patch import PatchPlace
from tunescope.capture.patch_tokens import changed_tokens, positions_mask
from tunescope.capture.stored import pooled_place
from tunescope.data.tokens import Tokens
from tunescope.models.classifier import Classifier

EVERYTHING = "everything"
NOTHING = "nothing"
BUT_OWN_STREAM = "everything but the pooled token's own stream"
WRITERS = ("attn_out", "head_out", "mlp_out")  # what a block adds; the stream goes on beside them


def by_construction(
    model: Classifier, places: Sequence[PatchPlace], first: Tokens, second: Tokens
) -> list[str | None]:
    """Say of every place what a patch there must carry between these pairs of texts.

    Returns:
        Of each place one of three, or None where only running it can tell:

        ``everything``: before block 0 the stream differs between two texts at the changed tokens alone, so patching
        those carries all; so does the stream behind the last block at the pooled token.

        ``everything but the pooled token's own stream``: behind the attention of the last block a pooled token hears
        of no other token any more, so that this attention holds all that the token did not hear before.

        ``nothing``: unchanged tokens before block 0 (and what its MLP makes of them, where it reads that stream); in
        causal models every token before the first that is changed; and what the last block writes at tokens that
        pooling does not read.
    """
    reach: dict[str | int, _Reach] = {}
    for place in places:
        if place.positions not in reach:
            reach[place.positions] = _reach(model, place.positions, first, second)
    return [_of(model, place, reach[place.positions]) for place in places]


class _Reach:
    """What the tokens of a place are, over all pairs: whether in every pair they hold all or none of what matters."""

    def __init__(self, covers: bool, misses: bool, before: bool, reads: bool, unread: bool) -> None:
        self.covers, self.misses, self.before, self.reads, self.unread = covers, misses, before, reads, unread


def _reach(model: Classifier, positions: str | int, first: Tokens, second: Tokens) -> _Reach:
    kept = []
    for one, other in zip(first.input_ids, second.input_ids, strict=True):
        ids = [torch.as_tensor(np.asarray(row, dtype=np.int64))[None] for row in (one, other)]
        changed, length = changed_tokens(ids[0], ids[1]), ids[0].shape[1]
        if isinstance(positions, int) and not -length <= positions < length:
            return _Reach(False, False, False, False, False)  # refused where the patch is made
        mask = positions_mask(model, positions, changed.to(model.device), (1, length)).cpu()[0]
        own, place = changed[0], pooled_place(model, length)
        begun = own.cumsum(0) > 0
        kept.append((
            bool(mask[own].all()), not bool(mask[own].any()), not bool(mask[begun].any()),
            place is not None and bool(mask[place]), place is not None and not bool(mask[place]),
        ))  # fmt: skip
    return _Reach(*(all(column) for column in zip(*kept, strict=True)))


def _of(model: Classifier, place: PatchPlace, reach: _Reach) -> str | None:
    site, last = place.site.name, place.site.layer == model.n_layers - 1
    if site == "embeddings" or (site == "resid_pre" and place.site.layer == 0):
        return EVERYTHING if reach.covers else NOTHING if reach.misses else None
    if model.family.language_kind == "causal" and reach.before:
        return NOTHING
    if site == "mlp_out" and place.site.layer == 0 and model.is_parallel and reach.misses:
        return NOTHING  # it reads the stream before block 0, not the attention
    if not last:
        return None
    if site == "resid_post" and reach.reads:
        return EVERYTHING
    if site in (*WRITERS, "resid_post") and reach.unread:
        return NOTHING
    # Where attention and MLP read the same stream, the MLP writes beside the attention.
    if site == "attn_out" and reach.reads and not model.is_parallel:
        return BUT_OWN_STREAM
    return None
