"""A classifier in two halves: the states that enter block *k*, and what the blocks from *k* on make of them.

The halves are run without padding, where a token's states do not depend on batch mates, so that a first half that was
computed once and stored gives later epochs the same bits as one that runs in every step. The second half trains:
gradients reach the blocks from *k* on, the final norm and the head.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tunescope.errors import ModelError
from tunescope.fingerprints import canonical_json
from tunescope.models.packed import (
    FEWEST_TOKENS,
    Layout,
    block_arguments,
    packed_arguments,
    packed_attention,
    packed_hidden,
    packing_problem,
    pool_packed,
    pooled_places,
    reader_of,
)  # fmt: skip
from tunescope.models.windows import mean_by_row

if TYPE_CHECKING:
    from tunescope.models.classifier import Classifier

# What a configuration says that no hidden state depends on.
IRRELEVANT = ("_name_or_path", "architectures", "dtype", "id2label", "label2id", "num_labels", "problem_type",
              "transformers_version", "use_cache", "_attn_implementation")  # fmt: skip


class _ReachedError(Exception):
    """Carries the states that arrived at a block out of the forward pass."""

    def __init__(self, hidden: torch.Tensor) -> None:
        self.hidden = hidden


def blocks_of(classifier: Classifier) -> list[nn.Module]:
    """Return the transformer blocks in order."""
    family, trunk = classifier.family, classifier.trunk
    return [trunk.get_submodule(family.path("block", layer)) for layer in range(classifier.n_layers)]


def states_before(
    classifier: Classifier,
    depth: int,
    input_ids: torch.Tensor,
    lengths: torch.Tensor,
    token_type_ids: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the residual stream that enters block ``depth``, [1, T, D], of rows without padding; no gradients.

    Dropout is whatever the blocks' mode says; frozen blocks are in evaluation mode.

    Raises:
        ModelError: There is no such block, or the model cannot run without padding.
    """
    _check(classifier, depth)
    layout = Layout.of(lengths)
    total = layout.total
    if total < FEWEST_TOKENS:
        times = -(-FEWEST_TOKENS // total)
        layout = Layout(layout.lengths * times)
        input_ids = input_ids.repeat(1, times)
        token_type_ids = None if token_type_ids is None else token_type_ids.repeat(1, times)

    with torch.no_grad():
        return _arriving(classifier, depth, input_ids, layout, token_type_ids)[:, :total]


def _arriving(
    classifier: Classifier,
    depth: int,
    input_ids: torch.Tensor,
    layout: Layout,
    token_type_ids: torch.Tensor | None,
) -> torch.Tensor:
    """Run the trunk up to a block and return the states [1, T, D] that arrive there."""

    def stop(_module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        raise _ReachedError(arguments[0] if arguments else named["hidden_states"])

    handle = blocks_of(classifier)[depth].register_forward_pre_hook(stop, with_kwargs=True)
    try:
        with packed_attention(classifier.model):
            classifier.trunk(**packed_arguments(classifier, input_ids, layout, token_type_ids))
    except _ReachedError as reached:
        return reached.hidden
    finally:
        handle.remove()
    raise ModelError(f"Internal check failed: block {depth} was not called.")


def packed_pooled(
    classifier: Classifier,
    input_ids: torch.Tensor,
    layout: Layout,
    token_type_ids: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the vector that the head reads of every row, [B, D], of rows one after another [1, T].

    Where pooling reads one token a row, the last block's second half is computed for these tokens alone: the
    others' results are read by nobody. Where something watches the last block or the norm, all are computed.

    Raises:
        ModelError: This model cannot run without padding; the message says why.
    """
    last = classifier.n_layers - 1
    if not _can_shorten(classifier):
        return pool_packed(
            packed_hidden(classifier, input_ids, layout, token_type_ids), layout, classifier.pooling
        )
    _check(classifier, last)
    hidden = _arriving(classifier, last, input_ids, layout, token_type_ids)
    return _pooled_from(classifier, last, hidden, layout)


def _can_shorten(classifier: Classifier) -> bool:
    """Whether the last block's second half may run on the pooled tokens alone."""
    if classifier.pooling == "mean" or packing_problem(classifier.model, classifier.family) is not None:
        return False
    block = blocks_of(classifier)[-1]
    norm = classifier.family.final_norm
    watched = [*block.modules(), classifier.trunk]
    watched += [] if norm is None else [classifier.trunk.get_submodule(norm)]
    return not any(one._forward_hooks or one._forward_pre_hooks for one in watched)


def _short_block(classifier: Classifier, hidden: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Run the last block on states [1, T, D]; return its output for the pooled token of each row, [B, D]."""
    block, last = blocks_of(classifier)[-1], classifier.n_layers - 1
    places = pooled_places(layout, classifier.pooling)
    assert places is not None
    times = -(-FEWEST_TOKENS // len(places))
    index = torch.as_tensor(places, device=hidden.device).repeat(times)
    if classifier.family.rotary is not None:
        return _short_rotary(classifier, hidden, layout, index)[: len(places)]
    if classifier.family.norm_order == "pre":
        parts: dict[str, Any] = dict(block.named_children())
        reader: Any = reader_of(classifier.pooling)
        attended, _ = parts["attn"](parts["ln_1"](hidden), packed=replace(layout, reader=reader))
        middle = attended[0] + hidden[0, index]
        return (middle + parts["mlp"](parts["ln_2"](middle)))[: len(places)]
    module = classifier.trunk.get_submodule(classifier.family.path("middle", last))
    handle = module.register_forward_hook(lambda _m, _a, output: output[:, index])
    try:
        # not the call, which may recompute in the backward pass, when the hook is gone; nothing else hangs on it
        output = block.forward(hidden, packed=layout)
    finally:
        handle.remove()
    chosen: torch.Tensor = output if isinstance(output, torch.Tensor) else output[0]
    return chosen[0, : len(places)]


def _short_rotary(
    classifier: Classifier, hidden: torch.Tensor, layout: Layout, index: torch.Tensor
) -> torch.Tensor:
    """Do the same for a block with rotary positions, [len(index), D]; how it adds up its parts is its own affair."""
    family, trunk, last = classifier.family, classifier.trunk, classifier.n_layers - 1
    attention, projection, norm = (
        trunk.get_submodule(path.format(layer=last))
        for path in (family.attention, family.attention_projection, family.norms[0])
    )
    reader: Any = reader_of(classifier.pooling)
    arguments = block_arguments(classifier, hidden, replace(layout, reader=reader, filled=True))
    handle = projection.register_forward_pre_hook(lambda _m, given: (given[0][:, : len(index)], *given[1:]))
    try:
        attended = attention(norm(hidden), **arguments)[0]
    finally:
        handle.remove()
    attention.forward = lambda *_arguments, **_named: (attended, None)
    try:
        # not the call, which may recompute in the backward pass, when attention is itself again
        output = blocks_of(classifier)[-1].forward(hidden[:, index])
    finally:
        del attention.forward
    chosen: torch.Tensor = output if isinstance(output, torch.Tensor) else output[0]
    return chosen[0]


def pooled_from(
    classifier: Classifier, depth: int, hidden: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """Run blocks ``depth`` to the last on states [1, T, D], then the final norm and pooling; returns [S, D].

    Raises:
        ModelError: There is no such block, or the model cannot run without padding.
    """
    _check(classifier, depth)
    return _pooled_from(classifier, depth, hidden, Layout.of(lengths))


def _pooled_from(classifier: Classifier, depth: int, hidden: torch.Tensor, layout: Layout) -> torch.Tensor:
    rows = len(layout.lengths)
    # Attention's few results, each row's as often as it takes, must fit into the line that they are shaped by.
    room = classifier.family.rotary is None or layout.total >= rows * -(-FEWEST_TOKENS // rows)
    short = _can_shorten(classifier) and room
    blocks = blocks_of(classifier)
    with packed_attention(classifier.model):
        arguments = block_arguments(classifier, hidden, layout)
        for block in blocks[depth : len(blocks) - 1 if short else len(blocks)]:
            output = block(hidden, **arguments)
            hidden = output if isinstance(output, torch.Tensor) else output[0]
        if short:
            hidden = _short_block(classifier, hidden, layout)
    if classifier.family.final_norm is not None:
        hidden = classifier.trunk.get_submodule(classifier.family.final_norm)(hidden)
    return hidden if short else pool_packed(hidden, layout, classifier.pooling)


class FromStored(nn.Module):
    """A classifier that is fed with the states before one of its blocks instead of token ids.

    Args:
        classifier: The whole classifier; it is shared, not copied, and its parameters are the ones trained.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(
        self, hidden: torch.Tensor, lengths: torch.Tensor, depth: int, row_of: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return logits [B, C] of states [1, T, D] that enter block ``depth``."""
        pooled = pooled_from(self.classifier, depth, hidden, lengths)
        return mean_by_row(self.classifier.head(pooled), row_of)


def prefix_digests(classifier: Classifier) -> list[str]:
    """Return what the states before block 0, 1, ... L depend on in the model, as SHA-256 digests, [L + 1].

    A digest covers weights, kinds of modules and configuration of the embeddings and of the blocks before, so
    models that were tuned in later blocks alone share their first digests.
    """
    return list(_digests(classifier))


def shared_blocks(first: Classifier, second: Classifier) -> int:
    """Return how many leading blocks of two models compute the same, embeddings and configuration included.

    Weights are compared, not what tuning was called; 0 where not even the first block is shared.
    """
    shared = -1
    for ours, theirs in zip(_digests(first), _digests(second), strict=False):
        if ours != theirs:
            break
        shared += 1
    return max(shared, 0)


def _digests(classifier: Classifier) -> Iterator[str]:
    family, trunk = classifier.family, classifier.trunk
    config = {name: value for name, value in trunk.config.to_dict().items() if name not in IRRELEVANT}
    blocks = blocks_of(classifier)
    names = [family.path("block", layer) + "." for layer in range(len(blocks))]
    later = [name for name in (family.final_norm, "pooler") if name is not None]
    running = hashlib.sha256(canonical_json(config).encode())
    for name, value in trunk.state_dict().items():
        if not name.startswith((*names, *later)):
            _add(running, name, value)
    yield running.hexdigest()
    for block in blocks:
        kinds = [f"{type(one).__module__}.{type(one).__qualname__}" for one in block.modules()]
        running.update(canonical_json(kinds).encode())
        for name, value in block.state_dict().items():
            _add(running, name, value)
        yield running.hexdigest()


def _add(running: Any, name: str, value: torch.Tensor) -> None:
    running.update(f"{name} {list(value.shape)} {value.dtype}".encode())
    running.update(value.detach().cpu().contiguous().view(torch.uint8).numpy())


def _check(classifier: Classifier, depth: int) -> None:
    problem = packing_problem(classifier.model, classifier.family)
    if problem is not None:
        raise ModelError(f"This model cannot run from stored states: {problem}.")
    if not 0 <= depth < classifier.n_layers:
        raise ModelError(f"There is no block {depth}; the blocks are 0 to {classifier.n_layers - 1}.")
