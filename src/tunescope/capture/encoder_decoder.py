"""Running an encoder-decoder from any block of either stack, from stored residual streams.

From a block of the decoder on, the encoder is not run again. From a block of the encoder on, the rest of the encoder
is run, and then the whole decoder on the new encoder output.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tunescope.capture.partial import copied
from tunescope.errors import SiteError
from tunescope.models.classifier import Classifier, right_padded
from tunescope.models.encoder_decoder import STACKS, Stack, StackName

Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass
class StackTrace:
    """One clean forward pass of a batch through encoder and decoder.

    Attributes:
        resid_pre: Per stack, the residual stream before each block, [B, T, D].
        calls: Per stack, what each block was called with beside the stream.
        encoded: The encoder's output as the decoder reads it, [B, T, D].
        logits: Clean logits, [B, C].
        attention_mask: Right-padded mask, [B, T].
    """

    resid_pre: dict[StackName, list[torch.Tensor]]
    calls: dict[StackName, list[Call]]
    encoded: torch.Tensor
    logits: torch.Tensor
    attention_mask: torch.Tensor


@dataclass
class _Kept:
    resid_pre: dict[StackName, list[torch.Tensor]] = field(
        default_factory=lambda: {name: [] for name in STACKS}
    )
    calls: dict[StackName, list[Call]] = field(default_factory=lambda: {name: [] for name in STACKS})
    encoded: list[torch.Tensor] = field(default_factory=list)


def stack_named(classifier: Classifier, name: StackName) -> Stack:
    """Return encoder or decoder.

    Raises:
        SiteError: The model has one stack alone.
    """
    if not classifier.is_encoder_decoder:
        raise SiteError(f"{classifier.family.name} has one stack of blocks, so there is no {name}.")
    return classifier.stacks[STACKS.index(name)]


def stack_blocks(classifier: Classifier, name: StackName) -> list[nn.Module]:
    """Return the blocks of one stack in order."""
    return [classifier.trunk.get_submodule(path) for path in stack_named(classifier, name).blocks()]


def trace_stacks(classifier: Classifier, inputs: dict[str, torch.Tensor]) -> StackTrace:
    """Run a batch once without gradients and keep what :func:`run_from_stack` needs.

    Raises:
        SiteError: A block was not called exactly once, or the model has one stack alone.
    """
    kept = _Kept()

    def keep(name: StackName) -> Any:
        def hook(_module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            kept.resid_pre[name].append(given[0])
            kept.calls[name].append((given[1:], dict(named)))

        return hook

    def reads(_module: nn.Module, _given: tuple[Any, ...], named: dict[str, Any]) -> None:
        kept.encoded.append(named["key_value_states"])

    with contextlib.ExitStack() as stack:
        for name in STACKS:
            for block in stack_blocks(classifier, name):
                stack.callback(block.register_forward_pre_hook(keep(name), with_kwargs=True).remove)
        cross = classifier.trunk.get_submodule(classifier.family.path("cross_attention", 0))
        stack.callback(cross.register_forward_pre_hook(reads, with_kwargs=True).remove)
        stack.enter_context(torch.no_grad())
        logits = classifier(**inputs)
    for one in classifier.stacks:
        assert one.name is not None
        seen = len(kept.calls[one.name])
        if seen != one.n_layers:
            raise SiteError(f"{seen} block calls were seen in {'an' if one.name == 'encoder' else 'a'} {one.name} of "
                            f"{one.n_layers} blocks.")  # fmt: skip
    mask = right_padded(inputs["input_ids"], inputs["attention_mask"])[1]
    return StackTrace(kept.resid_pre, kept.calls, kept.encoded[0], logits, mask)


def run_from_stack(
    classifier: Classifier,
    stored: StackTrace,
    stack: StackName,
    layer: int,
    copies: int = 1,
    hidden: torch.Tensor | None = None,
) -> torch.Tensor:
    """Run block ``layer`` of a stack and all that follows on ``copies`` copies of the stored batch.

    Hooks and edits on the blocks act as in a full pass; copies lie one after another along the batch axis, so an
    edit can treat each differently. Identical to a full forward pass up to rounding.

    Args:
        classifier: The model, in evaluation mode.
        stored: A clean pass of the batch.
        stack: Where to start.
        layer: Its first block that is run.
        copies: How many copies.
        hidden: The stream before that block, [copies x B, T, D]; None takes the stored one.

    Returns:
        Logits, [copies x B, C].
    """
    rows = len(stored.attention_mask)
    if hidden is None:
        hidden = copied(stored.resid_pre[stack][layer], copies, rows)
    with torch.no_grad():
        encoded: torch.Tensor | None = None
        if stack == "encoder":
            encoded = _run(classifier, stored, "encoder", layer, hidden, None)
            hidden, layer = copied(stored.resid_pre["decoder"][0], copies, rows), 0
        final = _run(classifier, stored, "decoder", layer, hidden, encoded)
        logits: torch.Tensor = classifier.head(
            classifier.pool(final, copied(stored.attention_mask, copies, rows))
        )
        return logits


def _run(
    classifier: Classifier,
    stored: StackTrace,
    name: StackName,
    first: int,
    hidden: torch.Tensor,
    encoded: torch.Tensor | None,
) -> torch.Tensor:
    """Run one stack's blocks from ``first`` on, then its final norm; ``encoded`` replaces the stored encoder output."""
    rows = len(stored.attention_mask)
    copies = len(hidden) // rows

    def given(value: Any) -> Any:
        if encoded is not None and value is stored.encoded:
            return encoded
        return copied(value, copies, rows)

    for index, block in enumerate(stack_blocks(classifier, name)[first:], start=first):
        arguments, named = stored.calls[name][index]
        output = block(
            hidden, *(given(one) for one in arguments), **{key: given(one) for key, one in named.items()}
        )
        hidden = output if isinstance(output, torch.Tensor) else output[0]
    norm = stack_named(classifier, name).family.final_norm
    if norm is not None:
        hidden = classifier.trunk.get_submodule(norm)(hidden)
    return hidden
