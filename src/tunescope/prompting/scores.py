"""The log-probability of every answer after (or inside) every prompt, exactly and without padding.

Prompts of equal length share a batch, so that nothing is ever padded and no row depends on another. For a causal
model all answers hang on one pass over their prompt: the tokens of each answer follow the prompt with positions
that go on from it, and attend to the prompt and to their own answer only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tunescope.progress import SILENT, Progress
from tunescope.prompting.language_model import LanguageModel

TOKENS_AT_ONCE, LOGITS_AT_ONCE, ROWS_AT_ONCE = 8192, 1 << 24, 64


@dataclass(frozen=True)
class Prompt:
    """One prompt in tokens; the answer stands between ``before`` and ``after``.

    Attributes:
        before: Token ids before the answer, special tokens included; at least one for a causal model.
        after: Token ids after the answer; empty for a causal model.
    """

    before: tuple[int, ...]
    after: tuple[int, ...] = ()


def log_probabilities(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    answers: Sequence[tuple[int, ...]],
    progress: Progress = SILENT,
) -> np.ndarray:
    """Return the log-probability (nats) of every answer under every prompt, [N, C] float64.

    For a causal model it is ``sum_j log p(a_j | prompt, a_1 .. a_(j-1))``. For a masked model the answer's place
    holds one mask a token, and it is ``sum_j log p(a_j | all k masks)``: the masks of one answer are read at once.
    Equal prompts are computed once.

    Args:
        model: The language model.
        prompts: The prompts.
        answers: Token ids of each answer, at least one.
        progress: Where to report.
    """
    distinct = list(dict.fromkeys(prompts))
    place = {prompt: row for row, prompt in enumerate(distinct)}
    out = np.full((len(distinct), len(answers)), np.nan)
    score = _causal if model.kind == "causal" else _masked
    extra = sum(len(answer) - 1 for answer in answers) if model.kind == "causal" else max(map(len, answers))
    places = 1 + extra
    vocabulary = int(model.model.config.vocab_size)
    with torch.inference_mode(), progress.task("prompting", len(distinct), "prompts") as task:
        for rows in _batches(distinct, extra, places * vocabulary):
            batch = [distinct[row] for row in rows]
            out[rows] = score(model, batch, answers)
            task.advance(len(rows))
    return out[[place[prompt] for prompt in prompts]] if len(prompts) else np.zeros((0, len(answers)))


def _batches(prompts: list[Prompt], extra: int, logits_a_row: int) -> Iterator[list[int]]:
    """Yield row numbers of prompts of equal shape, the longest first."""
    groups: dict[tuple[int, int], list[int]] = {}
    for row, prompt in enumerate(prompts):
        groups.setdefault((len(prompt.before), len(prompt.after)), []).append(row)
    for before, after in sorted(groups, key=lambda shape: -sum(shape)):
        rows = groups[before, after]
        size = min(
            ROWS_AT_ONCE, TOKENS_AT_ONCE // (before + after + extra), LOGITS_AT_ONCE // max(logits_a_row, 1)
        )
        for start in range(0, len(rows), max(size, 1)):
            yield rows[start : start + max(size, 1)]


def _causal(model: LanguageModel, prompts: list[Prompt], answers: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Score prompts of equal length in one pass."""
    tree = _Tree.of(answers)
    length = len(prompts[0].before)
    ids = torch.tensor([[*prompt.before, *tree.ids] for prompt in prompts], device=model.device)  # [B, P + E]
    inputs: dict[str, Any] = {"input_ids": ids}
    if tree.ids:
        inputs["position_ids"] = torch.tensor(
            [[*range(length), *(length + depth for depth in tree.depths)]], device=model.device
        )
        dtype = next(model.model.parameters()).dtype
        inputs["attention_mask"] = tree.mask(length, dtype).to(model.device).expand(len(prompts), 1, -1, -1)
    hidden = model.model.base_model(**inputs, use_cache=False).last_hidden_state[:, length - 1 :]
    logits = model.model.get_output_embeddings()(hidden).double()  # [B, 1 + E, V]
    logs = logits - logits.logsumexp(dim=-1, keepdim=True)
    out = torch.zeros(len(prompts), len(answers), dtype=torch.float64, device=model.device)
    for column, answer in enumerate(answers):
        for step, token in enumerate(answer):
            out[:, column] += logs[:, 0 if step == 0 else tree.starts[column] + step, token]
    return out.cpu().numpy()


@dataclass(frozen=True)
class _Tree:
    """All answers but their last tokens, one after another, as branches that leave the same prompt.

    Attributes:
        ids: Token ids of the branches.
        depths: How far each token is from the end of the prompt, from 0.
        branches: The answer that each token belongs to.
        starts: Where in ``ids`` each answer's branch starts.
    """

    ids: tuple[int, ...]
    depths: tuple[int, ...]
    branches: tuple[int, ...]
    starts: tuple[int, ...]

    @classmethod
    def of(cls, answers: Sequence[tuple[int, ...]]) -> _Tree:
        ids = tuple(token for answer in answers for token in answer[:-1])
        depths = tuple(depth for answer in answers for depth in range(len(answer) - 1))
        branches = tuple(number for number, answer in enumerate(answers) for _ in answer[:-1])
        starts = np.cumsum([0, *(len(answer) - 1 for answer in answers)])
        return cls(ids, depths, branches, tuple(int(start) for start in starts))

    def mask(self, length: int, dtype: torch.dtype) -> torch.Tensor:
        """Return what is added to attention scores, [1, 1, P + E, P + E]: 0 where a token may look."""
        total = length + len(self.ids)
        branch = torch.tensor([-1] * length + list(self.branches))
        looks_back = torch.ones(total, total, dtype=torch.bool).tril()
        allowed = looks_back & ((branch[None, :] == -1) | (branch[None, :] == branch[:, None]))
        mask = torch.zeros(total, total, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)
        return mask[None, None]


def _masked(model: LanguageModel, prompts: list[Prompt], answers: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Score prompts of equal shape, with one pass for every length of answer."""
    out = np.zeros((len(prompts), len(answers)))
    mask_id = model.tokenizer.mask_token_id
    for masks in sorted({len(answer) for answer in answers}):
        ids = torch.tensor(
            [[*prompt.before, *[mask_id] * masks, *prompt.after] for prompt in prompts], device=model.device
        )
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if model.family.counts_positions_by_pad_id:  # a text may hold the pad token's own spelling
            first = int(model.model.config.pad_token_id) + 1
            inputs["position_ids"] = torch.arange(first, first + ids.shape[1], device=model.device)[None]
        hidden = model.model.base_model(**inputs).last_hidden_state
        start = len(prompts[0].before)
        logits = _head(model)(hidden[:, start : start + masks]).double()  # [B, masks, V]
        logs = logits - logits.logsumexp(dim=-1, keepdim=True)
        for column, answer in enumerate(answers):
            if len(answer) == masks:
                picked = logs[:, torch.arange(masks), torch.tensor(answer)]
                out[:, column] = picked.sum(dim=1).cpu().numpy()
    return out


def _head(model: LanguageModel) -> Any:
    """Return the function from hidden states to logits of a masked language model."""
    full: Any = model.model
    if model.family.name == "BERT":
        return full.cls
    if model.family.name == "RoBERTa":
        return full.lm_head
    return lambda hidden: full.vocab_projector(
        full.vocab_layer_norm(full.activation(full.vocab_transform(hidden)))
    )
