"""Proof, on a real batch, that the table of an encoder-decoder describes a loaded model truly."""

from __future__ import annotations

import contextlib

import torch

from tunescope.capture.checks import HINT, check_close, check_edits, check_shape
from tunescope.capture.encoder_decoder import run_from_stack, trace_stacks
from tunescope.capture.hooks import read
from tunescope.capture.sites import Site, head_weights, locate
from tunescope.errors import SiteError
from tunescope.models.classifier import Classifier
from tunescope.models.encoder_decoder import Stack, decoder_inputs

Values = dict[str, torch.Tensor]


def verify_stacks(classifier: Classifier, inputs: dict[str, torch.Tensor]) -> None:
    """Check the tables of encoder and decoder on right-padded rows of different length.

    Checked in both stacks and in cross-attention: shapes of every site; attention rows sum to 1 and leave padding out;
    ``head_out`` plus bias sums to ``attn_out``, which is what the attention hands on; a block's parts add up to
    ``resid_mid`` and ``resid_post``; an edit of every sublayer changes the final hidden states. Of the whole:
    agreement with transformers' own forward pass; padding on the left changes nothing; running from a block of either
    stack equals a full pass; nothing is left behind.

    Raises:
        SiteError: The table does not describe this model; no lens may read it.
    """
    with torch.no_grad():
        before = classifier(**inputs)
    _check_forward(classifier, inputs, before)
    for stack in classifier.stacks:
        _check_paths(classifier, stack)
        for layer in range(stack.n_layers):
            _check_layer(classifier, inputs, stack, layer)
    stored = trace_stacks(classifier, inputs)
    for stack in classifier.stacks:
        assert stack.name is not None
        for layer in {0, stack.n_layers - 1}:
            again = run_from_stack(classifier, stored, stack.name, layer)
            check_close(again, before, classifier, f"running from {stack.name} block {layer}")
    with torch.no_grad():
        if not torch.equal(classifier(**inputs), before):
            raise SiteError(f"{classifier.family.name}: reading and editing left a trace in the model.")


def _check_paths(classifier: Classifier, stack: Stack) -> None:
    """Refuse a part of a block that lies outside the block: its numbers would fit, being another block's."""
    roles = ["attention", "attention_projection", "mlp_projection", "middle"]
    roles += ["cross_attention", "cross_attention_projection"] if stack.name == "decoder" else []
    for role in roles:
        path, block = stack.family.path(role, 0), stack.family.path("block", 0)
        if not path.startswith(f"{block}."):
            raise SiteError(
                f"{classifier.family.name}: the {stack.name}'s {role} ({path}) is no part of its block ({block}).",
                hint=HINT,
            )


