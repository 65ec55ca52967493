"""Blocks that tuning left alone: their activations are the base's, bit for bit, and need not be computed twice.

The base runs a batch, what leaves its last shared block is kept, and the tuned model goes on from there: its shared
blocks hand that on instead of computing it. One state a batch is held. Where the activation store of a training holds
what enters a block, and nothing before that block is looked at, not even the base runs the blocks before it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import nn

from tunescope.capture.sites import LAYERED, Site
from tunescope.data.batches import Batch
from tunescope.data.packed import PackedBatch
from tunescope.data.tokens import Tokens
from tunescope.models.classifier import Classifier
from tunescope.models.prefix import blocks_of, shared_blocks
from tunescope.models.store import ActivationStore


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


def starting_from(
    store: ActivationStore | None,
    classifier: Classifier,
    tokens: Tokens,
    sites: Sequence[Site],
    most: int | None = None,
) -> Callable[[Batch | PackedBatch], AbstractContextManager[None]]:
    """Return what lets forward passes over batches of ``tokens`` start from stored states.

    It is called with a batch and gives a context; inside it, the blocks before the stored states compute nothing.
    Where nothing stored can serve, that context does nothing: there is no store or no entry of these rows and weights,
    a site lies before every entry, something hangs on a module, the model is in training mode, or a batch has padding.

    Args:
        store: The run's store, or None.
        classifier: The model that is run.
        tokens: The rows that batches are made of.
        sites: Everything that will be read.
        most: Start at this block or earlier; None for any.
    """
    last = classifier.n_layers - 1
    layers = [last, *(site.layer for site in sites if site.layer is not None)]
    depth = min([*layers, *([] if most is None else [most])])
    embedded = any(site.name == "embeddings" for site in sites)
    if (
        store is None
        or embedded
        or depth < 1
        or classifier.training
        or not store.can_serve(classifier, tokens)
    ):
        return _from_the_start
    if any(_touched(module) for module in classifier.trunk.modules()):
        return _from_the_start
    states = store.find(classifier, tokens, depth)
    if states is None:
        return _from_the_start

    def start(batch: Batch | PackedBatch) -> AbstractContextManager[None]:
        if isinstance(batch, Batch):
            return contextlib.nullcontext()
        hidden, _ = states.read(batch.index)
        return going_on_from(classifier, states.depth, hidden.to(classifier.device))

    return start


def _from_the_start(batch: Batch | PackedBatch) -> AbstractContextManager[None]:
    return contextlib.nullcontext()
