"""The one shape in which tunescope holds a text classifier: trunk, pooling by mask, head."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunescope.data.labels import LabelMap
from tunescope.errors import ModelError
from tunescope.models.encoder_decoder import Stack, decoder_inputs, stacks_of
from tunescope.models.families import Family, Pooling
from tunescope.models.heads import HeadKind, build_head, pool
from tunescope.models.packed import Layout
from tunescope.models.prefix import packed_pooled
from tunescope.models.saving import write_folder
from tunescope.models.windows import mean_by_row


class Classifier(nn.Module):
    """A text classifier whose logits never depend on padding side, padding amount or batch mates.

    It holds a transformers classification model, but pools by attention mask instead of comparing token ids.

    Args:
        model: A ``...ForSequenceClassification`` model.
        tokenizer: Its tokenizer.
        family: The table of the architecture.
        pooling: How final hidden states become one vector a row.
        labels: Names of the classes, in the order of the logits.
        max_length: Longest input in tokens.

    Attributes:
        head: Module from pooled vectors [B, D] to logits [B, C].
        record: What is known about the checkpoint (where from, revision, what was assumed).
        seed: The seed of the fresh head; adapters start from a stream derived from it.
        adapter_config: peft's configuration of the adapter that lives in place, or None.
        fresh_projections: Whether the projections under the adapter were drawn anew (study 002's slip), so that the
            adapter alone does not make the tuned model of the base.
        frozen_blocks: Leading blocks (and the embeddings, if it is above 0) that run without dropout even while
            the rest is trained, because nothing in them is.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        family: Family,
        pooling: Pooling,
        labels: LabelMap,
        max_length: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.family = family
        self.pooling: Pooling = pooling
        self.labels = labels
        self.max_length = max_length
        self.head: nn.Module = self._make_head()
        self.record: dict[str, Any] = {}
        self.seed = 0
        self.adapter_config: Any = None
        self.fresh_projections = False
        self.frozen_blocks = 0

    def _make_head(self) -> nn.Module:
        return build_head(self.model, self.family, self.pooling, self.head_kind)

    @property
    def trunk(self) -> PreTrainedModel:
        """The model without its head."""
        return cast(PreTrainedModel, self.model.base_model)

    @property
    def head_kind(self) -> HeadKind:
        """``softmax``, or ``sigmoid`` where one logit z is returned as (0, z)."""
        return cast(HeadKind, getattr(self.model.config, "tunescope_head", "softmax"))

    @property
    def is_plain(self) -> bool:
        """Whether transformers' own classification class expresses this pooling and head."""
        return self.pooling == self.family.own_pooling and self.head_kind == "softmax"

    @property
    def n_layers(self) -> int:
        """Number of transformer blocks; of an encoder-decoder, the decoder's."""
        return self.stacks[-1].n_layers

    @property
    def n_heads(self) -> int:
        """Number of attention heads in each block; of an encoder-decoder, the decoder's."""
        return self.stacks[-1].n_heads

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """The stacks of blocks in the order in which they run: one, or encoder and decoder."""
        return stacks_of(self.family, self.model.config)

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether there are an encoder and a decoder; ``family`` is then the decoder's table."""
        return self.family.encoder is not None

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return int(self.model.config.hidden_size)

    @property
    def head_width(self) -> int:
        """Width of one head's output before the output projection; Qwen3's is none of its width's shares."""
        return self.stacks[-1].head_width

    @property
    def is_parallel(self) -> bool:
        """Whether attention and MLP of a block both read ``resid_pre`` (GPT-NeoX); there is then no ``resid_mid``."""
        return self.family.is_parallel(self.model.config)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.model.parameters()).device

    def train(self, mode: bool = True) -> Classifier:
        """Set training mode; the embeddings and blocks that are frozen stay without dropout."""
        super().train(mode)
        if mode and self.frozen_blocks and self.is_encoder_decoder:
            self.trunk.eval()
        elif mode and self.frozen_blocks:
            self.trunk.get_submodule(self.family.embeddings).eval()
            for layer in range(self.frozen_blocks):
                self.trunk.get_submodule(self.family.path("block", layer)).eval()
        return self

    def set_frozen_blocks(self, count: int) -> None:
        """Say how many leading blocks are frozen, and so run without dropout from now on.

        Raises:
            ModelError: The model has not that many blocks.
        """
        if not 0 <= count <= self.n_layers:
            raise ModelError(f"{count} blocks cannot be frozen; the model has {self.n_layers}.")
        if self.is_encoder_decoder and count not in (0, self.n_layers):
            raise ModelError(
                f"{self.family.name} is an encoder-decoder, in which all blocks or none can be frozen; came {count}."
            )
        self.frozen_blocks = count
        self.train(self.training)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        row_of: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the logits [B, C] of token ids [B, T] under a mask [B, T] of ones (real) and zeros (padding).

        With ``lengths`` [B] in place of a mask the ids are [1, T]: all rows one after another, without padding.
        With ``row_of`` [B], which names the row that each sequence is a window of (0 to R - 1, each at least once),
        the logits of a row's windows are averaged, and the result is [R, C].
        """
        logits = self.head(self.pooled(input_ids, attention_mask, token_type_ids, lengths))
        return mean_by_row(logits, row_of)

    def pooled(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the vector that the head reads of every sequence, [B, D]; arguments as in :meth:`forward`.

        Raises:
            ModelError: There is neither a mask nor lengths, or the model cannot run without padding.
        """
        if lengths is not None:
            return packed_pooled(self, input_ids, Layout.of(lengths), token_type_ids)
        if attention_mask is None:
            raise ModelError("A batch needs an attention_mask, or the lengths of its rows without padding.")
        inputs = right_padded(input_ids, attention_mask, token_type_ids)
        if self.pooling == "last_padded":  # study 001 pads with id 0, and padding is what it reads
            inputs = (inputs[0] * inputs[1], *inputs[1:])
        return pool(self._hidden(*inputs), inputs[1], self.pooling)

    def hidden(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the final hidden states [B, T, D] (after the final norm), real tokens first in each row."""
        return self._hidden(*right_padded(input_ids, attention_mask, token_type_ids))

    def _hidden(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None
    ) -> torch.Tensor:
        arguments: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None and self.family.has_token_types:
            arguments["token_type_ids"] = token_type_ids
        if self.family.caches:
            arguments["use_cache"] = False
        if self.family.counts_positions_by_pad_id:
            start = int(self.model.config.pad_token_id) + 1
            positions = torch.arange(start, start + input_ids.shape[1], device=input_ids.device)
            arguments["position_ids"] = positions.expand(input_ids.shape)
        if self.is_encoder_decoder:
            arguments["decoder_input_ids"] = decoder_inputs(input_ids, self.model.config)
        return self.trunk(**arguments).last_hidden_state

    def pool(self, hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Pool right-padded hidden states [B, T, D] to [B, D] by this classifier's pooling."""
        return pool(hidden, attention_mask, self.pooling)

    def training_state(self) -> dict[str, torch.Tensor]:
        """Return what training changes: every parameter that requires gradients, and the head.

        The tensors are the live ones, detached: write or copy them before training goes on. Together with the base
        they are the whole tuned model, so :meth:`load_training_state` gives it back bit for bit.
        """
        head = {id(one) for one in self.head.parameters()}
        return {
            name.removeprefix("model."): parameter.detach()
            for name, parameter in self.named_parameters()
            if parameter.requires_grad or id(parameter) in head
        }

    def load_training_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Fill the parameters in place with a state of a classifier that was prepared in the same way.

        Raises:
            ModelError: The state has other tensors or other shapes.
        """
        own = self.training_state()
        different = sorted(set(own) ^ set(state)) or [
            name for name, tensor in own.items() if tensor.shape != state[name].shape
        ]
        if different:
            raise ModelError(
                f"The state is of another tuning: {len(different)} tensors differ, first {different[0]}.",
                hint="Prepare the classifier with the method and options that the state was made with.",
            )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state[name])

    @property
    def stored_bytes(self) -> int:
        """Bytes that must be stored beyond the base to have the tuned model again."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.training_state().values())

    def save(self, folder: Path, record: dict[str, Any] | None = None) -> None:
        """Write a transformers model folder (safetensors, tokenizer, label names).

        ``AutoModelForSequenceClassification`` reads it and gives the same logits. Where the pooling or the head is
        not the architecture's own, that class would pool or score silently wrong, so the folder carries a
        ``model_type`` which it refuses; :func:`tunescope.models.load` reads both. An adapter that lives in place is
        merged into these weights, and also written as it is to ``folder/adapter``, which peft reads.

        Raises:
            ModelError: The head was replaced (a probe, a reordered head) and cannot be expressed by the folder.
        """
        write_folder(self, folder, record)


def right_padded(
    input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Move every row's real tokens to the front, in order; what is already right-padded is returned as it is.

    Positions then count from the first real token in every architecture, whatever side a tokenizer pads on.

    Raises:
        ModelError: A row has no real token.
    """
    if not bool(attention_mask.any(1).all()):
        row = int((~attention_mask.any(1).bool()).nonzero()[0])
        raise ModelError(
            f"Row {row} of the batch has no token at all; a text of at least one token is needed."
        )
    if bool((attention_mask[:, 1:] <= attention_mask[:, :-1]).all()):
        return input_ids, attention_mask, token_type_ids
    order = torch.argsort(attention_mask, dim=1, descending=True, stable=True)
    moved = None if token_type_ids is None else token_type_ids.gather(1, order)
    return input_ids.gather(1, order), attention_mask.gather(1, order), moved
