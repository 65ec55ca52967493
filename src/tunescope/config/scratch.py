"""The ``scratch:`` section of an arm: an architecture and its tokenizer, trained from nothing."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from tunescope.config.strict import Count, Name, NotNegative, Positive, Share, Strict, no_boolean

SHAPE = ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size", "bias", "tokenizer")
"""What ``like`` takes from another checkpoint."""


class ScratchConfig(Strict):
    """A small GPT-2 architecture and its tokenizer, trained from nothing before it is tuned.

    With ``epochs: 0`` no language is learnt: the weights stay random, and the arm shows what the shape alone is
    worth. Where both are given, ``block_size`` (nanoGPT's word) must equal ``n_positions``.
    """

    like: Name | None = Field(
        None,
        description="a GPT-2 model folder or hub id whose shape and tokenizer are copied, without its weights, or "
        "null",
    )
    n_layer: Count = Field(4, description="the number of layers: 1 or more")
    n_head: Count = Field(4, description="the number of attention heads: 1 or more, a divisor of n_embd")
    n_embd: Count = Field(128, description="the width: 1 or more, a multiple of n_head")
    n_positions: Count = Field(128, description="the most tokens of a text: 1 or more")
    block_size: Count | None = Field(None, description="another name of n_positions, or null")
    dropout: Share | None = Field(
        None,
        description="the dropout of learning the language and of tuning (0 to below 1), or null for none in the "
        "first and GPT-2's 0.1 in the second",
    )
    bias: bool = Field(True, description="true, or false for linear layers and norms without biases")
    initialisation: Literal["nanogpt", "plain"] = Field(
        "nanogpt",
        description="nanogpt (normal 0.02, output projections divided by the root of twice the layers, biases 0) or "
        "plain (normal 0.02 throughout)",
    )
    tokenizer: Name = Field(
        "bpe", description="bpe, characters, gpt2, or a folder or hub id that holds a tokenizer"
    )
    vocab_size: Annotated[int, BeforeValidator(no_boolean)] = Field(
        2000,
        ge=260,
        description="the most tokens of the byte-level BPE or characters (260 or more); other tokenizers have "
        "their own",
    )
    corpus: Name | None = Field(
        None, description="a text file to learn the language from, or null for the study's texts"
    )
    epochs: NotNegative = Field(
        3.0, description="passes over the corpus (0 or more; 0 leaves the weights random)"
    )
    learning_rate: Positive = Field(1e-3, description="the peak learning rate: a number above 0")
    weight_decay: NotNegative = Field(0.01, description="the weight decay of matrices: a number from 0")
    warmup: Share = Field(0.05, description="the share of steps that warm up: 0 to below 1")
    batch_size: Count = Field(32, description="windows of n_positions tokens in a batch: 1 or more")

    @model_validator(mode="before")
    @classmethod
    def _one_window(cls, value: Any) -> Any:
        if not isinstance(value, dict) or value.get("block_size") is None:
            return value
        given = value.get("n_positions", value["block_size"])
        if given != value["block_size"]:
            raise ValueError(
                f"block_size ({value['block_size']}) and n_positions ({given}) are two names of one number; give one"
            )
        return {**value, "n_positions": value["block_size"]}

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ScratchConfig:
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd ({self.n_embd}) must be a multiple of n_head ({self.n_head})")
        return self

    @model_validator(mode="after")
    def _like_has_the_shape(self) -> ScratchConfig:
        fields = type(self).model_fields
        twice = [name for name in SHAPE if getattr(self, name) != fields[name].default]
        if self.like is not None and twice:
            raise ValueError(
                f"like copies shape and tokenizer from {self.like!r}, so {', '.join(twice)} cannot be given beside it"
            )
        return self
