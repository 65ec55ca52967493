"""Hand-set tiny classifiers in which one attention head decides the label, and nothing else does anything.

The construction keeps layer norms out of the way. The width is split into pairs of coordinates, and every
feature is written as (+v, -v) on its pair, so every residual vector has mean 0. Every token's embedding, plus
every position's, has the same squared norm S, so every layer norm divides every token by the same known
number until the planted head has written. The planted head writes s on the *answer* pair, which adds exactly
2 s^2 to the squared norm; from there on each layer norm divides by sqrt((S' + 2 s'^2) / D + eps), with s' and
S' known. The margin is therefore a closed form of s, and replacing the head's output by zero (or by a mean)
is replacing s by 0 (or by the mean s).

The planted head attends to keywords (its query is a constant, its key a keyword's presence) and writes their
sign. Every other head has random queries, keys and values, but its rows of the output projection are zero,
and so are the MLPs' second projections: ablating them changes nothing, not even by rounding. A constant
*prior* feature makes the model say "negative" when the head is gone.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunescope.errors import ConfigError
from tunescope.files import read_json, write_json

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

HeadFamily = Literal["gpt2", "bert"]
LABELS = ("negative", "positive")
GOOD = ("lovely", "superb", "splendid", "cheerful")
BAD = ("awful", "shabby", "dismal", "nasty")
FILLERS = (
    "the", "hotel", "was", "and", "film", "near", "old", "garden", "we", "saw", "on", "monday", "river",
    "soup", "with", "our", "in", "market",
)  # fmt: skip
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
N_LAYERS, N_HEADS, WIDTH, POSITIONS = 3, 4, 32, 32
# The pairs of coordinates (2k, 2k + 1) and what stands on them; the rest carries the token's identity.
SIGN, PRESENCE, ANSWER, PRIOR, COSINE, SINE, BALLAST, IDENTITY = range(8)
PRIOR_VALUE, IDENTITY_NORM = 0.5, 3.0  # IDENTITY_NORM is the sum of v^2 over the identity pairs
SHARPNESS, WRITE, READ, READ_PRIOR, POOL = 3.0, 1.0, 1.5, 0.5, 0.5
EPSILON = {"gpt2": 1e-5, "bert": 1e-12}
# S: sign 1 + presence 1 of a keyword, or the ballast 2 of any other token; prior; a position's cos^2 + sin^2;
# identity.
SQUARED_NORM = 2 * (2.0 + PRIOR_VALUE**2 + 1.0 + IDENTITY_NORM)
TRUTH = "planted_head.json"


@dataclass(frozen=True)
class PlantedHead:
    """The head that decides, and the closed forms of what the model does with and without it.

    Attributes:
        family: ``gpt2`` (pre-norm, last token) or ``bert`` (post-norm, first token).
        layer: The planted head's layer, from 0.
        head: Its number in the layer, from 0.
    """

    family: HeadFamily
    layer: int
    head: int

    def signals(self, text: str) -> list[float]:
        """Return s at every real token of a text: what the head writes on the answer pair.

        s_t = WRITE * scale * sum over visible tokens of a_tp sign_p; a_tp is the softmax of SHARPNESS * scale
        on keywords and 0 on others; ``scale`` is what the hidden states were divided by before the head read
        them.
        """
        scale = self._scale_before()
        signs = [_sign(word) for word in self._tokens(text)]
        written = []
        for t in range(len(signs)):
            visible = signs[: t + 1] if self.family == "gpt2" else signs
            weights = [math.exp(SHARPNESS * scale) if sign else 1.0 for sign in visible]
            attended = sum(weight * sign for weight, sign in zip(weights, visible, strict=True)) / sum(
                weights
            )
            written.append(WRITE * scale * attended)
        return written

    def signal(self, text: str) -> float:
        """Return s at the token that is pooled."""
        return self.signals(text)[-1 if self.family == "gpt2" else 0]

    def mean_signal(self, texts: Sequence[str]) -> float:
        """Return the mean of s over all real tokens (special tokens included) of some texts."""
        values = [value for text in texts for value in self.signals(text)]
        return math.fsum(values) / len(values)

    def margin(self, text: str, label: int, signal: float | None = None) -> float:
        """Return the logit margin z_label - z_other in closed form.

        Args:
            text: The text.
            label: 0 (negative) or 1 (positive).
            signal: What the head writes instead: 0 for zero ablation, :meth:`mean_signal` for mean ablation;
                None leaves it as it is.
        """
        towards_positive = self._half_margin(self.signal(text) if signal is None else signal)
        return 2 * towards_positive * (1 if label == 1 else -1)

    def effect(self, text: str, label: int, signal: float = 0.0) -> float:
        """Return the change of the margin when the head's output is replaced, by zero unless told."""
        return self.margin(text, label, signal) - self.margin(text, label)

    def _tokens(self, text: str) -> list[str]:
        return text.split() if self.family == "gpt2" else ["[CLS]", *text.split(), "[SEP]"]

    def _scale_before(self) -> float:
        """Return the factor between raw embeddings and what the planted head reads."""
        if self.family == "gpt2":  # one layer norm, of a residual stream that nothing has written to
            return 1 / math.sqrt(SQUARED_NORM / WIDTH + EPSILON["gpt2"])
        scale, _ = self._normalise(1.0, 0.0, 1 + 2 * self.layer)
        return scale

    def _half_margin(self, signal: float) -> float:
        if self.family == "gpt2":
            scale, answer = self._normalise(1.0, signal, 1)
            return READ * answer - READ_PRIOR * PRIOR_VALUE * scale
        scale, answer = self._normalise(self._scale_before(), signal, 2 * (N_LAYERS - self.layer))
        return READ * math.tanh(POOL * answer) - READ_PRIOR * math.tanh(POOL * PRIOR_VALUE * scale)

    def _normalise(self, scale: float, answer: float, times: int) -> tuple[float, float]:
        """Pass a vector scale * x + answer through ``times`` layer norms; |x|^2 is SQUARED_NORM."""
        for _ in range(times):
            variance = (scale**2 * SQUARED_NORM + 2 * answer**2) / WIDTH
            factor = 1 / math.sqrt(variance + EPSILON[self.family])
            scale, answer = scale * factor, answer * factor
        return scale, answer


