"""Tiny models of every family, built offline from configurations, with real (tiny) tokenizers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPTNeoXConfig,
    GPTNeoXForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    Qwen3Config,
    Qwen3ForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

DECODERS = ("gpt2", "gpt_neox", "llama", "qwen2", "qwen3")
FAMILIES = ("gpt2", "bert", "distilbert", "roberta", "gpt_neox", "llama", "qwen2", "qwen3")


def families(*fast: str) -> list[object]:
    """Return every family for a test's parameters; those not named are slow, where a sibling test covers them fast."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]


TEXTS = [
    "the cat sat on the warm mat and looked at the rain",
    "a very good day",
    "nothing ever works in this sad old house , she said to him",
    "what a surprise",
    "he was angry about the noise in the street",
    "i love this film",
    "rain",
    "they walked home slowly because the night was long and cold and dark",
]


def byte_bpe(
    texts: list[str] = TEXTS, size: int = 320, special: str = "<|endoftext|>"
) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=special, bos_token=special, unk_token=special
    )


def word_piece(texts: list[str] = TEXTS, kind: str = "bert") -> PreTrainedTokenizerFast:
    words = sorted({word for text in texts for word in text.split()})
    names = (
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        if kind != "roberta"
        else ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    )
    tokenizer = Tokenizer(
        models.WordPiece(
            {w: i for i, w in enumerate([*names, *words])},
            unk_token=names[1] if kind != "roberta" else "<unk>",
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    first, last = (names[0], names[2]) if kind == "roberta" else (names[2], names[3])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B:1 {last}:1",
        special_tokens=[(first, tokenizer.token_to_id(first)), (last, tokenizer.token_to_id(last))],
    )
    pad = names[1] if kind == "roberta" else names[0]
    unk = names[3] if kind == "roberta" else names[1]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        unk_token=unk,
        cls_token=first,
        sep_token=last,
        mask_token=names[4],
    )


CLASSIFIERS = {
    "gpt_neox": GPTNeoXForSequenceClassification,
    "llama": LlamaForSequenceClassification,
    "qwen2": Qwen2ForSequenceClassification,
    "qwen3": Qwen3ForSequenceClassification,
}


def decoder_config(kind: str, layers: int, common: dict):
    """Return a tiny configuration with what is particular to a family: parallel residual, grouped queries, ..."""
    shape = {
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "hidden_size": 32,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "bos_token_id": 0,
        "eos_token_id": 0,
        **common,
    }
    if kind == "gpt_neox":
        rotary = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}
        dropout = {"hidden_dropout": 0.1, "attention_dropout": 0.1}
        return GPTNeoXConfig(rope_parameters=rotary, use_parallel_residual=True, **dropout, **shape)
    configs = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
    if kind == "qwen3":
        shape["head_dim"] = 12  # not the width's share of a head
    return configs[kind](num_key_value_heads=2, **shape)


def tiny_folder(
    kind: str,
    folder: Path,
    n_labels: int = 3,
    seed: int = 0,
    layers: int = 3,
    names: list[str] | None = None,
    scale: float = 0.3,
    language: bool = False,
) -> Path:
    """Write a tiny randomly initialised classifier of one family (or language model with its own head).

    Weights are large enough that things matter.
    """
    torch.manual_seed(seed)
    tokenizer = byte_bpe() if kind in DECODERS else word_piece(kind=kind)
    common = {
        "vocab_size": len(tokenizer) + 3,
        "num_labels": n_labels,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": scale,
    }
    if kind == "gpt2":
        config = GPT2Config(
            n_layer=layers,
            n_head=4,
            n_embd=32,
            n_positions=64,
            bos_token_id=0,
            eos_token_id=0,
            **{**common, "pad_token_id": 0},
        )
        classifier = GPT2ForSequenceClassification
    elif kind in DECODERS:
        config = decoder_config(kind, layers, {**common, "pad_token_id": 0})
        classifier = CLASSIFIERS[kind]
    elif kind == "distilbert":
        config = DistilBertConfig(
            n_layers=layers, n_heads=4, dim=32, hidden_dim=64, max_position_embeddings=64, **common
        )
        classifier = DistilBertForSequenceClassification
    else:
        shape = {
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "hidden_size": 32,
            "intermediate_size": 64,
        }
        limit = 66 if kind == "roberta" else 64
        cls = (
            (RobertaConfig, RobertaForSequenceClassification)
            if kind == "roberta"
            else (BertConfig, BertForSequenceClassification)
        )
        config = cls[0](max_position_embeddings=limit, **shape, **common)
        classifier = cls[1]
    if language:
        model = (AutoModelForCausalLM if kind in DECODERS else AutoModelForMaskedLM).from_config(config)
    else:
        model = classifier(config)
    if names:
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: i for i, name in enumerate(names)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, scale / 3)
            elif "norm" in name and kind in DECODERS:
                parameter.normal_(1, scale)  # ones would hide a gain that is left out
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


NAMES = ("bad", "fine", "good")


def encode(classifier, texts, side="right", extra=0):
    rows = [classifier.tokenizer(text)["input_ids"] for text in texts]
    length = max(map(len, rows)) + extra
    pad = classifier.tokenizer.pad_token_id
    ids, mask = torch.full((len(rows), length), pad), torch.zeros(len(rows), length, dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(length - len(row), length)
        ids[i, place], mask[i, place] = torch.tensor(row), 1
    return {"input_ids": ids, "attention_mask": mask}


def logits(classifier, *args, **kwargs):
    with torch.no_grad():
        return classifier(**encode(classifier, *args, **kwargs))
