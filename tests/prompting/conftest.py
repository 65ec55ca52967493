"""Tiny language models with their own heads, built offline."""

from __future__ import annotations

import pytest
from prompting_models import masked_folder, small_gpt2

from tunescope.prompting import load_language_model


@pytest.fixture(scope="session")
def gpt2_lm_folder(tmp_path_factory):
    return small_gpt2(tmp_path_factory.mktemp("prompting") / "gpt2")


@pytest.fixture(scope="session")
def gpt2_lm(gpt2_lm_folder):
    return load_language_model(str(gpt2_lm_folder))


@pytest.fixture(scope="session", params=["bert", "roberta", "distilbert"])
def masked_lm(request, tmp_path_factory):
    folder = masked_folder(request.param, tmp_path_factory.mktemp("prompting") / request.param)
    return load_language_model(str(folder))
