"""Encoder-decoders: the tables of T5 and BART, and the two stacks of a model as one sees them from outside.

A table's own entries are those of the *decoder*, whose last block the head reads; ``encoder`` holds the encoder's.
As in transformers' classes, a classifier gives its text to both stacks, to the decoder one place to the right behind
the start token, and reads the decoder at the text's end token: there the decoder has seen the whole text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from tunescope.errors import ModelError
from tunescope.models.family import Family

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

StackName = Literal["encoder", "decoder"]
STACKS: tuple[StackName, ...] = ("encoder", "decoder")


def _t5(stack: StackName, mlp: str, **own: Any) -> Family:
    attention = f"{stack}.block.{{layer}}.layer.0.SelfAttention"
    return Family(
        name="T5",
        model_types=("t5",),
        norm_order="pre",
        embeddings=f"{stack}.embed_tokens",
        block=f"{stack}.block.{{layer}}",
        attention=attention,
        attention_projection=f"{attention}.o",
        mlp_projection=f"{stack}.block.{{layer}}.layer.{mlp}.DenseReluDense.wo",
        middle=f"{stack}.block.{{layer}}.layer.1.layer_norm",
        norms=(
            f"{stack}.block.{{layer}}.layer.0.layer_norm",
            f"{stack}.block.{{layer}}.layer.{mlp}.layer_norm",
        ),
        final_norm=f"{stack}.final_layer_norm",
        projection_is_conv1d=False,
        own_pooling="last",
        head="classification_head.out_proj",
        head_parts=("classification_head",),
        query=f"{attention}.q",
        key=f"{attention}.k",
        value=f"{attention}.v",
        pattern_at=2,  # behind the position bias, which the first block makes and the others are handed
        **own,
    )


_T5_CROSS = "decoder.block.{layer}.layer.1.EncDecAttention"
T5 = _t5(
    "decoder",
    mlp="2",
    caches=True,
    layers="num_decoder_layers",
    encoder=_t5("encoder", mlp="1"),
    cross_attention=_T5_CROSS,
    cross_attention_projection=f"{_T5_CROSS}.o",
    cross_attention_norm="decoder.block.{layer}.layer.1.layer_norm",
)


def _bart(stack: StackName, **own: Any) -> Family:
    attention = f"{stack}.layers.{{layer}}.self_attn"
    return Family(
        name="BART",
        model_types=("bart",),
        norm_order="post",
        embeddings=f"{stack}.layernorm_embedding",
        block=f"{stack}.layers.{{layer}}",
        attention=attention,
        attention_projection=f"{attention}.out_proj",
        mlp_projection=f"{stack}.layers.{{layer}}.fc2",
        middle=f"{stack}.layers.{{layer}}.self_attn_layer_norm",
        norms=(
            f"{stack}.layers.{{layer}}.self_attn_layer_norm",
            f"{stack}.layers.{{layer}}.final_layer_norm",
        ),
        final_norm=None,
        projection_is_conv1d=False,
        own_pooling="last",
        head="classification_head.out_proj",
        head_parts=("classification_head",),
        query=f"{attention}.q_proj",
        key=f"{attention}.k_proj",
        value=f"{attention}.v_proj",
        layers=f"{stack}_layers",
        heads=f"{stack}_attention_heads",
        **own,
    )


_BART_CROSS = "decoder.layers.{layer}.encoder_attn"
BART = _bart(
    "decoder",
    caches=True,
    encoder=_bart("encoder"),
    cross_attention=_BART_CROSS,
    cross_attention_projection=f"{_BART_CROSS}.out_proj",
    cross_attention_norm="decoder.layers.{layer}.encoder_attn_layer_norm",
)


@dataclass(frozen=True)
class Stack:
    """One stack of blocks.

    Attributes:
        name: ``encoder`` or ``decoder`` of an encoder-decoder; None where a model has one stack.
        family: Its table.
        n_layers: Number of blocks.
        n_heads: Number of heads in each block.
        head_width: Width of one head's output before the output projection.
    """

    name: StackName | None
    family: Family
    n_layers: int
    n_heads: int
    head_width: int

    def blocks(self) -> list[str]:
        """Return the paths of the blocks inside the trunk, in order."""
        return [self.family.path("block", layer) for layer in range(self.n_layers)]


def stacks_of(family: Family, config: PretrainedConfig) -> tuple[Stack, ...]:
    """Return the stacks of a model in the order in which they run: one, or encoder and decoder."""
    tables: list[tuple[StackName | None, Family]] = [(None, family)]
    if family.encoder is not None:
        tables = [("encoder", family.encoder), ("decoder", family)]
    found = []
    for name, table in tables:
        layers, heads = int(getattr(config, table.layers)), int(getattr(config, table.heads))
        # Qwen3's and some T5s' heads are none of equal shares of the width.
        own = getattr(config, "head_dim", None)
        width = int(config.hidden_size) // heads if own is None else int(own)
        found.append(Stack(name, table, layers, heads, width))
    return tuple(found)


def decoder_inputs(input_ids: torch.Tensor, config: PretrainedConfig) -> torch.Tensor:
    """Return what the decoder reads, [B, T]: the ids one place to the right, behind the start token.

    Raises:
        ModelError: The configuration names no start token.
    """
    start = config.decoder_start_token_id
    if start is None:
        raise ModelError(
            "The configuration has no decoder_start_token_id, so what the decoder begins with is not known.",
            hint="Set it in config.json: T5 starts with its pad token, BART with its end token.",
        )
    return torch.cat([torch.full_like(input_ids[:, :1], int(start)), input_ids[:, :-1]], dim=1)


def require_end_token(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, family: Family) -> None:
    """Refuse a tokenizer that does not end texts with the token at which the classifier reads the decoder.

    Raises:
        ModelError: Texts end with another token.
    """
    if family.encoder is None:
        return
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    ids = tokenizer("a")["input_ids"]
    if not ids or ids[-1] not in ends:
        raise ModelError(
            f"{family.name}'s classifier reads the decoder at the end token (id {config.eos_token_id}), and this "
            f"tokenizer ends texts with id {ids[-1] if ids else 'none'}.",
            hint="Use the tokenizer that the model was pretrained with.",
        )
