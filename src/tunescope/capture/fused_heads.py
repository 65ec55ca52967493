"""Heads' changes carried through the MLP's first product without running it again.

A change of one head adds ``c W_O`` of rank d to the stream, the norm before the MLP is linear up to one number a
token, and so is the MLP's first product. With the stream's mean taken out, ``(x - mean) g W_in`` of the changed stream
is that of the clean one plus ``c (W_O - mean) g W_in``, whose matrix [d, F] a head is made once. What was a product of
D by F a token becomes one of d by F. Only rounding differs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from tunescope.capture.sites import Site, head_weights, locate
from tunescope.capture.stored import instead, norms_of
from tunescope.models.classifier import Classifier

MOST_BYTES = 2**29  # what the matrices of all layers may take


class FusedHeads:
    """The products of every head's output weights with the weights of the MLP that reads them.

    Args:
        classifier: A model of which :func:`can_fuse` is true.
    """

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self._made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    @contextlib.contextmanager
    def keeping(self) -> Iterator[list[torch.Tensor]]:
        """Collect what every MLP's first product gives in the clean passes inside the block, [B, T, F] a layer."""
        kept: list[torch.Tensor] = []
        with contextlib.ExitStack() as stack:
            for layer in range(self.classifier.n_layers):
                first = _first_of(self.classifier, layer)
                assert first is not None
                handle = first.register_forward_hook(lambda _m, _given, output: kept.append(output))
                stack.callback(handle.remove)
            yield kept

    def behind(
        self,
        layer: int,
        middle: torch.Tensor,
        inner: torch.Tensor,
        heads: Sequence[int],
        changes: torch.Tensor,
    ) -> torch.Tensor:
        """Return the stream behind a block in which one head a copy has changed, [V, N, D].

        Args:
            layer: The block.
            middle: Clean ``resid_mid`` of N tokens, [N, D].
            inner: What the MLP's first product gave of them, [N, F].
            heads: The changed head of each copy, V of them.
            changes: By how much each head's value changes before the output projection, [V, N, D/H].
        """
        norm, first = norms_of(self.classifier, layer)[1], _first_of(self.classifier, layer)
        assert first is not None
        assert isinstance(norm, nn.LayerNorm)
        through, constant = self._matrices(layer)
        weights = head_weights(self.classifier, layer).detach()
        changed = middle.repeat(len(heads), 1, 1)
        for copy, head in enumerate(heads):
            changed[copy].addmm_(changes[copy], weights[head])
        scale, before = (
            torch.native_layer_norm(x, list(norm.normalized_shape), None, None, norm.eps)[2]
            for x in (changed, middle)
        )  # one over the standard deviation, [V, N, 1] and [N, 1]
        given = torch.addcmul(constant, inner - constant, scale / before)
        scaled = changes * scale
        for copy, head in enumerate(heads):
            given[copy].addmm_(scaled[copy], through[head])
        mlp = self.classifier.trunk.get_submodule(_mlp_path(self.classifier, layer))
        with instead(first, lambda _x: given):
            changed += mlp(changed)
        return changed

    def _matrices(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``(W_O - mean) g W_in`` a head, [H, d, F], and what the first product gives of a stream of 0, [F]."""
        if layer not in self._made:
            norm, first = norms_of(self.classifier, layer)[1], _first_of(self.classifier, layer)
            assert first is not None
            assert isinstance(norm, nn.LayerNorm)
            weight = _weight(first)
            weight = weight.T if isinstance(first, nn.Linear) else weight  # [D, F]
            written = head_weights(self.classifier, layer).detach()
            written = (written - written.mean(-1, keepdim=True)) * norm.weight
            constant = norm.bias @ weight
            if isinstance(first.bias, torch.Tensor):
                constant = constant + first.bias
            self._made[layer] = (written @ weight, constant)
        return self._made[layer]


def can_fuse(classifier: Classifier) -> bool:
    """Return whether every block is one of which :class:`FusedHeads` knows the arithmetic, in float32.

    It is: attention, then a layer norm, then an MLP with one plain matrix before its activation (GPT-2), without an
    adapter; and the matrices fit ``MOST_BYTES``.
    """
    family = classifier.family
    if classifier.is_encoder_decoder or classifier.is_parallel or family.norm_order != "pre":
        return False
    size = 0
    for layer in range(classifier.n_layers):
        norm, first = norms_of(classifier, layer)[1], _first_of(classifier, layer)
        if type(norm) is not nn.LayerNorm or norm.weight is None or norm.bias is None or first is None:
            return False
        projection = locate(classifier, Site("attn_out", layer)).module
        if _is_plain(projection) is None or _weight(first).dtype != torch.float32:
            return False
        size += 4 * _weight(first).numel()
    return size <= MOST_BYTES


def _mlp_path(classifier: Classifier, layer: int) -> str:
    return classifier.family.path("mlp_projection", layer).rpartition(".")[0]


def _weight(module: nn.Module) -> torch.Tensor:
    assert isinstance(module.weight, torch.Tensor)
    return module.weight.detach()


def _is_plain(module: nn.Module) -> nn.Module | None:
    """Return a plain matrix product as it is; None for anything else, such as a layer with an adapter in it."""
    from transformers.pytorch_utils import Conv1D

    return module if type(module) in (nn.Linear, Conv1D) else None


def _first_of(classifier: Classifier, layer: int) -> nn.Module | None:
    """Return the one matrix of an MLP before its activation; None where there is none, or two (a gate)."""
    mlp = classifier.trunk.get_submodule(_mlp_path(classifier, layer))
    last = locate(classifier, Site("mlp_out", layer)).module
    matrices = [
        child for child in mlp.children() if child is not last and next(child.parameters(), None) is not None
    ]
    return _is_plain(matrices[0]) if len(matrices) == 1 and _is_plain(last) is not None else None
