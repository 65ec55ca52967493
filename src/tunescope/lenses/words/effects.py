"""What each word of a text does to a model's answer: without it, behind a mask, and by integrated gradients.

Leaving a word out is exact: the text without it is tokenised anew and run. The mask keeps the length of the text and
hides the word's tokens. Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365) share the difference between
the text and a neutral text out over its tokens; that the shares add up to the difference is checked row by row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from tunescope.data.frame import encode
from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.evaluation.margins import margin
from tunescope.evaluation.predict import logits_of
from tunescope.evaluation.words import left_out, plain_word, word_spans
from tunescope.lenses.planted import predictor
from tunescope.models.classifier import Classifier
from tunescope.models.encoder_decoder import STACKS
from tunescope.progress import Task

TEXTS_AT_ONCE = 512
FIRST_STEPS, STEPS_AT_ONCE = 16, 32
NEAR = 0.01  # the sum of integrated gradients may miss the difference by this share of it
NOTHING = 1e-4  # or by this many logits, where there is next to no difference to share out


@dataclass(frozen=True)
class Worded:
    """A row as words and tokens.

    Attributes:
        row_id: Its id.
        text: The whole text.
        words: Its words in small letters without punctuation, W.
        places: Which of them are left out: all, or a random sample of a long row's, ascending.
        word_of: The word that each token belongs to, int64 [T]; white space before a word is its own; -1 for special
            tokens.
    """

    row_id: str
    text: str
    words: list[str]
    places: np.ndarray
    word_of: np.ndarray


def worded(model: Classifier, row_id: str, text: str, ids: np.ndarray, places: np.ndarray) -> Worded:
    """Find the words of a row's tokens.

    Raises:
        LensError: The text does not give the row's tokens, or the tokenizer cannot say where its tokens stand.
    """
    if not model.tokenizer.is_fast:
        raise LensError(
            f"{type(model.tokenizer).__name__} does not say where its tokens stand in a text, so no effect can be "
            "given to a word.",
            hint="Use a model with a fast tokenizer (tokenizer.json).",
        )
    encoded = encode(model.tokenizer, [text], return_offsets_mapping=True)
    if not np.array_equal(encoded["input_ids"][0], ids):
        raise LensError(f"Row {row_id}: its text gives other tokens than the row has.")
    spans = word_spans(text)
    stops = np.array([stop for _, stop in spans])
    # White space belongs to the word after it, with which it is left out; special tokens stand nowhere.
    found = [
        min(int(np.searchsorted(stops, start, side="right")), len(spans) - 1) if end > start else -1
        for start, end in encoded["offset_mapping"][0]
    ]
    words = [plain_word(text[start:end]) for start, end in spans]
    return Worded(row_id, text, words, places, np.array(found, dtype=np.int64))


def all_margins(logits: np.ndarray) -> np.ndarray:
    """Return the margin of every class in turn, `[N, C]`, in logits."""
    rows, classes = logits.shape
    return np.stack([margin(logits, np.full(rows, c)) for c in range(classes)], axis=1)


def without_each(
    model: Classifier, rows: Sequence[Worded], before: np.ndarray, task: Task
) -> list[np.ndarray]:
    """Return how far every class's margin falls when a word is left out, one `[W, C]` array a row.

    Args:
        model: The classifier.
        rows: The rows; only the words at their ``places`` are left out.
        before: Margins of the whole texts, `[N, C]`.
        task: Where to report rows.
    """
    predict = predictor(model)
    found = []
    for start, stop in _chunks([len(row.places) for row in rows]):
        texts = [(left_out(row.text), row.places) for row in rows[start:stop]]
        variants = [without[place] for without, places in texts for place in places]
        after = all_margins(predict(variants))
        found += _by_row(rows[start:stop], before[start:stop], after)
        task.advance(stop - start)
    return found


def behind_a_mask(
    model: Classifier, rows: Sequence[Worded], tokens: Tokens, before: np.ndarray, task: Task
) -> list[np.ndarray] | None:
    """Return the same with every token of a word replaced by the mask token, or None where there is no such token."""
    mask = model.tokenizer.mask_token_id
    if mask is None:
        return None
    found = []
    for start, stop in _chunks([len(row.places) for row in rows]):
        owner = [index for index in range(start, stop) for _ in rows[index].places]
        places = [place for row in rows[start:stop] for place in row.places]
        hidden = [
            np.where(rows[index].word_of == place, mask, tokens.input_ids[index]).astype(np.int32)
            for index, place in zip(owner, places, strict=True)
        ]
        variants = replace(
            tokens.take(np.array(owner)),
            row_ids=[str(number) for number in range(len(owner))],
            input_ids=hidden,
        )
        found += _by_row(rows[start:stop], before[start:stop], all_margins(logits_of(model, variants)))
        task.advance(stop - start)
    return found


def _chunks(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cut rows into runs of at most so many texts together, at least one row each."""
    start, total = 0, 0
    for index, size in enumerate(sizes):
        if index > start and total + size > TEXTS_AT_ONCE:
            yield start, index
            start, total = index, 0
        total += size
    if sizes:
        yield start, len(sizes)


def _by_row(rows: Sequence[Worded], before: np.ndarray, after: np.ndarray) -> list[np.ndarray]:
    found, first = [], 0
    for row, whole in zip(rows, before, strict=True):
        effects = np.full((len(row.words), len(whole)), np.nan)
        effects[row.places] = whole - after[first : first + len(row.places)]
        first += len(row.places)
        found.append(effects)
    return found


