from __future__ import annotations

from pathlib import Path

import pytest
from serve_run import make_run


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    """Every test here runs on one thread."""


@pytest.fixture(scope="session")
def moods(tmp_path_factory) -> Path:
    """A run folder that the real pipeline made; tests only read it."""
    return make_run(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Fitted heads are kept in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
