"""A clean pass of rows of equal length, stored so that a change in any block costs only what comes after it.

A change of a head adds one term to the attention's output, so the attention of the changed block is not run again:
its new output is formed from what was stored, and the pass goes on with that block's norm and MLP. A change of the
MLP's output or of the residual stream does not even need those. In the last block only the token that pooling reads
is computed. Rows have one length, so nothing is padded and no mask is needed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tunescope.capture.encoder_decoder import StackTrace
from tunescope.capture.hooks import reading
from tunescope.capture.partial import Trace, blocks_of, copied, trace
from tunescope.capture.sites import Site, locate
from tunescope.errors import SiteError
from tunescope.models.classifier import Classifier

SITES = ("head_z", "attn_out", "resid_mid", "mlp_out", "mlp_neurons", "resid_post")
NAME = "tunescope_pooled"
TOLERANCE = 1e-4


class CleanPass:
    """What every stored pass of rows of equal length says of itself, by its trace."""

    trace: Trace | StackTrace

    @property
    def logits(self) -> torch.Tensor:
        """Clean logits, [B, C]."""
        return self.trace.logits

    @property
    def rows(self) -> int:
        """B, the number of rows."""
        return len(self.trace.attention_mask)

    @property
    def length(self) -> int:
        """T, the number of tokens of every row."""
        return int(self.trace.attention_mask.shape[1])


@dataclass
class StoredPass(CleanPass):
    """One clean pass of B rows of T tokens each.

    Attributes:
        trace: The residual stream before each block, the blocks' other arguments, logits.
        values: Per site name, one tensor a layer: ``head_z`` [B, T, H, D/H]; ``attn_out``, ``resid_mid``,
            ``mlp_out``, ``resid_post`` [B, T, D]; ``mlp_neurons`` [B, T, F] where it was asked for.
        attention_calls: What each block's attention was called with beside the stream.
    """

    trace: Trace
    values: dict[str, list[torch.Tensor]]
    attention_calls: list[tuple[tuple[Any, ...], dict[str, Any]]]

    def behind(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the stream behind every block, [B, T, D], with the block in words."""
        for layer, value in enumerate(self.values["resid_post"]):
            yield f"block {layer}", value

    def at(self, site: Site) -> torch.Tensor:
        """Return the clean value at a stored site or at ``embeddings``, [B, T, ...]."""
        if site.name == "embeddings":
            return self.trace.resid_pre[0]
        assert site.layer is not None
        return self.values[site.name][site.layer]


