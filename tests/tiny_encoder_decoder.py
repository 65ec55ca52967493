"""Tiny random T5 and BART models; encoder and decoder differ in depth, and heads are no equal shares of the width."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import processors
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BartForSequenceClassification,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    T5ForSequenceClassification,
)

from tiny import NAMES, word_piece
from tunescope.models import load

KINDS = ("t5", "t5_gated", "bart")
CLASSES = {
    "classifier": {"t5": T5ForSequenceClassification, "bart": BartForSequenceClassification},
    "language_model": {"t5": T5ForConditionalGeneration, "bart": BartForConditionalGeneration},
}


def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    """BART's texts are ``<s> words </s>``, T5's ``words </s>``."""
    tokenizer = word_piece(kind="roberta")
    inner = tokenizer.backend_tokenizer
    start, pad, end = "<s>", "<pad>", "</s>"
    single = f"{start} $A {end}" if kind == "bart" else f"$A {end}"
    inner.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[(one, inner.token_to_id(one)) for one in (start, end)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token=pad, unk_token="<unk>", bos_token=start, eos_token=end
    )


def make(kind: str, task: str = "classifier", n_labels: int = 3, seed: int = 0, scale: float = 0.2):
    """Return a tiny random model and its tokenizer; every parameter, norms and biases too, is drawn."""
    torch.manual_seed(seed)
    tokenizer = tokenizer_of(kind)
    common = {
        "vocab_size": len(tokenizer) + 3, "d_model": 32, "num_labels": n_labels,
        "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    if kind == "bart":
        config = BartConfig(
            encoder_layers=3, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=8,
            encoder_ffn_dim=48, decoder_ffn_dim=40, max_position_embeddings=64, bos_token_id=tokenizer.bos_token_id,
            decoder_start_token_id=tokenizer.eos_token_id, forced_eos_token_id=None, **common,
        )  # fmt: skip
    else:
        config = T5Config(
            d_kv=12, d_ff=48, num_layers=3, num_decoder_layers=2, num_heads=4, relative_attention_num_buckets=8,
            relative_attention_max_distance=16, decoder_start_token_id=tokenizer.pad_token_id,
            feed_forward_proj="gated-gelu" if kind == "t5_gated" else "relu", **common,
        )  # fmt: skip
    model = CLASSES[task]["bart" if kind == "bart" else "t5"](config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            norm = "norm" in name and name.endswith("weight")
            parameter.normal_(1.0 if norm else 0.0, scale / 3 if name.endswith("bias") else scale)
    return model.eval(), tokenizer


def folder_of(kind: str, folder: Path, names: list[str] | None = None, **options) -> Path:
    """Write a tiny model folder."""
    model, tokenizer = make(kind, **options)
    if names:
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: i for i, name in enumerate(names)}
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def two_models(kind: str, make_folder) -> list:
    """Return two classifiers of one shape with different weights, for base and tuned."""
    folders = [
        folder_of(kind, make_folder(f"{kind}-{seed}"), names=list(NAMES), seed=seed) for seed in (0, 1)
    ]
    return [load(str(folder)) for folder in folders]
