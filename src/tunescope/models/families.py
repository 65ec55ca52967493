"""The table that says where each architecture keeps its parts.

A *family* maps tunescope's sites to module paths inside the trunk (the model without its head), and records what
differs between architectures: norm order, orientation of the output projections, position offset, own pooling.
Adding an architecture adds one entry; :func:`tunescope.capture.verify` checks the entry on a real batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tunescope.errors import ModelError

Pooling = Literal["last", "mean", "first", "first_raw"]
AttentionPart = Literal["query", "key", "value"]
ATTENTION_PARTS: tuple[AttentionPart, ...] = ("query", "key", "value")
POOLINGS: tuple[Pooling, ...] = ("last", "mean", "first", "first_raw")


@dataclass(frozen=True)
class Family:
    """Where one architecture keeps its parts; ``{layer}`` stands for the block's number, counted from 0.

    Attributes:
        name: The name that reports and errors use.
        model_types: The ``model_type`` values of transformers' configurations that this entry covers.
        norm_order: ``pre`` (norm before each sublayer, one final norm) or ``post`` (norm after each sum).
        embeddings: Module whose output is the residual stream before block 0.
        block: One transformer block; its first argument is ``resid_pre``, its output ``resid_post``.
        attention: Module that returns the attention output and the attention pattern.
        attention_projection: The output projection; its input holds every head's ``head_z`` side by side.
        mlp_projection: The MLP's second projection; its input holds the neurons.
        middle: Module at whose input (``pre``) or output (``post``) ``resid_mid`` is read.
        final_norm: The norm after the last block, or None where there is none.
        projection_is_conv1d: Weights are stored input x output (GPT-2's Conv1D), not output x input (Linear).
        own_pooling: The pooling that the architecture's own classification class uses.
        head: Module of the classification model that is the last linear layer.
        head_parts: Modules of the classification model, in order, that its own class applies after pooling.
        head_reads_sequence: Whether the first of these reads position 0 of a sequence, not a pooled vector.
        head_activation_after: The part after which the own class applies a ReLU, or None.
        query: The projection that makes queries. Where ``query``, ``key`` and ``value`` are one module, its output
            holds the three side by side in this order.
        key: The projection that makes keys.
        value: The projection that makes values.
        has_token_types: The model reads ``token_type_ids``.
        caches: The model fills a key-value cache unless it is told not to.
        counts_positions_by_pad_id: The model derives positions from token ids, so tunescope passes them itself.
    """

    name: str
    model_types: tuple[str, ...]
    norm_order: Literal["pre", "post"]
    embeddings: str
    block: str
    attention: str
    attention_projection: str
    mlp_projection: str
    middle: str
    final_norm: str | None
    projection_is_conv1d: bool
    own_pooling: Pooling
    head: str
    head_parts: tuple[str, ...]
    query: str
    key: str
    value: str
    head_reads_sequence: bool = False
    head_activation_after: str | None = None
    has_token_types: bool = False
    caches: bool = False
    counts_positions_by_pad_id: bool = False

    def path(self, role: str, layer: int | None = None) -> str:
        """Return the module path of ``role`` inside the trunk, with the layer filled in."""
        path = getattr(self, role)
        return path if layer is None else path.format(layer=layer)

    @property
    def fuses_attention_inputs(self) -> bool:
        """Whether queries, keys and values come from one projection."""
        return self.query == self.key == self.value


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
    final_norm=None,
    projection_is_conv1d=False,
    own_pooling="first",
    head="classifier",
    head_parts=("pre_classifier", "dropout", "classifier"),
    head_activation_after="pre_classifier",
    query="transformer.layer.{layer}.attention.q_lin",
    key="transformer.layer.{layer}.attention.k_lin",
    value="transformer.layer.{layer}.attention.v_lin",
)

FAMILIES: tuple[Family, ...] = (GPT2, BERT, DISTILBERT, ROBERTA)


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
        hint="docs/architecture.md ('Adding an architecture') says how to add a table.",
    )