def store(classifier: Classifier, inputs: dict[str, torch.Tensor], neurons: bool = False) -> StoredPass:
    """Run rows of equal length once and keep what every later change starts from.

    Args:
        classifier: The model, in evaluation mode.
        inputs: Token ids [B, T] and a mask that is 1 throughout.
        neurons: Keep the MLP's neurons too; they are the largest tensors.

    Raises:
        SiteError: The rows differ in length, or the block's parts do not add up to its output.
    """
    if not bool(inputs["attention_mask"].all()):
        raise SiteError("Rows of one stored pass must have one length; came a batch with padding.")
    wanted = [name for name in SITES if neurons or name != "mlp_neurons"]
    values: dict[str, list[torch.Tensor]] = {name: [] for name in wanted}
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def keep(_module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        calls.append((arguments[1:], {key: value for key, value in named.items() if key != "hidden_states"}))

    read = [name for name in wanted if name != "resid_mid" or not classifier.is_parallel]
    sites = [Site(name, layer) for layer in range(classifier.n_layers) for name in read]
    with contextlib.ExitStack() as stack:
        for layer in range(classifier.n_layers):
            module = locate(classifier, Site("attn_pattern", layer)).module
            stack.callback(module.register_forward_pre_hook(keep, with_kwargs=True).remove)
        stack.enter_context(
            reading(classifier, sites, lambda site, value: values[site.name].append(value.detach()))
        )
        passed = trace(classifier, inputs)
    if classifier.is_parallel:  # no site of the model, but the sum that its MLP's output is added to
        pairs = zip(passed.resid_pre, values["attn_out"], strict=True)
        values["resid_mid"] = [before + attention for before, attention in pairs]
    stored = StoredPass(passed, values, calls)
    _check(classifier, stored)
    return stored


def _check(classifier: Classifier, stored: StoredPass) -> None:
    """Refuse a model whose last block does not add up from its stored parts."""
    last = classifier.n_layers - 1
    for layer in {0, last}:
        made = after_mlp(
            classifier, layer, stored.values["resid_mid"][layer], stored.values["mlp_out"][layer]
        )
        middle = after_attention(
            classifier, layer, stored.trace.resid_pre[layer], stored.values["attn_out"][layer]
        )
        for ours, name in ((made, "resid_post"), (middle, "resid_mid")):
            theirs = stored.values[name][layer]
            gap = float((ours - theirs).abs().max())
            if gap > TOLERANCE * max(1.0, float(theirs.abs().max())):
                raise SiteError(
                    f"{classifier.family.name}: block {layer} does not add up from its parts at {name} (off by "
                    f"{gap:.2g}), so no change in it can be computed from stored parts.",
                    hint="The family's table does not describe this model; see docs/adding-an-architecture.md.",
                )


def norms_of(classifier: Classifier, layer: int) -> list[nn.Module]:
    """Return the two norms of a block on the residual path, in order."""
    return [classifier.trunk.get_submodule(path.format(layer=layer)) for path in classifier.family.norms]


def after_attention(
    classifier: Classifier, layer: int, before: torch.Tensor, attention: torch.Tensor
) -> torch.Tensor:
    """Return ``resid_mid`` made of the stream before a block and the attention's output."""
    summed = before + attention
    return summed if classifier.family.norm_order == "pre" else norms_of(classifier, layer)[0](summed)


def after_mlp(classifier: Classifier, layer: int, middle: torch.Tensor, mlp: torch.Tensor) -> torch.Tensor:
    """Return ``resid_post`` made of ``resid_mid`` and the MLP's output."""
    summed = middle + mlp
    return summed if classifier.family.norm_order == "pre" else norms_of(classifier, layer)[-1](summed)


@contextlib.contextmanager
def instead(module: nn.Module, function: Any) -> Iterator[None]:
    """Let a module do something else while the block is open; its hooks still run."""
    module.forward = function
    try:
        yield
    finally:
        del module.forward


def run_mlp(
    classifier: Classifier, stored: StoredPass, layer: int, before: torch.Tensor, attention: torch.Tensor
) -> torch.Tensor:
    """Run one block with a given attention output [R, T, D] in place of its attention; hooks on the MLP act.

    Args:
        classifier: The model.
        stored: Where the block's other arguments come from.
        layer: The block.
        before: The stream before the block, [R, T, D].
        attention: What the attention gives, [R, T, D].
    """
    family = classifier.family
    module = locate(classifier, Site("attn_pattern", layer)).module
    inside = family.middle.startswith(family.attention + ".")  # its output is resid_mid, not attn_out
    given = after_attention(classifier, layer, before, attention) if inside else attention
    with instead(module, lambda *_a, **_k: (given, None)):
        return _block(classifier, stored, layer, before)


def _block(classifier: Classifier, stored: StoredPass, layer: int, hidden: torch.Tensor) -> torch.Tensor:
    arguments, named = stored.trace.calls[layer]
    copies, rows = len(hidden) // stored.rows, stored.rows
    output = blocks_of(classifier)[layer](
        hidden,
        *(copied(value, copies, rows) for value in arguments),
        **{key: copied(value, copies, rows) for key, value in named.items() if key != "hidden_states"},
    )
    result: torch.Tensor = output if isinstance(output, torch.Tensor) else output[0]
    return result


def pooled_place(classifier: Classifier, length: int) -> int | None:
    """Return the place of the one token that pooling reads in rows of this length; None where it reads all."""
    if classifier.pooling == "mean":
        return None
    return length - 1 if classifier.pooling == "last" else 0


def run_blocks(
    classifier: Classifier, stored: StoredPass, first: int, hidden: torch.Tensor, whole: Sequence[int] = ()
) -> torch.Tensor:
    """Run blocks ``first`` to the last on copies [R, T, D] of the stored rows, R a multiple of B.

    Args:
        classifier: The model.
        stored: The clean pass that the copies start from.
        first: The first block to run.
        hidden: The stream before it, [R, T, D].
        whole: Blocks on which hooks need every token, so that the last one must not be shortened.

    Returns:
        The stream behind the last block: [R, T, D], or [R, 1, D] of the pooled token alone.
    """
    last, place = classifier.n_layers - 1, pooled_place(classifier, stored.length)
    for layer in range(first, classifier.n_layers):
        if layer == last and place is not None and layer not in whole:
            return _short_block(classifier, stored, hidden, place)
        hidden = _block(classifier, stored, layer, hidden)
    return hidden


def logits_of(classifier: Classifier, hidden: torch.Tensor) -> torch.Tensor:
    """Apply final norm, pooling and head to states [R, T, D] (all tokens) or [R, 1, D] (the pooled token)."""
    if hidden.shape[1] > 1:
        place = pooled_place(classifier, hidden.shape[1])
        hidden = hidden if place is None else hidden[:, place : place + 1]
    if classifier.family.final_norm is not None:
        hidden = classifier.trunk.get_submodule(classifier.family.final_norm)(hidden)
    result: torch.Tensor = classifier.head(hidden.mean(1))  # of one token, or over all real tokens
    return result


def _short_block(
    classifier: Classifier, stored: StoredPass, hidden: torch.Tensor, place: int
) -> torch.Tensor:
    """Run the last block for the pooled token alone; the others only give keys and values."""
    last, one = classifier.n_layers - 1, slice(place, place + 1)
    if classifier.family.norm_order == "pre":
        attention = pooled_attention(classifier, stored, hidden, place)
        return run_mlp(classifier, stored, last, hidden[:, one], attention)
    middle = classifier.trunk.get_submodule(classifier.family.path("middle", last))
    handle = middle.register_forward_pre_hook(lambda _m, given: tuple(value[:, one] for value in given))
    try:
        return _block(classifier, stored, last, hidden)
    finally:
        handle.remove()


def pooled_attention(
    classifier: Classifier, stored: StoredPass, hidden: torch.Tensor, place: int
) -> torch.Tensor:
    """Return the last block's attention output for one token, [R, 1, D], in a pre-norm model."""
    from transformers import AttentionInterface

    if NAME not in AttentionInterface._global_mapping:
        AttentionInterface.register(NAME, _attend)
    last, config = classifier.n_layers - 1, classifier.trunk.config
    module = locate(classifier, Site("attn_pattern", last)).module
    normed = norms_of(classifier, last)[0](hidden)
    fused = classifier.trunk.get_submodule(classifier.family.path("query", last))
    arguments, named = stored.attention_calls[last]
    plain = type(fused).__name__ == "Conv1D" and classifier.family.fuses_attention_inputs
    if plain and named.get("attention_mask") is None and hasattr(module, "scaling"):
        return _attend_without_keys(classifier, fused, module, normed, place)
    copies, rows = len(hidden) // stored.rows, stored.rows
    projection, one = locate(classifier, Site("attn_out", last)).module, slice(place, place + 1)
    handle = projection.register_forward_pre_hook(lambda _m, given: (given[0][:, one], *given[1:]))
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        output: torch.Tensor = module(
            normed,
            *(copied(value, copies, rows) for value in arguments),
            **{key: copied(value, copies, rows) for key, value in named.items()},
            pooled_place=place,
        )[0]
        return output
    finally:
        handle.remove()
        config._attn_implementation = before


def _attend_without_keys(
    classifier: Classifier, fused: Any, module: Any, normed: torch.Tensor, place: int
) -> torch.Tensor:
    """Attend from one token without making keys and values, [R, 1, D]; for a fused projection.

    With one query q a head, the score of token x is ``x W_K . q = x . (W_K q)``, and what it reads is
    ``(sum a x) W_V``: two products a row instead of two a token. The keys' bias moves all scores of a head alike, and
    attention sums to 1, so that the values' bias is added once.
    """
    width, heads = classifier.width, classifier.n_heads
    weight, bias = fused.weight, fused.bias  # [D, 3D], [3D]
    seen = normed[:, : place + 1] if getattr(module, "is_causal", False) else normed
    queries = torch.addmm(bias[:width], normed[:, place], weight[:, :width]).unflatten(
        -1, (heads, -1)
    )  # [R, H, d]
    keys, values = (
        weight[:, part * width : (part + 1) * width].unflatten(-1, (heads, -1)) for part in (1, 2)
    )
    probes = torch.einsum("rhd,whd->rhw", queries, keys)  # [R, H, D]
    pattern = torch.softmax(probes @ seen.transpose(1, 2) * module.scaling, -1)  # [R, H, T]
    read = torch.einsum("rhw,whd->rhd", pattern @ seen, values).flatten(1) + bias[2 * width :]
    projection = locate(classifier, Site("attn_out", classifier.n_layers - 1)).module
    output: torch.Tensor = projection(read.unsqueeze(1))
    return output


def _attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    pooled_place: int = 0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend from one token; query, key and value are [R, H, T, D/H] (or fewer heads of keys and values).

    The result is [R, T, H, D/H], the one token's at every place: some models shape it by their input's length.
    """
    seen = pooled_place + 1 if getattr(module, "is_causal", False) else key.shape[2]
    one = slice(pooled_place, pooled_place + 1)
    mask = None if attention_mask is None else attention_mask[..., one, :seen]
    out = functional.scaled_dot_product_attention(
        query[:, :, one], key[:, :, :seen], value[:, :, :seen], mask, dropout, scale=scaling,
        enable_gqa=key.shape[1] != query.shape[1],
    )  # fmt: skip
    return out.transpose(1, 2).expand(-1, query.shape[2], -1, -1), None
