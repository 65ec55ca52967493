"""Folders as other people's scripts leave them: built by transformers, peft and sentence-transformers alone."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

from tunescope.models.source import quiet_transformers

NAMES = ["anger", "joy"]
GOOD, BAD = ["love", "film", "good", "warm"], ["angry", "sad", "noise", "cold"]
OTHER = [
    "the", "cat", "sat", "on", "mat", "and", "rain", "day", "very", "old", "house", "he", "was", "street",
]  # fmt: skip
IDS = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}


def labelled(n: int = 48, seed: int = 0) -> tuple[list[str], list[str]]:
    """Return texts of different lengths, and labels that their words give away."""
    generator = np.random.default_rng(seed)
    texts, labels = [], []
    for index in range(n):
        label = index % 2
        words = [
            *generator.choice(OTHER, generator.integers(1, 6)),
            *generator.choice(GOOD if label else BAD, 2),
        ]
        texts.append(" ".join(generator.permutation(words)))
        labels.append(NAMES[label])
    return texts, labels


def trained(
    base: Path, folder: Path, *, pad: str | None, batch: int = 8, epochs: int = 2, peft: Any = None
) -> Path:
    """Train with transformers' Trainer as its documentation does; return the last checkpoint's folder.

    Args:
        base: The model before tuning.
        folder: The Trainer's output folder.
        pad: ``end`` for the end token, another word for a token that is added, None for what the tokenizer has.
        batch: Rows a step; a model without a pad token is trained one row at a time.
        epochs: How many; each leaves a checkpoint.
        peft: A peft configuration, or None.
    """
    with warnings.catch_warnings(), quiet_transformers():
        warnings.simplefilter("ignore")
        tokenizer = AutoTokenizer.from_pretrained(base)
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2, **IDS)
        if pad == "end":
            tokenizer.pad_token = tokenizer.eos_token
        elif pad is not None:
            tokenizer.add_special_tokens({"pad_token": pad})
            model.resize_token_embeddings(model.config.vocab_size + 1)
        model.config.pad_token_id = tokenizer.pad_token_id
        if peft is not None:
            from peft import get_peft_model

            torch.manual_seed(0)
            model = get_peft_model(model, peft)
        texts, labels = labelled()
        padded = {"padding": "max_length", "max_length": 32} if batch > 1 else {}
        rows = [
            {**tokenizer(text, **padded), "labels": NAMES.index(label)}
            for text, label in zip(texts, labels, strict=True)
        ]
        arguments = TrainingArguments(
            folder, learning_rate=5e-3, num_train_epochs=epochs, per_device_train_batch_size=batch, report_to="none",
            disable_tqdm=True, seed=0, use_cpu=True, save_strategy="epoch", dataloader_pin_memory=False,
        )  # fmt: skip
        own = (
            tokenizer if tokenizer.pad_token is not None else None
        )  # the Trainer pads with the tokenizer it is given
        Trainer(model, arguments, train_dataset=rows, processing_class=own).train()
    last = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))[-1]
    if own is None:
        tokenizer.save_pretrained(last)
    return last


def their_logits(model: Any, tokenizer: Any, texts: list[str]) -> torch.Tensor:
    """Return what the library gives, a text at a time and so without padding."""
    with torch.no_grad():
        return torch.cat([model.eval()(**tokenizer(text, return_tensors="pt")).logits for text in texts])


def our_logits(model: Any, texts: list[str]) -> torch.Tensor:
    """Return what tunescope gives, all texts in one padded batch."""
    from tunescope.data.rows import rows_of_texts
    from tunescope.data.tokens import tokenize
    from tunescope.evaluation.predict import predict

    tokens = tokenize(rows_of_texts(texts, model.labels), model.tokenizer, model.max_length)
    table = predict(model, tokens)
    return torch.tensor(table.select([f"logit_{name}" for name in model.labels.names]).to_numpy()).float()
