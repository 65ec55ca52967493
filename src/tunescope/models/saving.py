"""Writing a classifier as a folder that transformers opens, or refuses where it would read it wrongly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunescope.errors import ModelError
from tunescope.files import FORMAT_VERSION, write_atomic
from tunescope.models.adapted import RECORD, adapter_tensors, plain_state, write_adapter
from tunescope.models.heads import build_head
from tunescope.models.source import quiet_transformers

if TYPE_CHECKING:
    from tunescope.models.classifier import Classifier

ADAPTER_FOLDER = "adapter"
ADAPTER_TENSORS = "adapter.safetensors"


def write_folder(classifier: Classifier, folder: Path, record: dict[str, Any] | None = None) -> None:
    """Write a model folder; see :meth:`tunescope.models.Classifier.save`.

    Raises:
        ModelError: The head was replaced (a probe, a reordered head) and cannot be expressed by the folder.
    """
    expected = build_head(classifier.model, classifier.family, classifier.pooling, classifier.head_kind)
    if type(classifier.head) is not type(expected):
        raise ModelError("A base with a probe head or a reordered head cannot be saved as a checkpoint.")
    config = classifier.model.config
    config.id2label = dict(enumerate(classifier.labels.names))
    config.label2id = {name: index for index, name in enumerate(classifier.labels.names)}
    config.problem_type = "single_label_classification"
    config.pad_token_id = classifier.tokenizer.pad_token_id
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        if classifier.adapter_config is None:
            classifier.model.save_pretrained(folder)
        else:
            classifier.model.save_pretrained(folder, state_dict=plain_state(classifier.model))
        classifier.tokenizer.save_pretrained(folder)
    if not classifier.is_plain:
        _mark_as_own(folder / "config.json", classifier)
    about = {
        "format_version": FORMAT_VERSION,
        "pooling": classifier.pooling,
        "head_kind": classifier.head_kind,
        "max_length": classifier.max_length,
        "labels": list(classifier.labels.names),
        **(record or {}),
    }
    write_atomic(folder / RECORD, json.dumps(about, indent=2, ensure_ascii=False) + "\n")
    if classifier.adapter_config is not None and not classifier.fresh_projections:
        write_adapter(classifier, folder / ADAPTER_FOLDER)


def write_language_folder(model: Classifier, folder: Path, record: dict[str, Any] | None = None) -> None:
    """Write a language model as a folder that transformers opens; an adapter that lives in place is merged.

    The adapter's own tensors stay beside it in ``adapter.safetensors``: small, and exactly what was trained.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        if model.adapter_config is None:
            model.model.save_pretrained(folder)
        else:
            model.model.save_pretrained(folder, state_dict=plain_state(model.model))
            save_file(adapter_tensors(model.model), folder / ADAPTER_TENSORS, metadata={"format": "pt"})
        model.tokenizer.save_pretrained(folder)
    about = {"format_version": FORMAT_VERSION, "max_length": model.max_length, **(record or {})}
    write_atomic(folder / RECORD, json.dumps(about, indent=2, ensure_ascii=False) + "\n")


def _mark_as_own(path: Path, classifier: Classifier) -> None:
    """Give the configuration a ``model_type`` that no Auto class knows, and keep the true one beside it."""
    config = json.loads(path.read_text(encoding="utf-8"))
    own = [config["model_type"], classifier.pooling]
    name = classifier.pooling.title().replace("_", "")
    if classifier.head_kind == "sigmoid":
        own.append("sigmoid")
        name += "Sigmoid"
    config["tunescope_model_type"] = config["model_type"]
    config["model_type"] = "-".join(["tunescope", *own])
    config["architectures"] = [f"Tunescope{name}PooledClassifier"]
    write_atomic(path, json.dumps(config, indent=2) + "\n")
