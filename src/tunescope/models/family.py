"""What a table of an architecture says: where its parts are, and how they are put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Pooling = Literal["last", "mean", "first", "first_raw", "last_padded"]
AttentionPart = Literal["query", "key", "value"]
LanguageKind = Literal["causal", "masked"]
ATTENTION_PARTS: tuple[AttentionPart, ...] = ("query", "key", "value")
POOLINGS: tuple[Pooling, ...] = ("last", "mean", "first", "first_raw")
PUBLISHED_POOLING: Pooling = "last_padded"  # study 001's slip: it reads padding, so it depends on batch mates


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
        mlp_projection: The MLP's last projection; its input holds the neurons (of a gated MLP: the gated products).
        middle: Module at whose input (``pre``) or output (``post``) ``resid_mid`` is read.
        norms: The two norms of a block on the residual path: before attention and MLP (``pre``), or after (``post``).
        final_norm: The norm after the last block, or None where there is none.
        projection_is_conv1d: Weights are stored input x output (GPT-2's Conv1D), not output x input (Linear).
        own_pooling: The pooling that the architecture's own classification class uses.
        head: Module of the classification model that is the last linear layer.
        head_parts: Modules of the classification model, in order, that its own class applies after pooling.
        head_reads_sequence: Whether the first of these reads position 0 of a sequence, not a pooled vector.
        head_activation_after: The part after which the own class applies a ReLU, or None.
        query: The projection that makes queries. Where ``query``, ``key`` and ``value`` are one module, its output
            holds the three side by side in this order, unless ``fused_by_head``.
        key: The projection that makes keys.
        value: The projection that makes values.
        fused_by_head: The one projection's output holds query, key and value of head 0, then those of head 1, ...
        has_token_types: The model reads ``token_type_ids``.
        caches: The model fills a key-value cache unless it is told not to.
        counts_positions_by_pad_id: The model derives positions from token ids, so tunescope passes them itself.
        rotary: Module that makes the rotary position embeddings that every block is called with, or None.
        parallel_switch: Name of the configuration's field which says whether attention and MLP of a block both read
            ``resid_pre`` and are added together (there is then no ``resid_mid``); None where they never do.
        language_kind: ``causal`` (predicts the next token) or ``masked`` (predicts tokens behind a mask).
        language_head: Modules of the language model, in order, from final hidden states to logits of the vocabulary.
        encoder: The table of a second stack that is run first (T5, BART), with paths inside the same trunk; None for
            one stack. The table itself is then the decoder's.
        cross_attention: The decoder's module that attends to the encoder's output, as ``attention``; None without.
        cross_attention_projection: Its output projection, as ``attention_projection``; None without.
        cross_attention_norm: The norm of cross-attention, as those of ``norms``; None without.
        layers: The configuration's name for the number of blocks.
        heads: The configuration's name for the number of heads in a block.
        pattern_at: Which entry of the attention module's output is the attention pattern.
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
    norms: tuple[str, str]
    final_norm: str | None
    projection_is_conv1d: bool
    own_pooling: Pooling
    head: str
    head_parts: tuple[str, ...]
    query: str
    key: str
    value: str
    fused_by_head: bool = False
    head_reads_sequence: bool = False
    head_activation_after: str | None = None
    has_token_types: bool = False
    caches: bool = False
    counts_positions_by_pad_id: bool = False
    rotary: str | None = None
    parallel_switch: str | None = None
    language_kind: LanguageKind = "causal"
    language_head: tuple[str, ...] = ("lm_head",)
    encoder: Family | None = None
    cross_attention: str | None = None
    cross_attention_projection: str | None = None
    cross_attention_norm: str | None = None
    layers: str = "num_hidden_layers"
    heads: str = "num_attention_heads"
    pattern_at: int = 1

    def path(self, role: str, layer: int | None = None) -> str:
        """Return the module path of ``role`` inside the trunk, with the layer filled in."""
        path: str = getattr(self, role)
        return path if layer is None else path.format(layer=layer)

    @property
    def fuses_attention_inputs(self) -> bool:
        """Whether queries, keys and values come from one projection."""
        return self.query == self.key == self.value

    def is_parallel(self, config: Any) -> bool:
        """Whether attention and MLP of a block of this configuration both read ``resid_pre``."""
        return self.parallel_switch is not None and bool(getattr(config, self.parallel_switch))
