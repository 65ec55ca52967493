"""Blocks that tuning left alone: their activations are the base's, bit for bit, and need not be computed twice.

The base runs a batch, what leaves its last shared block is kept, and the tuned model goes on from there: its shared
blocks hand that on instead of computing it. One state a batch is held.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn

from tunescope.capture.sites import LAYERED, Site
from tunescope.models.classifier import Classifier
from tunescope.models.prefix import blocks_of, shared_blocks


def shared_depth(base: Classifier, tuned: Classifier) -> int:
    """Return how many leading blocks need not be run a second time for the tuned model; never the last one.

    They are found by a digest of weights, modules and configuration, whatever the tuning method. 0 where a model is
    in training mode, where the two are on different devices, or where something hangs on a module of either (an
    edit), so that equal weights would not mean equal activations.
    """
    if base.training or tuned.training or base.device != tuned.device:
        return 0
    if any(_touched(module) for model in (base, tuned) for module in model.trunk.modules()):
        return 0
    return min(shared_blocks(base, tuned), base.n_layers - 1)


def _touched(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def decided_before(site: Site, depth: int) -> bool:
    """Whether the activation at a site depends on the embeddings and on blocks before ``depth`` alone."""
    if site.name in LAYERED:
        assert site.layer is not None
        return site.layer < depth
    return site.name == "embeddings"


@contextlib.contextmanager
def keeping(classifier: Classifier, depth: int) -> Iterator[list[Any]]:
    """Keep what leaves block ``depth - 1`` in the latest forward pass inside the block, as the block returns it."""
    kept: list[Any] = []

    def keep(_module: nn.Module, _arguments: tuple[Any, ...], output: Any) -> None:
        kept[:] = [output]

    handle = blocks_of(classifier)[depth - 1].register_forward_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()


@contextlib.contextmanager
def going_on_from(classifier: Classifier, depth: int, output: Any) -> Iterator[None]:
    """Let forward passes of the same batch start behind block ``depth - 1`` with what another model's block gave.

    The embeddings are still looked up and the blocks' other arguments (masks, positions) made; the blocks before
    ``depth`` compute nothing.
    """
    skipped = blocks_of(classifier)[:depth]
    for block in skipped:
        block.forward = lambda *_arguments, **_named: output
    try:
        yield
    finally:
        for block in skipped:
            del block.forward
