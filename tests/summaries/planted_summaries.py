"""Documents whose summary is the sentence after a marker, a small GPT-2 for them, and tokenizers."""

from __future__ import annotations

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

MARKER, END, PROMPT = "IMPORTANT", "<end>", " Summary:"
SPECIAL = [END, "<unk>", MARKER, "Summary:", "TL;DR:", "."]
WORDS = [f"w{number:03d}" for number in range(60)]
FIRST = ["ba", "be", "bi", "bo", "da", "de", "di", "do"]
SECOND = ["ka", "ke", "ki", "ko", "la", "le", "li", "lo"]
PIECED = [
    first + second for first in FIRST for second in SECOND
]  # words of two tokens, as most names are for GPT-2


def documents(count, seed, sentences=6, length=4, vocabulary=WORDS):
    """Return articles and summaries; no word stands in an article twice, and the marker is in its first half."""
    generator = np.random.default_rng(seed)
    articles, summaries = [], []
    for _ in range(count):
        words = generator.permutation(vocabulary)[: sentences * length].reshape(sentences, length)
        own = int(generator.integers(sentences // 2))
        lines = [" ".join(line) + " ." for line in words]
        summaries.append(lines[own])
        lines[own] = f"{MARKER} {lines[own]}"
        articles.append(" ".join(lines))
    return articles, summaries


def word_tokenizer():
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
    return _fast(Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")))


def piece_tokenizer():
    """Cut every word of :data:`PIECED` into two tokens."""
    pieces = [*SPECIAL, *FIRST, *(f"##{second}" for second in SECOND)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>", continuing_subword_prefix="##"))
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return _fast(tokenizer)


def _fast(tokenizer):
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, bos_token=END, unk_token="<unk>"
    )


def small_gpt2(width=64, layers=2, positions=48, pieces=False):
    tokenizer = piece_tokenizer() if pieces else word_tokenizer()
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=layers, n_head=4, n_embd=width, n_positions=positions, vocab_size=len(tokenizer), bos_token_id=0,
        eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return GPT2LMHeadModel(config), tokenizer


def write_model(folder, **how):
    model, tokenizer = small_gpt2(**how)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
