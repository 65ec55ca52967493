"""Verbalizers as tokens, one for every label."""

from __future__ import annotations

from tunescope.data.labels import LabelMap
from tunescope.data.table import listed, nearest
from tunescope.errors import ConfigError
from tunescope.prompting.language_model import LanguageModel
from tunescope.tuning.zero_shot import ZeroShotOptions


def answers_of(model: LanguageModel, options: ZeroShotOptions, labels: LabelMap) -> list[tuple[int, ...]]:
    """Return the token ids of every label's verbalizer, in the order of the labels.

    Raises:
        ConfigError: A label has no verbalizer, or one that is no label, has no token, is unknown to the
            tokenizer, or is the same tokens as another.
    """
    words = options.verbalizers
    missing = [name for name in labels.names if name not in words]
    unknown = [name for name in words if name not in labels.names]
    if unknown:
        match = nearest(unknown[0], missing or labels.names)
        raise ConfigError(
            f"verbalizers: {unknown[0]!r} is none of the labels {listed(labels.names)}.",
            hint=f"Did you mean {match!r}?" if match else "Give one verbalizer for each label.",
        )
    if missing:
        raise ConfigError(
            f"verbalizers lack the label{'s' if len(missing) > 1 else ''} {listed(missing)}.",
            hint="Give one verbalizer for each label; without one the class could never be chosen.",
        )
    answers = [tuple(ids) for ids in model.plain_ids([words[name] for name in labels.names])]
    seen: dict[tuple[int, ...], str] = {}
    for name, ids in zip(labels.names, answers, strict=True):
        if not ids:
            raise ConfigError(
                f"verbalizers: {words[name]!r} of label {name!r} has no token under this tokenizer.",
                hint="Give it a word.",
            )
        if model.tokenizer.unk_token_id in ids and str(model.tokenizer.unk_token) not in words[name]:
            raise ConfigError(
                f"verbalizers: {words[name]!r} of label {name!r} is unknown to this tokenizer "
                f"({model.tokenizer.unk_token}).",
                hint="Give it a word of the model's vocabulary.",
            )
        if ids in seen:
            raise ConfigError(
                f"verbalizers: {words[seen[ids]]!r} of {seen[ids]!r} and {words[name]!r} of {name!r} are the same "
                f"tokens {list(ids)}, so the two labels could not be told apart.",
                hint="Give them different words.",
            )
        seen[ids] = name
    return answers
