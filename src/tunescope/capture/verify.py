"""Proof, on a real batch, that a family's table describes a loaded model truly."""

from __future__ import annotations

from typing import TypeVar

import torch

from tunescope.capture.checks import check_close, check_edits, check_shape
from tunescope.capture.hooks import read
from tunescope.capture.partial import run_from, trace
from tunescope.capture.sites import Site, locate
from tunescope.capture.verify_encoder_decoder import verify_stacks
from tunescope.errors import SiteError
from tunescope.models.classifier import Classifier, right_padded

Model = TypeVar("Model", bound=Classifier)


def verify(classifier: Model) -> Model:
    """Check the family's table on a probe batch, and return the classifier.

    Checked: shapes of every site; attention rows sum to 1; ``head_out`` plus bias sums to ``attn_out``; a pre-norm
    block's output is the sum of its input, attention and MLP; the trunk
    agrees with transformers' own forward pass; padding on the left changes nothing; an edit in each block changes
    the final hidden states; running from block *k* equals a full pass; nothing is left behind.

    Raises:
        SiteError: The table does not describe this model; no lens may read it.
    """
    was_training = classifier.training
    classifier.eval()
    try:
        inputs = _probe_batch(classifier)
        if classifier.is_encoder_decoder:
            verify_stacks(classifier, inputs)
            return classifier
        with torch.no_grad():
            before = classifier(**inputs)
        _check_positions(classifier, inputs, before)
        for layer in range(classifier.n_layers):
            _check_layer(classifier, inputs, layer)
        stored = trace(classifier, inputs)
        for layer in (0, classifier.n_layers - 1):
            check_close(
                run_from(classifier, stored, layer), before, classifier, f"running from block {layer}"
            )
        with torch.no_grad():
            if not torch.equal(classifier(**inputs), before):
                raise SiteError(f"{classifier.family.name}: reading and editing left a trace in the model.")
    finally:
        classifier.train(was_training)
    return classifier


def _probe_batch(classifier: Classifier) -> dict[str, torch.Tensor]:
    """Return two rows of different length, right-padded, of ids that are not the pad id."""
    limit = classifier.max_length
    long, short = min(9, limit), min(5, limit)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, int(classifier.model.config.vocab_size), (2, long), generator=generator)
    pad = classifier.tokenizer.pad_token_id
    ids[ids == pad] = (pad + 1) % int(classifier.model.config.vocab_size)
    mask = torch.ones_like(ids)
    mask[1, short:] = 0
    ids[1, short:] = pad
    device = classifier.device
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def _check_positions(classifier: Classifier, inputs: dict[str, torch.Tensor], logits: torch.Tensor) -> None:
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    extra = {"use_cache": False} if classifier.family.caches else {}
    with torch.no_grad():
        theirs = classifier.trunk(input_ids=ids, attention_mask=mask, **extra).last_hidden_state
        ours = classifier.hidden(ids, mask)
        shift = int((1 - mask[1]).sum())  # rolling by it moves the second row's padding to the left
        left = classifier(ids.roll(shift, 1)[1:], mask.roll(shift, 1)[1:])
    real = right_padded(ids, mask)[1].bool()
    check_close(ours[real], theirs[real], classifier, "transformers' own forward pass")
    check_close(left, logits[1:], classifier, "padding on the left")


def _check_layer(classifier: Classifier, inputs: dict[str, torch.Tensor], layer: int) -> None:
    names = ["resid_pre", "resid_post", "head_z", "head_out", "attn_out", "mlp_out", "attn_pattern"]
    names += [] if classifier.is_parallel else ["resid_mid"]
    found = {
        site.name: value for site, value in read(classifier, [Site(n, layer) for n in names], inputs).items()
    }
    rows, length = inputs["input_ids"].shape
    heads, width = classifier.n_heads, classifier.width
    for name in ("resid_pre", "resid_post", "attn_out", "mlp_out", "resid_mid"):
        if name in found:
            check_shape(found[name], (rows, length, width), classifier, f"{name}[{layer}]")
    check_shape(found["head_z"], (rows, length, heads, classifier.head_width), classifier, f"head_z[{layer}]")
    check_shape(found["attn_pattern"], (rows, heads, length, length), classifier, f"attn_pattern[{layer}]")
    sums = found["attn_pattern"].sum(-1)[:, :, : int(inputs["attention_mask"][1].sum())]
    check_close(
        sums, torch.ones_like(sums), classifier, f"attention rows of layer {layer} (they must sum to 1)"
    )
    bias = getattr(locate(classifier, Site("attn_out", layer)).module, "bias", None)
    summed = found["head_out"].sum(2) + (bias.detach() if isinstance(bias, torch.Tensor) else 0.0)
    check_close(
        summed,
        found["attn_out"],
        classifier,
        f"head_out plus bias at layer {layer} (it must sum to attn_out)",
    )
    _check_stream(classifier, found, layer)
    check_edits(classifier, inputs, found, [Site("attn_out", layer), Site("mlp_out", layer)])


def _check_stream(classifier: Classifier, found: dict[str, torch.Tensor], layer: int) -> None:
    """Check that a pre-norm block's parts add up to its output; after a norm (post) they need not."""
    if classifier.family.norm_order == "post":
        return
    before = found["resid_pre"] + found["attn_out"]
    if "resid_mid" in found:
        check_close(before, found["resid_mid"], classifier, f"resid_mid[{layer}] (resid_pre plus attn_out)")
    total = before + found["mlp_out"]
    check_close(
        total, found["resid_post"], classifier, f"resid_post[{layer}] (resid_pre, attn_out and mlp_out)"
    )
