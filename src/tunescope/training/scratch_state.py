"""Checkpoints of pretraining: weights, optimiser moments and log in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunescope.files import atomic_path
from tunescope.progress import Progress

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def write_checkpoint(
    path: Path,
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    fingerprint: dict[str, Any],
    log: list[dict[str, float]],
) -> None:
    """Write what is needed to go on as if nothing had happened; ``log`` has one entry a finished step."""
    from safetensors.torch import save_file

    tensors = {}
    for name, parameter in _trained(model):
        tensors[f"weight/{name}"] = parameter.detach()
        for moment in _MOMENTS:
            tensors[f"{moment}/{name}"] = optimizer.state[parameter][moment].detach()
    about = {"fingerprint": json.dumps(fingerprint, sort_keys=True), "log": json.dumps(log)}
    with atomic_path(path) as temporary:
        save_file(
            {name: tensor.contiguous().clone() for name, tensor in tensors.items()}, temporary, metadata=about
        )


def read_checkpoint(
    path: Path,
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    fingerprint: dict[str, Any],
    progress: Progress,
) -> tuple[int, list[dict[str, float]]]:
    """Put a checkpoint into model and optimiser, and return the number of finished steps and their log.

    A checkpoint that cannot be read, or that belongs to another corpus, configuration or seed, is named, and
    the training starts anew; a missing one starts it silently.
    """
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return 0, []
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("fingerprint") != json.dumps(fingerprint, sort_keys=True):
                progress.say(
                    f"  {path} belongs to another corpus, configuration or seed; pretraining starts anew."
                )
                return 0, []
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        progress.say(f"  {path} cannot be read ({error}); pretraining starts anew.")
        return 0, []
    _restore(model, optimizer, tensors)
    log = json.loads(about["log"])
    return len(log), log


def _restore(
    model: PreTrainedModel, optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]
) -> None:
    import torch

    with torch.no_grad():
        for name, parameter in _trained(model):
            parameter.copy_(tensors[f"weight/{name}"])
            optimizer.state[parameter] = {
                moment: tensors[f"{moment}/{name}"].to(parameter.device) for moment in _MOMENTS
            }


def _trained(model: PreTrainedModel) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Yield the parameters that are trained; frozen ones are what they were at the start."""
    return ((name, one) for name, one in model.named_parameters() if one.requires_grad)
