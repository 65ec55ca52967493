"""Pairs of a clean and a corrupted text of equal token length: given, or made from the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tunescope.data.frame import encode
from tunescope.data.tokens import Tokens
from tunescope.errors import LensError
from tunescope.evaluation.margins import margin
from tunescope.evaluation.predict import logits_of
from tunescope.evaluation.words import word_spans
from tunescope.lenses.patching.words import replacements, telling_words
from tunescope.lenses.subject import LensRows, Subject, clusters
from tunescope.seeds import derive_seed

MANY = 100_000


class Pair(BaseModel):
    """One pair as it is written in options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    clean: str = Field(description="the clean text")
    corrupt: str = Field(description="the corrupted text, of as many tokens")
    label: str = Field(description="the class of the clean text, whose margin is measured")
    name: str | None = Field(default=None, description="what messages call the pair")


class Pairs(BaseModel):
    """Where pairs come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["words", "rows", "table", "listed"] = Field(
        default="words",
        description="words (one telling word is replaced by one of another class), rows (another row of equal length "
        "and another class), table (a file with the columns clean, corrupt, label) or listed (under pairs)",
    )
    choose: Literal["largest_gap", "random"] = Field(
        default="largest_gap",
        description="words: which of a row's possible replacements is taken: largest_gap (the one that lowers the "
        "tuned model's margin most) or random",
    )
    path: Path | None = Field(default=None, description="table: a Parquet or CSV file")
    pairs: tuple[Pair, ...] = Field(default=(), description="listed: the pairs")

    @model_validator(mode="after")
    def _complete(self) -> Pairs:
        if (self.kind == "table") != (self.path is not None):
            raise ValueError("pairs of the kind 'table' need the key path, no other kind does")
        if (self.kind == "listed") != bool(self.pairs):
            raise ValueError("pairs of the kind 'listed' need the key pairs (a list), no other kind does")
        return self


@dataclass(frozen=True)
class PairTokens:
    """N pairs, encoded.

    Attributes:
        clean: The clean texts, with the classes whose margin is measured.
        corrupt: The corrupted texts; row i has as many tokens as row i of ``clean``.
        names: What each pair is called.
        groups: Group of each pair, [N]: pairs that share a text, clean or corrupted, are in one.
        changes: What was changed, in words, by pair.
    """

    clean: Tokens
    corrupt: Tokens
    names: list[str]
    groups: np.ndarray
    changes: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: np.ndarray) -> PairTokens:
        """Return some of the pairs."""
        return PairTokens(
            self.clean.take(rows), self.corrupt.take(rows), [self.names[row] for row in rows], self.groups[rows],
            [self.changes[row] for row in rows],
        )  # fmt: skip


def pairs_of(subject: Subject, given: Pairs, rows: LensRows) -> PairTokens:
    """Return the pairs of a subject.

    Raises:
        LensError: A pair has unequal lengths (it is named), a class is unknown, the file lacks columns, or no pair can
            be made from the rows.
    """
    if given.kind == "rows":
        return _of_rows(subject, rows)
    if given.kind == "words":
        return _of_words(subject, rows, given.choose)
    listed = list(given.pairs) if given.kind == "listed" else _read(given.path)
    known = {name: index for index, name in enumerate(subject.tuned.labels.names)}
    wrong = [pair.label for pair in listed if pair.label not in known]
    if wrong:
        raise LensError(f"patching: there is no class {wrong[0]!r}; the classes are {', '.join(known)}.")
    names = [pair.name or f"{number}" for number, pair in enumerate(listed, 1)]
    labels = [known[pair.label] for pair in listed]
    return _encoded(
        subject, [pair.clean for pair in listed], [pair.corrupt for pair in listed], labels, names
    )


def _read(path: Path | None) -> list[Pair]:
    assert path is not None
    if not path.is_file():
        raise LensError(f"patching: there is no file {path} with pairs.")
    frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path)
    missing = [name for name in ("clean", "corrupt", "label") if name not in frame.columns]
    if missing:
        raise LensError(
            f"patching: {path} lacks the columns {', '.join(missing)}; it has {', '.join(frame.columns)}."
        )
    if frame.is_empty():
        raise LensError(f"patching: {path} has no row.")
    names = (
        frame["pair_id"].cast(pl.String).to_list() if "pair_id" in frame.columns else [None] * frame.height
    )
    columns = (frame[name].cast(pl.String).to_list() for name in ("clean", "corrupt", "label"))
    return [
        Pair(clean=clean, corrupt=corrupt, label=label, name=name)
        for clean, corrupt, label, name in zip(*columns, names, strict=True)
    ]


def _encoded(
    subject: Subject, clean: Sequence[str], corrupt: Sequence[str], labels: Sequence[int], names: list[str]
) -> PairTokens:
    """Encode given pairs; every one must be of equal length, and differ."""
    first, second = (_tokens(subject, texts, labels, names) for texts in (clean, corrupt))
    for name, ours, theirs in zip(names, first.input_ids, second.input_ids, strict=True):
        if len(ours) != len(theirs):
            raise LensError(
                f"patching: pair {name} has {len(ours)} and {len(theirs)} tokens; patching needs equal lengths, so "
                "that every token has its counterpart.",
                hint="Replace words by words of the same number of tokens, or leave the pair out.",
            )
        if np.array_equal(ours, theirs):
            raise LensError(
                f"patching: the two texts of pair {name} are the same tokens; there is nothing to patch."
            )
    changes = [_change(ours, theirs) for ours, theirs in zip(clean, corrupt, strict=True)]
    return PairTokens(first, second, names, _groups(first, second), changes)


def _tokens(subject: Subject, texts: Sequence[str], labels: Sequence[int], names: Sequence[str]) -> Tokens:
    tokenizer, limit = subject.tuned.tokenizer, subject.tuned.max_length
    found = encode(tokenizer, list(texts))
    ids = [np.asarray(one, dtype=np.int32) for one in found["input_ids"]]
    long = [name for name, one in zip(names, ids, strict=True) if len(one) > limit]
    if long:
        raise LensError(f"patching: pair {long[0]} is longer than the {limit} tokens that the model reads.")
    types = None
    if "token_type_ids" in tokenizer.model_input_names:
        types = [np.asarray(one, dtype=np.int32) for one in found["token_type_ids"]]
    lengths = np.array([len(one) for one in ids], dtype=np.int64)
    pad = tokenizer.pad_token_id
    return Tokens(
        list(names), ids, types, np.asarray(labels, dtype=np.int64), lengths, 0 if pad is None else int(pad)
    )


def _groups(clean: Tokens, corrupt: Tokens) -> np.ndarray:
    """Return a group a pair: pairs that share a text are in one, through any number of others."""
    both = Tokens(
        [*clean.row_ids, *corrupt.row_ids], [*clean.input_ids, *corrupt.input_ids], None,
        np.concatenate([clean.labels, corrupt.labels]), np.concatenate([clean.lengths, corrupt.lengths]), 0,
    )  # fmt: skip
    text_of = clusters(both)
    parent = np.arange(text_of.max() + 1)

    def root(one: int) -> int:
        while parent[one] != one:
            one = int(parent[one])
        return one

    count = len(clean)
    for first, second in zip(text_of[:count], text_of[count:], strict=True):
        parent[root(int(second))] = root(int(first))
    return np.array([root(int(one)) for one in text_of[:count]])


def _change(clean: str, corrupt: str) -> str:
    ours, theirs = ([text[start:end] for start, end in word_spans(text)] for text in (clean, corrupt))
    if len(ours) != len(theirs):
        return "another text"
    changed = [(one, other) for one, other in zip(ours, theirs, strict=True) if one != other]
    return (
        "; ".join(f"{one} > {other}" for one, other in changed) if 0 < len(changed) <= 3 else "another text"
    )


def _texts(subject: Subject, tokens: Tokens) -> dict[str, str]:
    if subject.texts is None:
        raise LensError(
            "The lens patching makes pairs of texts, and the texts of these rows are not known.",
            hint="Give pairs (pairs: {kind: table, path: ...}) or take another row (pairs: {kind: rows}).",
        )
    kept = subject.texts.filter(pl.col("row_id").is_in(tokens.row_ids))
    return dict(kept.select("row_id", "text").iter_rows())


def _of_rows(subject: Subject, rows: LensRows) -> PairTokens:
    """Pair each drawn row with a row of equal length and another class; no row is in two pairs."""
    pool = subject.draw(LensRows(split=rows.split, n=MANY))
    by_length: dict[int, list[int]] = {}
    for index, ids in enumerate(pool.input_ids):
        by_length.setdefault(len(ids), []).append(index)
    chosen: list[tuple[int, int]] = []
    for members in by_length.values():
        waiting: list[int] = []
        for index in members:  # in drawn order, which depends on ids and the seed alone
            other = next((one for one in waiting if pool.labels[one] != pool.labels[index]), None)
            if other is None:
                waiting.append(index)
            else:
                waiting.remove(other)
                chosen.append((other, index))
    if not chosen:
        raise LensError("patching: no two rows of equal token length have different classes.")
    chosen = sorted(chosen)[: rows.n]
    clean, corrupt = (pool.take(np.array([pair[side] for pair in chosen])) for side in (0, 1))
    names = [f"{one} / {other}" for one, other in zip(clean.row_ids, corrupt.row_ids, strict=True)]
    return PairTokens(clean, corrupt, names, _groups(clean, corrupt), ["another text"] * len(names))


def _of_words(subject: Subject, rows: LensRows, choose: str) -> PairTokens:
    """Replace a word of each row that tells its class by a word of another class with as many tokens.

    Which words tell a class is counted on train rows, so that no row that is looked at chooses its own. Of a row's
    possible replacements the one with the largest gap is taken: what is measured is a share of the gap, so the choice
    makes shares surer and does not make them larger.
    """
    train = subject.tokens("train")
    telling = telling_words(_texts(subject, train), train, len(subject.tuned.labels.names))
    tokens = subject.draw(rows)
    texts = _texts(subject, tokens)
    found: list[tuple[str, str, int, str]] = []
    for row_id, label, cut in zip(tokens.row_ids, tokens.labels, tokens.truncated, strict=True):
        if cut:
            continue
        generator = np.random.default_rng(derive_seed(subject.sampling_seed, "corrupted word", row_id))
        possible = replacements(subject.tuned.tokenizer, texts[row_id], int(label), telling, generator)
        possible = possible[:1] if choose == "random" else possible
        found += [(texts[row_id], other, int(label), row_id) for other in possible]
    if not found:
        raise LensError(
            f"patching: in none of {len(tokens)} rows a word that tells its class (by train rows) has a counterpart of "
            "equal token length in another class.",
            hint="Take another row as the corrupted text (pairs: {kind: rows}) or give pairs in a file.",
        )
    left = len(tokens) - len({row_id for *_, row_id in found})
    if left:
        note = (
            f"patching: {left} of {len(tokens)} rows have no word that tells their class and could be replaced by one "
            "of as many tokens; they were left out."
        )
        if note not in subject.notes:
            subject.notes.append(note)
    if choose == "largest_gap":
        found = _largest_gaps(subject, found)
    clean, corrupt, labels, names = (list(column) for column in zip(*found, strict=True))
    return _encoded(subject, clean, corrupt, labels, names)


def _largest_gaps(
    subject: Subject, found: Sequence[tuple[str, str, int, str]]
) -> list[tuple[str, str, int, str]]:
    """Return of every row the replacement under which the tuned model's margin of the row's class is lowest."""
    _, corrupt, labels, names = (list(column) for column in zip(*found, strict=True))
    tokens = _tokens(subject, corrupt, labels, [f"{name}/{number}" for number, name in enumerate(names)])
    logits = torch.as_tensor(logits_of(subject.tuned, tokens))
    margins = margin(logits, torch.as_tensor(labels)).tolist()
    best: dict[str, int] = {}
    for index, name in enumerate(names):
        if name not in best or margins[index] < margins[best[name]]:
            best[name] = index
    return [found[index] for index in best.values()]
