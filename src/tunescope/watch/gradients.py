"""Gradient norms by module, of the whole batch and before clipping."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from tunescope.models.classifier import Classifier
from tunescope.models.encoder_decoder import stacks_of


class GradientNorms:
    """Reads the norm of each parameter's gradient at the moment at which it has been accumulated.

    Trainers clip gradients before any callback sees them, and zero them before the next step, so that a norm read
    at a save is 0 or the clipping bound. A hook on the parameter itself runs after every backward pass; the last one
    before the optimiser's step sees the sum over the accumulated batches.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.squares: dict[str, torch.Tensor] = {}
        self._handles: list[Any] = []

    def open(self) -> None:
        """Begin to read; the step's norms so far are forgotten."""
        self.close()
        self.squares = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                self._handles.append(parameter.register_post_accumulate_grad_hook(self._reader(name)))

    def close(self) -> None:
        """Stop reading."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _reader(self, name: str) -> Any:
        def read(parameter: torch.Tensor) -> None:
            if parameter.grad is not None:
                self.squares[name] = parameter.grad.detach().float().square().sum()

        return read

    def records(self, classifier: Classifier) -> Iterator[dict[str, Any]]:
        """Yield the norm of the whole gradient, then of each part of each block, then of what lies outside blocks.

        Names of parts are paths inside the block (``attn.c_attn``); ``site`` is ``all`` for the whole gradient.
        """
        if not self.squares:
            return
        sums: dict[tuple[str | None, int | None, str], float] = {}
        places = _places(classifier)
        total = 0.0
        for name, measured in self.squares.items():
            square = float(measured)
            total += square
            key = _place(name, places)
            sums[key] = sums.get(key, 0.0) + square
        yield {"metric": "gradient_norm", "site": "all", "layer": None, "value": total**0.5}
        for (stack, layer, part), square in sums.items():
            yield {
                "metric": "gradient_norm",
                "site": part,
                "layer": layer,
                "stack": stack,
                "value": square**0.5,
            }


_Places = list[tuple[re.Pattern[str], str | None]]


def _places(classifier: Classifier) -> _Places:
    """Return a pattern for the parameters of each stack's blocks, whatever wraps the trunk."""
    found: _Places = []
    for stack in stacks_of(classifier.family, classifier.model.config):
        path = re.escape(stack.family.block).replace(re.escape("{layer}"), r"(\d+)")
        found.append((re.compile(rf"(?:^|\.){path}\.(.+)\.[^.]+$"), stack.name))
    return found


def _place(name: str, places: _Places) -> tuple[str | None, int | None, str]:
    for pattern, stack in places:
        if match := pattern.search(name):
            return stack, int(match.group(1)), match.group(2)
    return None, None, name.rpartition(".")[0] or name
