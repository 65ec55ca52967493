"""Hand-set classifiers in which one dimension of the residual stream decides, and no other does anything.

They extend :mod:`tunescope.planted.decisive`: the planted head writes the answer s, here on a single dimension d (and
minus as much, spread over dimensions that nobody reads, so that the stream keeps its mean of 0). The readout takes d
minus a dimension that is always 0, so that no mean matters to it. Every layer norm has an epsilon so large that its
denominator is a constant, and a gain that undoes it: it takes the mean away and nothing else. The logits are therefore
a function of dimension d alone; every other dimension is busy, and zeroing it changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunescope.errors import ConfigError
from tunescope.files import read_json, write_json
from tunescope.planted import decisive
from tunescope.planted.decisive import (
    ANSWER,
    EPSILON,
    N_HEADS,
    N_LAYERS,
    POOL,
    READ,
    WIDTH,
    HeadFamily,
    PlantedHead,
)

if TYPE_CHECKING:
    import torch

HEAD = 2
DIMENSION = 2 * ANSWER  # its neighbour in the pair is always 0
LARGE = 1e10  # of a norm; beside it no variance is seen in float32
TOWARDS_NEGATIVE = 0.1  # what the head says without the dimension, in half margins
TRUTH = "planted_dimension.json"


class _PlainHead(PlantedHead):
    """The head that writes the answer, reading embeddings that no norm has scaled."""

    def _scale_before(self) -> float:
        return 1.0


@dataclass(frozen=True)
class PlantedDimension:
    """What was planted, and the closed forms of what the model does with and without it.

    Attributes:
        family: ``gpt2`` (pre-norm, last token) or ``bert`` (post-norm, first token).
        layer: The layer whose head writes on the dimension; it decides behind this block and every later one.
        dimension: Which one.
    """

    family: HeadFamily
    layer: int
    dimension: int

    def margin(self, text: str, label: int, without: bool = False) -> float:
        """Return the logit margin z_label - z_other in closed form.

        Args:
            text: The text.
            label: 0 (negative) or 1 (positive).
            without: Whether the dimension is zero behind ``layer`` or a later block.
        """
        signal = 0.0 if without else _PlainHead(self.family, self.layer, HEAD).signal(text)
        read = signal if self.family == "gpt2" else math.tanh(POOL * signal)
        return 2 * (READ * read - TOWARDS_NEGATIVE) * (1 if label == 1 else -1)

    def effect(self, text: str, label: int) -> float:
        """Return the change of the margin when the dimension is zeroed."""
        return self.margin(text, label, without=True) - self.margin(text, label)


def planted_dimension_model(family: HeadFamily, layer: int, folder: Path) -> PlantedDimension:
    """Save a classifier folder in which one residual dimension decides; return the truth.

    Raises:
        ConfigError: No such family or layer.
    """
    if family not in EPSILON or not 0 <= layer < N_LAYERS:
        raise ConfigError(
            f"No planted dimension {family} layer {layer}: expected gpt2 or bert, layer 0 to {N_LAYERS - 1}."
        )
    import torch

    from tunescope.models.source import quiet_transformers

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model, tokenizer = (decisive._gpt2 if family == "gpt2" else decisive._bert)(layer, HEAD)
        _linear_norms(model)
        (_plant_gpt2 if family == "gpt2" else _plant_bert)(model, layer)
    with quiet_transformers():
        model.eval().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    truth = PlantedDimension(family, layer, DIMENSION)
    write_json(folder / TRUTH, asdict(truth))
    return truth


def load_planted_dimension(folder: Path) -> PlantedDimension:
    """Read back what :func:`planted_dimension_model` planted in a folder."""
    content = read_json(folder / TRUTH)
    return PlantedDimension(content["family"], content["layer"], content["dimension"])


def _linear_norms(model: Any) -> None:
    """Let every layer norm take the mean away and nothing else; the saved configuration says so."""
    import torch

    for name in ("layer_norm_epsilon", "layer_norm_eps"):
        if hasattr(model.config, name):
            setattr(model.config, name, LARGE)
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = LARGE
            module.weight.fill_(math.sqrt(LARGE))


def _written() -> torch.Tensor:
    """Return what the head writes for an answer of 1, [D]; of mean 0, and 0 on the dimension that is subtracted."""
    import torch

    unread = [place for place in range(WIDTH) if place not in (DIMENSION, DIMENSION + 1)]
    vector = torch.zeros(WIDTH)
    vector[DIMENSION] = 2.0  # the reader of a pair takes half the difference
    vector[unread] = -2.0 / len(unread)
    return vector


def _plant_gpt2(model: Any, layer: int) -> None:
    width = WIDTH // N_HEADS
    model.transformer.h[layer].attn.c_proj.weight[HEAD * width] = _written()
    positive = READ * decisive._reader(ANSWER)
    model.score.weight.copy_(_both(positive))
    # The classifier has no bias; the final norm's, on the dimension alone, stands in for one.
    model.transformer.ln_f.bias[DIMENSION] = -TOWARDS_NEGATIVE / float(positive[DIMENSION])


def _plant_bert(model: Any, layer: int) -> None:
    width = WIDTH // N_HEADS
    model.bert.encoder.layer[layer].attention.output.dense.weight[:, HEAD * width] = _written()
    model.bert.pooler.dense.weight.zero_()
    model.bert.pooler.dense.weight[DIMENSION] = POOL * decisive._reader(ANSWER)
    model.classifier.weight.zero_()
    model.classifier.weight[:, DIMENSION] = _both(READ)
    model.classifier.bias.copy_(_both(-TOWARDS_NEGATIVE))


def _both(positive: torch.Tensor | float) -> torch.Tensor:
    import torch

    value = torch.as_tensor(positive)
    return torch.stack([-value, value])
