"""A pretrained language model with its own head: what it expects next, or behind a mask."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerBase

from tunescope.errors import ModelError
from tunescope.files import sha256_of
from tunescope.fingerprints import sha256_of_json
from tunescope.models.families import Family
from tunescope.models.load import position_limit
from tunescope.models.source import Source, check_source, hub_errors, read_config, read_tokenizer

Kind = Literal["causal", "masked"]


@dataclass(frozen=True)
class LanguageModel:
    """A language model in evaluation mode.

    Attributes:
        model: A ``...LMHeadModel`` or ``...ForMaskedLM`` in float32.
        tokenizer: Its fast tokenizer.
        family: The table of its architecture.
        kind: ``causal`` (predicts what follows) or ``masked`` (predicts what a mask hides).
        limit: The most tokens that its positions can number.
        before: Special tokens that stand before every text.
        after: Special tokens that stand after every text; none for a causal model.
        record: Where it comes from: ``path``, ``revision``, ``sha256`` of a local folder's weights,
            ``parameters`` and ``kind``.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    family: Family
    kind: Kind
    limit: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.model.parameters()).device

    def plain_ids(self, texts: list[str]) -> list[list[int]]:
        """Return the token ids of texts without special tokens."""
        if not texts:
            return []
        encoded = self.tokenizer(
            texts, add_special_tokens=False, truncation=False, padding=False, verbose=False
        )
        return [list(ids) for ids in encoded["input_ids"]]


def load_language_model(
    path: str, device: str | torch.device = "cpu", revision: str | None = None
) -> LanguageModel:
    """Load a checkpoint with its language-model head.

    Args:
        path: Model folder or hub id.
        device: Where to put the parameters.
        revision: Hub revision.

    Raises:
        ModelError: No such model, an unknown family, a classifier, an adapter, or a checkpoint without the
            weights of a language-model head: a head of random numbers would answer as if it had learnt.
    """
    source = Source(path, revision)
    check_source(source)
    if source.is_adapter or "tunescope_model_type" in source.read_json("config.json"):
        what = "a peft adapter" if source.is_adapter else "a tuned classifier"
        raise ModelError(
            f"{path} is {what}, not a language model.", hint="Give the base model to a zero_shot arm."
        )
    config, family, _ = read_config(source)
    _refuse_classifier(path, list(getattr(config, "architectures", None) or []))
    tokenizer = read_tokenizer(source, config)
    if not tokenizer.is_fast:
        raise ModelError(
            f"{path} has no fast tokenizer (tokenizer.json); cutting long texts needs to know each token's place.",
            hint="Save it once with AutoTokenizer.from_pretrained(...).save_pretrained(folder).",
        )
    kind: Kind = "causal" if family.own_pooling == "last" else "masked"
    auto: Any = AutoModelForCausalLM if kind == "causal" else AutoModelForMaskedLM
    with hub_errors(source):
        model, info = auto.from_pretrained(
            path,
            revision=revision,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    _refuse_incomplete(path, kind, info)
    if kind == "masked" and tokenizer.mask_token_id is None:
        raise ModelError(
            f"{path}: its tokenizer has no mask token, which zero_shot with an encoder needs.",
            hint="Give the tokenizer that the masked language model was trained with.",
        )
    before, after = _special_tokens(tokenizer)
    record = {
        "path": path,
        "revision": getattr(model.config, "_commit_hash", None) or revision,
        "sha256": weights_digest(path),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "kind": kind,
    }
    limit = position_limit(model.config, family)
    model = model.to(device).eval().requires_grad_(False)
    tail = () if kind == "causal" else after
    return LanguageModel(model, tokenizer, family, kind, limit, before, tail, record)


def weights_digest(path: str) -> str | None:
    """Return a checksum of a local folder's weights and tokenizer, or None for a hub id."""
    folder = Path(path)
    if not folder.is_dir():
        return None
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("tokenizer.json")])
    return sha256_of_json({file.name: sha256_of(file) for file in files})


def _refuse_classifier(path: str, architectures: list[str]) -> None:
    kinds = [name for name in architectures if "ForSequenceClassification" in name]
    if kinds:
        raise ModelError(
            f"{path} is a classifier ({kinds[0]}), not a language model.",
            hint="Give the base model to a zero_shot arm; classifiers are compared with tunescope compare.",
        )


def _refuse_incomplete(path: str, kind: Kind, info: dict[str, Any]) -> None:
    missing = sorted({*info["missing_keys"], *(entry[0] for entry in info.get("mismatched_keys", ()))})
    if not missing:
        return
    if kind == "masked":
        raise ModelError(
            f"{path} has no masked-language-model head: its weights lack {', '.join(missing[:3])}"
            f"{' ...' if len(missing) > 3 else ''}; without one it cannot say which word a mask hides.",
            hint="Use a checkpoint saved with its head (bert-base-uncased has one), or another method for this "
            "model, for example head_only.",
        )
    raise ModelError(
        f"{path} is not a complete language model: its weights lack {', '.join(missing[:3])}.",
        hint="Give a checkpoint saved as a causal language model, for example gpt2.",
    )


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the special tokens that the tokenizer puts before and after a text."""
    if int(tokenizer.num_special_tokens_to_add(pair=False)) == 0:
        return (), ()
    for text in ("a", "the", "1", "."):  # one of them has a token in every vocabulary of text
        encoded = tokenizer(text, add_special_tokens=True, return_special_tokens_mask=True)
        mask, ids = encoded["special_tokens_mask"], encoded["input_ids"]
        if 0 in mask:
            first, last = mask.index(0), len(mask) - mask[::-1].index(0)
            return tuple(ids[:first]), tuple(ids[last:])
    raise ModelError("The tokenizer knows neither letters nor digits, so its special tokens cannot be told.")
