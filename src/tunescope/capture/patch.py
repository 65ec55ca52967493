"""Activation patching: one run of a model goes on with a value from another run, exactly and fast.

Two passes of rows of equal token length are stored (:mod:`tunescope.capture.stored`): the *recipient*, which goes on,
and the *donor*, whose values are put in (Vig et al. 2020; Meng et al. 2022; Wang et al. 2022). A patch starts in the
block that it changes; patches that start in one block ride together as copies along the batch; a patch that differs
from the recipient at no token that later blocks read is not run, because its logits are the recipient's. Donor and
recipient may be passes of two models of one shape, which makes it a patch across models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tunescope.capture.patch_tokens import REGIONS, changed_tokens, positions_mask, require_equal_lengths
from tunescope.capture.sites import HEAD_OUT, Site, head_weights, stack_of
from tunescope.capture.stored import (
    after_mlp,
    logits_of,
    pooled_place,
    run_blocks,
    run_mlp,
    store,
)
from tunescope.errors import SiteError
from tunescope.models.activations import fast_activations
from tunescope.models.classifier import Classifier, right_padded

PATCH_SITES = (
    "embeddings", "resid_pre", "attn_out", "head_out", "cross_attn_out", "cross_head_out", "mlp_out", "resid_post",
)  # fmt: skip


@dataclass(frozen=True)
class PatchPlace:
    """Where a value of the donor replaces the recipient's.

    Attributes:
        site: One of :data:`PATCH_SITES`: the stream before or behind a block, a sublayer's output, heads' outputs
            (behind the output projection, without its bias), or the embeddings.
        heads: Which heads, at ``head_out``; None for all of them.
        positions: Which tokens: ``all``; ``before``, ``at`` or ``after`` the tokens in which the two texts differ
            (``at`` is from the first that differs to the last); ``pooled``, the one that pooling reads; or a number,
            from 0, or negative from behind the last.
        dimensions: Which dimensions of the site's vectors, from 0; None for all of them. Not at ``head_out``.
    """

    site: Site
    heads: tuple[int, ...] | None = None
    positions: str | int = "all"
    dimensions: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.site.name not in PATCH_SITES:
            raise SiteError(f"{self.site} cannot be patched; sites that can are {', '.join(PATCH_SITES)}.")
        if self.heads is not None and self.site.name not in HEAD_OUT:
            raise SiteError(f"{self.site} has no heads; heads are patched at head_out.")
        if self.dimensions is not None and self.site.name in HEAD_OUT:
            raise SiteError(f"{self.site} is patched by heads; dimensions are patched at attn_out.")
        if isinstance(self.positions, str) and self.positions not in REGIONS:
            raise SiteError(
                f"There are no positions {self.positions!r}; expected {', '.join(REGIONS)}, or a number."
            )

    @property
    def start(self) -> int:
        """The block in which the patch acts: that of its site; the number of blocks is one more for ``resid_post``."""
        return self.site.layer or 0

    @property
    def lands(self) -> Site:
        """Where the patch is made: heads' in the output of their attention."""
        return replace(self.site, name=self.site.name.replace("head_out", "attn_out"))

    def __str__(self) -> str:
        heads = "" if self.heads is None else "H" + ",".join(map(str, self.heads))
        dimensions = "" if self.dimensions is None else "D" + ",".join(map(str, self.dimensions))
        return f"{self.site}{heads}{dimensions}@{self.positions}"


def first_stream(model: Classifier) -> PatchPlace:
    """Return the stream before the first block (of an encoder-decoder, the encoder's) at every token."""
    return PatchPlace(Site("resid_pre", 0, model.stacks[0].name))


def check_places(model: Classifier, places: Sequence[PatchPlace]) -> None:
    """Refuse places outside a model.

    Raises:
        SiteError: A layer, head or dimension does not exist (the valid range is said), a place does not say in which
            of two stacks it is, or ``pooled`` is asked where there is no one token that pooling reads.
    """
    for place in places:
        layer, stack = place.site.layer, stack_of(model, place.site)
        if layer is not None and not layer < stack.n_layers:
            raise SiteError(
                f"{place.site}: layer {layer} is outside the model; its layers are 0 to {stack.n_layers - 1}."
            )
        for what, chosen, count in (
            ("heads", place.heads, stack.n_heads),
            ("dimensions", place.dimensions, model.width),
        ):
            bad = [one for one in chosen or () if not 0 <= one < count]
            if bad:
                raise SiteError(
                    f"{place.site}: {what} {bad} are outside the model; its {what} are 0 to {count - 1}."
                )
        if place.positions == "pooled" and model.pooling == "mean":
            raise SiteError(
                f"{place}: this model pools over all tokens, so there is no one pooled token to patch."
            )
        if place.positions == "pooled" and place.site.stack == "encoder":
            raise SiteError(
                f"{place}: the head reads the decoder, so no token of the encoder is the pooled one."
            )


