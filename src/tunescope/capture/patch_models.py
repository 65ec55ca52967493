"""Two models of one shape: the tuned readout on the base, and weight grafts from one into the other.

A *graft* (in the sense of model grafting and skill localisation, Panigrahi et al. 2023) gives one model the other's
weights in a named part (:mod:`tunescope.capture.graft_parts`), or in chosen rows of its matrices. A graft
holds inside a ``with`` block; afterwards every parameter is what it was, bit for bit.

The *readout* is everything behind the last block: the final norm (where there is one), pooling and head. Base and tuned
are read through the tuned readout, so that what is compared is the blocks.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from tunescope.capture.graft_parts import readout_parameters
from tunescope.capture.partial import blocks_of
from tunescope.capture.sites import Site, locate
from tunescope.capture.stored import StoredPass
from tunescope.errors import ModelError
from tunescope.models.adapted import adapted_layers, plain_state
from tunescope.models.classifier import Classifier
from tunescope.seeds import derive_seed


def require_same_shape(base: Classifier, tuned: Classifier) -> None:
    """Refuse two models between which nothing can be carried.

    Raises:
        ModelError: Family, depth, heads, width, a weight's shape, pooling or vocabulary differ (both are said).
    """
    ours, theirs = (_said(one) for one in (base, tuned))
    if ours != theirs:
        raise ModelError(
            f"Models of two shapes cannot be patched into one another: base is {ours}; tuned is {theirs}."
        )
    first, second = (
        {name: tuple(value.shape) for name, value in trunk_state(one).items()} for one in (base, tuned)
    )
    for name in [*first, *second]:
        if first.get(name) != second.get(name):
            raise ModelError(
                f"Models of two shapes cannot be patched into one another: {name} is {first.get(name, 'missing')} in "
                f"the base and {second.get(name, 'missing')} in the tuned model."
            )
    if base.tokenizer.get_vocab() != tuned.tokenizer.get_vocab():
        raise ModelError(
            "Base and tuned have different vocabularies, so one text is not the same tokens in both."
        )


def _said(model: Classifier) -> str:
    """Return a model's shape in words."""
    layers = " and ".join(
        f"{one.n_layers} {f'{one.name} ' if one.name else ''}layers of {one.n_heads} heads"
        for one in model.stacks
    )
    return f"{model.family.name} with {layers}, width {model.width}, {model.pooling} pooling"


def trunk_state(model: Classifier) -> dict[str, torch.Tensor]:
    """Return the weights of the blocks and embeddings by name, adapters merged; without final norm and head."""
    readout = readout_parameters(model)
    own = {name for name, value in model.trunk.named_parameters() if id(value) in readout}
    own |= {name for name, _ in model.trunk.named_buffers()}
    norm = model.family.final_norm
    shared = _other_names(model)
    return {
        name: value.detach() for name, value in plain_state(model.trunk).items()
        if name not in own and name not in shared and not (norm and name.startswith(f"{norm}."))
    }  # fmt: skip


def _other_names(model: Classifier) -> set[str]:
    """Return the further names of parameters that have several (the embeddings that two stacks share)."""
    first = {name for name, _ in model.trunk.named_parameters()}
    return {name for name, _ in model.trunk.named_parameters(remove_duplicate=False)} - first


def without_adapters(model: Classifier, like: Classifier) -> Classifier:
    """Return a model with its adapters merged into plain weights: itself where it has none, else a copy of ``like``."""
    if next(adapted_layers(model.model), None) is None:
        return model
    merged = copy.deepcopy(like)
    state = plain_state(model.trunk)
    own = merged.trunk.state_dict()
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(state[name])
    merged.head = model.head
    return merged.eval()


@contextlib.contextmanager
def tuned_readout(base: Classifier, tuned: Classifier) -> Iterator[None]:
    """Let the base be read through the tuned model's final norm and head while the block is open."""
    head, path = base.head, base.family.final_norm
    norm = None if path is None else base.trunk.get_submodule(path)
    base.head = tuned.head
    if path is not None:
        _set(base.trunk, path, tuned.trunk.get_submodule(path))
    try:
        yield
    finally:
        base.head = head
        if path is not None and norm is not None:
            _set(base.trunk, path, norm)


@contextlib.contextmanager
def borrowed(model: Classifier, other: Classifier, path: str) -> Iterator[None]:
    """Let a module of the trunk be the other model's while the block is open; ``path`` is as in the family's table."""
    own = model.trunk.get_submodule(path)
    _set(model.trunk, path, other.trunk.get_submodule(path))
    try:
        yield
    finally:
        _set(model.trunk, path, own)


