"""Whether looking at a training's fixed texts fits the memory that is there, said before the first look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunescope.data.tokens import Tokens
from tunescope.device import free_memory
from tunescope.errors import LensError
from tunescope.lenses.reading import PATTERN_CELLS, PROCESSOR_TOKENS
from tunescope.models.classifier import Classifier

SINGLE, DOUBLE = 4, 8  # bytes of a number
STATISTICS = 12  # numbers a head and text that the attention lens keeps, regions included
ALIVE = 6  # tensors of one block's width, and patterns of one block, that are alive at once
TWICE = 2  # kept states stand a second time where numbers are made of them; CKA was measured at 1.8
STATELESS = ("attention", "weights")  # lenses that keep no state of a text


@dataclass(frozen=True)
class Room:
    """Bytes that looks take beside the training, estimated.

    Attributes:
        copy: A copy of the model as it was, where one is made.
        batch: One batch in both models: activations of a block, attention patterns, logits over a vocabulary.
        text: What is kept of one text until the look ends.
        texts: How many texts there are.
    """

    copy: float
    batch: float
    text: float
    texts: int

    @property
    def whole(self) -> float:
        """All of it."""
        return self.copy + self.batch + self.text * self.texts


def room_of(model: Classifier, tokens: Tokens, lenses: Sequence[str], copy: bool) -> Room:
    """Estimate what looking takes.

    Of each text, every lens that reads states keeps the pooled state of each layer (and of the embeddings and the
    final norm) in both models in float64, twice over while numbers are made of it, and the attention lens some
    numbers a head. A batch holds as many tokens as reading takes at once, or one whole text.

    Args:
        model: The model that is being trained.
        tokens: The fixed texts.
        lenses: Names of the lenses.
        copy: Whether the base is a copy of the model.
    """
    config, heads = model.model.config, model.n_heads * model.n_layers
    longest = max(len(ids) for ids in tokens.input_ids)
    at_once = max(longest, min(PROCESSOR_TOKENS, sum(len(ids) for ids in tokens.input_ids)))
    width = model.width * (1 + 4)  # the stream and the MLP's neurons
    batch = at_once * width * ALIVE * SINGLE
    states = 2 * (model.n_layers + 2) * model.width * DOUBLE
    text = TWICE * states * sum(one not in STATELESS for one in lenses)
    if "attention" in lenses:
        batch += 2 * ALIVE * SINGLE * max(PATTERN_CELLS, model.n_heads * longest**2)
        text += 2 * heads * STATISTICS * DOUBLE
    if not model.labels.names:  # a language model
        batch += at_once * int(config.vocab_size) * SINGLE
    parameters = sum(one.numel() * one.element_size() for one in model.model.parameters()) if copy else 0
    return Room(float(parameters), float(batch), float(text), len(tokens.input_ids))


def require_room(room: Room, device: str, change: str) -> None:
    """Refuse looks that do not fit; where the system does not say what is free, nothing is refused.

    Args:
        room: The estimate.
        device: Where the model is.
        change: How fewer texts are asked for; ``{n}`` stands for their number.

    Raises:
        LensError: They would not fit.
    """
    free = free_memory(device)
    if free is None or room.whole <= free:
        return
    fit = int((free - room.copy - room.batch) / room.text) if room.text else room.texts
    hint = (
        f"Take fewer texts, {change.format(n=fit)}; about {fit:,} fit."
        if 0 < fit < room.texts
        else "No number of texts fits beside this model: free memory, or look at saved checkpoints afterwards."
    )
    raise LensError(
        f"Looking at {room.texts:,} texts would take about {_said(room.whole)}: {_said(room.copy)} for a copy of the "
        f"model, {_said(room.batch)} for one batch, {_said(room.text * room.texts)} for what is kept of the texts; "
        f"{_said(free)} are free.",
        hint=hint,
    )


def _said(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count / 1e6:.2f} MB"
