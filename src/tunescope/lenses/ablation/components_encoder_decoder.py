"""The components of an encoder-decoder, in the three places where it attends.

They are written with the place in front: ``encoder.L3H7``, ``decoder.L3H7`` (self-attention) and ``cross.L3H7`` (the
decoder's attention to the encoder's output) for heads; ``cross.L3.attention``, ``encoder.L3.mlp``, ``decoder.L3.block``
for sublayers and blocks; ``encoder.L3N10-20``, ``decoder.L3D7`` and ``encoder.T0`` as in models of one stack. A block
of the decoder is its self-attention, cross-attention and MLP together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from tunescope.capture.sites import Site
from tunescope.errors import LensError
from tunescope.lenses.ablation.components import (
    BIAS,
    Control,
    EditKind,
    Kind,
    Part,
    Variant,
    neurons_of,
    projection_bias,
)
from tunescope.models.classifier import Classifier
from tunescope.models.encoder_decoder import Stack, StackName

_WRITTEN = re.compile(
    r"(encoder|decoder|cross)\.(?:L(\d+)(?:([HND])(\d+)(?:-(\d+))?|\.(attention|bias|mlp|block))|T(-?\d+))"
)
EXAMPLES = (
    "Write for example encoder.L3H7, decoder.L3H0-5, cross.L3H7, cross.L3.attention, cross.L3.bias, decoder.L3.mlp, "
    "encoder.L3.block, encoder.L3N10-20, decoder.L3D7 or encoder.T0."
)
ATTENTION_KINDS = ("heads", "attention", BIAS)
SITES = {"attention": "attn_out", "mlp": "mlp_out"}


def single_in(
    place: str, what: str, layer: int, head: int | None, edit: EditKind, control: Control = "none"
) -> Variant:
    """Return the change of one head, sublayer or block.

    Args:
        place: ``encoder``, ``decoder`` or ``cross``.
        what: ``heads``, ``attention``, ``attention_bias``, ``mlp`` or ``block``.
        layer: The block.
        head: The head, for ``heads``.
        edit: What replaces it.
        control: Whether it is a control.
    """
    stack: StackName = "encoder" if place == "encoder" else "decoder"
    prefix = "cross_" if place == "cross" else ""
    if what == "heads":
        assert head is not None
        site, name = f"{prefix}head_out", f"{place}.L{layer}H{head}"
        parts: tuple[Part, ...] = (Part(Site(site, layer, stack), (head,)),)
    elif what == "block":
        names = ["attn_out", *(["cross_attn_out"] if stack == "decoder" else []), "mlp_out"]
        site, name = "block", f"{place}.L{layer}.block"
        parts = tuple(Part(Site(one, layer, stack)) for one in names)
    elif what == BIAS:
        site, name = prefix + BIAS, f"{place}.L{layer}.bias"
        parts = (Part(Site(f"{prefix}attn_out", layer, stack), bias=True),)
    else:
        site, name = prefix + SITES[what], f"{place}.L{layer}.{what}"
        parts = (Part(Site(site, layer, stack)),)
    return Variant(site, layer, head, edit, control, parts, name, stack=stack)


def every_in_stacks(model: Classifier, kinds: Sequence[Kind], edit: EditKind) -> list[Variant]:
    """List every component of these kinds, in the order in which the model runs them.

    Biases are listed under ``zero`` alone, as in models of one stack.

    Raises:
        LensError: Biases are asked for and the model has none, as T5.
    """
    found: list[Variant] = []
    for stack in model.stacks:
        assert stack.name is not None
        places = [stack.name] if stack.name == "encoder" else ["decoder", "cross"]
        for layer in range(stack.n_layers):
            for kind in kinds:
                for place in places if kind in ATTENTION_KINDS else places[:1]:
                    if kind == BIAS:
                        projection_bias(
                            model, layer, stack.name, place == "cross"
                        )  # refuses a model without one
                        if edit != "zero":
                            continue
                    heads = range(stack.n_heads) if kind == "heads" else (None,)
                    found += [single_in(place, kind, layer, head, edit) for head in heads]
    return found


def no_ops_in_stacks(model: Classifier, edit: EditKind) -> list[Variant]:
    """Return one change of nothing a block."""
    return [
        single_in(str(stack.name), "mlp", layer, None, edit, "no_op")
        for stack in model.stacks
        for layer in range(stack.n_layers)
    ]


def parse_in_stacks(model: Classifier, text: str, edit: EditKind = "zero") -> Variant:
    """Read one component as it is written in options.

    Raises:
        LensError: It is not written so, or lies outside the model; the message gives the valid range.
    """
    match = _WRITTEN.fullmatch(text.strip())
    if match is None:
        raise LensError(f"{text!r} is not a component of an encoder-decoder.", hint=EXAMPLES)
    place = match[1]
    stack = next(one for one in model.stacks if one.name == ("encoder" if place == "encoder" else "decoder"))
    if match[7] is not None:
        _not_cross(text, place, "position")
        part = Part(Site("embeddings", stack=stack.name), positions=(int(match[7]),))
        return Variant("embeddings", None, None, edit, parts=(part,), name=text.strip(), stack=stack.name)
    layer = int(match[2])
    _within(text, "layer", layer, stack.n_layers)
    if match[6] is not None:
        if match[6] not in ("attention", "bias"):
            _not_cross(text, place, match[6])
        if match[6] == "bias":
            projection_bias(model, layer, stack.name, place == "cross")
        return single_in(place, BIAS if match[6] == "bias" else match[6], layer, None, edit)
    return _units(model, text, match, stack, edit)


def _units(model: Classifier, text: str, match: re.Match[str], stack: Stack, edit: EditKind) -> Variant:
    """Return the change of heads, neurons or dimensions from one number to another."""
    place, layer, low = match[1], int(match[2]), int(match[4])
    high = low if match[5] is None else int(match[5])
    if high < low:
        raise LensError(f"{text!r} ends before it begins; write the smaller number first.")
    if match[3] == "H":
        _within(text, "head", high, stack.n_heads)
        first = single_in(place, "heads", layer, low, edit)
        if low == high:
            return first
        units = replace(first.parts[0], units=tuple(range(low, high + 1)))
        return replace(first, site="set", head=None, parts=(units,), name=text.strip(), scope="group")
    what, site, size = "dimension", "resid_post", model.width
    if match[3] == "N":
        what, site, size = "neuron", "mlp_neurons", neurons_of(model, layer, stack.name)
    _not_cross(text, place, what)
    _within(text, what, high, size)
    parts = (Part(Site(site, layer, stack.name), tuple(range(low, high + 1))),)
    return Variant(site, layer, None, edit, parts=parts, name=text.strip(), stack=stack.name)


def _not_cross(text: str, place: str, what: str) -> None:
    if place == "cross":
        raise LensError(
            f"{text!r}: cross-attention has heads and an output, no {what}; write it with decoder in front.",
            hint=EXAMPLES,
        )


def _within(text: str, what: str, number: int, size: int) -> None:
    if number >= size:
        raise LensError(f"{text!r}: {what} {number} is outside the model; its {what}s are 0 to {size - 1}.")
