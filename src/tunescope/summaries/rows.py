"""Articles and summaries as tokens, under a budget that always keeps the summary.

For a decoder-only model one row is ``article | prompt | summary | end token`` in one sequence; for an encoder-decoder
the article (with ``before`` in front) is the input and the summary with the end token the target. What does not fit is
cut off the *article's* end, and counted; the summary and the prompt are never cut. Parts are encoded one by one, so
that a prompt has the same tokens in training and in generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tunescope.data.frame import SpecialTokens
from tunescope.errors import ConfigError, DataError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # transformers' label of a token that no loss is taken of
Kind = Literal["decoder", "encoder_decoder"]
PARTS = ("article", "prompt", "summary")


@dataclass(frozen=True)
class SummaryOptions:
    """How articles and summaries become tokens.

    Attributes:
        max_tokens: The most tokens of a sequence (decoder) or of an input (encoder-decoder), all included.
        max_summary: The most tokens of a summary with its end token; a longer one is refused (with ``cut`` ``end`` it
            is cut like everything). Also how many tokens are generated at most.
        prompt: Text between article and summary, for decoder-only models.
        before: Text in front of the article, such as ``summarize: `` for T5.
        loss: On the ``summary`` and its end token alone, or on ``all`` tokens (decoder-only models).
        end: Whether a summary closes with the end token.
        cut: ``article``: what does not fit is cut off the article, and the summary is always whole. ``end`` (for
            decoder-only models; study 004 as published): article, prompt and summary are cut together, so that long
            articles lose their prompt and their summary.
    """

    max_tokens: int = 1024
    max_summary: int = 128
    prompt: str = "\nTL;DR:"
    before: str = ""
    loss: Literal["summary", "all"] = "summary"
    end: bool = True
    cut: Literal["article", "end"] = "article"


@dataclass(frozen=True)
class SummaryTokens:
    """Encoded rows in the order they came.

    Attributes:
        kind: Which kind of model they are for.
        row_ids: Ids [N].
        input_ids: Per row: all tokens (decoder), or the input (encoder-decoder).
        target_ids: Per row the summary with its end token; of a decoder it is the tail of ``input_ids``.
        article_tokens: Tokens of each article before anything was cut, [N].
        article_kept: Tokens of each article that are kept, [N].
        options: How they were made.
        summary_tokens: Tokens of each summary before anything was cut, [N]; None where rows are for generation.
        before_article: How many tokens stand in front of every article.
    """

    kind: Kind
    row_ids: list[str]
    input_ids: list[np.ndarray]
    target_ids: list[np.ndarray]
    article_tokens: np.ndarray
    article_kept: np.ndarray
    options: SummaryOptions = field(default_factory=SummaryOptions)
    summary_tokens: np.ndarray | None = None
    before_article: int = 0

    def __len__(self) -> int:
        return len(self.row_ids)

    @property
    def kept(self) -> np.ndarray:
        """Tokens of each row that go into the model, [N]."""
        return np.array([len(ids) for ids in self.input_ids], dtype=np.int64)

    @property
    def trains(self) -> bool:
        """Whether the rows were encoded with their summaries."""
        return self.summary_tokens is not None

    def take(self, index: np.ndarray) -> SummaryTokens:
        """Return some of the rows, in the order of ``index``."""
        whole = self.summary_tokens
        return SummaryTokens(
            self.kind, [self.row_ids[i] for i in index], [self.input_ids[i] for i in index],
            [self.target_ids[i] for i in index], self.article_tokens[index], self.article_kept[index], self.options,
            None if whole is None else whole[index], self.before_article,
        )  # fmt: skip

    def parts(self) -> list[np.ndarray]:
        """Return which of :data:`PARTS` each token of ``input_ids`` belongs to; what frames an article is prompt."""
        found = []
        for ids, target, kept in zip(self.input_ids, self.target_ids, self.article_kept, strict=True):
            own = np.full(len(ids), PARTS.index("prompt"), dtype=np.int8)
            own[self.before_article : self.before_article + int(kept)] = PARTS.index("article")
            if self.kind == "decoder" and len(target):
                own[len(ids) - len(target) :] = PARTS.index("summary")
            found.append(own)
        return found

    @property
    def article_cut(self) -> np.ndarray:
        """Tokens of each article that were cut off, [N]."""
        return self.article_tokens - self.article_kept

    def account(self) -> dict[str, Any]:
        """Return what was cut and kept of all rows together, JSON-able."""
        cut = self.article_cut
        total = int(self.article_tokens.sum())
        left = np.array([len(ids) for ids in self.target_ids], dtype=np.int64)
        whole = left if self.summary_tokens is None else self.summary_tokens
        return {
            "rows": len(self),
            "rows_cut": int((cut > 0).sum()),
            "article_tokens": total,
            "article_tokens_cut": int(cut.sum()),
            "article_share_cut": float(cut.sum() / total) if total else 0.0,
            "summary_tokens": int(whole.sum()),
            "summary_tokens_cut": int((whole - left).sum()),  # 0 unless ``cut`` is ``end``
            "summaries_cut": int((left < whole).sum()),
            "summaries_lost": int(((left == 0) & (whole > 0)).sum()),
        }


def encode_summaries(
    articles: Sequence[str],
    summaries: Sequence[str] | None,
    row_ids: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    kind: Kind,
    options: SummaryOptions | None = None,
) -> SummaryTokens:
    """Encode articles with their summaries for training, or (``summaries`` None) alone for generation.

    For generation, room for ``max_summary`` new tokens is kept in a decoder's sequence.

    Raises:
        ConfigError: The budget leaves no room for any article, or what is asked for is about a decoder alone.
        DataError: The numbers differ, an article or a summary is empty, a summary is longer than ``max_summary``, or
            the tokenizer has no end token.
    """
    chosen = options or SummaryOptions()
    if len(articles) != len(row_ids) or (summaries is not None and len(summaries) != len(row_ids)):
        came = len(articles) if summaries is None else f"{len(articles)} and {len(summaries)}"
        raise DataError(f"Every row needs an article and a summary; came {came} for {len(row_ids)} rows.")
    if kind == "encoder_decoder" and chosen.loss == "all":
        raise ConfigError(
            "loss: all is about one sequence of article and summary, and an encoder-decoder has two sequences, of "
            "which it predicts the summary alone.",
            hint="Use the loss of the summary (loss_on: summary).",
        )
    end = tokenizer.eos_token_id
    if end is None:
        raise DataError(
            "The tokenizer has no end token, so a model could not learn to stop.",
            hint="Give it an eos_token.",
        )
    _refuse_empty(articles, row_ids, "article")
    if summaries is not None:
        _refuse_empty(summaries, row_ids, "summary")
    targets = [] if summaries is None else _targets(summaries, row_ids, tokenizer, kind, chosen)
    parts = _Parts.of(tokenizer, kind, chosen)
    if chosen.cut == "end":
        return _cut_at_the_end(_ids(tokenizer, list(articles)), targets, list(row_ids), kind, chosen, parts)
    inputs, whole, kept = [], [], []
    for index, text in enumerate(_ids(tokenizer, list(articles))):
        reserved = len(targets[index]) if targets else chosen.max_summary
        room = chosen.max_tokens - parts.fixed - (reserved if kind == "decoder" else 0)
        if room < 1:
            raise ConfigError(
                f"max_tokens {chosen.max_tokens} leaves no room for an article: {parts.fixed} tokens go to prompt and "
                f"special tokens and {reserved} to the summary.",
                hint="Raise max_tokens, or lower max_summary.",
            )
        cut = text[:room]
        tail = targets[index] if targets and kind == "decoder" else np.zeros(0, dtype=np.int32)
        inputs.append(np.concatenate([parts.first, cut, parts.last, tail]).astype(np.int32))
        whole.append(len(text))
        kept.append(len(cut))
    return SummaryTokens(
        kind, list(row_ids), inputs, targets or [np.zeros(0, dtype=np.int32) for _ in row_ids],
        np.array(whole, dtype=np.int64), np.array(kept, dtype=np.int64), chosen,
        np.array([len(one) for one in targets], dtype=np.int64) if summaries is not None else None, len(parts.first),
    )  # fmt: skip


@dataclass(frozen=True)
class _Parts:
    """What stands in front of and behind every article."""

    first: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, kind: Kind, options: SummaryOptions) -> _Parts:
        before, prompt = _ids(tokenizer, [options.before, options.prompt])
        special = SpecialTokens.of(tokenizer)
        example = np.asarray(tokenizer("a")["input_ids"], dtype=np.int32)
        first = np.concatenate([example[: special.before], before])
        if kind == "decoder":
            return cls(first, prompt)
        return cls(first, example[len(example) - special.after :])

    @property
    def fixed(self) -> int:
        return len(self.first) + len(self.last)


def _cut_at_the_end(
    articles: list[np.ndarray],
    targets: list[np.ndarray],
    row_ids: list[str],
    kind: Kind,
    options: SummaryOptions,
    parts: _Parts,
) -> SummaryTokens:
    """Cut whole sequences at the budget, as published: whatever stands last is lost first."""
    if kind != "decoder":
        raise ConfigError(
            "cut: end is about one sequence of article and summary, and an encoder-decoder has two.",
            hint="Use cut: article.",
        )
    limit = options.max_tokens if targets else options.max_tokens - options.max_summary
    inputs, left, kept = [], [], []
    for index, text in enumerate(articles):
        tail = targets[index] if targets else np.zeros(0, dtype=np.int32)
        front = np.concatenate([parts.first, text, parts.last])
        inputs.append(np.concatenate([front, tail])[:limit].astype(np.int32))
        left.append(tail[: max(0, limit - len(front))])
        kept.append(min(len(text), max(0, limit - len(parts.first))))
    return SummaryTokens(
        kind, row_ids, inputs, left, np.array([len(text) for text in articles], dtype=np.int64),
        np.array(kept, dtype=np.int64), options,
        np.array([len(one) for one in targets], dtype=np.int64) if targets else None, len(parts.first),
    )  # fmt: skip


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[np.ndarray]:
    """Return the tokens of texts without special tokens."""
    encoded = tokenizer(texts, add_special_tokens=False, truncation=False, padding=False, verbose=False)
    return [np.asarray(ids, dtype=np.int32) for ids in encoded["input_ids"]]


def _targets(
    summaries: Sequence[str],
    row_ids: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    kind: Kind,
    options: SummaryOptions,
) -> list[np.ndarray]:
    """Return summaries with their end token; behind a prompt a summary begins with a space."""
    texts = [f" {one.strip()}" if kind == "decoder" else one.strip() for one in summaries]
    end = np.array([tokenizer.eos_token_id] if options.end else [], dtype=np.int32)
    found = [np.concatenate([ids, end]) for ids in _ids(tokenizer, texts)]
    lengths = np.array([len(ids) for ids in found])
    long = np.flatnonzero(lengths > options.max_summary)
    if len(long) and options.cut == "article":  # the published cut takes them as it takes everything
        raise DataError(
            f"{len(long):,} of {len(found):,} summaries are longer than max_summary ({options.max_summary} tokens with "
            f"the end token); the first is row {row_ids[int(long[0])]} with {lengths[long[0]]}, the longest has "
            f"{lengths.max()}.",
            hint=f"Set max_summary to {lengths.max()}, or take these rows out: a summary is never cut.",
        )
    return found


def _refuse_empty(texts: Sequence[str], row_ids: Sequence[str], what: str) -> None:
    empty = [row for row, text in zip(row_ids, texts, strict=True) if not text.strip()]
    if empty:
        raise DataError(
            f"{len(empty):,} of {len(texts):,} rows have an empty {what}; the first is row {empty[0]}.",
            hint="Take these rows out.",
        )


def collate_summaries(tokens: SummaryTokens, index: Sequence[int], pad_id: int) -> dict[str, torch.Tensor]:
    """Return a training batch padded on the right: ``input_ids``, ``attention_mask`` and ``labels``.

    Labels of padding, and with ``loss: summary`` of everything before the summary, are -100. They go by position, not
    by token id, so that the end token is learnt also where it pads.

    Raises:
        DataError: The rows have no summaries.
    """
    import torch

    if not tokens.trains:
        raise DataError("These rows were encoded for generation and have no summaries to learn.")
    inputs = [tokens.input_ids[i] for i in index]
    if tokens.kind == "encoder_decoder":
        labels = [tokens.target_ids[i] for i in index]
    else:
        labels = [row.copy() for row in inputs]
        if tokens.options.loss == "summary":
            for row, i in zip(labels, index, strict=True):
                row[: len(row) - len(tokens.target_ids[i])] = IGNORED
    return {
        "input_ids": torch.from_numpy(padded(inputs, pad_id)),
        "attention_mask": torch.from_numpy(padded([np.ones_like(row) for row in inputs], 0)),
        "labels": torch.from_numpy(padded(labels, IGNORED)),
    }


def padded(rows: Sequence[np.ndarray], fill: int, left: bool = False) -> np.ndarray:
    """Return rows as one array, int64 [B, T], filled up on the right (or left)."""
    width = max(len(row) for row in rows)
    out = np.full((len(rows), width), fill, dtype=np.int64)
    for place, row in enumerate(rows):
        out[place, width - len(row) if left else 0 : width if left else len(row)] = row
    return out
