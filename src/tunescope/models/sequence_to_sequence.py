"""Encoder-decoders as language models: the loss of every token of a target, given an input.

The sites of both stacks can be read and edited as in a classifier. Partial runs are a classifier's; here every pass is
a whole one.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING

from tunescope.errors import ModelError
from tunescope.models.adapters import base_of
from tunescope.models.classifier import right_padded
from tunescope.models.encoder_decoder import decoder_inputs
from tunescope.models.families import Family
from tunescope.models.language import LanguageModel, merged
from tunescope.models.load import LONGEST_DEFAULT, position_limit
from tunescope.models.source import ADAPTER, Source, check_source, hub_errors, read_config, read_tokenizer


class TargetHead(nn.Module):
    """From the decoder's final states [..., D] to logits of the vocabulary [..., V], as the architecture does it."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        config: Any = model.config
        self.linear = model.get_submodule("lm_head")
        # T5 1.0 scales by the width before its tied head, T5 1.1 does not; BART adds a bias that is not trained.
        self.scale = float(config.d_model) ** -0.5 if getattr(config, "scale_decoder_outputs", False) else 1.0
        self.shift: Any = getattr(model, "final_logits_bias", None)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits of the vocabulary."""
        logits: torch.Tensor = self.linear(hidden * self.scale)
        return logits if self.shift is None else logits + self.shift


class SequenceToSequence(LanguageModel):
    """An encoder-decoder language model (T5, BART); it is asked for targets, and has no classes.

    Targets are padded on the right. A row's losses do not depend on padding side, padding amount or batch mates.
    """

    def _make_head(self) -> nn.Module:
        return TargetHead(self.model)

    def forward(  # type: ignore[override]
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        target_ids: torch.Tensor | None = None,
        target_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the logits [B, S, V] of every target token, given the input and the targets before it.

        Args:
            input_ids: Token ids of the input, [B, T].
            attention_mask: 1 for its real tokens, 0 for padding on either side, [B, T].
            target_ids: Token ids of the target with its end token, [B, S].
            target_mask: 1 for the target's real tokens, which come first, [B, S]; None means all of them.

        Raises:
            ModelError: There are no targets, or they are not padded on the right.
        """
        if target_ids is None:
            raise ModelError(
                f"{self.family.name} as a language model predicts a target from an input, and no target came; lenses "
                "of texts alone cannot look at it yet."
            )
        if target_mask is not None and not bool((target_mask[:, 1:] <= target_mask[:, :-1]).all()):
            raise ModelError("Targets must be padded on the right.")
        ids, mask, _ = right_padded(input_ids, attention_mask)
        trunk: Any = self.trunk
        encoded = trunk.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        states = trunk.decoder(
            input_ids=decoder_inputs(target_ids, self.model.config),
            encoder_hidden_states=encoded,
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state
        logits: torch.Tensor = self.head(states)
        return logits

    def target_loss(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        target_ids: torch.Tensor,
        target_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return minus the log probability of every target token in nats, [B, S]; 0 where the target is padding.

        Arguments are those of :meth:`forward`. The mean over real tokens is transformers' ``loss``.
        """
        logits = self(input_ids, attention_mask, target_ids, target_mask)
        loss = functional.cross_entropy(logits.transpose(1, 2), target_ids, reduction="none")
        return loss if target_mask is None else loss * target_mask


def load_sequence_to_sequence(
    path: str,
    *,
    base: str | None = None,
    max_length: int | None = None,
    device: str | torch.device = "cpu",
    revision: str | None = None,
) -> SequenceToSequence:
    """Load an encoder-decoder with its own language-model head: a folder, hub id, or a peft adapter of one (merged).

    Args:
        path: Model folder or hub id.
        base: Base model of an adapter, where the path inside the adapter is not to be used.
        max_length: Longest input in tokens; None means the model's limit, at most 512.
        device: Where to put the parameters.
        revision: Hub revision.

    Raises:
        ModelError: No such model, no encoder-decoder, or a checkpoint without a trained language-model head: one of
            random numbers would answer as if it had learnt.
        MissingDependencyError: ``path`` is an adapter and peft is not installed.
    """
    adapter = Source(path, revision)
    check_source(adapter)
    settings = adapter.read_json(ADAPTER) if adapter.is_adapter else {}
    source = base_of(adapter, settings, base) if settings else adapter
    config, family, _ = read_config(source)
    if family.encoder is None:
        raise ModelError(
            f"{path} is no encoder-decoder but a {family.name}.", hint="Open it with load_language_model."
        )
    if settings.get("task_type") == "SEQ_CLS":
        raise ModelError(
            f"{path} is the adapter of a classifier (task_type SEQ_CLS), not a language model's."
        )
    own_tokenizer = adapter.folder is not None and (adapter.folder / "tokenizer.json").is_file()
    tokenizer = read_tokenizer(adapter if own_tokenizer else source, config)
    model = _read_model(source, config, family)
    if settings:
        model = merged(model, adapter)
    limit = position_limit(config, family)
    if max_length is not None and not 1 <= max_length <= limit:
        raise ModelError(f"max_length {max_length} does not fit {path}: it numbers {limit} positions.")
    found = SequenceToSequence(model, tokenizer, family, "mean", max_length or min(limit, LONGEST_DEFAULT))
    found.record = {"path": path, "revision": revision, "head": "its own", "assumed": []}
    if settings:
        found.record["adapter_of"] = source.path
    return found.to(device).eval()


def _read_model(source: Source, config: PretrainedConfig, family: Family) -> PreTrainedModel:
    kind: Any = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING[type(config)]
    with hub_errors(source):
        model, info = kind.from_pretrained(
            source.path, config=copy.deepcopy(config), revision=source.revision, use_safetensors=True,
            trust_remote_code=False, dtype=torch.float32, output_loading_info=True,
        )  # fmt: skip
    missing = sorted({*info["missing_keys"], *(entry[0] for entry in info.get("mismatched_keys", ()))})
    kinds = getattr(config, "architectures", None) or ()
    # The head is tied to the embeddings, so that a classifier's folder would open without a word.
    if missing or any("ForSequenceClassification" in name for name in kinds):
        raise ModelError(
            f"{source.path} is no trained {family.name} language model ({', '.join(missing[:3] or kinds)}).",
            hint="Give a checkpoint that was saved as a ...ForConditionalGeneration model.",
        )
    loaded: PreTrainedModel = model.requires_grad_(False)
    return loaded
