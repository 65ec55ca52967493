"""Patches in encoder-decoders: values of either stack, put into a run that goes on from there.

A patch of the encoder starts in its own block, and the whole decoder follows; a patch of the decoder does not run the
encoder again. Both stacks read the text, the decoder one place to the right: its token t is the text's token t - 1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tunescope.capture.encoder_decoder import StackTrace, run_from_stack, trace_stacks
from tunescope.capture.hooks import reading
from tunescope.capture.patch import Patcher, PatchPlace
from tunescope.capture.patch_tokens import positions_mask
from tunescope.capture.sites import Site, locate
from tunescope.capture.stored import CleanPass
from tunescope.errors import SiteError
from tunescope.models.classifier import Classifier
from tunescope.models.encoder_decoder import STACKS, StackName

STREAMS = ("embeddings", "resid_pre")
SELF, CROSS = ("head_z", "attn_out"), ("cross_head_z", "cross_attn_out")


@dataclass(frozen=True)
class StackPass(CleanPass):
    """One clean pass of B rows of T tokens each through encoder and decoder.

    Attributes:
        trace: The streams before all blocks, the blocks' other arguments, logits.
        values: By site ``head_z`` and ``cross_head_z`` [B, T, H, D/H]; ``attn_out``, ``cross_attn_out``, ``mlp_out``
            and ``resid_post`` [B, T, D], of every layer.
    """

    trace: StackTrace
    values: dict[Site, torch.Tensor]

    def behind(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the stream behind every block, [B, T, D], with the block in words."""
        for site, value in self.values.items():
            if site.name == "resid_post":
                yield f"block {site.layer} of the {site.stack}", value

    def at(self, site: Site) -> torch.Tensor:
        """Return the clean value at a stored site, or of the stream before a block, [B, T, ...]."""
        if site.name in STREAMS:
            assert site.stack is not None
            return self.trace.resid_pre[site.stack][site.layer or 0]
        return self.values[site]


def store_stacks(model: Classifier, inputs: dict[str, torch.Tensor], neurons: bool = False) -> StackPass:
    """Run rows of equal length once and keep what patches start from.

    Args:
        model: The model, in evaluation mode.
        inputs: Token ids [B, T] and a mask that is 1 throughout.
        neurons: Keep the MLPs' neurons too.

    Raises:
        SiteError: The rows differ in length.
    """
    if not bool(inputs["attention_mask"].all()):
        raise SiteError("Rows of one stored pass must have one length; came a batch with padding.")
    sites = []
    for name, stack in zip(STACKS, model.stacks, strict=True):
        kinds = (*SELF, *(CROSS if name == "decoder" else ()), "mlp_out", "resid_post")
        kinds += ("mlp_neurons",) if neurons else ()
        sites += [Site(kind, layer, name) for layer in range(stack.n_layers) for kind in kinds]
    values: dict[Site, torch.Tensor] = {}
    with reading(model, sites, lambda site, value: values.__setitem__(site, value.detach())):
        trace = trace_stacks(model, inputs)
    return StackPass(trace, values)


@dataclass(frozen=True)
class StackPatcher(Patcher):
    """A :class:`Patcher` between passes of encoder-decoders; every place names its stack."""

    def everything(self, tokens_at_once: int = 2048) -> torch.Tensor:
        """Return the logits of the recipient with all that the donor's two stacks read put in, [B, C]: the donor's."""
        return run_from_stack(self.model, self._reading_donor(), "encoder", 0)

    def _reading_donor(self) -> StackTrace:
        ours, theirs = self.recipient.trace, self.donor.trace
        streams = {name: [theirs.resid_pre[name][0], *ours.resid_pre[name][1:]] for name in STACKS}
        return replace(ours, resid_pre=streams)

    def _narrow(self, site: Site) -> slice | None:
        return None

    def _mask(self, place: PatchPlace) -> torch.Tensor:
        changed, shape = self.changed, (self.recipient.rows, self.recipient.length)
        if changed is not None and place.site.stack == "decoder":
            changed = in_decoder(changed)
        return positions_mask(self.model, place.positions, changed, shape)

    def _stream(self, stored: Any, site: Site) -> torch.Tensor:
        value: torch.Tensor = stored.at(site)
        return value

    def _run(
        self,
        site: Site,
        waiting: Sequence[tuple[int, torch.Tensor]],
        narrow: slice | None,
        out: torch.Tensor,
    ) -> None:
        copies, layer, stack = len(waiting), site.layer or 0, site.stack
        values = torch.cat([value for _, value in waiting])
        assert stack is not None
        with contextlib.ExitStack() as hooks:
            hidden: torch.Tensor | None = values
            if site.name == "resid_post":
                layer += 1
            elif site.name not in STREAMS:
                hidden = None
                module = locate(self.model, site).module
                hooks.callback(module.register_forward_hook(lambda *_: values).remove)
            found = run_from_stack(self.model, self.recipient.trace, stack, layer, copies, hidden)
        out[[index for index, _ in waiting]] = found.unflatten(0, (copies, -1)).to(out)


def in_decoder(tokens: torch.Tensor) -> torch.Tensor:
    """Return where the decoder reads some of a text's tokens, bool [B, T]: one place later; the last is not read."""
    moved = torch.zeros_like(tokens)
    moved[:, 1:] = tokens[:, :-1]
    return moved


def stack_sites(model: Classifier, names: Sequence[str]) -> list[Site]:
    """List sites of both stacks in the order in which they are run.

    ``attn_out`` and ``head_out`` stand for self-attention in both stacks and cross-attention in the decoder.
    """
    found = []
    for stack, one in zip(STACKS, model.stacks, strict=True):
        for layer in range(one.n_layers):
            for name in names:
                found += [Site(own, layer, stack) for own in _own(name, stack)]
    return found


def _own(name: str, stack: StackName) -> tuple[str, ...]:
    attends = name in ("attn_out", "head_out") and stack == "decoder"
    return (name, f"cross_{name}") if attends else (name,)
