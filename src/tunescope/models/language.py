"""A language model in the shape in which tunescope holds every model: trunk, pooling by mask, head.

The head gives logits of the whole vocabulary. Called as it is, such a model answers at the pooled vector alone; what it
is judged by is its loss at the tokens that it has to predict (:mod:`tunescope.models.questions`).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

from tunescope.data.labels import LabelMap
from tunescope.errors import ModelError
from tunescope.models.adapters import base_of, peft_models
from tunescope.models.classifier import Classifier
from tunescope.models.families import Family, LanguageKind, Pooling
from tunescope.models.load import position_limit
from tunescope.models.saving import write_language_folder
from tunescope.models.source import ADAPTER, Source, check_source, hub_errors, read_config, read_tokenizer

ENDINGS = ("LMHeadModel", "ForCausalLM", "ForMaskedLM", "ForPreTraining")
LONGEST_DEFAULT = 512


class VocabularyHead(nn.Module):
    """The parts of a language model behind its trunk, in order; states [..., D] to logits [..., V]."""

    def __init__(self, model: PreTrainedModel, family: Family) -> None:
        super().__init__()
        self.parts = nn.ModuleList([model.get_submodule(path) for path in family.language_head])

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits of the vocabulary."""
        for part in self.parts:
            hidden = part(hidden)
        return hidden


class LanguageModel(Classifier):
    """A causal or masked language model; it has no classes, and its logits are those of the vocabulary.

    Args:
        model: A ``...LMHeadModel``, ``...ForCausalLM`` or ``...ForMaskedLM`` model.
        tokenizer: Its tokenizer.
        family: The table of the architecture.
        pooling: How states of a text become one vector, for lenses that compare representations.
        max_length: Longest input in tokens.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        family: Family,
        pooling: Pooling,
        max_length: int,
    ) -> None:
        super().__init__(model, tokenizer, family, pooling, LabelMap(()), max_length)

    def _make_head(self) -> nn.Module:
        return VocabularyHead(self.model, self.family)

    @property
    def kind(self) -> LanguageKind:
        """``causal`` (predicts the next token) or ``masked`` (predicts what a mask hides)."""
        return self.family.language_kind

    @property
    def vocabulary(self) -> int:
        """V, the number of logits; it may exceed the tokenizer's entries."""
        return int(self.model.config.vocab_size)

    def save(self, folder: Path, record: dict[str, Any] | None = None) -> None:
        """Write a transformers model folder (safetensors, tokenizer, ``tunescope.json``); an adapter is merged."""
        write_language_folder(self, folder, record)


def is_language_model(path: str, revision: str | None = None) -> bool:
    """Whether a checkpoint says of itself that it is a language model and not a classifier.

    A folder says so by ``architectures`` in its configuration, an adapter by its task type.

    Raises:
        ModelError: The checkpoint cannot be had.
    """
    source = Source(path, revision)
    check_source(source)
    if source.is_adapter:
        return source.read_json(ADAPTER).get("task_type") == "CAUSAL_LM"
    raw = source.read_json("config.json")
    if source.folder is None:
        with hub_errors(source):
            raw = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False).to_dict()
    if "tunescope_model_type" in raw:
        return False
    return any(str(name).endswith(ENDINGS) for name in raw.get("architectures") or ())


