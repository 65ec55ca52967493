"""Loading classifiers: a trained checkpoint, a bare trunk with a fresh head, or a peft adapter."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from tunescope.data.labels import LabelMap
from tunescope.errors import ModelError
from tunescope.models.adapters import merged_adapter
from tunescope.models.classifier import Classifier
from tunescope.models.encoder_decoder import require_end_token
from tunescope.models.families import Family, Pooling
from tunescope.models.heads import HEAD_KINDS, HeadKind, ReorderedHead, initialise_head, one_logit
from tunescope.models.labels import class_order
from tunescope.models.source import Source, check_source, hub_errors, read_config, read_tokenizer

LONGEST_DEFAULT = 512
UNLIMITED = 1_000_000


def position_limit(config: PretrainedConfig, family: Family) -> int:
    """Return how many tokens the position embeddings can number; T5's relative positions number any length."""
    if not hasattr(config, "max_position_embeddings"):
        return UNLIMITED
    limit = int(config.max_position_embeddings)
    return limit - int(config.pad_token_id) - 1 if family.counts_positions_by_pad_id else limit


def load_trunk(
    path: str,
    *,
    labels: LabelMap,
    pooling: Pooling | None = None,
    head: HeadKind = "softmax",
    max_length: int | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    revision: str | None = None,
    tokenizer_of: str | None = None,
) -> Classifier:
    """Load pretrained weights and put a freshly initialised head on them.

    The head's first weights depend on ``seed`` and its shapes alone. A head that the checkpoint carries is dropped;
    an architecture's own intermediate head layer (BERT's pooler) is kept where the checkpoint has it.

    Args:
        path: Model folder or hub id.
        labels: The classes to tell apart.
        pooling: How hidden states become one vector; None means the architecture's own.
        head: ``softmax`` for a logit a class, or ``sigmoid`` for one logit with a bias that tells two classes apart.
        max_length: Longest input in tokens; None means the model's limit, at most 512.
        seed: Seeds the head.
        device: Where to put the parameters.
        revision: Hub revision.
        tokenizer_of: Folder or hub id whose tokenizer is taken where ``path`` is a folder without one.

    Raises:
        ModelError: The model cannot be had, is of no known family, has no such position, or a sigmoid head is to
            tell more than two classes apart.
    """
    source = Source(path, revision)
    check_source(source)
    if source.is_adapter:
        raise ModelError(
            f"{path} is a peft adapter, not a base model.",
            hint="Give the base model here; adapters are opened as TUNED checkpoints.",
        )
    config, family, saved_pooling = read_config(source)
    tokenizer = read_tokenizer(source, config, tokenizer_of)
    require_end_token(tokenizer, config, family)
    config = _classification_config(config, labels, tokenizer.pad_token_id, family)
    _set_head_kind(config, labels, head)
    model, missing = _read_weights(source, config)
    if head == "sigmoid":
        one_logit(model, family)
        model.config.id2label = dict(enumerate(labels.names))
    unexpected = [key for key in missing if not key.startswith(family.head_parts)]
    if unexpected:
        raise ModelError(
            f"{path}: the checkpoint lacks {len(unexpected)} of the trunk's tensors, first {unexpected[0]}.",
            hint="It is not a complete checkpoint of this architecture.",
        )
    limit = _max_length(config, family, max_length, path)
    # A probe-only pooling saved by an earlier tuning is no reason to pool this base in the same way.
    classifier = Classifier(
        model, tokenizer, family, pooling or saved_pooling or family.own_pooling, labels, limit
    )
    classifier.record = {"path": path, "revision": _revision(model, source), "new_tensors": sorted(missing)}
    classifier.record["assumed"] = _tokenizer_assumed(source, tokenizer_of)
    std = float(getattr(config, "initializer_range", 0.02))
    fresh = model.get_submodule(family.head)
    # What stands before the last layer (BERT's pooler, RoBERTa's and BART's dense layer) is drawn anew where it lacks.
    inner = any(not key.startswith(f"{family.head}.") for key in missing)
    for part in [fresh, classifier.head] if inner else [fresh]:
        initialise_head(part, std, seed)
    classifier.record["head"] = f"new, seed {seed}"
    classifier.seed = seed
    return classifier.to(device).eval()


