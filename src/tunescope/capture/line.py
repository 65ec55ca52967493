"""Running blocks on stored states of rows of several lengths, in one line without padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tunescope.capture.partial import Trace, blocks_of
from tunescope.capture.stored import StoredPass, pooled_attention, pooled_place, run_mlp
from tunescope.models.classifier import Classifier
from tunescope.models.packed import Layout, block_arguments, packed_attention


def run_line(
    classifier: Classifier, layers: Sequence[int], states: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Run blocks on stacks of rows of several lengths in one line without padding, so that products are full.

    Args:
        classifier: A model of which :func:`tunescope.models.packed.packing_problem` finds none.
        layers: The blocks, in order.
        states: The stream before the first of them, [R, T, D] each; no hook on these blocks acts.

    Returns:
        The stream behind the last of them, in the shapes that came.
    """
    layout = Layout.of([one.shape[1] for one in states for _ in range(len(one))])
    line = torch.cat([one.flatten(0, 1) for one in states])[None]
    arguments = block_arguments(classifier, line, layout)
    blocks = blocks_of(classifier)
    with packed_attention(classifier.model):
        for layer in layers:
            output = blocks[layer](line, **arguments)
            line = output if isinstance(output, torch.Tensor) else output[0]
    parts = line[0].split([one.shape[0] * one.shape[1] for one in states])
    return [part.unflatten(0, one.shape[:2]) for part, one in zip(parts, states, strict=True)]


def run_line_mlp(
    classifier: Classifier, layer: int, before: Sequence[torch.Tensor], attention: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Run one block with given attention outputs in place of its attention, on several stacks at once.

    Args:
        classifier: As in :func:`run_line`.
        layer: The block.
        before: The stream before the block, [R, T, D] each.
        attention: What the attention gives, in the same shapes.

    Returns:
        The stream behind the block, in the same shapes.
    """
    line, given = (torch.cat([one.flatten(0, 1) for one in values])[None] for values in (before, attention))
    arguments = block_arguments(classifier, line, Layout.of([line.shape[1]]))
    calls: list[tuple[tuple[()], dict[str, object]]] = [((), arguments)] * classifier.n_layers
    one_row = torch.ones(1, line.shape[1], device=line.device)
    after = run_mlp(classifier, StoredPass(Trace([], calls, one_row, one_row), {}, []), layer, line, given)
    parts = after[0].split([one.shape[0] * one.shape[1] for one in before])
    return [part.unflatten(0, one.shape[:2]) for part, one in zip(parts, before, strict=True)]


def run_line_last(
    classifier: Classifier, passes: Sequence[StoredPass], states: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Run the last block of a pre-norm model for the pooled tokens alone, [R, 1, D] each, on several stacks at once.

    Args:
        classifier: As in :func:`run_line`; its pooling reads one token.
        passes: The clean passes of the rows.
        states: The stream before the last block, [R, T, D] each.
    """
    before, attention = [], []
    for stored, hidden in zip(passes, states, strict=True):
        place = pooled_place(classifier, stored.length)
        assert place is not None
        before.append(hidden[:, place : place + 1])
        attention.append(pooled_attention(classifier, stored, hidden, place))
    return run_line_mlp(classifier, classifier.n_layers - 1, before, attention)
