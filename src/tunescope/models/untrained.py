"""A model of the same shape that has learned nothing: the control for what training, not architecture, brings."""

from __future__ import annotations

import copy

import torch

from tunescope.models.classifier import Classifier
from tunescope.models.source import quiet_transformers


def untrained(classifier: Classifier, seed: int) -> Classifier:
    """Return a copy whose every weight is drawn anew by its architecture's own rule; the original is left alone.

    Tokenizer, pooling, configuration and device stay.

    Args:
        classifier: Any classifier.
        seed: Seeds the weights, and nothing else.
    """
    fresh = copy.deepcopy(classifier)
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        drawn = type(classifier.model)(copy.deepcopy(classifier.model.config))
    # A head of one's own may lack or add tensors; the trunk's names are those of the architecture.
    trunk = drawn.base_model.state_dict()
    fresh.trunk.load_state_dict(trunk)
    fresh.record = {"path": None, "head": None, "weights": f"untrained, seed {seed}"}
    return fresh.eval()
