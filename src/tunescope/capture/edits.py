"""Edits: changes at sites that hold inside a ``with`` block, report what they hit and leave no trace."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tunescope.capture.hooks import attach
from tunescope.capture.sites import HEAD_OUT, Site, first_tensor, head_weights, locate, stack_of
from tunescope.errors import EditError
from tunescope.models.classifier import Classifier

Change = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Edit:
    """A change at one site.

    Attributes:
        site: Where; ``head_z`` and ``head_out`` with ``heads`` edit those heads only.
        change: From the activation there (heads: [B, T, len(heads), ...]) to a new one of the same shape.
        heads: Which heads, or None for the whole site.
        name: What reports call it.
    """

    site: Site
    change: Change
    heads: tuple[int, ...] | None = None
    name: str = "edit"


@dataclass
class EditReport:
    """What the edits of a block hit, counted over all forward passes inside it."""

    tensors: dict[str, int] = field(default_factory=dict)
    elements: dict[str, int] = field(default_factory=dict)

    def count(self, site: Site, elements: int) -> None:
        """Add one tensor and its edited elements."""
        self.tensors[str(site)] = self.tensors.get(str(site), 0) + 1
        self.elements[str(site)] = self.elements.get(str(site), 0) + elements


def zero(site: Site, heads: tuple[int, ...] | None = None) -> Edit:
    """Replace the activation by zeros."""
    return Edit(site, torch.zeros_like, heads, "zero")


def constant(
    site: Site, value: torch.Tensor, heads: tuple[int, ...] | None = None, name: str = "mean"
) -> Edit:
    """Replace the activation by one value for every token, for example its mean over real tokens.

    Args:
        site: Where.
        value: [D] for a whole site; [len(heads), D/H] (``head_z``) or [len(heads), D] (``head_out``) for heads.
        heads: Which heads.
        name: What reports call it.
    """
    return Edit(site, lambda old: value.to(old).expand_as(old), heads, name)


@contextlib.contextmanager
def editing(classifier: Classifier, edits: Sequence[Edit]) -> Iterator[EditReport]:
    """Apply edits to every forward pass inside the block.

    Raises:
        EditError: A site cannot be edited, a head does not exist, a change alters the shape, or an edit hit nothing.
        SiteError: A site does not exist in this model.
    """
    report = EditReport()
    with contextlib.ExitStack() as stack:
        for edit in edits:
            stack.callback(_install(classifier, edit, report).remove)
        yield report
    missed = [str(edit.site) for edit in edits if not report.elements.get(str(edit.site))]
    if missed:
        raise EditError(
            f"The edit at {', '.join(missed)} hit nothing: no forward pass went through it inside the block."
        )


def _install(classifier: Classifier, edit: Edit, report: EditReport) -> Any:
    place = locate(classifier, edit.site)
    if not place.writable:
        other = "attn_out or resid_post" if edit.site.name == "resid_mid" else "head_z"
        raise EditError(
            f"{edit.site} can be read but not edited in {classifier.family.name}; edit {other} instead."
        )
    if edit.heads is not None:
        _check_heads(classifier, edit)
    if edit.site.name in HEAD_OUT:
        return _install_head_out(classifier, edit, report)

    def apply(value: Any) -> Any:
        activation = first_tensor(value, edit.site)
        changed = _changed(activation, edit, place.heads)
        report.count(edit.site, _size(activation, edit, place.heads))
        return changed if isinstance(value, torch.Tensor) else (changed, *value[1:])

    return attach(place, apply)


def _changed(activation: torch.Tensor, edit: Edit, heads: int) -> torch.Tensor:
    if not heads or edit.heads is None:
        shaped = activation.unflatten(-1, (heads, -1)) if heads else activation
        return _same_shape(edit.change(shaped), shaped, edit).reshape(activation.shape)
    split = activation.unflatten(-1, (heads, -1)).clone()  # [B, T, H, D/H]
    index = list(edit.heads)
    split[..., index, :] = _same_shape(edit.change(split[..., index, :]), split[..., index, :], edit)
    return split.flatten(-2)


def _install_head_out(classifier: Classifier, edit: Edit, report: EditReport) -> Any:
    """Edit heads after the output projection: the sum changes by the difference of the edited summands."""
    assert edit.site.layer is not None
    cross = edit.site.name == "cross_head_out"
    weights = head_weights(classifier, edit.site.layer, edit.site.stack, cross)
    index = list(edit.heads) if edit.heads is not None else list(range(len(weights)))
    module = locate(classifier, edit.site).module

    def after(_module: Any, arguments: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        z = arguments[0].unflatten(-1, (len(weights), -1))[..., index, :]
        old = torch.einsum("bthd,hde->bthe", z, weights[index])
        new = _same_shape(edit.change(old), old, edit)
        report.count(edit.site, old.numel())
        return output + (new - old).sum(-2)

    return module.register_forward_hook(after)


def _check_heads(classifier: Classifier, edit: Edit) -> None:
    if edit.site.name not in ("head_z", "cross_head_z", *HEAD_OUT):
        raise EditError(f"{edit.site} has no heads; heads belong to head_z and head_out.")
    n_heads = stack_of(classifier, edit.site).n_heads
    bad = [head for head in edit.heads or () if not 0 <= head < n_heads]
    if bad or not edit.heads:
        raise EditError(f"{edit.site}: heads {bad} are outside the model; its heads are 0 to {n_heads - 1}.")


def _same_shape(new: torch.Tensor, old: torch.Tensor, edit: Edit) -> torch.Tensor:
    if new.shape != old.shape:
        raise EditError(f"{edit.site}: the edit gave shape {tuple(new.shape)}, expected {tuple(old.shape)}.")
    return new


def _size(activation: torch.Tensor, edit: Edit, heads: int) -> int:
    return (
        activation.numel() * len(edit.heads) // heads
        if heads and edit.heads is not None
        else activation.numel()
    )
