"""A model in the middle of its training, held in the shape that lenses read."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunescope.data.labels import LabelMap
from tunescope.errors import ModelError
from tunescope.models.classifier import Classifier
from tunescope.models.families import family_of
from tunescope.models.language import ENDINGS, LanguageModel
from tunescope.models.load import position_limit

LONGEST = 512


def live(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> Classifier:
    """Hold a model that is being trained as a classifier or language model, without copying or changing it.

    Args:
        model: A transformers model, or peft's or accelerate's wrapper around one.
        tokenizer: Its tokenizer.

    Raises:
        ModelError: The architecture is of no known family, or the model is neither classifier nor language model.
    """
    plain = unwrapped(model)
    if tokenizer.pad_token_id is None:  # GPT-2 has none; what stands there is masked, so any will do
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.pad_token = tokenizer.eos_token
    family = family_of(plain.config.model_type)
    limit = min(position_limit(plain.config, family), LONGEST)
    kind = type(plain).__name__
    if kind.endswith("ForSequenceClassification"):
        names: dict[int, str] = plain.config.id2label  # type: ignore[assignment]
        labels = LabelMap(tuple(str(names[index]) for index in range(len(names))))
        return Classifier(plain, tokenizer, family, family.own_pooling, labels, limit)
    if kind.endswith(ENDINGS):
        return LanguageModel(plain, tokenizer, family, family.own_pooling, limit)
    raise ModelError(
        f"{kind} is neither a sequence classifier nor a language model, so there is nothing that lenses can read.",
        hint="Use a ...ForSequenceClassification, ...ForCausalLM or ...ForMaskedLM model.",
    )


def unwrapped(model: nn.Module) -> PreTrainedModel:
    """Return the transformers model inside peft's and accelerate's wrappers; adapters stay in place.

    Raises:
        ModelError: There is none.
    """
    while not isinstance(model, PreTrainedModel):
        inner = getattr(model, "get_base_model", None)
        inside = inner() if callable(inner) else getattr(model, "module", getattr(model, "_orig_mod", None))
        if not isinstance(inside, nn.Module):
            raise ModelError(f"{type(model).__name__} is no transformers model and wraps none.")
        model = inside
    return model


def frozen_copy(model: nn.Module) -> PreTrainedModel:
    """Return a copy of the model as it is now, for evaluation alone: the base of what training will change."""
    copied = copy.deepcopy(unwrapped(model))
    copied.requires_grad_(False)
    return copied.eval()


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Leave no trace: modes of all modules and every random stream are as before, so training goes on as without."""
    modes = [(module, module.training) for module in model.modules()]
    states: dict[str, Any] = {"python": random.getstate(), "numpy": np.random.get_state()}
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    model.eval()
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        random.setstate(states["python"])
        np.random.set_state(states["numpy"])
