"""What a tokenizer puts around a text, and how a text that is too long is cut between it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunescope.config.window import WindowConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str], **more: bool) -> Mapping[str, Any]:
    """Return what the tokenizer makes of whole texts, special tokens included, without cutting or padding."""
    return tokenizer(texts, add_special_tokens=True, truncation=False, padding=False,
                     return_attention_mask=False, verbose=False, **more)  # fmt: skip


@dataclass(frozen=True)
class SpecialTokens:
    """How many tokens the tokenizer puts before and after a text."""

    before: int
    after: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> SpecialTokens:
        """Find out by encoding a word."""
        total = int(tokenizer.num_special_tokens_to_add(pair=False))
        if total == 0:
            return cls(0, 0)
        for text in ("a", "the", "1", "."):  # one of them has a token in every vocabulary of text
            mask = encode(tokenizer, [text], return_special_tokens_mask=True)["special_tokens_mask"][0]
            if 0 in mask:
                before = mask.index(0)
                return cls(before, total - before)
        return cls(total, 0)

    def cut(self, ids: list[int], room: int, window: WindowConfig) -> list[np.ndarray]:
        """Return the windows of an encoded text, int32, each with all special tokens.

        Args:
            ids: The encoded text, special tokens included.
            room: The most tokens of text in a window.
            window: Which part is kept.
        """
        whole = np.asarray(ids, dtype=np.int32)
        end = len(whole) - self.after
        first, text, last = whole[: self.before], whole[self.before : end], whole[end:]
        if len(text) <= room:
            return [whole]
        parts = _parts(text, room, window)
        return [np.concatenate([first, part, last]) for part in parts]


def _parts(text: np.ndarray, room: int, window: WindowConfig) -> list[np.ndarray]:
    """Return the parts of a text of more than ``room`` tokens that are kept."""
    if window.keep == "head":
        return [text[:room]]
    if window.keep == "tail":
        return [text[len(text) - room :]]
    if window.keep == "head_tail":
        tail = room // 2
        return [np.concatenate([text[: room - tail], text[len(text) - tail :]])]
    step = window.stride or max(1, room // 2)
    last = len(text) - room
    starts = [*range(0, last, step), last][: window.most_windows]
    return [text[start : start + room] for start in starts]