def load(
    path: str,
    *,
    labels: LabelMap | None = None,
    label_map: Mapping[str, str] | None = None,
    pooling: Pooling | None = None,
    base: str | None = None,
    device: str | torch.device = "cpu",
    revision: str | None = None,
    tokenizer_of: str | None = None,
) -> Classifier:
    """Load a classifier with its trained head: a model folder, hub id, ``checkpoint-*`` or peft adapter.

    Args:
        path: Model folder or hub id.
        labels: The data's classes; the logits come in their order. None keeps the checkpoint's own.
        label_map: From the checkpoint's label names to the data's, where they differ.
        pooling: Overrides what the folder says; None means as saved, else the architecture's own.
        base: Base model of an adapter, where the path inside the adapter is not to be used.
        device: Where to put the parameters.
        revision: Hub revision.
        tokenizer_of: Folder or hub id whose tokenizer is taken where ``path`` is a folder without one.

    Raises:
        ModelError: No such model, unknown family, no trained head, one that does not tell classes apart, or labels that
            cannot be aligned by name.
        MissingDependencyError: ``path`` is an adapter and peft is not installed.
    """
    source = Source(path, revision)
    check_source(source)
    record: dict[str, Any] = {"path": path, "label_map": dict(label_map) if label_map else None}
    if source.is_adapter:
        model, tokenizer, family, saved_pooling = merged_adapter(source, base)
        record["adapter_of"] = base or model.config._name_or_path
        config = model.config
    else:
        config, family, saved_pooling = read_config(source)
        _refuse_other_tasks(path, config)
        tokenizer = read_tokenizer(source, config, tokenizer_of)
        require_end_token(tokenizer, config, family)
        config = copy.deepcopy(config)
        config.pad_token_id = tokenizer.pad_token_id
        model, missing = _read_classifier(source, config, family)
        config = model.config
        if missing:
            raise ModelError(
                f"{path} is not a trained classifier: its weights lack {', '.join(sorted(missing)[:4])}; a head "
                "filled with random numbers would be read as if it were trained.",
                hint="Give a checkpoint that was trained as a sequence classifier, or use it as BASE.",
            )
    about = source.read_json("tunescope.json")
    limit = _max_length(config, family, about.get("max_length"), path)
    names = LabelMap(tuple(str(name) for _, name in sorted((config.id2label or {}).items())))
    chosen = pooling or saved_pooling or family.own_pooling
    classifier = Classifier(model, tokenizer, family, chosen, names, limit)
    if labels is not None:
        order = class_order(names.names, labels.names, label_map, path)
        if order != list(range(len(order))):
            classifier.head = ReorderedHead(classifier.head, order)
        classifier.labels = labels
    record["revision"] = _revision(model, source)
    record["assumed"] = [*_assumed(about, chosen, limit), *_tokenizer_assumed(source, tokenizer_of)]
    classifier.record = record
    return classifier.to(device).eval()


def _assumed(about: Mapping[str, Any], pooling: str, limit: int) -> list[str]:
    assumed = []
    if "pooling" not in about:
        assumed.append(f"pooling: {pooling} (the architecture's own)")
    if "max_length" not in about:
        assumed.append(f"max_length: {limit} tokens")
    if "template" not in about:
        assumed.append("template: texts go in as they stand")
    return assumed


def _tokenizer_assumed(source: Source, other: str | None) -> list[str]:
    """Say so where the tokenizer is another model's; an adapter's folder needs none of its own."""
    borrowed = other is not None and not source.has_tokenizer and not source.is_adapter
    return [f"tokenizer: that of {other}, for the folder holds none"] if borrowed else []


