"""The table that says where each architecture keeps its parts.

A *family* maps tunescope's sites to module paths inside the trunk (the model without its head), and records what
differs between architectures: norm order, orientation of the output projections, position offset, own pooling.
Adding an architecture adds one entry (docs/adding-an-architecture.md); :func:`tunescope.capture.verify` checks the
entry on a real batch.
"""

from __future__ import annotations

from typing import Any

from tunescope.errors import ModelError
from tunescope.models.encoder_decoder import BART, T5
from tunescope.models.family import (
    ATTENTION_PARTS,
    POOLINGS,
    PUBLISHED_POOLING,
    AttentionPart,
    Family,
    LanguageKind,
    Pooling,
)  # fmt: skip

__all__ = [
    "ATTENTION_PARTS", "FAMILIES", "POOLINGS", "PUBLISHED_POOLING", "AttentionPart", "Family", "LanguageKind",
    "Pooling", "family_of",
]  # fmt: skip

GPT2 = Family(
    name="GPT-2",
    model_types=("gpt2",),
    norm_order="pre",
    embeddings="drop",
    block="h.{layer}",
    attention="h.{layer}.attn",
    attention_projection="h.{layer}.attn.c_proj",
    mlp_projection="h.{layer}.mlp.c_proj",
    middle="h.{layer}.ln_2",
    norms=("h.{layer}.ln_1", "h.{layer}.ln_2"),
    final_norm="ln_f",
    projection_is_conv1d=True,
    own_pooling="last",
    head="score",
    head_parts=("score",),
    query="h.{layer}.attn.c_attn",
    key="h.{layer}.attn.c_attn",
    value="h.{layer}.attn.c_attn",
    caches=True,
)

_BERT_PATHS: dict[str, Any] = {
    "norm_order": "post",
    "embeddings": "embeddings",
    "block": "encoder.layer.{layer}",
    "attention": "encoder.layer.{layer}.attention",
    "attention_projection": "encoder.layer.{layer}.attention.output.dense",
    "mlp_projection": "encoder.layer.{layer}.output.dense",
    "middle": "encoder.layer.{layer}.attention.output",
    "norms": (
        "encoder.layer.{layer}.attention.output.LayerNorm",
        "encoder.layer.{layer}.output.LayerNorm",
    ),
    "language_kind": "masked",
    "final_norm": None,
    "projection_is_conv1d": False,
    "own_pooling": "first",
    "query": "encoder.layer.{layer}.attention.self.query",
    "key": "encoder.layer.{layer}.attention.self.key",
    "value": "encoder.layer.{layer}.attention.self.value",
    "has_token_types": True,
}

BERT = Family(
    name="BERT",
    model_types=("bert",),
    head="classifier",
    head_parts=("bert.pooler", "dropout", "classifier"),
    head_reads_sequence=True,
    language_head=("cls",),
    **_BERT_PATHS,
)

ROBERTA = Family(
    name="RoBERTa",
    model_types=("roberta", "xlm-roberta", "camembert"),
    head="classifier.out_proj",
    head_parts=("classifier",),
    head_reads_sequence=True,
    counts_positions_by_pad_id=True,
    **_BERT_PATHS,
)

DISTILBERT = Family(
    name="DistilBERT",
    model_types=("distilbert",),
    norm_order="post",
    embeddings="embeddings",
    block="transformer.layer.{layer}",
    attention="transformer.layer.{layer}.attention",
    attention_projection="transformer.layer.{layer}.attention.out_lin",
    mlp_projection="transformer.layer.{layer}.ffn.lin2",
    middle="transformer.layer.{layer}.sa_layer_norm",
    norms=("transformer.layer.{layer}.sa_layer_norm", "transformer.layer.{layer}.output_layer_norm"),
    final_norm=None,
    projection_is_conv1d=False,
    own_pooling="first",
    head="classifier",
    head_parts=("pre_classifier", "dropout", "classifier"),
    head_activation_after="pre_classifier",
    query="transformer.layer.{layer}.attention.q_lin",
    key="transformer.layer.{layer}.attention.k_lin",
    value="transformer.layer.{layer}.attention.v_lin",
    language_kind="masked",
    language_head=("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
)

GPT_NEOX = Family(
    name="GPT-NeoX",
    model_types=("gpt_neox",),
    norm_order="pre",
    embeddings="emb_dropout",
    block="layers.{layer}",
    attention="layers.{layer}.attention",
    attention_projection="layers.{layer}.attention.dense",
    mlp_projection="layers.{layer}.mlp.dense_4h_to_h",
    middle="layers.{layer}.post_attention_layernorm",
    norms=("layers.{layer}.input_layernorm", "layers.{layer}.post_attention_layernorm"),
    final_norm="final_layer_norm",
    projection_is_conv1d=False,
    own_pooling="last",
    head="score",
    head_parts=("score",),
    query="layers.{layer}.attention.query_key_value",
    key="layers.{layer}.attention.query_key_value",
    value="layers.{layer}.attention.query_key_value",
    fused_by_head=True,
    caches=True,
    rotary="rotary_emb",
    parallel_switch="use_parallel_residual",
)

_LLAMA_PATHS: dict[str, Any] = {
    "norm_order": "pre",
    "embeddings": "embed_tokens",
    "block": "layers.{layer}",
    "attention": "layers.{layer}.self_attn",
    "attention_projection": "layers.{layer}.self_attn.o_proj",
    "mlp_projection": "layers.{layer}.mlp.down_proj",
    "middle": "layers.{layer}.post_attention_layernorm",
    "norms": ("layers.{layer}.input_layernorm", "layers.{layer}.post_attention_layernorm"),
    "final_norm": "norm",
    "projection_is_conv1d": False,
    "own_pooling": "last",
    "head": "score",
    "head_parts": ("score",),
    "query": "layers.{layer}.self_attn.q_proj",
    "key": "layers.{layer}.self_attn.k_proj",
    "value": "layers.{layer}.self_attn.v_proj",
    "caches": True,
    "rotary": "rotary_emb",
}

LLAMA = Family(name="Llama", model_types=("llama",), **_LLAMA_PATHS)

QWEN2 = Family(name="Qwen2", model_types=("qwen2",), **_LLAMA_PATHS)

QWEN3 = Family(name="Qwen3", model_types=("qwen3",), **_LLAMA_PATHS)

FAMILIES: tuple[Family, ...] = (GPT2, BERT, DISTILBERT, ROBERTA, GPT_NEOX, LLAMA, QWEN2, QWEN3, T5, BART)


def family_of(model_type: str) -> Family:
    """Return the family that covers transformers' ``model_type``.

    Raises:
        ModelError: No family covers it; nothing is guessed, because a wrong site draws a plausible picture.
    """
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    known = ", ".join(kind for family in FAMILIES for kind in family.model_types)
    raise ModelError(
        f"The architecture {model_type!r} is of no known family; known model types: {known}.",
        hint="docs/adding-an-architecture.md says how to add a table, and how to check it.",
    )
