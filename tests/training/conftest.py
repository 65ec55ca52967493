from __future__ import annotations

import pytest
import torch
from training_helpers import LABELS

from tiny import tiny_folder
from tunescope.models import load_trunk
from tunescope.seeds import derive_seed


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory):
    return tiny_folder("gpt2", tmp_path_factory.mktemp("models") / "gpt2", layers=2)


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory):
    return tiny_folder("bert", tmp_path_factory.mktemp("models") / "bert", layers=2)


@pytest.fixture
def fresh(gpt2_folder):
    def make(folder=gpt2_folder, pooling=None, seed=0):
        return load_trunk(str(folder), labels=LABELS, pooling=pooling, seed=derive_seed(seed, "head"))

    return make
