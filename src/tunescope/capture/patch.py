"""Activation patching: one run of a model goes on with a value from another run, exactly and fast.

Two passes of rows of equal token length are stored (:mod:`tunescope.capture.stored`): the *recipient*, which goes on,
and the *donor*, whose values are put in (Vig et al. 2020; Meng et al. 2022; Wang et al. 2022). A patch starts in the
block that it changes; patches that start in one block ride together as copies along the batch; a patch that differs
from the recipient at no token that later blocks read is not run, because its logits are the recipient's. Donor and
recipient may be passes of two models of one shape, which makes it a patch across models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from tunescope.capture.patch_tokens import REGIONS, changed_tokens, positions_mask
from tunescope.capture.sites import Site, head_weights
from tunescope.capture.stored import (
    StoredPass,
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

PATCH_SITES = ("embeddings", "resid_pre", "attn_out", "head_out", "mlp_out", "resid_post")


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
        if self.heads is not None and self.site.name != "head_out":
            raise SiteError(f"{self.site} has no heads; heads are patched at head_out.")
        if self.dimensions is not None and self.site.name == "head_out":
            raise SiteError(f"{self.site} is patched by heads; dimensions are patched at attn_out.")
        if isinstance(self.positions, str) and self.positions not in REGIONS:
            raise SiteError(
                f"There are no positions {self.positions!r}; expected {', '.join(REGIONS)}, or a number."
            )

    @property
    def start(self) -> int:
        """The block in which the patch acts: that of its site; the number of blocks is one more for ``resid_post``."""
        return self.site.layer or 0

    def __str__(self) -> str:
        heads = "" if self.heads is None else "H" + ",".join(map(str, self.heads))
        dimensions = "" if self.dimensions is None else "D" + ",".join(map(str, self.dimensions))
        return f"{self.site}{heads}{dimensions}@{self.positions}"


def check_places(model: Classifier, places: Sequence[PatchPlace]) -> None:
    """Refuse places outside a model.

    Raises:
        SiteError: A layer, head or dimension does not exist (the valid range is said), ``pooled`` is asked of a model
            that pools over all tokens, or the model has two stacks.
    """
    if model.is_encoder_decoder:
        raise SiteError(
            f"{model.family.name} has an encoder and a decoder; patching is made for models of one stack."
        )
    for place in places:
        layer = place.site.layer
        if layer is not None and not layer < model.n_layers:
            raise SiteError(
                f"{place.site}: layer {layer} is outside the model; its layers are 0 to {model.n_layers - 1}."
            )
        for what, chosen, count in (
            ("heads", place.heads, model.n_heads),
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


@dataclass(frozen=True)
class Patcher:
    """Two stored passes of the same shape, between which values are carried.

    Attributes:
        model: The model that the recipient goes on in.
        recipient: Its clean pass, [B, T].
        donor: The pass whose values are put in, [B, T]; of the same model, or of another of the same shape.
        donor_heads: ``head_out`` weights of the donor's model by layer, where it is not ``model``.
        changed: Where the two texts differ, or None.
    """

    model: Classifier
    recipient: StoredPass
    donor: StoredPass
    donor_heads: Mapping[int, torch.Tensor] | None = None
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
        groups: dict[tuple[str, int], list[int]] = {}
        for index, place in enumerate(places):
            kind = "attn_out" if place.site.name == "head_out" else place.site.name
            groups.setdefault((kind, place.start), []).append(index)
        size = max(1, tokens_at_once // max(1, self.recipient.rows * self.recipient.length))
        for (kind, layer), members in groups.items():
            narrow = self._narrow(kind, layer)
            waiting: list[tuple[int, torch.Tensor]] = []
            before = self._clean(kind, layer, narrow)
            for index in members:
                value = self._changed(places[index], None if direction is None else direction[index])
                value = value if narrow is None else value[:, narrow]
                if torch.equal(value, before) and self.recipient is not self.donor:
                    out[index] = clean  # nothing that is read differs
                    continue
                waiting.append((index, value))
                if len(waiting) == size:
                    self._run(kind, layer, waiting, narrow, out)
                    waiting = []
            if waiting:
                self._run(kind, layer, waiting, narrow, out)
        return out

    def _narrow(self, kind: str, layer: int) -> slice | None:
        """Return the pooled token's place, where a patch acts behind the last attention and only that token is read."""
        place = pooled_place(self.model, self.recipient.length)
        late = layer == self.model.n_layers - 1 and kind in ("attn_out", "mlp_out", "resid_post")
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
        shape = (self.recipient.rows, self.recipient.length)
        mask = positions_mask(self.model, place.positions, self.changed, shape).unsqueeze(-1)
        if place.site.name == "head_out":
            return self._clean("attn_out", place.start, None) + (theirs - ours) * mask
        return torch.where(
            mask, theirs, ours
        )  # not a sum, so that a whole stream is the donor's to the last bit

    def _clean(self, kind: str, layer: int, narrow: slice | None) -> torch.Tensor:
        """Return the recipient's own value of a kind of site, [B, T, D] or [B, 1, D]."""
        stream = kind in ("embeddings", "resid_pre")
        value = self.recipient.trace.resid_pre[layer] if stream else self.recipient.values[kind][layer]
        return value if narrow is None else value[:, narrow]

    def _value(self, which: str, place: PatchPlace) -> torch.Tensor:
        stored: StoredPass = getattr(self, which)
        layer = place.start
        if place.site.name in ("embeddings", "resid_pre"):
            return stored.trace.resid_pre[layer]
        if place.site.name != "head_out":
            return stored.at(place.site)
        heads = list(range(self.model.n_heads) if place.heads is None else place.heads)
        other = which == "donor" and self.donor_heads is not None
        weights = self.donor_heads[layer] if other and self.donor_heads else head_weights(self.model, layer)
        return torch.einsum("bthd,hde->bte", stored.at(Site("head_z", layer))[:, :, heads], weights[heads])

    def _run(
        self,
        kind: str,
        layer: int,
        waiting: Sequence[tuple[int, torch.Tensor]],
        narrow: slice | None,
        out: torch.Tensor,
    ) -> None:
        """Run copies of the recipient with their new values, and write their logits."""
        copies = len(waiting)
        values = torch.cat([value for _, value in waiting])
        hidden = self._behind(kind, layer, copies, values, narrow)
        first = layer if kind in ("embeddings", "resid_pre") else layer + 1
        if narrow is None:
            hidden = run_blocks(self.model, self.recipient, first, hidden)
        found = logits_of(self.model, hidden).unflatten(0, (copies, -1))
        out[[index for index, _ in waiting]] = found.to(out)

    def _behind(
        self, kind: str, layer: int, copies: int, values: torch.Tensor, narrow: slice | None
    ) -> torch.Tensor:
        """Return the stream before (``embeddings``, ``resid_pre``) or behind the patched block, [copies x B, ., D]."""
        if kind in ("embeddings", "resid_pre", "resid_post"):
            return values
        beside = self._clean("resid_mid" if kind == "mlp_out" else "resid_pre", layer, narrow).repeat(
            copies, 1, 1
        )
        if kind == "mlp_out":
            return after_mlp(self.model, layer, beside, values)
        return run_mlp(self.model, self.recipient, layer, beside, values)


def require_equal_lengths(
    clean: torch.Tensor, corrupt: torch.Tensor, names: Sequence[str] | None = None
) -> None:
    """Refuse pairs of unequal length; masks are [B, T].

    Raises:
        SiteError: A pair differs in length; it is named.
    """
    ours, theirs = clean.sum(1), corrupt.sum(1)
    bad = (ours != theirs).nonzero().flatten().tolist() if len(ours) == len(theirs) else None
    if bad is None:
        raise SiteError(f"Patching needs pairs: came {len(ours)} clean and {len(theirs)} corrupted rows.")
    if bad:
        name = names[bad[0]] if names else bad[0]
        raise SiteError(
            f"Pair {name}: its texts have {int(ours[bad[0]])} and {int(theirs[bad[0]])} tokens; patching needs equal "
            f"lengths, so that every token has its counterpart ({len(bad)} of {len(ours)} pairs differ).",
            hint="Replace words by words of the same number of tokens, or leave these pairs out.",
        )


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
                    store(model, {name: value[rows, :length] for name, value in side.items()})
                    for side in sides
                )
                changed = changed_tokens(*(side["input_ids"][rows, :length] for side in sides))
                patcher = Patcher(model, recipient, donor, changed=changed)
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