def planted_head_model(family: HeadFamily, layer: int, head: int, folder: Path) -> PlantedHead:
    """Save a classifier folder in which head ``head`` of layer ``layer`` decides the label; return the truth.

    The folder is a transformers model folder (safetensors, fast tokenizer; 3 layers of 4 heads, width 32)
    with the labels negative and positive, and ``planted_head.json``.

    Raises:
        ConfigError: No such family, layer or head.
    """
    if family not in EPSILON or not 0 <= layer < N_LAYERS or not 0 <= head < N_HEADS:
        raise ConfigError(
            f"No planted head {family} layer {layer} head {head}: expected gpt2 or bert, layer 0 to "
            f"{N_LAYERS - 1}, head 0 to {N_HEADS - 1}."
        )
    import torch

    from tunescope.models.source import quiet_transformers

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        build = _gpt2 if family == "gpt2" else _bert
        model, tokenizer = build(layer, head)
    with quiet_transformers():
        model.eval().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    truth = PlantedHead(family, layer, head)
    write_json(folder / TRUTH, asdict(truth))
    return truth


def load_planted_head(folder: Path) -> PlantedHead:
    """Read back which head :func:`planted_head_model` planted in a folder."""
    content = read_json(folder / TRUTH)
    return PlantedHead(content["family"], content["layer"], content["head"])


def planted_head_rows(n: int, seed: int) -> list[tuple[str, int]]:
    """Draw texts of 3 to 14 known words and their labels: the sign of good minus bad words, never zero."""
    rng = random.Random(f"{seed}/planted head")
    rows = []
    for number in range(n):
        label = number % 2
        own, other = (GOOD, BAD) if label else (BAD, GOOD)
        minority = rng.choice((0, 0, 1))
        keywords = rng.choices(own, k=minority + rng.choice((1, 2))) + rng.choices(other, k=minority)
        text = keywords + rng.choices(FILLERS, k=rng.randint(2, 9))
        rng.shuffle(text)
        rows.append((" ".join(text), label))
    return rows


def _sign(word: str) -> float:
    return 1.0 if word in GOOD else -1.0 if word in BAD else 0.0


def _pair(vector: torch.Tensor, pair: int, value: float) -> None:
    vector[2 * pair], vector[2 * pair + 1] = value, -value


