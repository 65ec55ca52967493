"""What a language model is asked about a text, and how well it answers: tokens to predict, and its loss there.

A causal model predicts every token from those before it. A masked model predicts tokens that a mask hides: of every
text 15 % of the real tokens (at least one), drawn by row id and seed, so that all models see the same masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from tunescope.data.tokens import Tokens
from tunescope.errors import ModelError
from tunescope.models.language import LanguageModel
from tunescope.seeds import derive_seed

HIDDEN_SHARE = 0.15
NOTHING = -1  # the target of a place at which nothing is asked
AT_ONCE = 256  # places whose logits over the vocabulary are held at a time
MEASURES = ("log_likelihood", "kl", "changed")


@dataclass(frozen=True)
class Questions:
    """Rows with the tokens that a language model has to predict.

    Attributes:
        rows: The rows as they are, of which at least one token is asked.
        tokens: The same rows as the model sees them; of a masked model, with masks.
        targets: Per row the token that the logits at each place should give, int64 [T]; -1 where nothing is asked.
        left_out: How many rows have no token to predict.
    """

    rows: Tokens
    tokens: Tokens
    targets: list[np.ndarray]
    left_out: int

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def asked(self) -> np.ndarray:
        """How many tokens are asked of every row, int64 [N]."""
        return np.array([int((one != NOTHING).sum()) for one in self.targets], dtype=np.int64)

    def take(self, rows: np.ndarray) -> Questions:
        """Return the questions of some rows."""
        kept = [self.targets[int(row)] for row in rows]
        return Questions(self.rows.take(rows), self.tokens.take(rows), kept, self.left_out)

    def batch(self, index: Sequence[int] | np.ndarray, length: int) -> torch.Tensor:
        """Return the targets of some rows, padded on the right, int64 [B, length]."""
        out = torch.full((len(index), length), NOTHING, dtype=torch.long)
        for place, row in enumerate(index):
            own = self.targets[int(row)]
            out[place, : len(own)] = torch.from_numpy(own)
        return out


def questions(model: LanguageModel, tokens: Tokens, seed: int) -> Questions:
    """Ask a model about rows.

    Args:
        model: Says what is asked; base and tuned of one family and tokenizer are asked the same.
        tokens: Rows as they were tokenised; of sliding windows the first.
        seed: Seeds which tokens are hidden from a masked model.

    Raises:
        ModelError: A masked model's tokenizer has no mask token, or no row has a token to predict.
    """
    made = _hidden if model.kind == "masked" else _next
    found = [made(model, row_id, np.asarray(ids, dtype=np.int64), seed)
             for row_id, ids in zip(tokens.row_ids, tokens.input_ids, strict=True)]  # fmt: skip
    kept = np.array(
        [index for index, (_, target) in enumerate(found) if (target != NOTHING).any()], dtype=np.int64
    )
    if not len(kept):
        raise ModelError(
            "No text has a token to predict; a causal model needs two tokens, a masked one a word."
        )
    rows = tokens.take(kept).first_windows()
    shown = replace(rows, input_ids=[found[index][0].astype(np.int32) for index in kept])
    return Questions(rows, shown, [found[index][1] for index in kept], len(tokens) - len(kept))


def _next(_model: LanguageModel, _row_id: str, ids: np.ndarray, _seed: int) -> tuple[np.ndarray, np.ndarray]:
    return ids, np.append(ids[1:], NOTHING)


def _hidden(model: LanguageModel, row_id: str, ids: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    mask = model.tokenizer.mask_token_id
    if mask is None:
        raise ModelError("A masked language model is asked by masks, and its tokenizer has no mask token.")
    real = np.flatnonzero(~np.isin(ids, model.tokenizer.all_special_ids))
    targets = np.full(len(ids), NOTHING, dtype=np.int64)
    if len(real):
        drawn = np.random.default_rng(derive_seed(seed, "hidden tokens", row_id))
        places = drawn.choice(real, size=max(1, round(HIDDEN_SHARE * len(real))), replace=False)
        targets[places] = ids[places]
        ids = ids.copy()
        ids[places] = mask
    return ids, targets


def final_norm(model: LanguageModel, stream: torch.Tensor) -> torch.Tensor:
    """Apply the model's own final norm, where it has one; hooks on it do not see this."""
    if model.family.final_norm is None:
        return stream
    normed: torch.Tensor = model.trunk.get_submodule(model.family.final_norm).forward(stream)
    return normed


class Answers:
    """How well a model answers the questions of one batch, from its residual stream behind the last block.

    Args:
        model: The model.
        targets: What is asked, int64 [B, T]; -1 where nothing is.
        stream: The unchanged model's stream behind the last block, [B, T, D], before the final norm.

    Attributes:
        clean: Of the unchanged model, [B, 3]: mean log-probability of the true tokens, in nats; 0; 0.
    """

    def __init__(self, model: LanguageModel, targets: torch.Tensor, stream: torch.Tensor) -> None:
        self.model = model
        self.rows, self.places = (targets != NOTHING).nonzero(as_tuple=True)  # [A] each
        self.targets = targets[self.rows, self.places].to(stream.device)
        self.rows, self.places = self.rows.to(stream.device), self.places.to(stream.device)
        self.count = len(targets)
        parts = [self._log_probabilities(stream, part) for part in self._parts()]
        self.log_probabilities = torch.cat(parts)  # [A, V]
        self.first = self.log_probabilities.argmax(-1)
        own = self.log_probabilities.gather(-1, self.targets[:, None])[:, 0]
        self.clean = self._by_row([own, torch.zeros_like(own), torch.zeros_like(own)])

    def __call__(self, stream: torch.Tensor) -> torch.Tensor:
        """Return the same of a changed model, [copies x B, 3]: log-likelihood, KL divergence, share of new answers.

        Args:
            stream: Behind the last block, [copies x B, T, D]; copies lie one after another.
        """
        return torch.cat([self._one(copy) for copy in stream.split(self.count)])

    def _one(self, stream: torch.Tensor) -> torch.Tensor:
        own, kl, changed = [], [], []
        for part in self._parts():
            after, before = self._log_probabilities(stream, part), self.log_probabilities[part]
            own.append(after.gather(-1, self.targets[part][:, None])[:, 0])
            # Below 0 only by rounding.
            kl.append((before.exp() * (before - after)).sum(-1).clamp(min=0))
            changed.append((after.argmax(-1) != self.first[part]).to(after.dtype))
        return self._by_row([torch.cat(own), torch.cat(kl), torch.cat(changed)])

    def _parts(self) -> list[slice]:
        return [slice(first, first + AT_ONCE) for first in range(0, len(self.rows), AT_ONCE)]

    def _log_probabilities(self, stream: torch.Tensor, part: slice) -> torch.Tensor:
        states = final_norm(self.model, stream[self.rows[part], self.places[part]])
        logits: torch.Tensor = self.model.head(states)
        return torch.log_softmax(logits, -1)

    def _by_row(self, values: Sequence[torch.Tensor]) -> torch.Tensor:
        """Average what was found at the asked tokens over each row, [B, len(values)]."""
        table = torch.stack(list(values), dim=1).double()
        sums = table.new_zeros(self.count, table.shape[1]).index_add_(0, self.rows, table)
        asked = torch.bincount(self.rows, minlength=self.count).clamp(min=1)
        return (sums / asked[:, None]).to(values[0].dtype)
