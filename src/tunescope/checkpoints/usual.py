"""What a comparison looks through where nothing was said: the same lenses for all, as thorough as the size allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunescope.config import LensConfig
from tunescope.foreign import is_sentence_export, sentence_encoder
from tunescope.models.adapters import base_of
from tunescope.models.source import ADAPTER, Source, read_config

MOST_OPERATIONS = 2e13  # of a sweep over components: some minutes on one core
TOKENS = 32  # of a row, where its length is not known yet
WIDEST = 512  # of models whose matrices are taken apart whole: a decomposition grows with the width's cube
USUAL = ("weights", "cka", "logit_lens", "ablation")
ALONE = ("spread", "attention", "activations", "logit_lens", "ablation", "words")


@dataclass(frozen=True)
class Usual:
    """Lenses, and what was taken out of them for the model's size."""

    lenses: tuple[LensConfig, ...]
    notes: tuple[str, ...]


def usual_lenses(path: str, names: Sequence[str] = USUAL) -> Usual:
    """Return the usual lenses for a model of the size that its configuration says.

    Args:
        path: Folder, hub id or adapter.
        names: Which lenses: :data:`USUAL` for a pair, :data:`ALONE` for one model.

    Raises:
        ModelError: The model cannot be had.
    """
    layers, heads, width = _shape(path)
    notes = []
    weights: dict[str, Any] = {}
    if width > WIDEST and "weights" in names:
        weights = {"spectra": False}
        notes.append(
            f"weights: sizes of updates alone, for matrices {width} wide; --lens weights adds their ranks."
        )
    ablation: dict[str, Any] = {}
    # A change in a block costs that block and those behind it, half of them on average; base and tuned; the edits,
    # and random directions beside them.
    per_row = TOKENS * layers * 12 * width**2 * 2
    if 256 * per_row * (heads + 2) * layers * 3 > MOST_OPERATIONS:
        ablation = {"edits": ["mean"], "rows": {"n": 64}, "random_control": False}
        what = "every head and sublayer by its mean, on 64 rows, without random directions"
        if 64 * per_row * (heads + 2) * layers > MOST_OPERATIONS:
            ablation |= {"components": ["attention", "mlp"]}
            what = "attention and MLP sublayers by their mean, on 64 rows, and no single heads"
        notes.append(f"ablation: {what}, for a model of this size; --lens ablation is the whole sweep.")
    options: dict[str, dict[str, Any]] = {"weights": weights, "ablation": ablation}
    return Usual(tuple(LensConfig(lens=name, options=options.get(name, {})) for name in names), tuple(notes))


def _shape(path: str) -> tuple[int, int, int]:
    """Return the layers, heads and width of a model."""
    source = Source(sentence_encoder(path).folder if is_sentence_export(path) else path)
    if source.is_adapter:
        source = base_of(source, source.read_json(ADAPTER), None)
    config, family, _ = read_config(source)
    return int(getattr(config, family.layers)), int(getattr(config, family.heads)), int(config.hidden_size)