def _check_forward(classifier: Classifier, inputs: dict[str, torch.Tensor], logits: torch.Tensor) -> None:
    """Compare with transformers' own pass, row by row and without any padding, and with left-padded rows."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    with torch.no_grad():
        ours = classifier.hidden(ids, mask)
    for row in range(len(ids)):
        alone = ids[row : row + 1, : int(mask[row].sum())]
        with torch.no_grad():
            theirs = classifier.trunk(
                input_ids=alone, decoder_input_ids=decoder_inputs(alone, classifier.model.config), use_cache=False
            ).last_hidden_state  # fmt: skip
        check_close(
            ours[row : row + 1, : alone.shape[1]], theirs, classifier, "transformers' own forward pass"
        )
    shift = int((1 - mask[1]).sum())  # rolling by it moves the second row's padding to the left
    with torch.no_grad():
        left = classifier(ids.roll(shift, 1)[1:], mask.roll(shift, 1)[1:])
    check_close(left, logits[1:], classifier, "padding on the left")


def _check_layer(classifier: Classifier, inputs: dict[str, torch.Tensor], stack: Stack, layer: int) -> None:
    names = [
        "resid_pre",
        "resid_mid",
        "resid_post",
        "head_z",
        "head_out",
        "attn_out",
        "mlp_out",
        "attn_pattern",
    ]
    crosses = ("", "cross_") if stack.name == "decoder" else ("",)
    if stack.name == "decoder":
        names += ["cross_head_z", "cross_head_out", "cross_attn_out", "cross_attn_pattern"]
    sites = [Site(name, layer, stack.name) for name in names]
    given = [Site(f"{cross}attn_pattern", layer, stack.name) for cross in crosses]
    with contextlib.ExitStack() as hooks:
        attention: list[torch.Tensor] = []  # what self-attention, then cross-attention, hands on
        for site in given:
            hook = locate(classifier, site).module.register_forward_hook(
                lambda _module, _given, output: attention.append(output[0].detach())
            )
            hooks.callback(hook.remove)
        found = {site.name: value for site, value in read(classifier, sites, inputs).items()}
    rows, length = inputs["input_ids"].shape
    where = f"{stack.name}, layer {layer}"
    for name in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"):
        check_shape(found[name], (rows, length, classifier.width), classifier, f"{name} of {where}")
    real = inputs["attention_mask"].bool()
    for cross in crosses:
        z, pattern = found[f"{cross}head_z"], found[f"{cross}attn_pattern"]
        check_shape(
            z, (rows, length, stack.n_heads, stack.head_width), classifier, f"{cross}head_z of {where}"
        )
        check_shape(
            pattern, (rows, stack.n_heads, length, length), classifier, f"{cross}attn_pattern of {where}"
        )
        sums = pattern.sum(-1).transpose(1, 2)[real]
        what = f"{cross}attention rows of {where} (they must sum to 1)"
        check_close(sums, torch.ones_like(sums), classifier, what)
        seen = pattern.transpose(1, 2)[real]  # [R, H, T] of R real tokens
        padding = (~real).repeat_interleave(real.sum(1), dim=0).unsqueeze(1)  # [R, 1, T]
        check_close(
            seen * padding, torch.zeros_like(seen), classifier, f"{cross}attention to padding of {where}"
        )
        check_close(found[f"{cross}attn_out"], attention.pop(0), classifier, f"{cross}attn_out of {where}")
        _check_heads(classifier, found, stack, layer, cross)
    _check_stream(classifier, found, stack, layer)
    check_edits(classifier, inputs, found, [Site(f"{cross}attn_out", layer, stack.name) for cross in crosses]
                 + [Site("mlp_out", layer, stack.name)])  # fmt: skip


def _check_heads(classifier: Classifier, found: Values, stack: Stack, layer: int, cross: str) -> None:
    site = Site(f"{cross}attn_out", layer, stack.name)
    bias = getattr(locate(classifier, site).module, "bias", None)
    summed = found[f"{cross}head_out"].sum(2) + (bias.detach() if isinstance(bias, torch.Tensor) else 0.0)
    check_close(summed, found[f"{cross}attn_out"], classifier, f"the sum of heads at {site}")
    weights = head_weights(classifier, layer, stack.name, bool(cross))
    expected = (stack.n_heads, stack.head_width, classifier.width)
    check_shape(weights, expected, classifier, f"output projection at {site}")


def _check_stream(classifier: Classifier, found: Values, stack: Stack, layer: int) -> None:
    """Check that a block's parts add up to what follows them, through its norms in a post-norm model."""
    where = f"{stack.name}, layer {layer}"
    middle = found["resid_pre"] + found["attn_out"]
    with torch.no_grad():
        if stack.family.norm_order == "pre":
            total = middle + found.get("cross_attn_out", 0.0) + found["mlp_out"]
            check_close(
                total, found["resid_post"], classifier, f"resid_post of {where} (the sum of its parts)"
            )
        else:
            norms = [classifier.trunk.get_submodule(path.format(layer=layer)) for path in stack.family.norms]
            middle = norms[0](middle)
            if stack.name == "encoder":  # in the decoder cross-attention and its norm come between
                last = norms[1](middle + found["mlp_out"])
                check_close(last, found["resid_post"], classifier, f"resid_post of {where} (norm of a sum)")
    check_close(middle, found["resid_mid"], classifier, f"resid_mid of {where} (resid_pre plus attn_out)")
