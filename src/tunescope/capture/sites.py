"""Sites: the named places in a network where activations are read and edited."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from tunescope.errors import SiteError
from tunescope.models.adapted import plain_layer
from tunescope.models.classifier import Classifier

LAYERED = (
    "resid_pre", "resid_mid", "resid_post", "attn_pattern", "head_z", "head_out", "attn_out", "mlp_out",
    "mlp_neurons",
)  # fmt: skip
SINGLE = ("embeddings", "final_norm_in", "final_norm_out", "pooled", "logits")
SITE_NAMES = LAYERED + SINGLE


@dataclass(frozen=True)
class Site:
    """A named place, with a layer where it has one; written ``head_out[3]`` or ``pooled``.

    Raises:
        SiteError: No such site, or a layer missing or out of place.
    """

    name: str
    layer: int | None = None

    def __post_init__(self) -> None:
        if self.name not in SITE_NAMES:
            raise SiteError(f"There is no site {self.name!r}; the sites are {', '.join(SITE_NAMES)}.")
        if (self.layer is None) == (self.name in LAYERED):
            need = "needs a layer, for example" if self.name in LAYERED else "has no layer: write"
            example = f"{self.name}[0]" if self.name in LAYERED else self.name
            raise SiteError(f"The site {self.name!r} {need} {example!r}.")

    @classmethod
    def parse(cls, text: str) -> Site:
        """Read ``head_out[3]`` or ``pooled``.

        Raises:
            SiteError: The text names no site.
        """
        match = re.fullmatch(r"(\w+?)(?:\[(\d+)\])?", text.strip())
        if match is None:
            raise SiteError(f"{text!r} is not a site; write for example 'resid_post[3]' or 'pooled'.")
        return cls(match[1], None if match[2] is None else int(match[2]))

    def __str__(self) -> str:
        return self.name if self.layer is None else f"{self.name}[{self.layer}]"


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
    family, trunk = classifier.family, classifier.trunk
    if site.layer is not None and not 0 <= site.layer < classifier.n_layers:
        raise SiteError(
            f"{site}: layer {site.layer} is outside the model; its layers are 0 to {classifier.n_layers - 1}."
        )

    def module(role: str) -> nn.Module:
        return trunk.get_submodule(family.path(role, site.layer))

    if site.name in ("pooled", "logits"):
        return Location(classifier.head, "input" if site.name == "pooled" else "output")
    if site.name in ("final_norm_in", "final_norm_out"):
        if family.final_norm is None:
            raise SiteError(
                f"{family.name} normalises after each sublayer and has no final norm, so no {site.name}."
            )
        return Location(module("final_norm"), "input" if site.name == "final_norm_in" else "output")
    if site.name == "resid_mid":
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
    }
    role, side = table[site.name]
    heads = classifier.n_heads if site.name == "head_z" else 0
    return Location(module(role), side, heads, writable=site.name != "attn_pattern")


def head_weights(classifier: Classifier, layer: int) -> torch.Tensor:
    """Return each head's slice of the output projection, [H, D/H, D]: ``head_out = head_z @ slice``."""
    projection = plain_layer(locate(classifier, Site("attn_out", layer)).module)  # with its adapter, if any
    weight: torch.Tensor = projection.weight  # type: ignore[assignment]
    if not classifier.family.projection_is_conv1d:
        weight = weight.T
    return weight.view(classifier.n_heads, classifier.head_width, -1)


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
