"""The language-model head that a base checkpoint was pretrained with, to be put on its trunk and on the tuned one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

from tunescope.models.classifier import Classifier
from tunescope.models.source import Source, hub_errors, quiet_transformers, read_config

Kind = Literal["causal", "masked"]


@dataclass(frozen=True)
class LanguageHead:
    """From hidden states to logits over the vocabulary, and what kind of language model it belongs to.

    Attributes:
        kind: "causal" (the next token) or "masked" (tokens behind a mask).
        scores: From hidden states `[N, D]` to logits `[N, V]`.
        about: Where the head comes from, in words.
    """

    kind: Kind
    scores: Callable[[torch.Tensor], torch.Tensor]
    about: str


def language_head(base: Classifier) -> tuple[LanguageHead | None, str | None]:
    """Return the language-model head of a base's checkpoint, or None and the reason why it has none.

    GPT-2's is its own token embedding (tied); of encoders it is the masked-language-model head, which many
    checkpoints (sentence encoders, classifiers) do not carry. A head that would be filled with random numbers is
    none.

    Args:
        base: A classifier as :func:`tunescope.models.load_trunk` gives it; its record says where from.
    """
    path = base.record.get("path")
    if not isinstance(path, str):
        return None, "the base was not loaded from a checkpoint"
    source = Source(path, base.record.get("revision"))
    config, family, _ = read_config(source)
    kind: Kind = "causal" if family.name == "GPT-2" else "masked"
    mapping: Any = MODEL_FOR_CAUSAL_LM_MAPPING if kind == "causal" else MODEL_FOR_MASKED_LM_MAPPING
    config = copy.deepcopy(config)
    if type(config) not in mapping:
        return None, f"there is no {kind} language model for {family.name}"
    with hub_errors(source), quiet_transformers():
        model, info = mapping[type(config)].from_pretrained(
            source.path, config=config, revision=source.revision, use_safetensors=True, trust_remote_code=False,
            dtype=torch.float32, output_loading_info=True,
        )  # fmt: skip
    missing = sorted(info["missing_keys"])
    if missing:
        return None, f"the checkpoint {path} has no {kind} language-model head: it lacks {missing[0]}"
    model.eval().requires_grad_(False)
    if model.config.hidden_size != base.width:
        return None, f"the head is for width {model.config.hidden_size}, the trunk has {base.width}"
    scores = _scores(model, family.name).to(base.device)
    about = (
        "the base's own token embedding (tied)"
        if kind == "causal"
        else "the base's masked-language-model head"
    )
    return LanguageHead(kind, scores, about), None


class _DistilBERTHead(nn.Module):
    """DistilBERT keeps the parts of its head side by side in the model."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.transform, self.norm = model.vocab_transform, model.vocab_layer_norm
        self.projector, self.activation = model.vocab_projector, model.activation

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits over the vocabulary."""
        scores: torch.Tensor = self.projector(self.norm(self.activation(self.transform(hidden))))
        return scores


def _scores(model: Any, family: str) -> nn.Module:
    """Return the module from hidden states to logits."""
    if family == "DistilBERT":
        return _DistilBERTHead(model)
    head: nn.Module = model.cls if family == "BERT" else model.lm_head
    return head