def _token_embeddings(vocabulary: Sequence[str]) -> torch.Tensor:
    """Return [V, D] embeddings of equal norm; identities are random directions."""
    import torch

    table = torch.zeros(len(vocabulary), WIDTH)
    for row, word in zip(table, vocabulary, strict=True):
        sign = _sign(word)
        _pair(row, SIGN, sign)
        _pair(row, PRESENCE, abs(sign))
        _pair(row, BALLAST, 0.0 if sign else math.sqrt(2.0))
        _pair(row, PRIOR, PRIOR_VALUE)
        identity = torch.randn(WIDTH // 2 - IDENTITY)
        identity *= math.sqrt(IDENTITY_NORM) / identity.norm()
        for pair, value in enumerate(identity.tolist(), start=IDENTITY):
            _pair(row, pair, value)
    return table


def _position_embeddings() -> torch.Tensor:
    """Return [T, D] position embeddings of equal norm, on two pairs that no token uses."""
    import torch

    table = torch.zeros(POSITIONS, WIDTH)
    for position, row in enumerate(table):
        angle = math.pi * position / POSITIONS
        _pair(row, COSINE, math.cos(angle))
        _pair(row, SINE, math.sin(angle))
    return table


def _reader(pair: int) -> torch.Tensor:
    """Return the [D] vector whose product with a residual vector is the value on a pair."""
    import torch

    vector = torch.zeros(WIDTH)
    _pair(vector, pair, 0.5)
    return vector


def _attention(planted: bool, head: int) -> dict[str, torch.Tensor]:
    """Return query, key, value and output weights (each [out, in]) and the query's bias of one layer."""
    import torch

    width = WIDTH // N_HEADS
    weights = {name: torch.randn(WIDTH, WIDTH) * 0.3 for name in ("query", "key", "value")}
    weights["query_bias"], weights["output"] = torch.zeros(WIDTH), torch.zeros(WIDTH, WIDTH)
    if planted:
        first, own = head * width, slice(head * width, (head + 1) * width)
        for name in ("query", "key", "value"):
            weights[name][own] = 0.0
        weights["query_bias"][first] = SHARPNESS * math.sqrt(width)  # attention divides scores by sqrt(width)
        weights["key"][first] = _reader(PRESENCE)
        weights["value"][first] = _reader(SIGN)
        _pair(weights["output"][:, first], ANSWER, WRITE)
    return weights


def _readout(answer_times: float, prior_times: float) -> torch.Tensor:
    """Return [2, D]: the positive class reads answer minus prior, the negative class the opposite."""
    import torch

    positive = answer_times * _reader(ANSWER) - prior_times * _reader(PRIOR)
    return torch.stack([-positive, positive])


def _shared_settings(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "num_labels": len(LABELS),
        "id2label": dict(enumerate(LABELS)),
        "label2id": {name: index for index, name in enumerate(LABELS)},
        "pad_token_id": tokenizer.pad_token_id,
    }


def _vocabulary(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    words: Any = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return words


def _gpt2(layer: int, head: int) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    import torch
    from transformers import GPT2Config, GPT2ForSequenceClassification

    tokenizer = _tokenizer("gpt2")
    pad = tokenizer.pad_token_id
    config = GPT2Config(
        n_layer=N_LAYERS, n_head=N_HEADS, n_embd=WIDTH, n_positions=POSITIONS,
        bos_token_id=pad, eos_token_id=pad, **_shared_settings(tokenizer),
    )  # fmt: skip
    model: Any = GPT2ForSequenceClassification(config)  # its parts are typed "Tensor or Module" throughout
    model.transformer.wte.weight.copy_(_token_embeddings(_vocabulary(tokenizer)))
    model.transformer.wpe.weight.copy_(_position_embeddings())
    for number, block in enumerate(model.transformer.h):
        weights = _attention(number == layer, head)
        block.attn.c_attn.weight.copy_(torch.cat([weights[name] for name in ("query", "key", "value")]).T)
        block.attn.c_attn.bias.zero_()
        block.attn.c_attn.bias[:WIDTH] = weights["query_bias"]
        block.attn.c_proj.weight.copy_(weights["output"].T)
        for silent in (block.attn.c_proj.bias, block.mlp.c_proj.weight, block.mlp.c_proj.bias):
            silent.zero_()
    model.score.weight.copy_(_readout(READ, READ_PRIOR))
    return model, tokenizer


def _bert(layer: int, head: int) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = _tokenizer("bert")
    config = BertConfig(
        num_hidden_layers=N_LAYERS, num_attention_heads=N_HEADS, hidden_size=WIDTH,
        intermediate_size=4 * WIDTH, max_position_embeddings=POSITIONS,
        layer_norm_eps=EPSILON["bert"], **_shared_settings(tokenizer),
    )  # fmt: skip
    model: Any = BertForSequenceClassification(config)
    embeddings = model.bert.embeddings
    embeddings.word_embeddings.weight.copy_(_token_embeddings(_vocabulary(tokenizer)))
    embeddings.position_embeddings.weight.copy_(_position_embeddings())
    embeddings.token_type_embeddings.weight.zero_()
    for number, block in enumerate(model.bert.encoder.layer):
        weights = _attention(number == layer, head)
        own = block.attention.self
        for name in ("query", "key", "value"):
            getattr(own, name).weight.copy_(weights[name])
            getattr(own, name).bias.zero_()
        own.query.bias.copy_(weights["query_bias"])
        block.attention.output.dense.weight.copy_(weights["output"])
        for silent in (block.attention.output.dense.bias, block.output.dense.weight, block.output.dense.bias):
            silent.zero_()
    model.bert.pooler.dense.weight.copy_(torch.eye(WIDTH) * POOL)
    model.bert.pooler.dense.bias.zero_()
    model.classifier.weight.copy_(_readout(READ, READ_PRIOR))
    model.classifier.bias.zero_()
    return model, tokenizer


def _tokenizer(family: HeadFamily) -> PreTrainedTokenizerFast:
    """Return a tokenizer of whole words; BERT's puts [CLS] and [SEP] around them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate((*SPECIALS, *GOOD, *BAD, *FILLERS))}
    whole_words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    whole_words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    if family == "bert":
        ends = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
        whole_words.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ends
        )
        names |= {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=whole_words, model_max_length=POSITIONS, **names)
