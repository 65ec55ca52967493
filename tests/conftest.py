"""What every test can use: offline by force, one thread, and the real data where it exists."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

PROJECT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("TUNESCOPE_SHARED", PROJECT.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights, or a skip that names it."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"needs real data in {SHARED} (TUNESCOPE_SHARED)")
    return SHARED