def _refuse_other_tasks(path: str, config: PretrainedConfig) -> None:
    """Refuse heads whose outputs are no logits of classes of which one is right."""
    one_output = len(config.id2label or {}) == 1
    problem = getattr(config, "problem_type", None) or ("regression" if one_output else None)
    if problem in ("regression", "multi_label_classification"):
        raise ModelError(
            f"{path} was trained for {problem.replace('_', '-')}, not to tell classes apart of which one is right.",
            hint="Give a classifier with one label a text; as BASE its trunk alone is read, whatever its head.",
        )


def _classification_config(
    config: PretrainedConfig, labels: LabelMap, pad_token_id: int, family: Family
) -> PretrainedConfig:
    config = copy.deepcopy(config)
    config.num_labels = len(labels.names)
    config.id2label = dict(enumerate(labels.names))
    config.label2id = {name: index for index, name in enumerate(labels.names)}
    if not family.counts_positions_by_pad_id:  # RoBERTa's pad id is part of how it numbers positions
        config.pad_token_id = pad_token_id
    return config


def _read_weights(source: Source, config: PretrainedConfig) -> tuple[PreTrainedModel, set[str]]:
    """Load a classification model in float32; return it with the names of tensors the checkpoint did not have."""
    arguments: dict[str, Any] = {
        "config": config, "revision": source.revision, "use_safetensors": True, "trust_remote_code": False,
        "dtype": torch.float32, "ignore_mismatched_sizes": True, "output_loading_info": True,
    }  # fmt: skip
    kind: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    with hub_errors(source):
        model, info = kind.from_pretrained(source.path, **arguments)
    mismatched = {entry[0] for entry in info.get("mismatched_keys", ())}
    return model, set(info["missing_keys"]) | mismatched


def _set_head_kind(config: PretrainedConfig, labels: LabelMap, head: HeadKind) -> None:
    """Note the kind of head in a configuration; one logit needs exactly two classes."""
    if head not in HEAD_KINDS:
        raise ModelError(f"There is no head {head!r}; the heads are {' and '.join(HEAD_KINDS)}.")
    if head == "softmax":
        vars(config).pop("tunescope_head", None)  # the checkpoint may be one that was tuned with another head
        return
    if len(labels.names) != 2:
        raise ModelError(
            f"A sigmoid head tells exactly two labels apart, and the data has {len(labels.names)}.",
            hint="Use head: softmax.",
        )
    config.tunescope_head = head
    config.num_labels = 1


def _read_classifier(
    source: Source, config: PretrainedConfig, family: Family
) -> tuple[PreTrainedModel, set[str]]:
    """Load a trained classifier, one-logit heads included, which transformers' classes cannot express."""
    if getattr(config, "tunescope_head", "softmax") == "softmax":
        return _read_weights(source, config)
    names = dict(config.id2label or {})
    config.num_labels = 1
    model, missing = _read_weights(source, config)
    layer = one_logit(model, family)
    own = {f"{family.head}.{name}": parameter for name, parameter in layer.named_parameters()}
    for path in sorted((source.folder or Path()).glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors, torch.no_grad():
            for name in own.keys() & set(tensors.keys()):
                own.pop(name).copy_(tensors.get_tensor(name))
    model.config.id2label = names
    return model, (missing - {f"{family.head}.weight"}) | set(own)


def _max_length(config: PretrainedConfig, family: Family, wanted: int | None, path: str) -> int:
    limit = position_limit(config, family)
    if wanted is None:
        return min(limit, LONGEST_DEFAULT)
    if not 1 <= wanted <= limit:
        raise ModelError(
            f"max_length {wanted} does not fit {path}: it numbers {limit} positions.",
            hint=f"Set data.max_length to {limit} or less.",
        )
    return int(wanted)


def _revision(model: PreTrainedModel, source: Source) -> str | None:
    return getattr(model.config, "_commit_hash", None) or source.revision
