"""What the attentions of an encoder-decoder gave in a clean pass, so that a changed block need not run them again.

A head only adds a term to its attention's output. Where nothing that an attention reads has changed, its stored output
with that term is its output.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tunescope.capture.partial import copied
from tunescope.capture.sites import Site, locate
from tunescope.capture.stored import instead
from tunescope.models.classifier import Classifier
from tunescope.models.encoder_decoder import STACKS

# An attention's output, the heads' values before its projection, and the module that gives both.
PARTS = {"attn_out": ("head_z", "attn_pattern"), "cross_attn_out": ("cross_head_z", "cross_attn_pattern")}


@dataclass
class Attended:
    """One attention in a clean pass of B rows.

    Attributes:
        output: What its module gave: the attention's output [B, T, D], and whatever stands behind it.
        heads: The heads' values before the output projection, [B, T, H, D/H].
    """

    output: tuple[Any, ...]
    heads: torch.Tensor


def attentions_of(classifier: Classifier) -> list[Site]:
    """Return every attention of both stacks, by the site of its output."""
    found = []
    for name, stack in zip(STACKS, classifier.stacks, strict=True):
        for layer in range(stack.n_layers):
            found.append(Site("attn_out", layer, name))
            if name == "decoder":
                found.append(Site("cross_attn_out", layer, name))
    return found


@contextlib.contextmanager
def keeping_attentions(classifier: Classifier) -> Iterator[dict[Site, Attended]]:
    """Collect what every attention gives in the one pass that is run inside the block."""
    kept: dict[Site, Attended] = {}
    heads: dict[Site, torch.Tensor] = {}

    def receive(site: Site, split: int) -> Callable[..., None]:
        def hook(_module: nn.Module, given: tuple[Any, ...]) -> None:
            heads[site] = given[0].unflatten(-1, (split, -1))

        return hook

    def keep(site: Site) -> Callable[..., None]:
        def hook(_module: nn.Module, _given: tuple[Any, ...], output: Any) -> None:
            kept[site] = Attended(output if isinstance(output, tuple) else (output,), heads.pop(site))

        return hook

    with contextlib.ExitStack() as stack:
        for site in attentions_of(classifier):
            within, whole = (Site(name, site.layer, site.stack) for name in PARTS[site.name])
            place = locate(classifier, within)
            stack.callback(place.module.register_forward_pre_hook(receive(site, place.heads)).remove)
            stack.callback(locate(classifier, whole).module.register_forward_hook(keep(site)).remove)
        yield kept


@contextlib.contextmanager
def attending(
    classifier: Classifier,
    stored: Attended,
    site: Site,
    copies: int,
    change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Iterator[None]:
    """Let an attention give its stored output, changed, inside the block, instead of being run.

    Args:
        classifier: The model.
        stored: What the attention gave of B rows.
        site: The attention's output.
        copies: V, how many copies of the rows are run.
        change: Given the output [V x B, T, D] and the heads [V x B, T, H, D/H], returns the changed output.
    """
    rows = len(stored.heads)
    first, *rest = (copied(value, copies, rows) for value in stored.output)
    output = (change(first, copied(stored.heads, copies, rows)), *rest)
    module = locate(classifier, Site(PARTS[site.name][1], site.layer, site.stack)).module
    with instead(module, lambda *_given, **_named: output):
        yield
