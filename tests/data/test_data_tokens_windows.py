"""Windows over long texts: head, tail, both, and sliding, with every special token and honest counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from test_data_tokens import rows_of

from tiny import byte_bpe, word_piece
from tunescope.config.window import WindowConfig
from tunescope.data import LabelMap, batches, collate, tokenize, truncation_by_label
from tunescope.errors import DataError

LAWS = settings(max_examples=60, deadline=None)
WORDS = ["cat", "rain", "warm", "mat", "sad", "house"]
TOKENIZERS = {"gpt2": byte_bpe(), "bert": word_piece(), "roberta": word_piece(kind="roberta")}


def text_of(n: int) -> str:
    return " ".join(WORDS[i % len(WORDS)] for i in range(n))


def frame_of(kind: str, text: str) -> tuple[list[int], list[int], list[int]]:
    """Return what stands before, the text's own tokens, and what stands after: from two plain encodings."""
    tokenizer = TOKENIZERS[kind]
    bare = tokenizer(text, add_special_tokens=False)["input_ids"]
    whole = tokenizer(text)["input_ids"]
    before = (len(whole) - len(bare)) // 2 if len(whole) > len(bare) else 0
    return whole[:before], bare, whole[before + len(bare) :]


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("n", [3, 8, 9, 30])
@pytest.mark.parametrize("keep", ["head", "tail", "head_tail"])
def test_the_kept_part_is_a_slice_of_the_text_between_its_special_tokens(kind, n, keep):
    text = text_of(n)
    before, bare, after = frame_of(kind, text)
    room = 11 - len(before) - len(after)
    tokens = tokenize(rows_of([text]), TOKENIZERS[kind], 11, window=WindowConfig(keep=keep))
    if len(bare) <= room:
        expected = bare
    elif keep == "head":
        expected = bare[:room]
    elif keep == "tail":
        expected = bare[-room:]
    else:
        expected = bare[: (room + 1) // 2] + bare[-(room // 2) :]
    assert tokens.input_ids[0].tolist() == [*before, *expected, *after]
    assert tokens.lengths[0] == len(before) + len(bare) + len(after)
    assert tokens.truncated.tolist() == [len(bare) > room]
    assert tokens.windows is None


@LAWS
@given(
    st.sampled_from(list(TOKENIZERS)), st.integers(1, 90), st.integers(5, 20), st.none() | st.integers(1, 20),
    st.none() | st.integers(1, 12),
)  # fmt: skip
def test_sliding_windows_cover_the_text_as_far_as_their_number_allows(kind, n, max_length, stride, most):
    text = text_of(n)
    before, bare, after = frame_of(kind, text)
    room = max_length - len(before) - len(after)
    window = WindowConfig(keep="sliding", stride=stride, most=most)
    if stride is not None and stride > room:
        with pytest.raises(DataError, match=rf"every {stride} tokens leave gaps .*at most {room}|gaps"):
            tokenize(rows_of([text]), TOKENIZERS[kind], max_length, window=window)
        return
    tokens = tokenize(rows_of([text]), TOKENIZERS[kind], max_length, window=window)
    (windows,) = tokens.windows
    step = stride or max(1, room // 2)
    assert 1 <= len(windows) <= (most or 8)
    covered = set()
    for number, ids in enumerate(windows):
        ids = ids.tolist()
        assert len(ids) <= max_length
        assert (ids[: len(before)], ids[len(ids) - len(after) :]) == (before, after)
        start = min(number * step, max(0, len(bare) - room))
        inner = ids[len(before) : len(ids) - len(after)]
        assert inner == bare[start : start + room]
        covered |= set(range(start, start + len(inner)))
    assert covered == set(range(len(covered)))  # no gaps
    assert tokens.covered[0] == len(covered) + len(before) + len(after)
    assert tokens.truncated[0] == (len(covered) < len(bare))
    assert tokens.seen[0] == sum(map(len, windows))
    assert tokens.input_ids[0].tolist() == windows[0].tolist()


def test_what_no_window_reaches_is_counted_per_class():
    texts = [text_of(5), text_of(14), text_of(40), text_of(41)]
    labels = LabelMap(("a", "b"))
    window = WindowConfig(keep="sliding", stride=8, most=2)
    tokens = tokenize(rows_of(texts, [0, 0, 0, 1]), word_piece(), 12, window=window)
    assert [len(windows) for windows in tokens.windows] == [1, 2, 2, 2]
    assert truncation_by_label(tokens, labels) == {
        "a": {"rows": 3, "truncated": 1}, "b": {"rows": 1, "truncated": 1},
    }  # fmt: skip
    head = tokenize(rows_of(texts, [0, 0, 0, 1]), word_piece(), 12)
    assert truncation_by_label(head, labels)["a"] == {"rows": 3, "truncated": 2}


def sliding(texts: list[str], max_length: int = 9):
    tokenizer = word_piece()
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return tokenize(rows_of(texts), tokenizer, max_length, window=WindowConfig(keep="sliding", stride=5))


def test_a_batch_holds_every_window_of_its_rows():
    tokens = sliding([text_of(3), text_of(20), text_of(8)])
    batch = collate(tokens, [1, 0, 2])
    counts = [len(tokens.windows[i]) for i in (1, 0, 2)]
    assert counts == [4, 1, 2]
    assert batch.row_of.tolist() == [0, 0, 0, 0, 1, 2, 2]
    assert len(batch) == len(batch.labels) == 3
    assert batch.inputs()["row_of"] is batch.row_of
    expected = [ids for i in (1, 0, 2) for ids in tokens.windows[i]]
    for row, ids in enumerate(expected):
        assert batch.input_ids[row][batch.attention_mask[row] == 1].tolist() == ids.tolist()
    assert batch.token_type_ids.shape == batch.input_ids.shape
    assert batch.to("meta").row_of.device.type == "meta"
    plain = collate(tokens, [0])  # rows of one window are a plain batch
    assert plain.row_of is None
    assert "row_of" not in plain.inputs()


def test_rows_are_taken_with_their_windows_and_windows_become_rows():
    tokens = sliding([text_of(3), text_of(20), text_of(8)])
    some = tokens.take(np.asarray([2, 1]))
    assert [len(windows) for windows in some.windows] == [2, 4]
    assert some.covered.tolist() == tokens.covered[[2, 1]].tolist()
    each, row_of = tokens.each_window()
    assert row_of.tolist() == [0, 1, 1, 1, 1, 2, 2]
    assert each.row_ids[1:5] == ["id1+0", "id1+1", "id1+2", "id1+3"]
    assert len(set(each.row_ids)) == len(each) == 7
    assert each.labels.tolist() == tokens.labels[row_of].tolist()
    first = tokens.first_windows()
    assert first.windows is None
    assert [ids.tolist() for ids in first.input_ids] == [windows[0].tolist() for windows in tokens.windows]
    assert tokenize(rows_of(["rain"]), word_piece(), 9).each_window()[1].tolist() == [0]


@LAWS
@given(st.lists(st.integers(1, 40), min_size=1, max_size=25), st.integers(1, 90), st.integers(1, 9))
def test_batches_count_windows(sizes, max_tokens, max_rows):
    tokens = sliding([text_of(n) for n in sizes])
    found = list(batches(tokens, max_tokens, max_rows))
    assert sorted(np.concatenate([batch.index for batch in found]).tolist()) == list(range(len(sizes)))
    assert all(len(batch) <= max_rows for batch in found)
    assert all(len(batch) == 1 or batch.input_ids.numel() <= max_tokens for batch in found)


def test_a_window_is_a_word_or_a_mapping():
    assert WindowConfig.model_validate("tail") == WindowConfig(keep="tail")
    assert WindowConfig().keep == "head"
    assert (WindowConfig(keep="sliding").most_windows, WindowConfig().most_windows) == (8, 1)
    with pytest.raises(ValidationError, match="stride and most belong to keep: sliding, and keep is 'tail'"):
        WindowConfig(keep="tail", stride=4)
    for wrong in ("tial", {"keep": "sliding", "stride": 0}, {"keep": "sliding", "most": True}):
        with pytest.raises(ValidationError):
            WindowConfig.model_validate(wrong)
