"""What an ablation changes: heads, sublayers, blocks, neurons, dimensions, positions, and named sets of them.

A *part* is one place; a *variant* is one run of the model with a set of parts changed in one way. Single components
are written ``L3H7`` (head), ``L3H0-5`` (heads), ``L3.attention``, ``L3.bias`` (of the attention's output projection),
``L3.mlp``, ``L3.block``, ``L3N10-20`` (neurons of the MLP), ``L3D7`` (dimension of the residual stream behind block
3), ``T0`` or ``T-1`` (token position, at the embeddings, counted from the first or from behind the last token).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from tunescope.capture.sites import Site, locate
from tunescope.errors import LensError
from tunescope.models.adapted import plain_layer
from tunescope.models.classifier import Classifier
from tunescope.models.encoder_decoder import StackName

EditKind = Literal["zero", "mean", "position_mean", "resample", "resample_other_class", "noise"]
Control = Literal["none", "random", "no_op"]
Kind = Literal["heads", "attention", "attention_bias", "mlp", "block"]
Scope = Literal["one", "group", "pair", "all_but_one", "removal"]
KIND_SITES = {
    "heads": "head_out", "attention": "attn_out", "attention_bias": "attention_bias", "mlp": "mlp_out",
    "block": "block",
}  # fmt: skip
BIAS = "attention_bias"
_WRITTEN = re.compile(r"L(\d+)(?:([HND])(\d+)(?:-(\d+))?|\.(attention|bias|mlp|block))|T(-?\d+)")
_SITES = {"attention": "attn_out", "bias": BIAS, "mlp": "mlp_out", "block": "block"}
_NAMES = {site: name for name, site in _SITES.items()}


@dataclass(frozen=True)
class Part:
    """One place that is changed.

    Attributes:
        site: ``head_out``, ``attn_out``, ``mlp_out``, ``mlp_neurons`` or ``resid_post`` of a layer, or ``embeddings``.
        units: Which heads, neurons or dimensions; None for all.
        positions: Which tokens of a row, negative from behind the last; None for all.
        direction: Name of directions of which only the share in their span is changed; None for everything.
        bias: Only the bias of the attention's output projection is changed, not what the heads write.
    """

    site: Site
    units: tuple[int, ...] | None = None
    positions: tuple[int, ...] | None = None
    direction: str | None = None
    bias: bool = False

    @property
    def layer(self) -> int:
        """The block whose result it changes; -1 for the embeddings."""
        return -1 if self.site.layer is None else self.site.layer


@dataclass(frozen=True)
class Variant:
    """One run of the model with some parts changed.

    Attributes:
        site: The table's name of the kind of component: ``head_out``, ``attn_out``, ``attention_bias``, ``mlp_out``,
            ``block``, ``mlp_neurons``, ``resid_post``, ``embeddings``, or ``set`` for several.
        layer: The layer, where all parts have one.
        head: The head, where there is one.
        edit: What replaces the parts.
        control: ``none`` is the effect itself; ``random`` moves each token by as much as the edit would, in a random
            direction; ``no_op`` changes nothing.
        parts: What is changed.
        name: How the component is written.
        scope: One component, a named group, a pair, all but one, or a step of an ordered removal.
        step: How many components are removed, for an ordered removal.
        order: The order of an ordered removal.
        stack: ``encoder`` or ``decoder``, where all parts lie in one of them; None in a model of one stack.
    """

    site: str
    layer: int | None
    head: int | None
    edit: EditKind
    control: Control = "none"
    parts: tuple[Part, ...] = ()
    name: str = ""
    scope: Scope = "one"
    step: int | None = None
    order: str | None = None
    stack: StackName | None = None

    @property
    def start(self) -> int:
        """The first block that must be run or finished anew; -1 where the embeddings change."""
        return min(part.layer for part in self.parts)


def single(site: str, layer: int, head: int | None, edit: EditKind, control: Control = "none") -> Variant:
    """Return the change of one head (``head_out``), sublayer (``attn_out``, ``mlp_out``), bias or ``block``."""
    if site == "block":
        both = (Part(Site("attn_out", layer)), Part(Site("mlp_out", layer)))
        return Variant(site, layer, None, edit, control, both, f"L{layer}.block")
    if site == BIAS:
        return Variant(
            site, layer, None, edit, control, (Part(Site("attn_out", layer), bias=True),), f"L{layer}.bias"
        )
    parts = (Part(Site(site, layer), None if head is None else (head,)),)
    name = f"L{layer}H{head}" if head is not None else f"L{layer}.{_NAMES[site]}"
    return Variant(site, layer, head, edit, control, parts, name)


def every(model: Classifier, kinds: Sequence[Kind], edit: EditKind) -> list[Variant]:
    """List every component of these kinds, layer by layer.

    Biases are listed under ``zero`` alone: a constant is its own mean, and another example's value too.

    Raises:
        LensError: Biases are asked for and the model has none.
    """
    if model.is_encoder_decoder:
        from tunescope.lenses.ablation.components_encoder_decoder import every_in_stacks

        return every_in_stacks(model, kinds, edit)
    found = []
    for layer in range(model.n_layers):
        for kind in kinds:
            if kind == BIAS:
                projection_bias(model, layer)  # refuses a model without one
                if edit != "zero":
                    continue
            heads = range(model.n_heads) if kind == "heads" else (None,)
            found += [single(KIND_SITES[kind], layer, head, edit) for head in heads]
    return found


def parse(model: Classifier, text: str, edit: EditKind = "zero") -> Variant:
    """Read one component as it is written in options.

    Raises:
        LensError: It is not written so, or lies outside the model; the message gives the valid range.
    """
    if model.is_encoder_decoder:
        from tunescope.lenses.ablation.components_encoder_decoder import parse_in_stacks

        return parse_in_stacks(model, text, edit)
    match = _WRITTEN.fullmatch(text.strip())
    if match is None:
        raise LensError(
            f"{text!r} is not a component.",
            hint="Write for example L3H7, L3H0-5, L3.attention, L3.bias, L3.mlp, L3.block, L3N10-20, L3D7, T0 or T-1.",
        )
    if match[6] is not None:
        part = Part(Site("embeddings"), positions=(int(match[6]),))
        return Variant("embeddings", None, None, edit, parts=(part,), name=text.strip())
    layer = int(match[1])
    _within(text, "layer", layer, model.n_layers)
    if match[5] is not None:
        if match[5] == "bias":
            projection_bias(model, layer)
        return single(_SITES[match[5]], layer, None, edit)
    low = int(match[3])
    high = low if match[4] is None else int(match[4])
    if high < low:
        raise LensError(f"{text!r} ends before it begins; write the smaller number first.")
    site, what, size = {
        "H": ("head_out", "head", model.n_heads),
        "N": ("mlp_neurons", "neuron", neurons_of(model, layer)),
        "D": ("resid_post", "dimension", model.width),
    }[match[2]]
    _within(text, what, high, size)
    head = low if match[2] == "H" and low == high else None
    parts = (Part(Site(site, layer), tuple(range(low, high + 1))),)
    return Variant(site if head is not None or match[2] != "H" else "set", layer, head, edit, parts=parts,
                   name=text.strip(), scope="one" if head is not None or match[2] != "H" else "group")  # fmt: skip


def _within(text: str, what: str, number: int, size: int) -> None:
    if number >= size:
        raise LensError(
            f"{text!r}: {what} {number} is outside the model; its {what}s are 0 to {size - 1}.",
        )


def neurons_of(model: Classifier, layer: int, stack: StackName | None = None) -> int:
    """Return how many neurons an MLP has."""
    return int(neuron_weights(model, layer, stack).shape[0])


def neuron_weights(model: Classifier, layer: int, stack: StackName | None = None) -> torch.Tensor:
    """Return what each neuron of an MLP writes, [F, D]: ``mlp_out = neurons @ weights + bias``."""
    projection = plain_layer(locate(model, Site("mlp_out", layer, stack)).module)
    weight: torch.Tensor = projection.weight  # type: ignore[assignment]
    return weight if model.family.projection_is_conv1d else weight.T


def projection_bias(
    model: Classifier, layer: int, stack: StackName | None = None, cross: bool = False
) -> torch.Tensor:
    """Return the bias of the attention's output projection, [D].

    Args:
        model: The model.
        layer: The block.
        stack: Which stack, in an encoder-decoder.
        cross: The decoder's cross-attention, not its self-attention.

    Raises:
        LensError: The projection has none, as in Llama and T5.
    """
    site = Site("cross_attn_out" if cross else "attn_out", layer, stack)
    bias = getattr(plain_layer(locate(model, site).module), "bias", None)
    if bias is None:
        raise LensError(
            f"The attention's output projection of block {layer} has no bias in {model.family.name}, so none can be "
            "zeroed.",
            hint="Take attention_bias (and as_published) out of the ablation's options for this model.",
        )
    found: torch.Tensor = bias
    return found


def group(model: Classifier, name: str, members: Sequence[str], edit: EditKind = "zero") -> Variant:
    """Return the joint change of named components.

    Raises:
        LensError: There is no member, or one is not a component of this model.
    """
    if not members:
        raise LensError(f"The group {name!r} has no member; write at least one component, for example L3H7.")
    return joint([parse(model, text) for text in members], name, edit)


def joint(members: Sequence[Variant], name: str, edit: EditKind, scope: Scope = "group") -> Variant:
    """Return one variant that changes all of these components together; each place is changed once."""
    every_part = [part for member in members for part in member.parts]
    whole = {
        part.site for part in every_part if part.units is None and part.positions is None and not part.bias
    }
    covers = {"head_out": "attn_out", "cross_head_out": "cross_attn_out", "mlp_neurons": "mlp_out"}
    merged: dict[tuple[Site, bool, str | None, bool], tuple[set[int] | None, set[int]]] = {}
    for part in every_part:
        larger = covers.get(part.site.name)
        if larger is not None and Site(larger, part.site.layer, part.site.stack) in whole:
            continue  # the sublayer's whole output is changed; its heads or neurons are in it
        if part.bias and part.site in whole:
            continue
        key = (part.site, part.positions is None, part.direction, part.bias)
        units, positions = merged.get(key, (set(), set()))
        units = None if part.units is None or units is None else units | set(part.units)
        merged[key] = (units, positions | set(part.positions or ()))
    parts = tuple(
        Part(
            site,
            None if units is None else tuple(sorted(units)),
            None if everywhere else tuple(sorted(at)),
            way,
            bias,
        )
        for (site, everywhere, way, bias), (units, at) in sorted(
            merged.items(), key=lambda item: str(item[0])
        )
    )
    layers = {(part.site.stack, part.site.layer) for part in parts}
    stacks = {stack for stack, _ in layers}
    return Variant(
        "set", layers.pop()[1] if len(layers) == 1 else None, None, edit, parts=parts, name=name, scope=scope,
        stack=stacks.pop() if len(stacks) == 1 else None,
    )  # fmt: skip


def pairs(singles: Sequence[Variant], within_layer: bool) -> list[Variant]:
    """Return every pair of components, of one layer or of all."""
    return [
        joint([one, other], f"{one.name}+{other.name}", one.edit, "pair")
        for one, other in itertools.combinations(singles, 2)
        if (one.stack, one.layer) == (other.stack, other.layer) or not within_layer
    ]


def all_but_one(singles: Sequence[Variant]) -> list[Variant]:
    """Return, for every component, the removal of all others of its kind."""
    found = []
    for kept in singles:
        others = [one for one in singles if one is not kept]
        if others:
            made = joint(others, f"all but {kept.name}", kept.edit, "all_but_one")
            site = f"all_but_one:{kept.site}"
            found.append(replace(made, site=site, layer=kept.layer, head=kept.head, stack=kept.stack))
    return found


def removals(ordered: Sequence[Variant], order: str, steps: Sequence[int]) -> list[Variant]:
    """Return the removal of the first 1, 2, ... of ordered components, at the given numbers of steps."""
    return [
        replace(
            joint(ordered[:count], f"{order}, first {count}", ordered[0].edit, "removal"),
            site=f"removal:{ordered[0].site}", layer=None, step=count, order=order,
        )
        for count in steps
    ]  # fmt: skip


def named_groups(model: Classifier, groups: Mapping[str, Sequence[str]], edit: EditKind) -> list[Variant]:
    """Return one variant a named group."""
    return [group(model, name, members, edit) for name, members in groups.items()]
