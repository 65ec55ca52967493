"""Tokens are those of the tokenizer itself, cut like its own truncation, and never padded."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tiny import TEXTS, byte_bpe, word_piece
from tunescope.data import LabelMap, Rows, length_summary, tokenize, truncation_by_label
from tunescope.errors import DataError

KINDS = ["gpt2", "bert", "roberta"]


def tokenizer_of(kind: str):
    return byte_bpe() if kind == "gpt2" else word_piece(kind=kind)


def rows_of(texts: list[str], labels: list[int | None] | None = None) -> Rows:
    n = len(texts)
    frame = pl.DataFrame(
        {
            "row_id": [f"id{i}" for i in range(n)],
            "position": pl.Series(range(n), dtype=pl.Int64),
            "split": ["train"] * n,
            "text": texts,
            "label": pl.Series(labels or [i % 2 for i in range(n)], dtype=pl.Int64),
        }
    )
    return Rows(frame, LabelMap(("a", "b")), {})


MANY = [
    *TEXTS,
    *[" ".join(TEXTS[i:]) for i in range(len(TEXTS))],
    "the <s> [SEP] <|endoftext|> cat",
    "rain " * 50,
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("max_length", [3, 4, 9, 64, 10_000])
def test_ids_and_lengths_agree_with_the_tokenizers_own_truncation(kind, side, max_length):
    tokenizer = tokenizer_of(kind)
    tokenizer.truncation_side = side
    tokens = tokenize(rows_of(MANY), tokenizer, max_length)
    for i, text in enumerate(MANY):
        reference = tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
        assert tokens.input_ids[i].tolist() == reference, text
        assert tokens.lengths[i] == len(tokenizer(text, verbose=False)["input_ids"])
    assert tokens.truncated.tolist() == [bool(length > max_length) for length in tokens.lengths]
    assert tokens.input_ids[0].dtype == np.int32
    assert tokens.row_ids == [f"id{i}" for i in range(len(MANY))]
    assert (tokens.token_type_ids is not None) == ("token_type_ids" in tokenizer.model_input_names)


def test_special_tokens_written_in_a_text_are_not_taken_for_its_frame():
    tokenizer = word_piece(kind="bert")
    text = "[CLS] [SEP] rain [SEP]"
    tokens = tokenize(rows_of([text, "rain"]), tokenizer, 4)
    assert tokens.input_ids[0].tolist() == tokenizer(text, truncation=True, max_length=4)["input_ids"]
    assert tokens.input_ids[0][-1] == tokenizer.sep_token_id


@pytest.mark.parametrize("kind", KINDS)
def test_padding_and_truncation_stored_in_a_tokenizer_are_ignored(kind, tmp_path):
    tokenizer = tokenizer_of(kind)
    expected = tokenize(rows_of(MANY), tokenizer, 12)
    stored = tokenizer_of(kind)
    stored.backend_tokenizer.enable_padding(length=40, pad_id=0)
    stored.backend_tokenizer.enable_truncation(5)
    stored.model_max_length = 8
    found = tokenize(rows_of(MANY), stored, 12)
    assert [ids.tolist() for ids in found.input_ids] == [ids.tolist() for ids in expected.input_ids]
    assert found.lengths.tolist() == expected.lengths.tolist()


def test_segment_ids_are_cut_like_the_ids():
    tokenizer = word_piece(kind="bert")
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    tokens = tokenize(rows_of(MANY), tokenizer, 6)
    assert [len(t) for t in tokens.token_type_ids] == [len(i) for i in tokens.input_ids]
    assert all((t == 0).all() for t in tokens.token_type_ids)


def test_chunks_do_not_change_anything(monkeypatch):
    tokenizer = byte_bpe()
    expected = tokenize(rows_of(MANY * 3), tokenizer, 16)
    monkeypatch.setattr("tunescope.data.tokens.CHUNK_ROWS", 5)
    monkeypatch.setattr("tunescope.data.tokens.CHUNK_CHARACTERS", 300)
    found = tokenize(rows_of(MANY * 3), tokenizer, 16)
    assert [ids.tolist() for ids in found.input_ids] == [ids.tolist() for ids in expected.input_ids]
    assert found.lengths.tolist() == expected.lengths.tolist()


def test_a_text_of_a_hundred_thousand_characters():
    tokenizer = byte_bpe()
    words, unbroken = "the cat 😀 " * 10_000, "x" * 100_000
    tokens = tokenize(rows_of([words, unbroken, "rain"]), tokenizer, 64)
    assert [len(ids) for ids in tokens.input_ids][:2] == [64, 64]
    assert tokens.lengths[0] == len(tokenizer(words, verbose=False)["input_ids"])
    assert tokens.truncated.tolist() == [True, True, False]


def test_nasty_texts_decode_to_themselves(nasty):
    tokenizer = byte_bpe()
    tokens = tokenize(rows_of(list(nasty.values())), tokenizer, 10**9)
    decoded = [tokenizer.backend_tokenizer.decode(ids.tolist()) for ids in tokens.input_ids]
    assert decoded == list(nasty.values())


def test_pad_id_is_the_tokenizers_or_zero():
    assert tokenize(rows_of(TEXTS), byte_bpe(), 8).pad_id == 0
    roberta = word_piece(kind="roberta")
    assert tokenize(rows_of(TEXTS), roberta, 8).pad_id == roberta.pad_token_id == 1


def test_unlabelled_rows_are_minus_one_and_count_for_no_class():
    tokens = tokenize(
        rows_of(["rain " * 9, "rain", "rain " * 9, "rain " * 9], [0, 0, 1, None]), word_piece(), 6
    )
    assert tokens.labels.tolist() == [0, 0, 1, -1]
    assert tokens.labels.dtype == np.int64
    counted = truncation_by_label(tokens, LabelMap(("a", "b")))
    assert counted == {"a": {"rows": 2, "truncated": 1}, "b": {"rows": 1, "truncated": 1}}


def test_length_summary():
    tokens = tokenize(rows_of(["rain", "rain rain", "rain rain rain rain"]), word_piece(), 4)
    assert length_summary(tokens) == {"mean": 13 / 3, "median": 4.0, "p95": pytest.approx(5.8), "max": 6}
    assert length_summary(tokens.take(np.zeros(0, dtype=int))) == {}


def test_take_by_position_and_by_mask():
    tokens = tokenize(rows_of(TEXTS), word_piece(), 8)
    some = tokens.take(np.asarray([3, 0, 3]))
    assert some.row_ids == ["id3", "id0", "id3"]
    assert some.labels.tolist() == [1, 0, 1]
    assert some.lengths.tolist() == tokens.lengths[[3, 0, 3]].tolist()
    assert [ids.tolist() for ids in some.input_ids] == [tokens.input_ids[i].tolist() for i in (3, 0, 3)]
    mask = tokens.labels == 1
    assert tokens.take(mask).row_ids == ["id1", "id3", "id5", "id7"]
    assert len(some) == 3


def test_a_length_without_room_for_text_is_refused():
    with pytest.raises(
        DataError, match=r"max_length 2 leaves no room for text: the tokenizer adds 2 special"
    ):
        tokenize(rows_of(TEXTS), word_piece(), 2)


def test_texts_without_any_token_are_named():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(
        DataError, match=r"1 of 2 texts have no token under this tokenizer; the first is row id1: 'xyz'"
    ):
        tokenize(rows_of(["a b", "xyz"]), PreTrainedTokenizerFast(tokenizer_object=backend), 8)


def test_no_rows_are_no_tokens():
    tokens = tokenize(rows_of([]), byte_bpe(), 8)
    assert len(tokens) == 0
    assert tokens.labels.shape == (0,)
