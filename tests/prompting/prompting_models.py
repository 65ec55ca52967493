"""Tiny language models, rows for them, and a naive reference for the probability of an answer."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

from tiny import byte_bpe, word_piece
from tunescope.data.labels import LabelMap
from tunescope.data.rows import Rows


def small_gpt2(folder: Path, positions: int = 64) -> Path:
    torch.manual_seed(0)
    tokenizer = byte_bpe()
    shape = {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": positions, "initializer_range": 0.3}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0, **shape))
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def masked_folder(kind: str, folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = word_piece(kind=kind)
    common = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.3,
    }
    shape = {
        "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 64
    }  # fmt: skip
    if kind == "distilbert":
        own = {"n_layers": 2, "n_heads": 4, "dim": 32, "hidden_dim": 64, "max_position_embeddings": 64}
        model = DistilBertForMaskedLM(DistilBertConfig(**own, **common))
    elif kind == "bert":
        model = BertForMaskedLM(BertConfig(max_position_embeddings=64, **shape, **common))
    else:
        model = RobertaForMaskedLM(RobertaConfig(max_position_embeddings=66, **shape, **common))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rows_of(texts, labels, split="train", names=("bad", "good"), **more) -> Rows:
    frame = pl.DataFrame(
        {
            "row_id": [f"{split}{i}" for i in range(len(texts))],
            "position": list(range(len(texts))),
            "split": [split] * len(texts),
            "text": list(texts),
            "label": pl.Series(labels, dtype=pl.Int64),
            **more,
        }
    )
    return Rows(frame, LabelMap(tuple(names)), {"text": "sentence"})


def naive_causal(folder_or_model, prompt_ids, answer_ids) -> float:
    """Log-probability of an answer by one full pass over one sequence, token by token."""
    ids = torch.tensor([[*prompt_ids, *answer_ids]])
    with torch.no_grad():
        logs = folder_or_model(input_ids=ids).logits[0].double().log_softmax(-1)
    start = len(prompt_ids)
    return sum(float(logs[start + j - 1, token]) for j, token in enumerate(answer_ids))
