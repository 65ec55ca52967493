"""Hand-set classifiers with a small circuit: two heads that stand in for each other, or one neuron that decides.

They extend :mod:`tunescope.planted.decisive`. The planted head does not write the answer itself but a faint *signal*,
and the MLP of its layer reads the signal, greatly amplified, and writes the *decision* that the head of the
classifier reads beside the prior.

- ``redundant``: two equal heads write the signal and four neurons clip it to -1 ... 1, far into saturation. Without one
  of the heads the decision is the same; without both it is gone.
- ``neuron``: one head writes, and one neuron passes on what is positive. Without the neuron every text is "negative".

Everything else is silent: its ablation changes nothing, not even by rounding.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunescope.errors import ConfigError
from tunescope.files import read_json, write_json
from tunescope.planted import decisive
from tunescope.planted.decisive import (
    ANSWER,
    EPSILON,
    IDENTITY,
    IDENTITY_NORM,
    N_HEADS,
    N_LAYERS,
    POOL,
    PRIOR_VALUE,
    READ,
    READ_PRIOR,
    SQUARED_NORM,
    WIDTH,
    HeadFamily,
    PlantedHead,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

CircuitKind = Literal["redundant", "neuron"]
DECISION = WIDTH // 2 - 1  # a pair of coordinates that is taken from the tokens' identity
FAINT, GAIN = 0.01, {"redundant": 2000.0, "neuron": 200.0}
NEURONS = {"redundant": (5, 17, 40, 99), "neuron": (42,)}
N_NEURONS = 4 * WIDTH
TRUTH = "planted_circuit.json"


@dataclass(frozen=True)
class PlantedCircuit:
    """What was planted, and the closed forms of what the model does with and without it.

    Attributes:
        family: ``gpt2`` (pre-norm, last token) or ``bert`` (post-norm, first token).
        kind: ``redundant`` or ``neuron``.
        layer: The layer of heads and neurons, from 0.
        heads: The heads that write the signal.
        neurons: The neurons that make the decision.
    """

    family: HeadFamily
    kind: CircuitKind
    layer: int
    heads: tuple[int, ...]
    neurons: tuple[int, ...]

    def margin(
        self, text: str, label: int, heads: Collection[int] = (), neurons: Collection[int] = ()
    ) -> float:
        """Return the logit margin z_label - z_other in closed form.

        Args:
            text: The text.
            label: 0 (negative) or 1 (positive).
            heads: Heads whose output is zero.
            neurons: Neurons whose value is zero.
        """
        planted = PlantedHead(self.family, self.layer, self.heads[0])
        writing = len(set(self.heads) - set(heads))
        signal = FAINT * planted.signal(text) * writing  # planted.signal counts the token that is pooled
        stream = _Stream(self.family, planted._scale_before() if self.family == "bert" else 1.0, signal)
        read = stream.normalised() if self.family == "gpt2" else stream
        if self.family == "bert":
            read = stream = stream.normalised()
        stream = stream.decided(self._decision(GAIN[self.kind] * read.signal, neurons))
        for _ in range(1 if self.family == "gpt2" else 1 + 2 * (N_LAYERS - self.layer - 1)):
            stream = stream.normalised()
        if self.family == "gpt2":
            half = READ * stream.decision - READ_PRIOR * PRIOR_VALUE * stream.scale
        else:
            half = READ * math.tanh(POOL * stream.decision) - READ_PRIOR * math.tanh(
                POOL * PRIOR_VALUE * stream.scale
            )
        return 2 * half * (1 if label == 1 else -1)

    def effect(
        self, text: str, label: int, heads: Collection[int] = (), neurons: Collection[int] = ()
    ) -> float:
        """Return the change of the margin when heads and neurons are zeroed."""
        return self.margin(text, label, heads, neurons) - self.margin(text, label)

    def _decision(self, value: float, removed: Collection[int]) -> float:
        return sum(
            sign * max(way * value - offset, 0.0)
            for number, (way, offset, sign) in zip(self.neurons, _neurons(self.kind), strict=True)
            if number not in removed
        )


def _neurons(kind: CircuitKind) -> list[tuple[float, float, float]]:
    """Return (input sign, threshold, output) of every neuron: a clip to -1 ... 1, or what is positive."""
    if kind == "neuron":
        return [(1.0, 0.0, 1.0)]
    return [(1.0, 0.0, 1.0), (1.0, 1.0, -1.0), (-1.0, 0.0, -1.0), (-1.0, 1.0, 1.0)]


@dataclass(frozen=True)
class _Stream:
    """A residual vector: ``scale`` times an embedding of squared norm S, and values on two further pairs."""

    family: HeadFamily
    scale: float
    signal: float
    decision: float = 0.0

    def normalised(self) -> _Stream:
        squares = self.scale**2 * SQUARED_NORM + 2 * self.signal**2 + 2 * self.decision**2
        factor = 1 / math.sqrt(squares / WIDTH + EPSILON[self.family])
        return _Stream(self.family, self.scale * factor, self.signal * factor, self.decision * factor)

    def decided(self, decision: float) -> _Stream:
        return _Stream(self.family, self.scale, self.signal, decision)


def planted_circuit_model(kind: CircuitKind, family: HeadFamily, layer: int, folder: Path) -> PlantedCircuit:
    """Save a classifier folder with a planted circuit in one layer; return the truth.

    Raises:
        ConfigError: No such kind, family or layer.
    """
    if kind not in GAIN or family not in EPSILON or not 0 <= layer < N_LAYERS:
        raise ConfigError(
            f"No planted circuit {kind} {family} layer {layer}: expected redundant or neuron, gpt2 or bert, layer 0 "
            f"to {N_LAYERS - 1}."
        )
    import torch

    from tunescope.models.source import quiet_transformers

    heads = (1, N_HEADS - 1) if kind == "redundant" else (2,)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model, tokenizer = (decisive._gpt2 if family == "gpt2" else decisive._bert)(layer, heads[0])
        (_plant_gpt2 if family == "gpt2" else _plant_bert)(model, kind, layer, heads)
    with quiet_transformers():
        model.eval().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    truth = PlantedCircuit(family, kind, layer, heads, NEURONS[kind])
    write_json(folder / TRUTH, asdict(truth))
    return truth


def load_planted_circuit(folder: Path) -> PlantedCircuit:
    """Read back what :func:`planted_circuit_model` planted in a folder."""
    content = read_json(folder / TRUTH)
    lists = tuple(content["heads"]), tuple(content["neurons"])
    return PlantedCircuit(content["family"], content["kind"], content["layer"], *lists)


def _free_decision(table: torch.Tensor) -> None:
    """Take the last pair out of the tokens' identities, [V, D], and keep their norm."""
    table[:, 2 * DECISION :] = 0.0
    identity = table[:, 2 * IDENTITY :]
    identity *= math.sqrt(2 * IDENTITY_NORM) / identity.norm(dim=1, keepdim=True)


