"""Reading activations: hooks that live inside a ``with`` block and leave no trace."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from tunescope.capture.sites import (
    HEAD_OUT,
    PATTERNS,
    Location,
    Reader,
    Site,
    first_tensor,
    head_weights,
    locate,
)
from tunescope.errors import SiteError
from tunescope.models.classifier import Classifier


@contextlib.contextmanager
def reading(classifier: Classifier, sites: Sequence[Site], receive: Reader) -> Iterator[None]:
    """Call ``receive(site, activation)`` during every forward pass inside the block.

    The activation is handed over inside the hook, so that a caller who reduces it at once never holds more than one
    layer. Shapes: [B, T, D]; ``head_z`` [B, T, H, D/H]; ``head_out`` [B, T, H, D]; ``attn_pattern`` [B, H, T, T]
    (``cross_attn_pattern``: queries of the decoder, keys of the encoder);
    ``mlp_neurons`` [B, T, 4D]; ``pooled`` [B, D]; ``logits`` [B, C]. Reading a pattern switches the model to
    eager attention inside the block.

    Raises:
        SiteError: A site does not exist in this model, or the attention pattern was empty.
    """
    with contextlib.ExitStack() as stack:
        if any(site.name in PATTERNS for site in sites):
            stack.enter_context(eager_attention(classifier))
        for site in sites:
            handle = _hook(classifier, site, receive)
            stack.callback(handle.remove)
        yield


@contextlib.contextmanager
def eager_attention(classifier: Classifier) -> Iterator[None]:
    """Use eager attention, the one that returns patterns, inside the block."""
    before = classifier.model.config._attn_implementation
    classifier.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        classifier.model.set_attn_implementation(before)


def _hook(classifier: Classifier, site: Site, receive: Reader) -> Any:
    place = locate(classifier, site)
    if site.name in PATTERNS:
        where = classifier.family.pattern_at
        return place.module.register_forward_hook(
            lambda _m, _a, output: receive(site, _pattern(output, site, where))
        )
    weights = None
    if site.name in HEAD_OUT and site.layer is not None:
        weights = head_weights(classifier, site.layer, site.stack, site.name == "cross_head_out")

    def deliver(value: Any) -> None:
        activation = _shaped(first_tensor(value, site), place)
        if weights is not None:
            split = activation.unflatten(-1, (len(weights), -1))  # [B, T, H, D/H]
            activation = torch.einsum("bthd,hde->bthe", split, weights)
        receive(site, activation)

    return attach(place, lambda value: deliver(value))


def attach(place: Location, function: Any) -> Any:
    """Register ``function`` on a location; what it returns, if not None, replaces the activation."""
    module: nn.Module = place.module
    if place.side == "output":
        return module.register_forward_hook(lambda _m, _a, output: function(output))

    def before(_module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if arguments:
            changed = function(arguments[0])
            return None if changed is None else ((changed, *arguments[1:]), named)
        changed = function(named["hidden_states"])
        return None if changed is None else (arguments, {**named, "hidden_states": changed})

    return module.register_forward_pre_hook(before, with_kwargs=True)


def _shaped(activation: torch.Tensor, place: Location) -> torch.Tensor:
    return activation.unflatten(-1, (place.heads, -1)) if place.heads else activation


def _pattern(output: Any, site: Site, where: int) -> torch.Tensor:
    pattern = output[where] if isinstance(output, tuple) and len(output) > where else None
    if not isinstance(pattern, torch.Tensor):
        raise SiteError(
            f"{site}: this attention implementation returns no pattern; eager attention is needed."
        )
    return pattern


def read(
    classifier: Classifier, sites: Sequence[Site], inputs: dict[str, torch.Tensor]
) -> dict[Site, torch.Tensor]:
    """Run one batch and return the activations at ``sites`` (detached); for small batches and tests."""
    found: dict[Site, torch.Tensor] = {}
    with (
        torch.no_grad(),
        reading(classifier, sites, lambda site, value: found.__setitem__(site, value.detach())),
    ):
        classifier(**inputs)
    return found
