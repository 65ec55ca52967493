"""The language-model head that a base checkpoint was pretrained with, to be put on its trunk and on the tuned one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

from tunescope.models.classifier import Classifier
from tunescope.models.language import VocabularyHead
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

    A causal model's may be its token embedding (tied); an encoder's is the masked-language-model head, which many
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
    kind: Kind = family.language_kind
    if family.encoder is not None:
        return None, f"{family.name} is an encoder-decoder, whose language-model head reads its decoder"
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
    scores = VocabularyHead(model, family).to(base.device)
    tied = bool(getattr(model.config, "tie_word_embeddings", False))
    own = "the base's own token embedding (tied)" if tied else "the base's own language-model head"
    about = own if kind == "causal" else "the base's masked-language-model head"
    return LanguageHead(kind, scores, about), None
