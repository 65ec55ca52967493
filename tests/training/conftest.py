from __future__ import annotations

import gc

import pytest
from training_helpers import LABELS

from tunescope.models import load_trunk
from tunescope.seeds import derive_seed


@pytest.fixture(scope="session", autouse=True)
def _quick_collections():
    """Keep what is imported out of the full garbage collection that accelerate does before every training."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    """Every test here runs on one thread."""


@pytest.fixture
def fresh(gpt2_folder):
    def make(folder=gpt2_folder, pooling=None, seed=0):
        return load_trunk(str(folder), labels=LABELS, pooling=pooling, seed=derive_seed(seed, "head"))

    return make
