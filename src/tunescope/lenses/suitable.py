"""Which lenses can look at a pair of models, and why the others cannot: a sentence each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tunescope.errors import LensError
from tunescope.lenses.language.language import ANY_SHAPE, WITHOUT_CLASSES, is_language, said_shape, same_shape
from tunescope.lenses.subject import Subject


def why_not(subject: Subject, lens: str, two_stacks: bool) -> str | None:
    """Return in a sentence why a lens cannot look at a subject, or None where it can.

    Args:
        subject: Base and tuned.
        lens: The lens's name.
        two_stacks: Whether the lens can look at encoder-decoders.
    """
    if subject.tuned.is_encoder_decoder and not two_stacks:
        return f"it cannot yet look at an encoder-decoder such as {subject.tuned.family.name}"
    if is_language(subject) and lens not in WITHOUT_CLASSES:
        return f"it needs classes, and {subject.arm} is a language model"
    if not same_shape(subject) and lens not in ANY_SHAPE:
        return (
            f"it compares part by part, and base ({said_shape(subject.base)}) and tuned ({said_shape(subject.tuned)}) "
            "differ in shape"
        )
    return None


def require_same_tokens(subject: Subject) -> None:
    """Refuse to compare models that would not see the same tokens.

    Entries that the tuned model's vocabulary has beyond the base's (a pad token that was added for training, say) do
    no harm while no row holds them.

    Raises:
        LensError: An entry means another token in the other model, or a row holds one that the base does not know.
    """
    base, tuned = subject.base.tokenizer.get_vocab(), subject.tuned.tokenizer.get_vocab()
    if base == tuned:
        return
    differ = [token for token, number in base.items() if tuned.get(token) != number]
    if differ:
        raise LensError(
            f"{subject.arm}: base and tuned have different vocabularies ({len(differ):,} of {len(base):,} entries "
            f"differ, {differ[0]!r} for one), so they cannot see the same tokens.",
            hint="Compare a tuned model with the base that it was tuned from.",
        )
    added = np.array(sorted(tuned[token] for token in tuned.keys() - base.keys()))
    holding = sum(
        bool(np.isin(np.asarray(ids), added).any())
        for tokens in subject.splits.values()
        for ids in tokens.input_ids
    )
    if holding:
        raise LensError(
            f"{subject.arm}: {holding:,} rows hold entries of the tuned model's vocabulary that the base does not know "
            f"({len(added):,} were added, {_token(tuned, int(added[0]))!r} for one), so the two cannot see the same.",
            hint="Leave those rows out, or compare with a base whose vocabulary was extended in the same way.",
        )


def _token(vocabulary: Mapping[str, int], number: int) -> str:
    return next(token for token, own in vocabulary.items() if own == number)


def remaining(
    subject: Subject, wanted: Sequence[str], two_stacks: Mapping[str, bool]
) -> tuple[list[str], dict[str, str]]:
    """Return the lenses of those wanted that can look at a subject, and for each of the others why it cannot."""
    refused = {
        name: reason for name in wanted if (reason := why_not(subject, name, two_stacks[name])) is not None
    }
    return [name for name in wanted if name not in refused], refused
