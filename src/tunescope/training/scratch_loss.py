"""How well a language model predicts text: nats per token, and bits per byte, which tokenizers share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tunescope.training.packing import Windows, pack
from tunescope.training.scratch_tokenizer import bytes_of_tokens

if TYPE_CHECKING:
    import torch
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class TextLoss:
    """The loss of a language model on some texts.

    Attributes:
        nats_per_token: Mean cross-entropy (natural logarithm) over the predicted tokens.
        bits_per_byte: ``nats_per_token * tokens / ln 2 / bytes``: comparable across tokenizers.
        tokens: How many tokens are predicted: all but the first of every text (or piece of a long one), and
            the end-of-text token after each text.
        bytes: The bytes of UTF-8 of the predicted tokens; the end of a text has none.
    """

    nats_per_token: float
    bits_per_byte: float
    tokens: int
    bytes: int


def text_loss(
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    length: int | None = None,
    batch_size: int = 16,
) -> TextLoss:
    """Return the loss of a GPT-2 language model on texts, each read alone from position 0 and closed.

    Args:
        model: The model; its mode is left as it was.
        tokenizer: Its tokenizer, with an end-of-text token.
        texts: The texts; longer ones than ``length`` are cut into pieces.
        length: Tokens that are read at once; None means all positions of the model.
        batch_size: Windows at once.
    """
    length = length or int(model.config.n_positions)
    encoded = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    windows = pack(encoded, int(tokenizer.eos_token_id), length, seed=0)
    nats = window_loss(model, windows, batch_size)
    return loss_of(nats, windows.n_targets, predicted_bytes(tokenizer, texts, length))


def loss_of(nats_per_token: float, tokens: int, size: int) -> TextLoss:
    """Return the loss of ``tokens`` predicted tokens that stand for ``size`` bytes."""
    bits = nats_per_token * tokens / math.log(2) / size if size else math.nan
    return TextLoss(nats_per_token, bits, tokens, size)


def predicted_bytes(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], length: int) -> int:
    """Count the bytes of all tokens but the first of every piece of ``length`` tokens, which nothing predicts."""
    total = 0
    for sizes in bytes_of_tokens(tokenizer, texts):
        total += int(sizes.sum() - sizes[::length].sum())
    return total


def mean_loss(model: GPT2LMHeadModel, windows: Windows, rows: np.ndarray) -> torch.Tensor:
    """Return the mean cross-entropy (nats) over the targets of some windows."""
    import torch

    targets = torch.from_numpy(windows.targets[rows])  # [B, T]
    hidden = model.transformer(
        input_ids=torch.from_numpy(windows.ids[rows]).to(model.device),
        # Restarting positions without a mask and cache make transformers keep attention inside each text.
        position_ids=torch.from_numpy(windows.positions[rows]).to(model.device),
        use_cache=False,
    ).last_hidden_state
    kept = targets >= 0
    logits = model.lm_head(hidden[kept.to(hidden.device)])
    return torch.nn.functional.cross_entropy(logits, targets[kept].to(hidden.device))


def window_loss(model: GPT2LMHeadModel, windows: Windows, batch_size: int) -> float:
    """Return the mean cross-entropy (nats) over all targets, without dropout; the mode is left as it was."""
    import torch

    total = 0.0
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(windows), batch_size):
                rows = np.arange(start, min(start + batch_size, len(windows)))
                total += float(mean_loss(model, windows, rows)) * int((windows.targets[rows] >= 0).sum())
    finally:
        model.train(was_training)
    return total / windows.n_targets


def unigram_loss(train: Windows, held_out: Windows, vocab_size: int) -> float:
    """Return the cross-entropy (nats per token) of held-out targets under train frequencies plus one each."""
    counts = np.bincount(train.targets[train.targets >= 0], minlength=vocab_size) + 1.0
    return float(-np.log(counts / counts.sum())[held_out.targets[held_out.targets >= 0]].mean())
