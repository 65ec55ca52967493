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
        head: Attribute of the classification model that holds the last linear layer.
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
    counts_positions_by_pad_id: bool = False

    def path(self, role: str, layer: int | None = None) -> str:
        """Return the module path of ``role`` inside the trunk, with the layer filled in."""
        path = getattr(self, role)
        return path if layer is None else path.format(layer=layer)


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
}

BERT = Family(name="BERT", model_types=("bert",), head="classifier", **_BERT_PATHS)

ROBERTA = Family(
    name="RoBERTa",
    model_types=("roberta", "xlm-roberta", "camembert"),
    head="classifier.out_proj",
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
