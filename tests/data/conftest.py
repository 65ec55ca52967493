"""Small files and studies for the data tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunescope.config.models import DataConfig
from tunescope.data import Rows, load_rows
from tunescope.errors import DataError

NASTY = {
    "html": "<b>bold</b> &amp; <script>alert('x')</script>",
    "control": "tab\t, bell \x07, nul \x00, escape \x1b[31m, delete \x7f",
    "lines": "one\ntwo\r\nthree\rfour\x85five\u2028six\x0cseven",
    "quotes": 'she said "no", then \'yes\'; "',
    "comma": ",,; | ,",
    "emoji": "👩‍👩‍👧 🏳️‍🌈 \U0001f9d1\U0001f3fd",
    "rtl": "שלום \u202eעולם\u202c مرحبا",
    "marks": "e\u0301 \u200b\ufeff zero width",
    "blank ends": "  leading and trailing \u00a0 ",
    "long": "abc 😀 " * 16_667,
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def write(name: str, content: str | bytes, encoding: str = "utf-8") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return str(path)

    return write


@pytest.fixture
def load() -> Callable[..., Rows]:
    def load(path: Any, seed: int = 0, **options: Any) -> Rows:
        return load_rows(DataConfig(path=path, **{"text": "text", "label": "label", **options}), seed)

    return load


@pytest.fixture
def refusal(load: Callable[..., Rows]) -> Callable[..., str]:
    """Load and return the message of the DataError that must come."""

    def refusal(path: Any, **options: Any) -> str:
        with pytest.raises(DataError) as caught:
            load(path, **options)
        assert caught.value.hint, "every refusal says the next step"
        return str(caught.value)

    return refusal


def csv_rows(n: int = 20, labels: str = "ab", first: int = 0) -> str:
    """Lines of csv without header: text i, label in turn."""
    return "".join(f"text {i},{labels[i % len(labels)]}\n" for i in range(first, first + n))


@pytest.fixture
def plain(write: Callable[..., str]) -> str:
    return write("plain.csv", "text,label\n" + csv_rows())


@pytest.fixture
def nasty() -> dict[str, str]:
    return dict(NASTY)
