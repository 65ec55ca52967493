"""From the final hidden states to logits: pooling by attention mask, and the head after it."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from tunescope.errors import ModelError
from tunescope.models.families import Family, Pooling

# Where transformers' classification classes keep the parts of their own heads.
OWN_PARTS = {
    "GPT-2": ("score",),
    "BERT": ("bert.pooler", "dropout", "classifier"),
    "DistilBERT": ("pre_classifier", "dropout", "classifier"),
    "RoBERTa": ("classifier",),
}


def pool(hidden: torch.Tensor, attention_mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Reduce the hidden states of right-padded rows to one vector a row, by the attention mask.

    Args:
        hidden: Final hidden states, [B, T, D].
        attention_mask: 1 for real tokens, 0 for padding, [B, T]; real tokens come first.
        pooling: ``last`` real token, ``first`` (also ``first_raw``), or ``mean`` over real tokens.

    Returns:
        Pooled vectors, [B, D].
    """
    if pooling in ("first", "first_raw"):
        return hidden[:, 0]
    if pooling == "mean":
        mask = attention_mask.to(hidden.dtype).unsqueeze(-1)  # [B, T, 1]
        return (hidden * mask).sum(1) / mask.sum(1)
    last = attention_mask.sum(1) - 1  # [B]
    return hidden[torch.arange(len(hidden), device=hidden.device), last]


class OwnHead(nn.Module):
    """The head that transformers' own classification class puts on its own pooling; [B, D] to [B, C]."""

    def __init__(self, model: PreTrainedModel, family: Family) -> None:
        super().__init__()
        if family.name not in OWN_PARTS:
            raise ModelError(f"The family {family.name} has no head table.")
        self.kind = family.name
        self.parts = nn.ModuleDict(
            {path.split(".")[-1]: model.get_submodule(path) for path in OWN_PARTS[self.kind]}
        )

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Map pooled vectors [B, D] to logits [B, C]."""
        if self.kind == "GPT-2":
            return self.parts["score"](pooled)
        if self.kind == "DistilBERT":
            hidden = torch.relu(self.parts["pre_classifier"](pooled))
            return self.parts["classifier"](self.parts["dropout"](hidden))
        as_sequence = pooled.unsqueeze(1)  # [B, 1, D]: both classes below read position 0 of a sequence
        if self.kind == "BERT":
            return self.parts["classifier"](self.parts["dropout"](self.parts["pooler"](as_sequence)))
        return self.parts["classifier"](as_sequence)


class LinearHead(nn.Module):
    """Dropout and the last linear layer alone: the head of every pooling that is not the architecture's own."""

    def __init__(self, linear: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = linear

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Map pooled vectors [B, D] to logits [B, C]."""
        return self.linear(self.dropout(pooled))


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


def build_head(model: PreTrainedModel, family: Family, pooling: Pooling) -> nn.Module:
    """Return the head that belongs to ``pooling``: the architecture's own, or its last linear layer alone."""
    if pooling == family.own_pooling:
        return OwnHead(model, family)
    dropout = next((module.p for module in model.children() if isinstance(module, nn.Dropout)), 0.0)
    return LinearHead(model.get_submodule(family.head), dropout)


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
