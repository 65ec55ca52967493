"""Classifiers to tune, and a real short training, for the tests of the methods."""

from __future__ import annotations

import torch
from torch.nn import functional
from transformers import GPT2Config, GPT2ForSequenceClassification

from tiny import NAMES, TEXTS, encode
from tunescope.data.labels import LabelMap
from tunescope.models import load_trunk
from tunescope.models.classifier import Classifier
from tunescope.models.families import GPT2
from tunescope.models.heads import one_logit
from tunescope.tuning import METHODS

PROMPT = {name for name, method in METHODS.items() if method.kind == "prompt"}


def fresh(folder, **options):
    names = NAMES[:2] if options.get("head") == "sigmoid" else NAMES
    return load_trunk(str(folder), labels=LabelMap(names), **options)


def prepared(folder, name, options=None, **arguments):
    classifier = fresh(folder, **arguments)
    prepare(classifier, name, options)
    return classifier


def prepare(classifier, name, options=None):
    method = METHODS[name]
    method.prepare(classifier, method.options.model_validate(options or {}))


def short_training(classifier, steps=4, decay=0.1):
    """Take real optimiser steps, with weight decay and dropout, on rows whose labels alternate."""
    labels = torch.arange(len(TEXTS)) % len(classifier.labels.names)
    trained = [one for one in classifier.parameters() if one.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=0.01, weight_decay=decay)
    torch.manual_seed(4)
    classifier.train()
    for _ in range(steps):
        optimiser.zero_grad()
        functional.cross_entropy(classifier(**encode(classifier, TEXTS)), labels).backward()
        optimiser.step()
    classifier.zero_grad(set_to_none=True)
    return classifier.eval()


def shake(classifier, scale=0.1):
    """Move every trained parameter away from where it started."""
    torch.manual_seed(9)
    with torch.no_grad():
        for parameter in classifier.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * scale)
    return classifier


def gpt2_small():
    """A one-logit classifier of GPT-2-small's shapes, without memory for its weights."""
    with torch.device("meta"):
        model = GPT2ForSequenceClassification(GPT2Config(num_labels=1, pad_token_id=0))
    model.config.tunescope_head = "sigmoid"
    one_logit(model, GPT2)
    return Classifier(model, None, GPT2, "last", LabelMap(("negative", "positive")), 512)
