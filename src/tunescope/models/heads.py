"""From the final hidden states to logits: pooling by attention mask, and the head after it."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from tunescope.models.families import Family, Pooling

HeadKind = Literal["softmax", "sigmoid"]
HEAD_KINDS: tuple[HeadKind, ...] = ("softmax", "sigmoid")


def pool(hidden: torch.Tensor, attention_mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Reduce the hidden states of right-padded rows to one vector a row, by the attention mask.

    Args:
        hidden: Final hidden states, [B, T, D].
        attention_mask: 1 for real tokens, 0 for padding, [B, T]; real tokens come first.
        pooling: ``last`` real token, ``first`` (also ``first_raw``), or ``mean`` over real tokens; ``last_padded`` is
            the last position of the batch, padding or not: study 001's slip, which depends on batch mates.

    Returns:
        Pooled vectors, [B, D].
    """
    if pooling in ("first", "first_raw"):
        return hidden[:, 0]
    if pooling == "mean":
        mask = attention_mask.to(hidden.dtype).unsqueeze(-1)  # [B, T, 1]
        return (hidden * mask).sum(1) / mask.sum(1)
    if pooling == "last_padded":
        return hidden[:, -1]
    last = attention_mask.sum(1) - 1  # [B]
    return hidden[torch.arange(len(hidden), device=hidden.device), last]


class OwnHead(nn.Module):
    """The head that transformers' own classification class puts on its own pooling; [B, D] to [B, C]."""

    def __init__(self, model: PreTrainedModel, family: Family) -> None:
        super().__init__()
        self.reads_sequence = family.head_reads_sequence
        self.activation_after = family.head_activation_after
        self.parts = nn.ModuleDict(
            {path.split(".")[-1]: model.get_submodule(path) for path in family.head_parts}
        )

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Map pooled vectors [B, D] to logits [B, C]."""
        hidden = pooled.unsqueeze(1) if self.reads_sequence else pooled  # [B, 1, D] or [B, D]
        for name, part in self.parts.items():
            hidden = part(hidden)
            if name == self.activation_after:
                hidden = torch.relu(hidden)
        return hidden


class LinearHead(nn.Module):
    """Dropout and the last linear layer alone: the head of every pooling that is not the architecture's own."""

    def __init__(self, linear: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = linear

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Map pooled vectors [B, D] to logits [B, C]."""
        return self.linear(self.dropout(pooled))


class SigmoidHead(nn.Module):
    """One logit z for two classes, returned as (0, z), so that softmax gives (1 - sigmoid(z), sigmoid(z)).

    Cross entropy, margins and lenses then need no second form; the parameters are those of one logit.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Map pooled vectors [B, D] to logits [B, 2], the first of which is 0."""
        logit = self.head(pooled)  # [B, 1]
        return torch.cat([torch.zeros_like(logit), logit], dim=1)


class ReorderedHead(nn.Module):
    """A head whose classes are put into the data's label order."""

    order: torch.Tensor

    def __init__(self, head: nn.Module, order: list[int]) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("order", torch.tensor(order), persistent=False)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Map pooled vectors [B, D] to logits [B, C] in the data's order."""
        return self.head(pooled)[:, self.order]


def build_head(
    model: PreTrainedModel, family: Family, pooling: Pooling, kind: HeadKind = "softmax"
) -> nn.Module:
    """Return the head that belongs to ``pooling``: the architecture's own, or its last linear layer alone.

    With ``sigmoid`` that layer gives one logit (the model was built by :func:`one_logit`).
    """
    if pooling == family.own_pooling:
        head: nn.Module = OwnHead(model, family)
    else:
        dropout = next((module.p for module in model.children() if isinstance(module, nn.Dropout)), 0.0)
        head = LinearHead(model.get_submodule(family.head), dropout)
    return SigmoidHead(head) if kind == "sigmoid" else head


def one_logit(model: PreTrainedModel, family: Family) -> nn.Linear:
    """Replace a model's last linear layer by one that gives a single logit and has a bias; return the new layer."""
    old = cast(nn.Linear, model.get_submodule(family.head))
    weight = old.weight
    new = nn.Linear(old.in_features, 1, bias=True, device=weight.device, dtype=weight.dtype)
    parent, _, name = family.head.rpartition(".")
    setattr(model.get_submodule(parent), name, new)
    return new


def initialise_head(head: nn.Module, std: float, seed: int) -> None:
    """Fill every linear layer of a head anew: weights normal(0, ``std``), biases 0, from ``seed`` alone.

    The draw depends on nothing but the seed and the shapes, so arms of one study start from equal heads.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in head.modules():
            if isinstance(module, nn.Linear):
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * std)
                if module.bias is not None:
                    module.bias.zero_()
