"""Opening a model that writes: a decoder-only language model or an encoder-decoder, whichever a checkpoint is."""

from __future__ import annotations

import torch

from tunescope.errors import ModelError
from tunescope.models.adapters import base_of
from tunescope.models.language import LanguageModel, load_language_model
from tunescope.models.sequence_to_sequence import load_sequence_to_sequence
from tunescope.models.source import ADAPTER, Source, check_source, read_config


def open_language_model(
    path: str,
    *,
    max_length: int | None = None,
    device: str | torch.device = "cpu",
    revision: str | None = None,
) -> LanguageModel:
    """Load a causal language model or an encoder-decoder with its own head.

    Args:
        path: Model folder or hub id.
        max_length: Longest input in tokens; None means the model's limit, at most 512.
        device: Where to put the parameters.
        revision: Hub revision.

    Raises:
        ModelError: No such model, one without a trained language-model head, or one that cannot write (BERT).
    """
    source = Source(path, revision)
    check_source(source)
    weights = base_of(source, source.read_json(ADAPTER), None) if source.is_adapter else source
    _, family, _ = read_config(weights)
    if family.encoder is not None:
        return load_sequence_to_sequence(path, max_length=max_length, device=device, revision=revision)
    if family.language_kind != "causal":
        raise ModelError(
            f"{path} is a {family.name}, which fills in masks and cannot write a text.",
            hint="Give a decoder-only model (GPT-2 and its relatives) or an encoder-decoder (T5, BART).",
        )
    return load_language_model(path, max_length=max_length, device=device, revision=revision)
