"""What every test can use: offline by force, one thread, and the real data where it exists."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # on busy cores its threads wait for one another

import pytest

PROJECT = Path(__file__).resolve().parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
SHARED = Path(os.environ.get("TUNESCOPE_SHARED", PROJECT.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights, or a skip that names it."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"needs real data in {SHARED} (TUNESCOPE_SHARED)")
    return SHARED


@pytest.fixture(scope="module")
def browser():
    """A Chromium that asks the network nothing; ended with the module, since two drivers cannot run at once."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium, which is not installed here")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield opened
        opened.close()


@pytest.fixture
def one_thread():
    """Run on one thread, so that sums come in one order and bits can be compared."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory):
    """A tiny GPT-2 classifier folder of two layers."""
    from tiny import tiny_folder

    return tiny_folder("gpt2", tmp_path_factory.mktemp("models") / "gpt2", layers=2)


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory):
    """A tiny BERT classifier folder of two layers."""
    from tiny import tiny_folder

    return tiny_folder("bert", tmp_path_factory.mktemp("models") / "bert", layers=2)
