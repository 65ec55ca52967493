"""Which patches carry all or nothing whatever the model has learnt, so that their share is no discovery."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tunescope.capture.patch import PatchPlace
from tunescope.capture.patch_stacks import in_decoder
from tunescope.capture.patch_tokens import changed_tokens, positions_mask
from tunescope.capture.stored import pooled_place
from tunescope.data.tokens import Tokens
from tunescope.models.classifier import Classifier

EVERYTHING = "everything"
NOTHING = "nothing"
BUT_OWN_STREAM = "everything but the pooled token's own stream"
CROSS_WRITERS = ("cross_attn_out", "cross_head_out")
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

    In an encoder-decoder both stacks read the text, so that no stream before a block carries everything; the decoder's
    self-attention in its first block has heard of nothing but what the decoder read.
    """
    reach: dict[tuple[str | int, str | None], _Reach] = {}
    for place in places:
        key = place.positions, place.site.stack
        if key not in reach:
            reach[key] = _reach(model, key, first, second)
    judge = _of_stacks if model.is_encoder_decoder else _of
    return [judge(model, place, reach[place.positions, place.site.stack]) for place in places]


class _Reach:
    """What the tokens of a place are, over all pairs: whether in every pair they hold all or none of what matters."""

    def __init__(self, covers: bool, misses: bool, before: bool, reads: bool, unread: bool) -> None:
        self.covers, self.misses, self.before, self.reads, self.unread = covers, misses, before, reads, unread


def _reach(model: Classifier, where: tuple[str | int, str | None], first: Tokens, second: Tokens) -> _Reach:
    positions, stack = where
    kept = []
    for one, other in zip(first.input_ids, second.input_ids, strict=True):
        ids = [torch.as_tensor(np.asarray(row, dtype=np.int64))[None] for row in (one, other)]
        changed, length = changed_tokens(ids[0], ids[1]), ids[0].shape[1]
        changed = in_decoder(changed) if stack == "decoder" else changed
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


def _of_stacks(model: Classifier, place: PatchPlace, reach: _Reach) -> str | None:
    site = place.site
    if site.name == "embeddings" or (site.name == "resid_pre" and site.layer == 0):
        return NOTHING if reach.misses else None
    if site.stack == "encoder":
        return None  # every token of it is read
    if site.name in ("attn_out", "head_out") and site.layer == 0 and reach.before:
        return NOTHING
    if site.layer != model.n_layers - 1:
        return None
    if site.name == "resid_post" and reach.reads:
        return EVERYTHING
    return NOTHING if site.name in (*WRITERS, *CROSS_WRITERS, "resid_post") and reach.unread else None
