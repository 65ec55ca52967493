"""Sites: the named places in a network where activations are read and edited."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import nn

from tunescope.errors import SiteError
from tunescope.models.adapted import plain_layer
from tunescope.models.classifier import Classifier
from tunescope.models.encoder_decoder import STACKS, Stack, StackName

LAYERED = (
    "resid_pre", "resid_mid", "resid_post", "attn_pattern", "head_z", "head_out", "attn_out", "mlp_out",
    "mlp_neurons",
)  # fmt: skip
CROSS = ("cross_attn_pattern", "cross_head_z", "cross_head_out", "cross_attn_out")
HEAD_OUT, PATTERNS = ("head_out", "cross_head_out"), ("attn_pattern", "cross_attn_pattern")
SINGLE = ("embeddings", "final_norm_in", "final_norm_out", "pooled", "logits")
WHOLE = ("pooled", "logits")  # of the model, not of a stack
SITE_NAMES = LAYERED + CROSS + SINGLE


@dataclass(frozen=True)
class Site:
    """A named place, with a layer where it has one; written ``head_out[3]``, ``pooled`` or ``decoder.head_out[3]``.

    In an encoder-decoder every site but ``pooled`` and ``logits`` names its stack, and nowhere else; the sites of
    cross-attention are the decoder's without its being said.

    Raises:
        SiteError: No such site, or a layer or stack missing or out of place.
    """

    name: str
    layer: int | None = None
    stack: StackName | None = None

    def __post_init__(self) -> None:
        if self.name not in SITE_NAMES:
            raise SiteError(f"There is no site {self.name!r}; the sites are {', '.join(SITE_NAMES)}.")
        if (self.layer is None) == (self.name in LAYERED + CROSS):
            need = "needs a layer, for example" if self.layer is None else "has no layer: write"
            example = f"{self.name}[0]" if self.layer is None else self.name
            raise SiteError(f"The site {self.name!r} {need} {example!r}.")
        if self.stack not in (None, *STACKS):
            raise SiteError(f"There is no stack {self.stack!r}; the stacks are {' and '.join(STACKS)}.")
        if self.name in CROSS:
            if self.stack == "encoder":
                raise SiteError(
                    f"The encoder has no {self.name}: only the decoder attends to the other stack."
                )
            object.__setattr__(self, "stack", "decoder")
        if self.name in WHOLE and self.stack is not None:
            raise SiteError(f"{self.name!r} is of the whole model: write it without a stack.")

    @classmethod
    def parse(cls, text: str) -> Site:
        """Read ``head_out[3]``, ``pooled`` or ``decoder.head_out[3]``.

        Raises:
            SiteError: The text names no site.
        """
        match = re.fullmatch(r"(?:(\w+)\.)?(\w+?)(?:\[(\d+)\])?", text.strip())
        if match is None:
            raise SiteError(f"{text!r} is not a site; write for example 'resid_post[3]' or 'pooled'.")
        return cls(match[2], None if match[3] is None else int(match[3]), cast(StackName | None, match[1]))

    def __str__(self) -> str:
        place = self.name if self.layer is None else f"{self.name}[{self.layer}]"
        return place if self.stack is None else f"{self.stack}.{place}"


@dataclass(frozen=True)
class Location:
    """Where a site is in one classifier.

    Attributes:
        module: The module to hook.
        side: Whether the site is the module's first input or its output.
        heads: Number of heads to split the last axis into ([B, T, H, D/H]); 0 leaves it whole.
        writable: Whether replacing the tensor there changes everything that follows from it.
    """

    module: nn.Module
    side: Literal["input", "output"]
    heads: int = 0
    writable: bool = True


def locate(classifier: Classifier, site: Site) -> Location:
    """Find a site in a classifier.

    Raises:
        SiteError: The layer is outside the model, or the architecture has no such site.
    """
    if site.name in WHOLE:
        return Location(classifier.head, "input" if site.name == "pooled" else "output")
    stack = stack_of(classifier, site)
    family, trunk = stack.family, classifier.trunk
    if site.layer is not None and not 0 <= site.layer < stack.n_layers:
        raise SiteError(
            f"{site}: layer {site.layer} is outside the model; its layers are 0 to {stack.n_layers - 1}."
        )

    def module(role: str) -> nn.Module:
        return trunk.get_submodule(family.path(role, site.layer))

    if site.name in ("final_norm_in", "final_norm_out"):
        if family.final_norm is None:
            raise SiteError(
                f"{family.name} normalises after each sublayer and has no final norm, so no {site.name}."
            )
        return Location(module("final_norm"), "input" if site.name == "final_norm_in" else "output")
    if site.name == "resid_mid":
        if classifier.is_parallel:
            raise SiteError(
                f"In this {family.name} model attention and MLP both read resid_pre and are added together, so there "
                "is no resid_mid."
            )
        # Before a pre-norm the stream goes on beside the norm, so replacing the norm's input would not replace it.
        pre = family.norm_order == "pre"
        return Location(module("middle"), "input" if pre else "output", writable=not pre)
    table: dict[str, tuple[str, Literal["input", "output"]]] = {
        "embeddings": ("embeddings", "output"),
        "resid_pre": ("block", "input"),
        "resid_post": ("block", "output"),
        "attn_pattern": ("attention", "output"),
        "head_z": ("attention_projection", "input"),
        "head_out": ("attention_projection", "input"),
        "attn_out": ("attention_projection", "output"),
        "mlp_out": ("mlp_projection", "output"),
        "mlp_neurons": ("mlp_projection", "input"),
        "cross_attn_pattern": ("cross_attention", "output"),
        "cross_head_z": ("cross_attention_projection", "input"),
        "cross_head_out": ("cross_attention_projection", "input"),
        "cross_attn_out": ("cross_attention_projection", "output"),
    }
    role, side = table[site.name]
    heads = stack.n_heads if site.name in ("head_z", "cross_head_z") else 0
    return Location(module(role), side, heads, writable=site.name not in PATTERNS)


def stack_of(classifier: Classifier, site: Site) -> Stack:
    """Return the stack that a site of this classifier is in.

    Raises:
        SiteError: The site names a stack where the model has one alone, or none where it has two.
    """
    stacks = {stack.name: stack for stack in classifier.stacks}
    if site.stack in stacks:
        return stacks[site.stack]
    name = classifier.family.name
    if site.stack is None:
        raise SiteError(
            f"{name} has an encoder and a decoder, and {site} does not say in which it is: write encoder.{site} or "
            f"decoder.{site}."
        )
    raise SiteError(f"{name} has one stack of blocks, so there is no {site}.")


def head_weights(
    classifier: Classifier, layer: int, stack: StackName | None = None, cross: bool = False
) -> torch.Tensor:
    """Return each head's slice of the output projection, [H, D/H, D]: ``head_out = head_z @ slice``.

    Args:
        classifier: The model.
        layer: The block.
        stack: Which stack, in an encoder-decoder.
        cross: The decoder's cross-attention, not its self-attention.
    """
    site = Site("cross_attn_out" if cross else "attn_out", layer, stack)
    projection = plain_layer(locate(classifier, site).module)  # with its adapter, if any
    weight: torch.Tensor = projection.weight  # type: ignore[assignment]
    if not classifier.family.projection_is_conv1d:
        weight = weight.T
    return weight.view(stack_of(classifier, site).n_heads, -1, weight.shape[-1])


def first_tensor(value: Any, site: Site) -> torch.Tensor:
    """Return the activation from what a module gave: a tensor, or a tuple that starts with one.

    Raises:
        SiteError: It is neither; nothing is guessed.
    """
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, tuple) and value and isinstance(value[0], torch.Tensor):
        return value[0]
    raise SiteError(
        f"{site}: expected a tensor or a tuple that starts with one, came {type(value).__name__}."
    )


Reader = Callable[[Site, torch.Tensor], None]