@dataclass(frozen=True)
class Integrated:
    """Integrated gradients of one row.

    Attributes:
        words: What each word adds to the margin, `[W]`.
        total: The difference between the text's margin and the neutral text's.
        gap: How far the shares of all tokens miss it, in logits.
        steps: Points on the way at which the gradient was taken.
    """

    words: np.ndarray
    total: float
    gap: float
    steps: int

    @property
    def complete(self) -> bool:
        """Whether the shares add up to the difference, to 1 % of it (or to 0.0001 logits)."""
        return abs(self.gap) <= max(NEAR * abs(self.total), NOTHING)


def token_embeddings(model: Classifier) -> list[Any]:
    """Return the modules that look up the tokens' embeddings: one, or the encoder's and the decoder's."""
    if not model.is_encoder_decoder:
        return [model.trunk.get_input_embeddings()]
    return [model.trunk.get_submodule(f"{stack}.embed_tokens") for stack in STACKS]


def neutral_vector(model: Classifier) -> torch.Tensor:
    """Return the embedding that stands for "no word": the mask token's, or the mean of the vocabulary, [D]."""
    embeddings: Any = token_embeddings(model)[0]
    table: torch.Tensor = embeddings.weight.detach() * getattr(embeddings, "embed_scale", 1.0)
    mask = model.tokenizer.mask_token_id
    return table[mask] if mask is not None else table[: len(model.tokenizer)].mean(0)


def integrated_gradients(
    model: Classifier, row: Worded, inputs: dict[str, torch.Tensor], label: int, most_steps: int
) -> Integrated:
    """Integrate the gradient of a class's margin from the neutral text to the row, along the token embeddings.

    Positions and special tokens stay as they are. An encoder-decoder reads the text twice, and both readings move
    together: a word's share is of its tokens in the encoder and in the decoder, where they stand one place later. The
    points are those of Gauss and Legendre; their number is doubled
    until the shares add up, at most to ``most_steps``.

    Args:
        model: The classifier, in evaluation mode.
        row: The row.
        inputs: Its token ids and mask, [1, T].
        label: The class whose margin is shared out.
        most_steps: The most points.
    """
    table = token_embeddings(model)[0]
    own = table(inputs["input_ids"]).detach()[0]  # [T, D]
    real = torch.as_tensor(row.word_of >= 0, device=own.device)
    start = torch.where(_text_tokens(model, inputs, real)[:, None], neutral_vector(model), own)
    ends = _margins(model, torch.stack([start, own]), inputs, label).detach()
    total = float(ends[1] - ends[0])
    steps = FIRST_STEPS
    while True:
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        slope = torch.zeros_like(own, dtype=torch.float64)
        for first in range(0, steps, STEPS_AT_ONCE):
            some = slice(first, first + STEPS_AT_ONCE)
            share = torch.as_tensor((nodes[some] + 1) / 2, dtype=own.dtype, device=own.device)[:, None, None]
            points = (start + share * (own - start)).requires_grad_()
            slopes = torch.autograd.grad(_margins(model, points, inputs, label).sum(), points)[0]
            weight = torch.as_tensor(weights[some] / 2, device=own.device)[:, None, None]
            slope += (slopes.double() * weight).sum(0)
        shares = (slope * (own - start).double()).sum(-1).cpu().numpy()  # [T]
        known = row.word_of >= 0
        words = np.bincount(row.word_of[known], weights=shares[known], minlength=len(row.words))
        found = Integrated(words, total, float(shares.sum() - total), steps)
        if found.complete or 2 * steps > most_steps:
            return found
        steps *= 2


def _text_tokens(model: Classifier, inputs: dict[str, torch.Tensor], real: torch.Tensor) -> torch.Tensor:
    """Return which tokens are text, bool [T]: those of words, and what stands nowhere but is not special."""
    ids = inputs["input_ids"][0]
    special = torch.tensor(model.tokenizer.all_special_ids, device=ids.device)
    return real | ~torch.isin(ids, special)


def _margins(
    model: Classifier, points: torch.Tensor, inputs: dict[str, torch.Tensor], label: int
) -> torch.Tensor:
    """Return the margin of a class at points [S, T, D] of the token embeddings, [S]."""
    count = len(points)
    repeated = {name: value.expand(count, -1) for name, value in inputs.items()}
    first, *second = token_embeddings(model)
    with contextlib.ExitStack() as stack:
        stack.callback(first.register_forward_hook(lambda *_: points).remove)
        for decoder in second:  # it begins with its start token, and reads the text one place later
            shifted = decoder.register_forward_hook(
                lambda _module, _given, output: torch.cat([output[:, :1], points[:, :-1]], 1)
            )
            stack.callback(shifted.remove)
        stack.enter_context(torch.enable_grad())
        logits = model(**repeated)
        found: torch.Tensor = margin(logits, torch.full((count,), label, device=logits.device))
    return found


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's rank correlation, ties at their mean rank; NaN where a side is constant or below 3 values."""
    from scipy.stats import rankdata

    known = np.isfinite(first) & np.isfinite(second)
    one, other = rankdata(first[known]), rankdata(second[known])
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])