def _readout() -> torch.Tensor:
    import torch

    positive = READ * decisive._reader(DECISION) - READ_PRIOR * decisive._reader(decisive.PRIOR)
    return torch.stack([-positive, positive])


def _mlp_weights(kind: CircuitKind) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return random first weights [F, D] and their bias, and second weights [D, F], mostly zero."""
    import torch

    first, bias, second = (
        torch.randn(N_NEURONS, WIDTH) * 0.3,
        torch.randn(N_NEURONS),
        torch.zeros(WIDTH, N_NEURONS),
    )
    for number, (way, threshold, out) in zip(NEURONS[kind], _neurons(kind), strict=True):
        first[number] = way * GAIN[kind] * decisive._reader(ANSWER)
        bias[number] = -threshold
        decisive._pair(second[:, number], DECISION, out)
    return first, bias, second


def _plant_gpt2(model: Any, kind: CircuitKind, layer: int, heads: tuple[int, ...]) -> None:
    width, block = WIDTH // N_HEADS, model.transformer.h[layer]
    source = slice(heads[0] * width, (heads[0] + 1) * width)
    for head in heads:
        for part in range(3):
            own = slice(part * WIDTH + head * width, part * WIDTH + (head + 1) * width)
            like = slice(part * WIDTH + source.start, part * WIDTH + source.stop)
            block.attn.c_attn.weight[:, own] = block.attn.c_attn.weight[:, like].clone()
            block.attn.c_attn.bias[own] = block.attn.c_attn.bias[like].clone()
        decisive._pair(block.attn.c_proj.weight[head * width], ANSWER, FAINT)
    first, bias, second = _mlp_weights(kind)
    block.mlp.c_fc.weight.copy_(first.T)
    block.mlp.c_fc.bias.copy_(bias)
    block.mlp.c_proj.weight.copy_(second.T)
    _set_activation(model, "activation_function")
    _free_decision(model.transformer.wte.weight)
    model.score.weight.copy_(_readout())


def _plant_bert(model: Any, kind: CircuitKind, layer: int, heads: tuple[int, ...]) -> None:
    width, block = WIDTH // N_HEADS, model.bert.encoder.layer[layer]
    source = slice(heads[0] * width, (heads[0] + 1) * width)
    own = block.attention.self
    for head in heads:
        place = slice(head * width, (head + 1) * width)
        for part in (own.query, own.key, own.value):
            part.weight[place] = part.weight[source].clone()
            part.bias[place] = part.bias[source].clone()
        decisive._pair(block.attention.output.dense.weight[:, head * width], ANSWER, FAINT)
    first, bias, second = _mlp_weights(kind)
    block.intermediate.dense.weight.copy_(first)
    block.intermediate.dense.bias.copy_(bias)
    block.output.dense.weight.copy_(second)
    _set_activation(model, "hidden_act")
    _free_decision(model.bert.embeddings.word_embeddings.weight)
    model.classifier.weight.copy_(_readout())


def _set_activation(model: PreTrainedModel, name: str) -> None:
    """Use ReLU, of which the closed forms are exact; the saved configuration says so."""
    import torch

    setattr(model.config, name, "relu")
    for module in model.modules():
        if hasattr(module, "act"):
            module.act = torch.nn.ReLU()
        if hasattr(module, "intermediate_act_fn"):
            module.intermediate_act_fn = torch.nn.ReLU()
