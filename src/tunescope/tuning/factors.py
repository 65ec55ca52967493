"""Separate low-rank factors for the parts of a fused projection (GPT-2's queries, keys and values in one matrix)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional


class PartFactors(nn.Module):
    """Stands in for peft's ``lora_B`` of a fused projection: one factor [D, r] for each chosen part.

    The projection's output is ``n_parts`` slices of width D side by side. Every chosen part has its own factors A and
    B; peft's one A holds the parts' A one below the other, [P r, D]. The rows of the update that belong to other
    parts are no parameters at all, so they are exactly 0 whatever the optimiser does. :attr:`weight` is the
    block-sparse matrix [n_parts D, P r] that plain peft needs to give the same update.

    Args:
        width: D, the width of one part's output.
        rank: r, the rank of each part's update.
        places: Place of each chosen part in the output, by its name, in the order of the blocks of A.
        n_parts: How many parts the projection's output has.
    """

    def __init__(self, width: int, rank: int, places: Mapping[str, int], n_parts: int = 3) -> None:
        super().__init__()
        self.width = width
        self.rank = rank
        self.places = dict(places)
        self.n_parts = n_parts
        # B starts at zero, as everywhere in LoRA: the tuned model starts as the base.
        self.factors = nn.ParameterDict({part: torch.zeros(width, rank) for part in places})

    @property
    def weight(self) -> torch.Tensor:
        """The factors as one matrix [n_parts D, P r] with zeros elsewhere."""
        first = next(iter(self.factors.values()))
        full = first.new_zeros(self.n_parts * self.width, len(self.places) * self.rank)
        for block, (part, place) in enumerate(self.places.items()):
            rows = slice(place * self.width, (place + 1) * self.width)
            full[rows, block * self.rank : (block + 1) * self.rank] = self.factors[part]
        return full

    def forward(self, reduced: torch.Tensor) -> torch.Tensor:
        """Map what A gave, [..., P r], to the update of the projection's output, [..., n_parts D]."""
        blocks = reduced.split(self.rank, dim=-1)
        made = {
            place: functional.linear(block, self.factors[part])
            for block, (part, place) in zip(blocks, self.places.items(), strict=True)
        }
        nothing = reduced.new_zeros(*reduced.shape[:-1], self.width)
        return torch.cat([made.get(place, nothing) for place in range(self.n_parts)], dim=-1)
