"""Tiny random classifiers of every architecture that tunescope knows, with tokenizers of whole words.

Weights are drawn wide enough that every part of the model matters; what is particular to an architecture (grouped
queries, rotary positions, a second stack) is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunescope.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

WORDS = (
    "the", "cat", "sat", "on", "warm", "mat", "and", "rain", "good", "day", "very", "sad", "old", "house", "he",
    "was", "angry", "noise", "street", "love", "film",
)  # fmt: skip
LABELS = ("bad", "fine", "good")
POSITIONS = 64
_HF = {"num_attention_heads": 4, "hidden_size": 32, "max_position_embeddings": POSITIONS}
_ENCODER = {**_HF, "intermediate_size": 64}
_DECODER = {**_HF, "intermediate_size": 48, "num_key_value_heads": 2}
_ROBERTA = {**_ENCODER, "max_position_embeddings": POSITIONS + 2}
_ROTARY = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}
# What a configuration of each model type needs beside what all share; ``layers`` is the name of its depth.
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"layers": "n_layer", "n_head": 4, "n_embd": 32, "n_positions": POSITIONS},
    "bert": {"layers": "num_hidden_layers", **_ENCODER},
    "distilbert": {
        "layers": "n_layers",
        "n_heads": 4,
        "dim": 32,
        "hidden_dim": 64,
        "max_position_embeddings": POSITIONS,
    },
    "roberta": {"layers": "num_hidden_layers", **_ROBERTA},
    "xlm-roberta": {"layers": "num_hidden_layers", **_ROBERTA},
    "camembert": {"layers": "num_hidden_layers", **_ROBERTA},
    "gpt_neox": {
        "layers": "num_hidden_layers",
        **_HF,
        "intermediate_size": 48,
        "rope_parameters": _ROTARY,
        "use_parallel_residual": True,
    },
    "llama": {"layers": "num_hidden_layers", **_DECODER},
    "qwen2": {"layers": "num_hidden_layers", **_DECODER},
    "qwen3": {"layers": "num_hidden_layers", "head_dim": 12, **_DECODER},  # no share of the width
    "t5": {
        "layers": "num_layers", "num_decoder_layers": 2, "num_heads": 4, "d_model": 32, "d_kv": 12, "d_ff": 48,
        "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16,
    },
    "bart": {
        "layers": "encoder_layers", "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 8,
        "encoder_ffn_dim": 48, "decoder_ffn_dim": 40, "d_model": 32, "max_position_embeddings": POSITIONS,
        "forced_eos_token_id": None,
    },
}  # fmt: skip
CAUSAL = ("gpt2", "gpt_neox", "llama", "qwen2", "qwen3")
TWO_STACKS = ("t5", "bart")
PAIRS_OF_BYTES = ("qwen2", "qwen3")  # whose folders are always read with a byte-pair tokenizer


@dataclass(frozen=True)
class RandomModel:
    """What a random model is to be.

    Attributes:
        kind: transformers' ``model_type``, a key of :data:`SHAPES`.
        layers: Blocks (of an encoder-decoder, of the encoder).
        labels: The classes.
        seed: Seeds every weight.
        scale: Standard deviation of the weights.
        words: The words that the tokenizer knows.
    """

    kind: str
    layers: int = 3
    labels: Sequence[str] = LABELS
    seed: int = 0
    scale: float = 0.3
    words: Sequence[str] = WORDS


def random_model(wish: RandomModel, folder: Path) -> Path:
    """Write a tiny random classifier folder and return it; the caller's random stream is left alone.

    Raises:
        ConfigError: No shape is known for this model type.
    """
    if wish.kind not in SHAPES:
        raise ConfigError(f"No tiny {wish.kind!r} can be made; known model types: {', '.join(SHAPES)}.")
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from tunescope.models.source import quiet_transformers

    tokenizer = _tokenizer(wish)
    shape = dict(SHAPES[wish.kind])
    depth = shape.pop("layers")
    ids: dict[str, Any] = {"pad_token_id": tokenizer.pad_token_id}
    for name in ("bos_token", "eos_token"):
        token = getattr(tokenizer, name)
        ids[f"{name}_id"] = ids["pad_token_id"] if token is None else getattr(tokenizer, f"{name}_id")
    if wish.kind in TWO_STACKS:
        start = "pad_token_id" if wish.kind == "t5" else "eos_token_id"
        ids["decoder_start_token_id"] = ids[start]
    with torch.random.fork_rng(devices=[]), torch.no_grad(), quiet_transformers():
        torch.manual_seed(wish.seed)
        config = AutoConfig.for_model(
            wish.kind, vocab_size=len(tokenizer) + 3, id2label=dict(enumerate(wish.labels)),
            label2id={name: index for index, name in enumerate(wish.labels)}, initializer_range=wish.scale,
            **{depth: wish.layers}, **ids, **shape,
        )  # fmt: skip
        model: Any = AutoModelForSequenceClassification.from_config(config)
        _draw(model, wish.scale)
        model.eval().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def _draw(model: Any, scale: float) -> None:
    """Draw weights, biases and gains alike: gains of one would hide that one is left out."""
    for name, parameter in model.named_parameters():
        gain = parameter.ndim == 1 and name.endswith("weight")
        bias = parameter.ndim == 1 and not gain
        parameter.normal_(1.0 if gain else 0.0, scale / 3 if bias else scale)


def _tokenizer(wish: RandomModel) -> PreTrainedTokenizerFast:
    """Return a tokenizer of whole words, with the special tokens that the architecture puts around a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    marked = wish.kind in ("roberta", "xlm-roberta", "camembert", *TWO_STACKS)
    specials = (
        ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
        if marked
        else ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    )
    vocabulary = {word: number for number, word in enumerate((*specials, *wish.words))}
    unknown = "<unk>" if marked else "[UNK]"
    if wish.kind in PAIRS_OF_BYTES:
        return _byte_pairs(wish)
    whole_words = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    whole_words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "<pad>" if marked else "[PAD]", "unk_token": unknown}
    first, last = ("<s>", "</s>") if marked else ("[CLS]", "[SEP]")
    if wish.kind not in CAUSAL:
        single = f"$A {last}" if wish.kind == "t5" else f"{first} $A {last}"
        whole_words.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=[(token, vocabulary[token]) for token in (first, last)]
        )
        names |= {"bos_token": first, "eos_token": last}
        if wish.kind not in TWO_STACKS:
            names |= {"cls_token": first, "sep_token": last, "mask_token": specials[-1]}
    return PreTrainedTokenizerFast(tokenizer_object=whole_words, model_max_length=POSITIONS, **names)


def _byte_pairs(wish: RandomModel) -> PreTrainedTokenizerFast:
    """Return a byte-pair tokenizer whose merges make whole words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[end],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pairs.train_from_iterator([" ".join(wish.words)] * 2, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=pairs, model_max_length=POSITIONS, pad_token=end, eos_token=end, unk_token=end
    )
