"""Cleaning texts in named steps, each of which says what it changed."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tunescope.config.cleaning import (
    BracketedStep,
    CleaningStep,
    HtmlStep,
    LowerStep,
    SpeakerTurnsStep,
    SpecialCharactersStep,
    WhitespaceStep,
)

COMMENT = r"(?s)<!--.*?-->"
# a tag begins with a letter, a slash or an exclamation mark: "<3" and "a < b" are text
TAG = r"<[A-Za-z/!][^<>]*>"
# a short name in letters at the start of a line, then a colon: somebody speaks
SPEAKER = r"[^\W\d_][^\W\d_ .'’&-]*(?:[ .'’&-]+[^\W\d_]+){0,5}\.?"


@dataclass(frozen=True)
class Cleaned:
    """Texts after cleaning, and the account of every step.

    Attributes:
        texts: In the order given; null stays null, and a text that lost everything is empty.
        steps: For every step its name and options, ``rows`` (texts it saw), ``rows_changed``,
            ``characters_removed`` (net: a space put in the place of a tag counts against it) and
            ``rows_emptied`` (texts that were not blank before the step and are after it);
            ``speaker_turns`` adds ``turns_kept`` and ``turns_left_out`` per speaker.
    """

    texts: pl.Series
    steps: list[dict[str, Any]]


def clean_texts(texts: pl.Series | Sequence[str], steps: Sequence[CleaningStep]) -> Cleaned:
    """Apply the steps of ``data.clean`` in order.

    Steps see one text at a time and nothing else, so cleaning a text again elsewhere (a prediction) gives
    the same.

    Args:
        texts: Any texts.
        steps: As in a study's ``data.clean``.
    """
    column = texts if isinstance(texts, pl.Series) else pl.Series("text", texts, dtype=pl.String)
    accounts = []
    for step in steps:
        more: dict[str, Any] = {}
        after = _APPLY[type(step)](column, step, more)
        accounts.append({**step.model_dump(), **_account(column, after), **more})
        column = after
    return Cleaned(column, accounts)


def _account(before: pl.Series, after: pl.Series) -> dict[str, int]:
    changed = (before != after).fill_null(False)
    lost = before.str.len_chars().cast(pl.Int64) - after.str.len_chars().cast(pl.Int64)
    emptied = (before.str.strip_chars() != "") & (after.str.strip_chars() == "")
    return {
        "rows": before.len() - before.null_count(),
        "rows_changed": int(changed.sum()),
        "characters_removed": int(lost.sum()),
        "rows_emptied": int(emptied.fill_null(False).sum()),
    }


def _lower(texts: pl.Series, step: LowerStep, more: dict[str, Any]) -> pl.Series:
    return texts.str.to_lowercase()


def _whitespace(texts: pl.Series, step: WhitespaceStep, more: dict[str, Any]) -> pl.Series:
    return texts.str.replace_all(r"\s+", " ").str.strip_chars()


def _html(texts: pl.Series, step: HtmlStep, more: dict[str, Any]) -> pl.Series:
    return texts.str.replace_all(COMMENT, " ").str.replace_all(TAG, " ")


def _special(texts: pl.Series, step: SpecialCharactersStep, more: dict[str, Any]) -> pl.Series:
    keep = "".join(f"\\{mark}" if mark in r"\[]^-&~" else mark for mark in step.keep)
    return texts.str.replace_all(rf"[^\p{{L}}\p{{M}}\p{{N}}\s{keep}]+", " ")


def _bracketed(texts: pl.Series, step: BracketedStep, more: dict[str, Any]) -> pl.Series:
    for pair in step.brackets:
        there = texts.str.contains(pair[0], literal=True) & texts.str.contains(pair[1], literal=True)
        texts = _at(texts, there, functools.partial(_without_pairs, pair))
    return texts


def _without_pairs(pair: str, text: str) -> str:
    """Remove the outermost matched pairs with what is in them, in one pass."""
    opening, closing = pair[0], pair[1]
    opened: list[int] = []
    spans: list[tuple[int, int]] = []
    for match in re.finditer(f"[{re.escape(opening)}{re.escape(closing)}]", text):
        if match[0] == opening:
            opened.append(match.start())
        elif opened:
            start = opened.pop()
            while spans and spans[-1][0] > start:
                spans.pop()  # it lies inside this pair
            spans.append((start, match.end()))
    kept, last = [], 0
    for start, end in spans:
        kept.append(text[last:start])
        last = end
    return "".join([*kept, text[last:]])


def _speaker_turns(texts: pl.Series, step: SpeakerTurnsStep, more: dict[str, Any]) -> pl.Series:
    who = {name.lower(): "customer" for name in step.customer} | {
        name.lower(): "agent" for name in step.agent
    }
    named = "|".join(re.escape(name) for name in sorted(who, key=len, reverse=True))
    # a named speaker may carry a number ("Agent 2"); other speakers are known by their shape
    pattern = re.compile(rf"^[ \t]*((?i:{named})(?:[ \t]+\d+)?|{SPEAKER})[ \t]*:(?!//)", re.MULTILINE)
    wanted = {"customer", "agent"} if step.keep == "both" else {step.keep}
    tag = {"customer": step.customer[0], "agent": step.agent[0]}
    kept: Counter[str] = Counter()
    left: Counter[str] = Counter()

    def turns(text: str) -> str:
        parts = pattern.split(text)
        found = []
        for name, said in zip(parts[1::2], parts[2::2], strict=True):
            speaker = who.get(re.sub(r"\s+\d+$", "", name).lower()) or who.get(name.lower())
            if speaker is None or speaker not in wanted:
                left[name] += 1
                continue
            kept[name] += 1
            said = said.strip()
            if said:
                found.append(said if step.join == "merged" else f"{tag[speaker]}: {said}")
        return "\n".join(found)

    result = _at(texts, texts.is_not_null(), turns)
    more |= {"turns_kept": dict(kept.most_common()), "turns_left_out": dict(left.most_common())}
    return result


def _at(texts: pl.Series, mask: pl.Series, change: Callable[[str], str]) -> pl.Series:
    """Change the texts under a mask, one at a time."""
    rows = np.flatnonzero(mask.fill_null(False).to_numpy())
    if not len(rows):
        return texts
    changed = pl.Series([change(text) for text in texts.gather(rows)], dtype=pl.String)
    return texts.clone().scatter(rows, changed)


_APPLY: dict[type, Callable[[pl.Series, Any, dict[str, Any]], pl.Series]] = {
    LowerStep: _lower,
    WhitespaceStep: _whitespace,
    HtmlStep: _html,
    BracketedStep: _bracketed,
    SpecialCharactersStep: _special,
    SpeakerTurnsStep: _speaker_turns,
}