@dataclass(frozen=True)
class Patcher:
    """Two stored passes of the same shape, between which values are carried.

    Attributes:
        model: The model that the recipient goes on in.
        recipient: Its clean pass, [B, T].
        donor: The pass whose values are put in, [B, T]; of the same model, or of another of the same shape.
        donor_heads: Output weights of the donor's heads by site, where its model is not ``model``.
        changed: Where the two texts differ, or None.
    """

    model: Classifier
    recipient: Any  # of an encoder-decoder a StackPass
    donor: Any
    donor_heads: Mapping[Site, torch.Tensor] | None = None
    changed: torch.Tensor | None = None

    def logits(
        self, places: Sequence[PatchPlace], tokens_at_once: int = 2048, direction: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the logits of the recipient with each place patched, [P, B, C].

        Args:
            places: What is patched, one place a run.
            tokens_at_once: Tokens in one pass over stacked copies; bounds the memory.
            direction: Unit vectors [P, D]: every token is then moved by as much as the patch would move it, but in
                this direction; the control.
        """
        clean = self.recipient.logits
        out = clean.new_empty(len(places), *clean.shape)
        groups: dict[Site, list[int]] = {}
        for index, place in enumerate(places):
            groups.setdefault(place.lands, []).append(index)
        size = max(1, tokens_at_once // max(1, self.recipient.rows * self.recipient.length))
        for site, members in groups.items():
            narrow = self._narrow(site)
            waiting: list[tuple[int, torch.Tensor]] = []
            before = self._clean(site, narrow)
            for index in members:
                value = self._changed(places[index], None if direction is None else direction[index])
                value = value if narrow is None else value[:, narrow]
                if torch.equal(value, before) and self.recipient is not self.donor:
                    out[index] = clean  # nothing that is read differs
                    continue
                waiting.append((index, value))
                if len(waiting) == size:
                    self._run(site, waiting, narrow, out)
                    waiting = []
            if waiting:
                self._run(site, waiting, narrow, out)
        return out

    def everything(self, tokens_at_once: int = 2048) -> torch.Tensor:
        """Return the logits of the recipient with the donor's whole stream before block 0, [B, C]: the donor's."""
        return self.logits([first_stream(self.model)], tokens_at_once)[0]

    def _narrow(self, site: Site) -> slice | None:
        """Return the pooled token's place, where a patch acts behind the last attention and only that token is read."""
        place = pooled_place(self.model, self.recipient.length)
        late = site.layer == self.model.n_layers - 1 and site.name in ("attn_out", "mlp_out", "resid_post")
        return slice(place, place + 1) if late and place is not None else None

    def _changed(self, place: PatchPlace, direction: torch.Tensor | None) -> torch.Tensor:
        """Return the whole site's tensor with the patch in it, [B, T, D]; heads' patches are in ``attn_out``."""
        ours, theirs = (self._value(which, place) for which in ("recipient", "donor"))
        if place.dimensions is not None:
            chosen = torch.zeros(ours.shape[-1], dtype=torch.bool, device=ours.device)
            chosen[list(place.dimensions)] = True
            theirs = torch.where(chosen, theirs, ours)
        if direction is not None:
            theirs = ours + (theirs - ours).norm(dim=-1, keepdim=True) * direction.to(ours)
        mask = self._mask(place).unsqueeze(-1)
        if place.site.name in HEAD_OUT:
            return self._clean(place.lands, None) + (theirs - ours) * mask
        return torch.where(
            mask, theirs, ours
        )  # not a sum, so that a whole stream is the donor's to the last bit

    def _mask(self, place: PatchPlace) -> torch.Tensor:
        """Return which tokens a place replaces, bool [B, T]."""
        shape = (self.recipient.rows, self.recipient.length)
        return positions_mask(self.model, place.positions, self.changed, shape)

    def _clean(self, site: Site, narrow: slice | None) -> torch.Tensor:
        """Return the recipient's own value of a site, [B, T, D] or [B, 1, D]."""
        value: torch.Tensor = self._stream(self.recipient, site)
        return value if narrow is None else value[:, narrow]

    def _stream(self, stored: Any, site: Site) -> torch.Tensor:
        """Return a pass's value at a site of the stream or of a sublayer's output."""
        value: torch.Tensor = (
            stored.trace.resid_pre[site.layer or 0]
            if site.name in ("embeddings", "resid_pre")
            else stored.values[site.name][site.layer]
        )
        return value

    def _value(self, which: str, place: PatchPlace) -> torch.Tensor:
        stored: Any = getattr(self, which)
        site = place.site
        if site.name not in HEAD_OUT:
            return self._stream(stored, site)
        z = stored.at(replace(site, name=site.name.replace("head_out", "head_z")))
        heads = list(range(z.shape[2]) if place.heads is None else place.heads)
        given = self.donor_heads if which == "donor" and self.donor_heads else None
        weights = self._weights(site) if given is None else given[site]
        return torch.einsum("bthd,hde->bte", z[:, :, heads], weights[heads])

    def _weights(self, site: Site) -> torch.Tensor:
        """Return the output weights of the model's own heads at a site, [H, D/H, D]."""
        return head_weights(self.model, site.layer or 0, site.stack, site.name == "cross_head_out")

    def _run(
        self,
        site: Site,
        waiting: Sequence[tuple[int, torch.Tensor]],
        narrow: slice | None,
        out: torch.Tensor,
    ) -> None:
        """Run copies of the recipient with their new values, and write their logits."""
        copies = len(waiting)
        values = torch.cat([value for _, value in waiting])
        hidden = self._behind(site, copies, values, narrow)
        layer = site.layer or 0
        first = layer if site.name in ("embeddings", "resid_pre") else layer + 1
        if narrow is None:
            hidden = run_blocks(self.model, self.recipient, first, hidden)
        found = logits_of(self.model, hidden).unflatten(0, (copies, -1))
        out[[index for index, _ in waiting]] = found.to(out)

    def _behind(self, site: Site, copies: int, values: torch.Tensor, narrow: slice | None) -> torch.Tensor:
        """Return the stream before (``embeddings``, ``resid_pre``) or behind the patched block, [copies x B, ., D]."""
        if site.name in ("embeddings", "resid_pre", "resid_post"):
            return values
        layer = site.layer or 0
        stream = Site("resid_mid" if site.name == "mlp_out" else "resid_pre", layer)
        beside = self._clean(stream, narrow).repeat(copies, 1, 1)
        if site.name == "mlp_out":
            return after_mlp(self.model, layer, beside, values)
        return run_mlp(self.model, self.recipient, layer, beside, values)


def passed(model: Classifier, inputs: dict[str, torch.Tensor]) -> Any:
    """Run rows of equal length once and keep what patches start from: of one stack, or of encoder and decoder."""
    if not model.is_encoder_decoder:
        return store(model, inputs)
    from tunescope.capture.patch_stacks import store_stacks

    return store_stacks(model, inputs)


def patcher_of(
    model: Classifier, recipient: Any, donor: Any, heads: Mapping[Site, torch.Tensor] | None = None,
    changed: torch.Tensor | None = None,
) -> Patcher:  # fmt: skip
    """Return what carries values between two passes of :func:`passed`; arguments are those of :class:`Patcher`."""
    if not model.is_encoder_decoder:
        return Patcher(model, recipient, donor, heads, changed)
    from tunescope.capture.patch_stacks import StackPatcher

    return StackPatcher(model, recipient, donor, heads, changed)


def patched_logits(
    model: Classifier,
    clean: Mapping[str, torch.Tensor],
    corrupt: Mapping[str, torch.Tensor],
    places: Sequence[PatchPlace],
    *,
    names: Sequence[str] | None = None,
    tokens_at_once: int = 2048,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Carry the activations of corrupted texts into the runs of clean ones, place by place.

    For the other way round (denoising) exchange ``clean`` and ``corrupt``. Rows may have any padding on any side; each
    length is run without padding, so that a row's logits do not depend on its batch mates.

    Args:
        model: The classifier, in evaluation mode.
        clean: ``input_ids`` and ``attention_mask`` [B, T] of the recipients (and ``token_type_ids`` where used).
        corrupt: The same of the donors; row i has as many tokens as row i of ``clean``.
        places: What is patched, one place a run.
        names: What the pairs are called in messages.
        tokens_at_once: Tokens in one pass; bounds the memory.

    Returns:
        Logits of the recipients [B, C], of the donors [B, C], and of the recipients with each place patched
        [P, B, C].

    Raises:
        SiteError: A pair has unequal lengths, or a place is outside the model.
    """
    check_places(model, places)
    ours, theirs = (
        {name: value.to(model.device) for name, value in given.items()} for given in (clean, corrupt)
    )
    require_equal_lengths(ours["attention_mask"], theirs["attention_mask"], names)
    lengths = ours["attention_mask"].sum(1)
    sides = [_right(one) for one in (ours, theirs)]
    kept: list[tuple[torch.Tensor, ...]] = []
    order: list[torch.Tensor] = []
    with torch.inference_mode(), fast_activations(model.model):
        for length in lengths.unique().tolist():
            same = (lengths == length).nonzero().flatten()
            for rows in same.split(max(1, tokens_at_once // int(length))):
                recipient, donor = (
                    passed(model, {name: value[rows, :length] for name, value in side.items()})
                    for side in sides
                )
                changed = changed_tokens(*(side["input_ids"][rows, :length] for side in sides))
                patcher = patcher_of(model, recipient, donor, changed=changed)
                kept.append((recipient.logits, donor.logits, patcher.logits(places, tokens_at_once)))
                order.append(rows)
    back = torch.cat(order).argsort()
    first, second, third = (torch.cat(parts, -2)[..., back, :] for parts in zip(*kept, strict=True))
    return first, second, third


def _right(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    ids, mask, types = right_padded(
        inputs["input_ids"], inputs["attention_mask"], inputs.get("token_type_ids")
    )
    found = {"input_ids": ids, "attention_mask": mask}
    return found if types is None else {**found, "token_type_ids": types}
