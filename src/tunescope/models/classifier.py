"""The one shape in which tunescope holds a text classifier: trunk, pooling by mask, head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tunescope.data.labels import LabelMap
from tunescope.errors import ModelError
from tunescope.files import FORMAT_VERSION, write_atomic
from tunescope.models.families import Family, Pooling
from tunescope.models.heads import build_head, pool
from tunescope.models.source import quiet_transformers

OWN_TYPE = "tunescope-{model_type}-{pooling}"
RECORD = "tunescope.json"


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
        self.head = build_head(model, family, pooling)
        self.record: dict[str, Any] = {}

    @property
    def trunk(self) -> PreTrainedModel:
        """The model without its head."""
        return cast(PreTrainedModel, self.model.base_model)

    @property
    def n_layers(self) -> int:
        """Number of transformer blocks."""
        return int(self.model.config.num_hidden_layers)

    @property
    def n_heads(self) -> int:
        """Number of attention heads in each block."""
        return int(self.model.config.num_attention_heads)

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return int(self.model.config.hidden_size)

    @property
    def head_width(self) -> int:
        """Width of one head's output before the output projection."""
        return self.width // self.n_heads

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.model.parameters()).device

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the logits [B, C] of token ids [B, T] under a mask [B, T] of ones (real) and zeros (padding)."""
        inputs = right_padded(input_ids, attention_mask, token_type_ids)
        hidden = self._hidden(*inputs)
        return self.head(pool(hidden, inputs[1], self.pooling))

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
        if (
            token_type_ids is not None
            and self.family.norm_order == "post"
            and self.family.name != "DistilBERT"
        ):
            arguments["token_type_ids"] = token_type_ids
        if self.family.name == "GPT-2":
            arguments["use_cache"] = False
        if self.family.counts_positions_by_pad_id:
            start = int(self.model.config.pad_token_id) + 1
            positions = torch.arange(start, start + input_ids.shape[1], device=input_ids.device)
            arguments["position_ids"] = positions.expand(input_ids.shape)
        return self.trunk(**arguments).last_hidden_state

    def pool(self, hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Pool right-padded hidden states [B, T, D] to [B, D] by this classifier's pooling."""
        return pool(hidden, attention_mask, self.pooling)

    def save(self, folder: Path, record: dict[str, Any] | None = None) -> None:
        """Write a transformers model folder (safetensors, tokenizer, label names).

        ``AutoModelForSequenceClassification`` reads it and gives the same logits. Where the pooling is not the
        architecture's own, that class would pool silently wrong, so the folder carries a ``model_type`` which it
        refuses; :func:`tunescope.models.load` reads both.

        Raises:
            ModelError: The head was replaced (a probe, a reordered head) and cannot be expressed by the folder.
        """
        expected = build_head(self.model, self.family, self.pooling)
        if type(self.head) is not type(expected):
            raise ModelError("A base with a probe head or a reordered head cannot be saved as a checkpoint.")
        config = self.model.config
        config.id2label = dict(enumerate(self.labels.names))
        config.label2id = {name: index for index, name in enumerate(self.labels.names)}
        config.problem_type = "single_label_classification"
        config.pad_token_id = self.tokenizer.pad_token_id
        folder.mkdir(parents=True, exist_ok=True)
        with quiet_transformers():
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        if self.pooling != self.family.own_pooling:
            _mark_as_own(folder / "config.json", self.pooling)
        about = {
            "format_version": FORMAT_VERSION,
            "pooling": self.pooling,
            "max_length": self.max_length,
            "labels": list(self.labels.names),
            **(record or {}),
        }
        write_atomic(folder / RECORD, json.dumps(about, indent=2, ensure_ascii=False) + "\n")


def _mark_as_own(path: Path, pooling: str) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tunescope_model_type"] = config["model_type"]
    config["model_type"] = OWN_TYPE.format(model_type=config["model_type"], pooling=pooling)
    config["architectures"] = [f"Tunescope{pooling.title().replace('_', '')}PooledClassifier"]
    write_atomic(path, json.dumps(config, indent=2) + "\n")


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
