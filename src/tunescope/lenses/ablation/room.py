"""Whether a sweep fits the memory that it may take, said before it starts."""

from __future__ import annotations

from collections.abc import Sequence

from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.lenses.ablation.components import Variant
from tunescope.lenses.ablation.effects import ARRAYS
from tunescope.lenses.ablation.sweep import stored_width
from tunescope.lenses.ablation.sweep_encoder_decoder import stream_width
from tunescope.models.classifier import Classifier


def require_room(model: Classifier, tokens: Tokens, wanted: Sequence[Variant], most: float) -> None:
    """Refuse a sweep whose effects and stored states would not fit, before it starts.

    Args:
        model: The model; a language model has no classes, and fewer effects.
        tokens: The rows.
        wanted: The changes.
        most: ``memory_gb`` of the lens.

    Raises:
        LensError: It would not fit; the plan, the flag and the rows that would are said.
    """
    effects = len(tokens) * len(wanted) * (8 * (len(ARRAYS) - 1) + 4 * len(model.labels.names)) / 1e9
    longest = max(len(ids) for ids in tokens.input_ids)
    stored = stream_width(model) if model.is_encoder_decoder else stored_width(model, wanted)
    states = longest * stored * 4 / 1e9
    if effects + states > most:
        raise LensError(
            f"The sweep of {len(wanted)} changes on {len(tokens)} rows would hold {effects:.2g} GB of effects and "
            f"{states:.2g} GB of stored states (rows of up to {longest} tokens), more than memory_gb: {most:g} allows.",
            hint=f"Raise the ablation's memory_gb above {effects + states:.2g}, or take fewer rows: "
            f"rows: {{n: {max(0, int(len(tokens) * (most - states) / effects))}}} would fit.",
        )