def _set(root: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(root.get_submodule(parent), name, module)


Rows = Mapping[str, torch.Tensor | None]


@contextlib.contextmanager
def grafted(
    model: Classifier, donor: Mapping[str, torch.Tensor], rows: Rows, random_seed: int | None = None
) -> Iterator[None]:
    """Give a model another's weights while the block is open; every parameter is restored bit for bit.

    Args:
        model: The recipient; it has no adapters in place.
        donor: The other model's weights by name, from :func:`trunk_state`.
        rows: The parameters to graft by name: None for the whole tensor, or a mask over its first axis.
        random_seed: Where given, each row of a matrix moves as far as the graft would move it, but in a random
            direction (a vector moves as a whole): the control.

    Raises:
        ModelError: A parameter does not exist, or has another shape in the donor.
    """
    own = dict(model.trunk.named_parameters())
    missing = [name for name in rows if name not in own or name not in donor]
    if missing or any(own[name].shape != donor[name].shape for name in rows):
        raise ModelError(f"These weights are not the same in both models: {missing or list(rows)}.")
    kept: list[tuple[nn.Parameter, torch.Tensor | None, torch.Tensor]] = []
    try:
        with torch.no_grad():
            for name, mask in rows.items():
                parameter = own[name]
                before = parameter.detach().clone() if mask is None else parameter.detach()[mask].clone()
                kept.append((parameter, mask, before))
                new = donor[name].to(parameter) if mask is None else donor[name].to(parameter)[mask]
                if random_seed is not None:
                    new = before + random_like(new - before, random_seed, name)
                _put(parameter, mask, new)
        yield
    finally:
        with torch.no_grad():
            for parameter, mask, before in reversed(kept):
                _put(parameter, mask, before)


def _put(parameter: nn.Parameter, mask: torch.Tensor | None, value: torch.Tensor) -> None:
    if mask is None:
        parameter.copy_(value)
    else:
        parameter[mask] = value


def random_like(change: torch.Tensor, seed: int, name: str, dim: int = -1) -> torch.Tensor:
    """Return a random change as far as a given one: each row of a matrix keeps its norm, a vector its own.

    Args:
        change: What is given.
        seed: Seeds what is drawn, together with the name.
        name: Of the parameter.
        dim: Along which axis norms are taken; 0 keeps every column's.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "random graft", name))
    drawn = torch.randn(change.shape, generator=generator).to(change)
    if change.dim() < 2:
        return drawn * (change.norm() / drawn.norm().clamp(min=1e-30))
    return drawn * (change.norm(dim=dim, keepdim=True) / drawn.norm(dim=dim, keepdim=True).clamp(min=1e-30))


def moved_names(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> set[str]:
    """Return the names of the weights that differ at all."""
    return {name for name, value in ours.items() if not torch.equal(value.cpu(), theirs[name].cpu())}


def run_one_block(model: Classifier, stored: StoredPass, layer: int, hidden: torch.Tensor) -> torch.Tensor:
    """Run one block of a model on a stream [B, T, D], with the masks and positions of a stored pass of these rows."""
    arguments, named = stored.trace.calls[layer]
    output = blocks_of(model)[layer](
        hidden, *arguments, **{key: value for key, value in named.items() if key != "hidden_states"}
    )
    result: torch.Tensor = output if isinstance(output, torch.Tensor) else output[0]
    return result


def heads_under(base: Classifier, tuned: Classifier, stored: StoredPass, layer: int) -> torch.Tensor:
    """Return what the tuned model's heads of a block give on the base's stream before it, [B, T, H, D/H].

    A head's weights are its queries, keys, values and its slice of the output projection; the norm before the
    attention and the output's bias stay the base's. So a graft of one head is a patch of this head's output, and all
    heads of a block share one attention pass.
    """
    place = locate(tuned, Site("head_z", layer))
    found: list[torch.Tensor] = []

    def keep(_module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        found.append(given[0].unflatten(-1, (base.n_heads, -1)))

    handle = place.module.register_forward_pre_hook(keep)
    try:
        with borrowed(base, tuned, base.family.path("attention", layer)):
            run_one_block(base, stored, layer, stored.trace.resid_pre[layer])
    finally:
        handle.remove()
    return found[0]


def with_head_inputs(stored: StoredPass, layer: int, heads: torch.Tensor) -> StoredPass:
    """Return a pass that differs in the heads' values of one block alone, to be a donor of heads."""
    values: list[torch.Tensor] = [*stored.values["head_z"]]
    values[layer] = heads
    return StoredPass(stored.trace, {**stored.values, "head_z": values}, stored.attention_calls)
