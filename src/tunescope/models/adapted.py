"""Adapters that live in place inside a classifier: their plain weights, and the folder that peft reads."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import nn

from tunescope.errors import ModelError
from tunescope.files import FORMAT_VERSION, write_atomic
from tunescope.models.source import quiet_transformers

if TYPE_CHECKING:
    from tunescope.models.classifier import Classifier

NAME = "default"
HEAD_FILE = "head.safetensors"
RECORD = "tunescope.json"
_PREFIX = "base_model.model."


def is_adapted(module: nn.Module) -> bool:
    """Say whether a module is one of peft's layers around a base layer."""
    return hasattr(module, "base_layer") and hasattr(module, "adapter_layer_names")


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield every adapted layer with its path, in the model's order."""
    for path, module in model.named_modules():
        if is_adapted(module):
            yield path, module


def plain_layer(module: nn.Module) -> nn.Module:
    """Return a layer whose weight and bias include its adapter: a merged copy, or the layer itself without one.

    The merging is peft's own; the module is not changed.

    Raises:
        ModelError: The merged weights are not finite.
    """
    if not is_adapted(module):
        return module
    merged: Any = copy.deepcopy(module)
    with torch.no_grad():
        try:
            merged.merge(safe_merge=True)
        except ValueError as error:
            raise ModelError(f"The adapter's weights cannot be merged: {error}.") from error
    return merged.get_base_layer()


def plain_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the state of a model as if its adapters had been merged, under the names of the plain architecture."""
    layers = dict(adapted_layers(model))
    state: dict[str, torch.Tensor] = {}
    inside = tuple(f"{path}." for path in layers)
    for name, tensor in model.state_dict().items():
        if not name.startswith(inside):
            state[name] = tensor
    for path, layer in layers.items():
        merged = plain_layer(layer).state_dict()
        state |= {f"{path}.{name}": tensor.contiguous() for name, tensor in merged.items()}
    return state


def adapter_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the adapters' own tensors under the names that peft gives them in a file, without its prefix."""
    found: dict[str, torch.Tensor] = {}
    for path, layer in adapted_layers(model):
        names: tuple[str, ...] = layer.adapter_layer_names  # type: ignore[assignment]
        for name in names:
            container = getattr(layer, name, None)
            if container is None or NAME not in container:
                continue
            own = container[NAME]
            if isinstance(own, torch.Tensor):
                found[f"{path}.{name}"] = own
            elif name == "lora_magnitude_vector":
                found[f"{path}.{name}"] = own.weight
            elif hasattr(own, "weight"):
                found[f"{path}.{name}.weight"] = own.weight
    return {name: tensor.detach().contiguous().clone() for name, tensor in found.items()}


def write_adapter(classifier: Classifier, folder: Path) -> None:
    """Write the adapter as peft reads it, with the head, the tokenizer, label names, pooling and pad token.

    Where transformers' own class expresses pooling and head, the adapter is of that class (task ``SEQ_CLS``) and
    holds the head: ``PeftModel.from_pretrained(base, folder)`` gives the same logits once the base's
    ``pad_token_id`` is the tokenizer's. Elsewhere (mean pooling, one logit) that class would pool or score
    silently wrong, so the adapter is of the trunk alone (``FEATURE_EXTRACTION``) and the head lies beside it in
    ``head.safetensors``; :func:`tunescope.models.load` reads both.
    """
    assert classifier.adapter_config is not None
    config = copy.deepcopy(classifier.adapter_config)
    config.inference_mode = True
    config.base_model_name_or_path = classifier.record.get("path")
    config.revision = classifier.record.get("revision")
    model, family = classifier.model, classifier.family
    root: nn.Module = model if classifier.is_plain else classifier.trunk
    tensors = adapter_tensors(root)
    saved = set(config.modules_to_save or ())
    for name, parameter in root.named_parameters():
        if name not in tensors and any(f".{one}." in f".{name}" for one in saved):
            tensors[name] = parameter.detach().contiguous().clone()
    head = {name: value.detach().contiguous().clone() for name, value in classifier.head.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    if classifier.is_plain:
        config.task_type = "SEQ_CLS"
        # The last linear layer of RoBERTa is a part of the module that peft saves as a whole.
        modules = [
            path.rpartition(".")[2] for path in family.head_parts if any(True for _ in _own(model, path))
        ]
        config.modules_to_save = sorted(saved | set(modules))
        for path in family.head_parts:
            for name, parameter in _own(model, path):
                tensors[f"{path}.{name}"] = parameter.detach().contiguous().clone()
    else:
        config.task_type = "FEATURE_EXTRACTION"
        config.modules_to_save = sorted(saved) or None
        save_file(head, folder / HEAD_FILE, metadata={"format": "pt"})
    save_file(
        {f"{_PREFIX}{name}": tensor for name, tensor in tensors.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    with quiet_transformers():
        config.save_pretrained(str(folder))
        classifier.tokenizer.save_pretrained(folder)
    about = {
        "format_version": FORMAT_VERSION,
        "pooling": classifier.pooling,
        "head_kind": classifier.head_kind,
        "max_length": classifier.max_length,
        "labels": list(classifier.labels.names),
        "pad_token": classifier.tokenizer.pad_token,
        "pad_token_id": classifier.tokenizer.pad_token_id,
    }
    write_atomic(folder / RECORD, json.dumps(about, indent=2, ensure_ascii=False) + "\n")


def _own(model: nn.Module, path: str) -> Iterator[tuple[str, nn.Parameter]]:
    return model.get_submodule(path).named_parameters()
