"""Two models side by side, block by block, so that what one block gives in each can be compared and let go at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from tunescope.capture.partial import blocks_of
from tunescope.errors import SiteError
from tunescope.models.classifier import Classifier, right_padded


@torch.no_grad()  # as a decorator: between two blocks the caller has its own gradient mode back
def block_by_block(classifier: Classifier, inputs: dict[str, torch.Tensor]) -> Iterator[int]:
    """Run a padded batch and stop after every block; hooks fire as in a full pass.

    Yields the number of the block that has just run; norm, pooling and head run before the generator ends. The
    embeddings and the first block run inside the model's own forward pass, which also says what the other blocks are
    called with (masks, positions); those are then run one by one on the stream.

    Raises:
        SiteError: The model has two stacks, or a block was not called exactly once.
    """
    if classifier.family.encoder is not None:
        raise SiteError(f"{classifier.family.name} has two stacks, which do not run as one list of blocks.")
    blocks = blocks_of(classifier)
    if len(blocks) == 1:
        classifier(**inputs)
        yield 0
        return
    hidden, calls = _first_block(classifier, inputs)
    yield 0
    for layer, (block, (arguments, named)) in enumerate(zip(blocks[1:], calls, strict=True), start=1):
        hidden = _stream(block(hidden, *arguments, **named))
        yield layer
    if classifier.family.final_norm is not None:
        hidden = classifier.trunk.get_submodule(classifier.family.final_norm)(hidden)
    mask = right_padded(inputs["input_ids"], inputs["attention_mask"])[1]
    classifier.head(classifier.pool(hidden, mask))


def side_by_side(base: Classifier, tuned: Classifier, inputs: dict[str, torch.Tensor]) -> Iterator[int]:
    """Run both models on one batch, block by block: base's, then tuned's; yields the number of the block.

    Raises:
        SiteError: The models have not as many blocks as one another.
    """
    if base.n_layers != tuned.n_layers:
        raise SiteError(f"Models of {base.n_layers} and {tuned.n_layers} blocks cannot run side by side.")
    for layer, _ in zip(block_by_block(base, inputs), block_by_block(tuned, inputs), strict=True):
        yield layer


Call = tuple[tuple[Any, ...], dict[str, Any]]


class _Enough(Exception):
    """What ends a pass once every block has been called."""


class _Recorder(nn.Module):
    """Stands where a block stands, notes what it is called with, and hands on what the first block gave."""

    def __init__(self, block: nn.Module, calls: list[Call], streams: list[Any], last: bool) -> None:
        super().__init__()
        # Not as a submodule: what transformers asks a block for (its kind of attention) is asked of the real one.
        self.__dict__.update(block=block, calls=calls, streams=streams, last=last)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["block"], name)

    def forward(self, _hidden: torch.Tensor, *arguments: Any, **named: Any) -> Any:
        self.calls.append((arguments, named))
        if self.last:
            raise _Enough
        return self.streams[0]


def _first_block(classifier: Classifier, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, list[Call]]:
    """Run embeddings and first block; return the stream after it, and what the other blocks are called with."""
    family, trunk = classifier.family, classifier.trunk
    blocks = blocks_of(classifier)
    paths = [family.path("block", layer) for layer in range(len(blocks))]
    calls: list[Call] = []
    streams: list[Any] = []
    handle = blocks[0].register_forward_hook(lambda _m, _a, output: streams.append(output))
    try:
        for path, block in zip(paths[1:], blocks[1:], strict=True):
            trunk.set_submodule(path, _Recorder(block, calls, streams, block is blocks[-1]))
        with contextlib.suppress(_Enough):
            classifier(**inputs)
    finally:
        handle.remove()
        for path, block in zip(paths[1:], blocks[1:], strict=True):
            trunk.set_submodule(path, block)
    if len(streams) != 1 or len(calls) != len(blocks) - 1:
        raise SiteError(
            f"{len(streams) + len(calls)} block calls were seen in a model of {len(blocks)} blocks."
        )
    return _stream(streams[0]), calls


def _stream(output: Any) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output[0]
