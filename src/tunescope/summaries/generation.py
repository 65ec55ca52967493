"""Writing summaries: left padding for a decoder's prompts, the same text in any batch, new tokens alone decoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tunescope import processes
from tunescope.errors import DataError, ModelError
from tunescope.progress import SILENT, Progress
from tunescope.seeds import derive_seed, seed_torch
from tunescope.summaries.rows import SummaryTokens, padded

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class GenerationOptions:
    """How summaries are written.

    Attributes:
        beams: Beams searched; 1 is greedy.
        sample: Draw tokens instead of taking the likeliest; every row has a stream of its own from seed and row id, and
            is written alone, so that batches do not matter.
        temperature: Divides the logits before drawing.
        top_p: Draws among the likeliest tokens that together have this probability.
        seed: Seeds the draws.
        min_tokens: The fewest new tokens before the end token is allowed.
        length_penalty: Above 0 favours longer beams.
        ban_repeats: No n-gram of this length stands twice in a decoder's *whole* sequence, article included, so it
            forbids copying: 0 (the default) bans nothing.
        rows_at_once: Rows in a batch.
    """

    beams: int = 1
    sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    min_tokens: int = 0
    length_penalty: float = 1.0
    ban_repeats: int = 0
    rows_at_once: int = 8


@dataclass(frozen=True)
class Written:
    """Generated summaries, in the order of the rows.

    Attributes:
        row_ids: Ids [N].
        texts: What was written, without the prompt, special tokens and white space around it.
        new_tokens: How many tokens were written, the end token included, [N].
        ended: Whether the model stopped by itself before the limit, bool [N].
    """

    row_ids: list[str]
    texts: list[str]
    new_tokens: np.ndarray
    ended: np.ndarray


def write_summaries(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tokens: SummaryTokens,
    options: GenerationOptions | None = None,
    progress: Progress = SILENT,
) -> Written:
    """Write a summary for every row that was encoded for generation.

    Args:
        model: A transformers language model of the rows' kind.
        tokenizer: Its tokenizer.
        tokens: Rows from :func:`encode_summaries` without summaries.
        options: How to write.
        progress: Where to report.

    Raises:
        ModelError: The model cannot generate, is of the other kind, or has too few positions for the budget.
        DataError: The rows hold summaries, which the model would be shown.
    """
    chosen = options or GenerationOptions()
    _check(model, tokens)
    found: dict[int, tuple[str, int, bool]] = {}
    was_training = model.training
    model.eval()
    try:
        with (
            progress.task("writing summaries", len(tokens), "rows") as task,
            processes.shared(len(tokens), [model], _help, model, tokenizer, tokens, chosen) as team,
        ):
            for index, written in _each_batch(model, tokenizer, tokens, chosen, team):
                for place, new in zip(index, written, strict=True):
                    ended = tokenizer.eos_token_id in new
                    kept = new[: new.index(tokenizer.eos_token_id) + 1] if ended else new
                    text = str(tokenizer.decode(kept, skip_special_tokens=True)).strip()
                    found[place] = (text, len(kept), ended)
                task.advance(len(index))
    finally:
        model.train(was_training)
    rows = [found[place] for place in range(len(tokens))]
    return Written(
        tokens.row_ids, [row[0] for row in rows], np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=bool),
    )  # fmt: skip


def _each_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tokens: SummaryTokens,
    options: GenerationOptions,
    team: processes.Team | None,
) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Yield the rows of every batch with their new tokens; several processes write batches in turns."""
    batches = _batches(tokens, 1 if options.sample else options.rows_at_once)
    yield from processes.in_turns(
        batches, lambda index: _generate(model, tokenizer, tokens, index, options), team
    )


def _help(
    team: processes.Team,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tokens: SummaryTokens,
    options: GenerationOptions,
) -> None:
    """Write this process's batches for the leader."""
    model.eval()
    for _ in _each_batch(model, tokenizer, tokens, options, team):
        pass


def _check(model: PreTrainedModel, tokens: SummaryTokens) -> None:
    name = type(model).__name__
    if not getattr(model, "can_generate", lambda: False)():
        raise ModelError(
            f"{name} cannot generate text.",
            hint="Give a language model: ...LMHeadModel, ...ForCausalLM or ...ForConditionalGeneration.",
        )
    two = bool(getattr(model.config, "is_encoder_decoder", False))
    if two != (tokens.kind == "encoder_decoder"):
        other = "an encoder-decoder" if two else "a decoder-only model"
        raise ModelError(f"{name} is {other}, and the rows were encoded for kind {tokens.kind!r}.")
    if tokens.trains:
        raise DataError(
            "These rows hold summaries; encode the articles alone (summaries None) to generate from them."
        )
    limit = getattr(model.config, "max_position_embeddings", None)
    longest = max(len(ids) for ids in tokens.input_ids)
    needed = max(longest, tokens.options.max_summary) if two else longest + tokens.options.max_summary
    if limit is not None and needed > limit:
        raise ModelError(
            f"{name} numbers {limit} positions, and article, prompt and summary need up to {needed}.",
            hint=f"Set max_tokens to {limit} or less.",
        )


def _batches(tokens: SummaryTokens, size: int) -> Iterator[list[int]]:
    """Yield rows of about equal length together, the longest first."""
    order = sorted(range(len(tokens)), key=lambda i: (-len(tokens.input_ids[i]), i))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tokens: SummaryTokens,
    index: list[int],
    options: GenerationOptions,
) -> list[list[int]]:
    """Return the new tokens of some rows, the start token of a decoder left out."""
    rows = [tokens.input_ids[i] for i in index]
    left = tokens.kind == "decoder"
    end = tokenizer.eos_token_id
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
    inputs = {
        "input_ids": torch.from_numpy(padded(rows, pad, left)).to(model.device),
        "attention_mask": torch.from_numpy(padded([np.ones_like(row) for row in rows], 0, left)).to(
            model.device
        ),
    }
    how: dict[str, Any] = {
        "max_new_tokens": tokens.options.max_summary, "num_beams": options.beams, "do_sample": options.sample,
        "pad_token_id": pad, "eos_token_id": end, "no_repeat_ngram_size": options.ban_repeats,
        "min_new_tokens": options.min_tokens or None,
    }  # fmt: skip
    if options.beams > 1:
        how["length_penalty"] = options.length_penalty
    if options.sample:
        how |= {"temperature": options.temperature, "top_p": options.top_p, "top_k": 0}
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        if options.sample:
            seed_torch(derive_seed(options.seed, "summary", tokens.row_ids[index[0]]))
        out = model.generate(**inputs, **how)  # type: ignore[operator]
    start = inputs["input_ids"].shape[1] if left else 1
    return [[int(one) for one in row[start:]] for row in out]