def load_language_model(
    path: str,
    *,
    base: str | None = None,
    pooling: Pooling | None = None,
    max_length: int | None = None,
    device: str | torch.device = "cpu",
    revision: str | None = None,
    tokenizer_of: str | None = None,
) -> LanguageModel:
    """Load a language model with its own head: a model folder, hub id, or a peft adapter of one (merged).

    Args:
        path: Model folder or hub id.
        base: Base model of an adapter, where the path inside the adapter is not to be used.
        pooling: How lenses make one vector of a text; None means the last token (causal) or the mean (masked).
        max_length: Longest input in tokens; None means the model's limit, at most 512.
        device: Where to put the parameters.
        revision: Hub revision.
        tokenizer_of: Folder or hub id whose tokenizer is taken where ``path`` is a folder without one.

    Raises:
        ModelError: No such model, an unknown family, an encoder-decoder, or a checkpoint without a trained head: one of
            random numbers would answer as if it had learnt.
        MissingDependencyError: ``path`` is an adapter and peft is not installed.
    """
    source = Source(path, revision)
    check_source(source)
    settings = source.read_json(ADAPTER) if source.is_adapter else {}
    weights = source if not settings else base_of(source, settings, base)
    config, family, _ = read_config(weights)
    _refuse(path, weights, config, family, settings)
    own_tokenizer = source.folder is not None and (source.folder / "tokenizer.json").is_file()
    tokenizer = read_tokenizer(source if own_tokenizer else weights, config, tokenizer_of)
    model = _read_model(weights, config, family)
    if settings:
        model = merged(model, source)
    limit = position_limit(config, family)
    if max_length is not None and not 1 <= max_length <= limit:
        raise ModelError(
            f"max_length {max_length} does not fit {path}: it numbers {limit} positions.",
            hint=f"Set data.max_length to {limit} or less.",
        )
    chosen: Pooling = pooling or ("last" if family.language_kind == "causal" else "mean")
    found = LanguageModel(model, tokenizer, family, chosen, max_length or min(limit, LONGEST_DEFAULT))
    found.record = {"path": path, "revision": revision, "head": "its own", "assumed": []}
    if settings:
        found.record["adapter_of"] = weights.path
    return found.to(device).eval()


def _refuse(
    path: str, weights: Source, config: PretrainedConfig, family: Family, settings: dict[str, Any]
) -> None:
    """Refuse what is no language model that can be looked at."""
    if family.encoder is not None:
        raise ModelError(
            f"{path} is an encoder-decoder ({family.name}); as language models, causal and masked ones are looked at.",
            hint="Compare classifiers made of it instead.",
        )
    if settings.get("task_type") == "SEQ_CLS":
        raise ModelError(
            f"{path} is the adapter of a classifier (task_type SEQ_CLS), not a language model's."
        )
    kinds: Sequence[str] = getattr(config, "architectures", None) or ()
    classifiers = [name for name in kinds if "ForSequenceClassification" in name]
    if classifiers or "tunescope_model_type" in weights.read_json("config.json"):
        raise ModelError(
            f"{weights.path} is a classifier ({', '.join(classifiers) or 'tuned by tunescope'}), not a language model.",
            hint="Give two language models, or a base and a classifier.",
        )


def _read_model(source: Source, config: PretrainedConfig, family: Family) -> PreTrainedModel:
    causal = family.language_kind == "causal"
    mapping: Any = MODEL_FOR_CAUSAL_LM_MAPPING if causal else MODEL_FOR_MASKED_LM_MAPPING
    with hub_errors(source):
        model, info = mapping[type(config)].from_pretrained(
            source.path, config=copy.deepcopy(config), revision=source.revision, use_safetensors=True,
            trust_remote_code=False, dtype=torch.float32, output_loading_info=True,
        )  # fmt: skip
    missing = sorted({*info["missing_keys"], *(entry[0] for entry in info.get("mismatched_keys", ()))})
    if missing:
        raise ModelError(
            f"{source.path} has no trained {family.language_kind} language-model head: its weights lack "
            f"{', '.join(missing[:3])}; one of random numbers would be read as if it were trained.",
            hint="Give a checkpoint that was saved with its language-model head.",
        )
    loaded: PreTrainedModel = model.requires_grad_(False)
    return loaded


def merged(model: PreTrainedModel, source: Source) -> PreTrainedModel:
    """Return a language model with a peft adapter put onto it and merged."""
    adapters = peft_models(source)
    with warnings.catch_warnings(), hub_errors(source):
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out.*")
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        plain: PreTrainedModel = adapters.from_pretrained(model, source.path).merge_and_unload()
    return plain.requires_grad_(False)
